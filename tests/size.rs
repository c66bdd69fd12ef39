//! How large the house is: prints the lines of code in `src/`, without tests and comments, and refuses a
//! function that nobody can see whole. It has no harness, so that its line is seen in every run.
//!
//! A line counts where anything but a comment stands on it. A function has as many lines as it has from
//! `fn` to its last brace; those inside it count for it too.
#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a failed unwrap is a failed test"
)]

#[allow(dead_code, reason = "others look at more of the sources")]
mod source;

use std::{collections::BTreeSet, env, fs};

use source::{Token, outside_tests, package, rust_files, tokens};

/// Most lines of a function.
const LINES: usize = 70;
/// Most parameters of a function, beside `self`.
const PARAMETERS: usize = 5;

#[derive(Debug, PartialEq)]
struct Function {
    name: String,
    lines: usize,
    parameters: usize,
}

/// Lines on which there is a token.
fn lines(tokens: &[Token<'_>]) -> usize {
    let lines: BTreeSet<usize> = tokens.iter().map(|token| token.line).collect();
    lines.len()
}

/// Where what is opened at `at` is closed.
fn closing(tokens: &[Token<'_>], at: usize) -> usize {
    let mut depth = 0;
    for (i, token) in tokens.iter().enumerate().skip(at) {
        match token.text {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return i;
        }
    }
    tokens.len() - 1
}

/// How many there are between these parentheses, beside `self`.
fn parameters(list: &[Token<'_>]) -> usize {
    let mut depth = 0;
    let mut before = "";
    let parts = list.split(|token| {
        match token.text {
            "(" | "[" | "{" | "<" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            ">" if before != "-" => depth -= 1,
            _ => {}
        }
        before = token.text;
        token.text == "," && depth == 0
    });
    let is_self = |part: &[Token<'_>]| {
        let mut name = part.iter().take_while(|token| token.text != ":");
        name.any(|token| token.text == "self")
    };
    parts
        .filter(|part| !part.is_empty() && !is_self(part))
        .count()
}

/// All functions that have a name and a body.
fn functions(tokens: &[Token<'_>]) -> Vec<Function> {
    let mut found = Vec::new();
    for (at, pair) in tokens.windows(2).enumerate() {
        let [start, name] = pair else { continue };
        if start.text != "fn" || name.text == "(" {
            continue;
        }
        // Generics may hold parentheses, as `F: Fn(A, B)`.
        let (mut open, mut depth) = (at + 2, 0);
        while tokens[open].text != "(" || depth > 0 {
            match tokens[open].text {
                "<" => depth += 1,
                ">" if tokens[open - 1].text != "-" => depth -= 1,
                _ => {}
            }
            open += 1;
        }
        let close = closing(tokens, open);
        let body = (close..tokens.len()).find(|i| ["{", ";"].contains(&tokens[*i].text));
        let Some(body) = body.filter(|body| tokens[*body].text == "{") else {
            continue;
        };
        found.push(Function {
            name: name.text.to_owned(),
            lines: lines(&tokens[at..=closing(tokens, body)]),
            parameters: parameters(&tokens[open + 1..close]),
        });
    }
    found
}

fn check_itself() {
    let text = "/// A\nfn a<F: Fn(u8, u8) -> u8>(&mut self, b: [u8; 2], // b\n c: HashMap<K, V>) -> u8 {\n\n \
                \"x\n\n y\"; // no\n fn d(self, e: impl Fn(A, B) -> C, ) {}\n}\n fn f();\n type G = fn(u8);\n\
                fn h() {}\nfn k((l, m): (A, B), n: N<'_>) {}\n#[cfg(test)]\nmod tests { fn o() {} }\n";
    let all = tokens(text);
    let function = |name: &str, lines, parameters| Function {
        name: name.into(),
        lines,
        parameters,
    };
    let expected = [
        function("a", 6, 2),
        function("d", 1, 1),
        function("h", 1, 0),
        function("k", 1, 2),
    ];
    let own = outside_tests(&all);
    assert_eq!(functions(&own), expected);
    assert_eq!(lines(&own), 10);
}

fn main() {
    // A runner that asks which tests there are.
    if env::args().any(|argument| argument == "--list") {
        return;
    }
    check_itself();
    let src = package().join("src");
    let (mut all, mut longest) = (0, (0, String::new()));
    let mut wrong = Vec::new();
    for file in rust_files(&src) {
        let text = fs::read_to_string(&file).unwrap();
        let tokens = tokens(&text);
        let code = outside_tests(&tokens);
        all += lines(&code);
        let file = file.strip_prefix(&src).unwrap().display();
        for function in functions(&code) {
            let name = format!("{file} {}", function.name);
            longest = longest.max((function.lines, name.clone()));
            if function.lines > LINES || function.parameters > PARAMETERS {
                let Function {
                    lines, parameters, ..
                } = function;
                wrong.push(format!(
                    "src/{name}: {lines} lines and {parameters} parameters; at most {LINES} and {PARAMETERS}"
                ));
            }
        }
    }
    println!(
        "src: {all} lines of code; the longest function: {} lines, {}",
        longest.0, longest.1
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
