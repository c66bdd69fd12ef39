//! Paths of sockets and files: %t, %S and %L, how long they may be, and what may not stand in them.

use std::path::{Component, Path, PathBuf};

use toml::de::DeValue;

use super::{
    Address, BaseDirs, bounds,
    value::{quote, text},
};
use crate::record::has_segment_name;

/// Where a socket of the file listens.
pub(super) fn address(value: &DeValue<'_>, dirs: &BaseDirs) -> Result<Address, String> {
    let text = text(value, "%t/udsd.sock")?;
    let address = read_address(text, dirs)?;
    if let Address::Path(path) = &address {
        check_file(text, path)?;
    }
    Ok(address)
}

/// Where the socket of `--socket` listens: its path may be relative, to the current folder or to one
/// above it.
pub(super) fn ad_hoc_address(text: &str, dirs: &BaseDirs) -> Result<Address, String> {
    let address = read_address(text, dirs)?;
    if let Address::Path(path) = &address {
        let above = |part: &Component<'_>| {
            path.is_relative() && matches!(part, Component::CurDir | Component::ParentDir)
        };
        let below: Vec<_> = path.components().skip_while(above).collect();
        if below.is_empty() {
            return Err(folder(text, "a socket"));
        }
        if below.contains(&Component::ParentDir) {
            return Err(parent(text));
        }
    }
    Ok(address)
}

fn folder(text: &str, what: &str) -> String {
    format!(
        "{} names a folder: write the path of {what} in it",
        quote(text)
    )
}

fn parent(text: &str) -> String {
    format!("{} contains \"..\": write the path without", quote(text))
}

fn read_address(text: &str, dirs: &BaseDirs) -> Result<Address, String> {
    let path = expand(text, dirs)?;
    let (name, least) = match path.strip_prefix('@') {
        Some(name) => (name, "\"@\" alone is no name: write \"@name\""),
        None => (
            path.as_str(),
            "is empty: write a path, as \"%t/udsd.sock\", or \"@name\"",
        ),
    };
    if name.is_empty() {
        return Err(least.into());
    }
    if name.len() > bounds::PATH {
        return Err(format!(
            "{} is {} bytes long, and a socket's path at most {}: write a shorter one",
            quote(&path),
            name.len(),
            bounds::PATH
        ));
    }
    if name.len() < path.len() {
        return Ok(Address::Abstract(name.into()));
    }
    if path.ends_with('/') {
        return Err(folder(text, "a socket"));
    }
    Ok(Address::Path(path.into()))
}

/// The control socket; `None` for "".
pub(super) fn control(value: &DeValue<'_>, dirs: &BaseDirs) -> Result<Option<PathBuf>, String> {
    let example = "%t/udsd/control.sock";
    let path = read_file(value, dirs, example)?;
    if path.is_some() {
        read_address(text(value, example)?, dirs)?;
    }
    Ok(path)
}

/// The file of a record; `None` for "".
pub(super) fn file(value: &DeValue<'_>, dirs: &BaseDirs) -> Result<Option<PathBuf>, String> {
    let file = read_file(value, dirs, "%L/udsd/udsd.json")?;
    if let Some(path) = &file
        && has_segment_name(path)
    {
        let name = path.display();
        return Err(format!(
            "\"{name}\" has the name of another record's segment: write one that does not end in 20 digits"
        ));
    }
    Ok(file)
}

fn read_file(
    value: &DeValue<'_>,
    dirs: &BaseDirs,
    example: &str,
) -> Result<Option<PathBuf>, String> {
    let text = text(value, example)?;
    if text.is_empty() {
        return Ok(None);
    }
    if text.starts_with('@') {
        return Err(format!(
            "{} cannot be abstract: write a path, as {}",
            quote(text),
            quote(example)
        ));
    }
    let path = PathBuf::from(expand(text, dirs)?);
    check_file(text, &path)?;
    Ok(Some(path))
}

fn check_file(text: &str, path: &Path) -> Result<(), String> {
    if !path.is_absolute() {
        return Err(format!(
            "{} is not absolute: begin it with \"/\", %t, %S or %L",
            quote(text)
        ));
    }
    if path.components().any(|part| part == Component::ParentDir) {
        return Err(parent(text));
    }
    if path.as_os_str().as_encoded_bytes().ends_with(b"/") {
        return Err(folder(text, "a file"));
    }
    Ok(())
}

/// Replaces %t, %S and %L by their folders, and %% by %. A control character is refused because paths go into
/// unit files and logs, where a line break would begin a new line.
fn expand(text: &str, dirs: &BaseDirs) -> Result<String, String> {
    if text.contains(char::is_control) {
        return Err(format!(
            "{} contains a control character: write the path without",
            quote(text)
        ));
    }
    let state = "XDG_STATE_HOME, or HOME,";
    let mut out = String::new();
    let mut rest = text.chars();
    while let Some(plain) = rest.next() {
        if plain != '%' {
            out.push(plain);
            continue;
        }
        let (folder, variable) = match rest.next() {
            Some('%') => {
                out.push('%');
                continue;
            }
            Some('t') => (&dirs.runtime, "XDG_RUNTIME_DIR"),
            Some('S') => (&dirs.state, state),
            Some('L') => (&dirs.logs, state),
            other => {
                return Err(format!(
                    "{} contains %{}: only %t, %S, %L have a meaning, and %% is a plain %",
                    quote(text),
                    other.map_or(String::new(), String::from)
                ));
            }
        };
        let folder = folder.as_ref().ok_or_else(|| unknown(text, variable))?;
        let folder = folder
            .to_str()
            .filter(|text| !text.contains(char::is_control));
        out += folder.ok_or_else(|| {
            format!(
                "{} stands below {variable} which is not UTF-8, or has a control character: set it \
                 to a path that can be written in a file",
                quote(text)
            )
        })?;
    }
    Ok(out)
}

/// `text` needs a folder that `variable` would name, and it is not set.
fn unknown(text: &str, variable: &str) -> String {
    let user = rustix::process::geteuid();
    let text = quote(text);
    match variable {
        "XDG_RUNTIME_DIR" => format!(
            "{text} needs XDG_RUNTIME_DIR, which is not set (su and cron do not), and /run/user/{user} is \
             not there as this user's own: set it, write the path without %t, or serve one socket with \
             --socket PATH"
        ),
        _ => format!("{text} needs {variable} which is not set: set it, or write a whole path"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]

    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

    use super::*;

    #[test]
    fn specifiers_expand() {
        let dirs = BaseDirs::system();
        for (text, path) in [
            ("%t/a", "/run/a"),
            ("%S/a", "/var/lib/a"),
            ("%L/a", "/var/log/a"),
            ("/a%%b", "/a%b"),
            ("/%%%%", "/%%"),
            ("/%%t", "/%t"),
            ("/%t%%", "//run%"),
        ] {
            assert_eq!(expand(text, &dirs).as_deref(), Ok(path), "{text}");
        }
        for text in ["/a%", "/a%%%", "/%h/a", "/%é"] {
            assert!(expand(text, &dirs).is_err(), "{text}");
        }
    }

    #[test]
    fn a_directory_that_no_file_can_name_is_refused_with_its_variable() {
        let mut dirs = BaseDirs::system();
        dirs.runtime = Some(OsStr::from_bytes(b"/run/\xff").into());
        dirs.state = Some("/a\nb".into());
        let fault = expand("%t/a", &dirs).unwrap_err();
        assert!(fault.contains("\"%t/a\" stands below XDG_RUNTIME_DIR which is not UTF-8"));
        assert!(
            expand("%S/a", &dirs)
                .unwrap_err()
                .contains("XDG_STATE_HOME")
        );
        assert!(expand("%L/a", &dirs).is_ok());
    }

    #[test]
    fn a_path_holds_107_bytes() {
        let dirs = BaseDirs::system();
        let longest = format!("/{}", "a".repeat(106));
        assert_eq!(
            read_address(&longest, &dirs),
            Ok(Address::Path(longest.clone().into()))
        );
        assert!(read_address(&format!("{longest}a"), &dirs).is_err());
        let name = "n".repeat(107);
        assert_eq!(
            read_address(&format!("@{name}"), &dirs),
            Ok(Address::Abstract(name.clone().into()))
        );
        assert!(read_address(&format!("@{name}n"), &dirs).is_err());
    }
}
