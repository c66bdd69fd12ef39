//! The completions in packaging/completions/ are those that clap makes of the options. With
//! UDSD_WRITE_COMPLETIONS set, they are written anew.

use std::{env, fs, path::PathBuf, process::Command};

use clap_complete::{Shell, generate};

use crate::harness::Folder;

fn folder() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "packaging", "completions"]
        .iter()
        .collect()
}

#[test]
fn the_completions_are_those_of_the_options() {
    for mut program in [udsd::udsc::command(), udsd::daemon::command()] {
        let name = program.get_name().to_owned();
        for (shell, file) in [
            (Shell::Bash, format!("{name}.bash")),
            (Shell::Zsh, format!("_{name}")),
            (Shell::Fish, format!("{name}.fish")),
        ] {
            let mut text = Vec::new();
            generate(shell, &mut program, &name, &mut text);
            let path = folder().join(&file);
            if env::var_os("UDSD_WRITE_COMPLETIONS").is_some() {
                fs::write(&path, &text).unwrap();
            }
            assert!(
                fs::read(path).is_ok_and(|there| there == text),
                "{file} is not current: UDSD_WRITE_COMPLETIONS=1 cargo test --test documents completions"
            );
        }
    }
}

#[test]
fn bash_completes_commands_and_options() {
    for (words, expected) in [
        ("udsc pi", "ping"),
        ("udsc ping --inter", "--interval"),
        ("udsd --che", "--check"),
    ] {
        let program = words.split(' ').next().unwrap();
        let last = words.split(' ').count() - 1;
        let script = format!(
            "source {}/{program}.bash && COMP_WORDS=({words}) COMP_CWORD={last} && \
             _{program} {program} \"${{COMP_WORDS[-1]}}\" \"${{COMP_WORDS[-2]}}\" && echo \"${{COMPREPLY[@]}}\"",
            folder().display()
        );
        let bash = Command::new("bash")
            .args(["-c", &script])
            .current_dir(Folder::new().path())
            .output()
            .unwrap();
        assert_eq!(
            String::from_utf8(bash.stdout).unwrap().trim(),
            expected,
            "{words}"
        );
    }
}
