//! The manuals as such: mandoc and man find no fault, each has its sections, and the options and commands in them
//! are those that the programs take.

use std::{collections::BTreeSet, path::PathBuf, process::Command};

use clap::Arg;

use crate::{MANUALS, between, harness::has_program, manual};

fn path(file: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "packaging", "man", file]
        .iter()
        .collect()
}

#[test]
fn mandoc_and_man_find_no_fault() {
    if !has_program("mandoc") || !has_program("man") {
        return;
    }
    for (file, _) in MANUALS {
        let mandoc = Command::new("mandoc")
            .arg("-Tlint")
            .arg(path(file))
            .output()
            .unwrap();
        let said = String::from_utf8([mandoc.stdout, mandoc.stderr].concat()).unwrap();
        // Which other manuals are installed is no fault of these.
        let faults: Vec<&str> = said
            .lines()
            .filter(|line| {
                !line.contains("referenced manual not found")
                    && !line.contains("outdated mandoc.db")
            })
            .collect();
        assert!(faults.is_empty(), "{file}: {faults:#?}");
        let mut man = Command::new("man");
        man.env("LC_ALL", "C.UTF-8")
            .env("MANWIDTH", "80")
            .arg("--warnings")
            .arg("-l")
            .arg(path(file));
        let man = man.output().unwrap();
        assert!(
            man.status.success() && man.stderr.is_empty(),
            "{file}: {man:?}"
        );
    }
}

#[test]
fn each_has_its_sections() {
    for (file, text) in MANUALS {
        for section in [
            "NAME",
            "SYNOPSIS",
            "DESCRIPTION",
            "FILES",
            "EXIT STATUS",
            "EXAMPLES",
            "SEE ALSO",
        ] {
            assert!(
                text.contains(&format!("\n.Sh {section}\n")),
                "{file} has no {section}"
            );
        }
    }
}

/// The options in a part of a manual.
fn in_manual(part: &str) -> BTreeSet<String> {
    let items = part.lines().filter(|line| line.starts_with(".It Fl "));
    items.map(str::to_owned).collect()
}

/// The same as `clap` has them.
fn in_program<'a>(options: impl Iterator<Item = &'a Arg>) -> BTreeSet<String> {
    let options = options.filter(|option| !option.is_positional() && !option.is_hide_set());
    options
        .map(|option| {
            let short = option.get_short().map(|short| format!("Fl {short}"));
            let long = option.get_long().map(|long| format!("Fl Fl {long}"));
            let names: Vec<String> = short.into_iter().chain(long).collect();
            let values = option
                .get_action()
                .takes_values()
                .then(|| option.get_value_names())
                .flatten();
            let values = values
                .unwrap_or_default()
                .iter()
                .map(|value| format!(" Ar {value}"));
            format!(".It {}{}", names.join(" , "), values.collect::<String>())
        })
        .collect()
}

#[test]
fn the_options_are_those_of_the_programs() {
    for (file, program) in [
        ("udsd.8", udsd::daemon::command()),
        ("udsd-generator.8", udsd::generator::command()),
        ("udsc.1", udsd::udsc::command()),
    ] {
        let mut program = program;
        program.build();
        let part = between(manual(file), ".Sh DESCRIPTION\n", &["\n.Sh "]);
        assert_eq!(
            in_manual(part),
            in_program(program.get_arguments()),
            "{file}"
        );
    }
}

#[test]
fn the_commands_of_udsc_are_there_with_their_options() {
    let mut udsc = udsd::udsc::command();
    udsc.build();
    let part = between(manual("udsc.1"), ".Sh COMMANDS\n", &["\n.Sh "]);
    let mut there: BTreeSet<&str> = part
        .lines()
        .filter_map(|line| line.strip_prefix(".Ss "))
        .collect();
    for command in udsc.get_subcommands() {
        let name = command.get_name();
        if name == "help" {
            continue;
        }
        assert!(there.remove(name), "udsc.1 has no command {name}");
        let options = command
            .get_arguments()
            .filter(|option| !option.is_global_set() && option.get_id() != "help");
        let part = between(part, &format!(".Ss {name}\n"), &["\n.Ss "]);
        assert_eq!(in_manual(part), in_program(options), "{name}");
    }
    assert!(there.is_empty(), "no commands: {there:?}");
}

#[test]
fn the_methods_of_the_control_socket_are_those_of_its_interface() {
    let part = between(manual("udsd.8"), ".Sh THE CONTROL SOCKET\n", &["\n.Sh "]);
    let there = part.lines().filter_map(|line| line.strip_prefix(".It Ic "));
    let methods = udsd::control::INTERFACE.lines();
    let methods = methods.filter_map(|line| line.strip_prefix("method ")?.split('(').next());
    assert_eq!(there.collect::<Vec<_>>(), methods.collect::<Vec<_>>());
}
