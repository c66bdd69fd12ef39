//! Counts the tests that were skipped, and says why. It has no test of its own: cargo runs test targets
//! in the order of their names, and this one last, so that its lines are the last of `cargo test`.

use std::{collections::BTreeMap, env};

#[path = "harness/skip.rs"]
mod skip;

fn main() {
    // A runner that asks which tests there are.
    if env::args().any(|argument| argument == "--list") {
        return;
    }
    let skipped = skip::take();
    let mut by_reason = BTreeMap::<_, Vec<_>>::new();
    for (test, reason) in &skipped {
        by_reason.entry(reason).or_default().push(test.as_str());
    }
    for (reason, tests) in by_reason {
        println!("skipped, as {reason}: {}", tests.join(", "));
    }
    let remedy = match skipped.len() {
        0 => "",
        _ => {
            ", though counted as passed above: `bash .ci/run` as root skips only what no package brings"
        }
    };
    println!("{} skipped{remedy}", skipped.len());
}
