//! Paths of sockets and files: %t, %S and %L, how long they may be, and what may not stand in them.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt,
    path::{Component, Path, PathBuf},
};

use toml::de::DeValue;

use super::{
    Address, Places, defaults,
    value::{quote, text},
};

/// Where a socket of the file listens.
pub(super) fn address(value: &DeValue<'_>, places: &Places) -> Result<Address, String> {
    let text = text(value, "%t/udsd.sock")?;
    let address = read_address(text, places)?;
    if let Address::Path(path) = &address {
        check_file(text, path)?;
    }
    Ok(address)
}

/// Where a socket listens; relative paths are taken as they are.
pub(super) fn read_address(text: &str, places: &Places) -> Result<Address, String> {
    let path = expand(text, places)?;
    let bytes = path.as_bytes();
    let (name, least) = match bytes.strip_prefix(b"@") {
        Some(name) => (name, "\"@\" alone is no name: write \"@name\""),
        None => (
            bytes,
            "is empty: write a path, as \"%t/udsd.sock\", or \"@name\"",
        ),
    };
    if name.is_empty() {
        return Err(least.into());
    }
    if name.len() > defaults::PATH {
        return Err(format!(
            "{} is {} bytes long, and a socket's path at most {}: write a shorter one",
            quote(&path.to_string_lossy()),
            name.len(),
            defaults::PATH
        ));
    }
    if name.len() < bytes.len() {
        return Ok(Address::Abstract(name.into()));
    }
    if bytes.ends_with(b"/") {
        return Err(format!(
            "{} names a folder: write the path of a socket in it",
            quote(text)
        ));
    }
    Ok(Address::Path(path.into()))
}

/// The control socket; `None` for "".
pub(super) fn control(value: &DeValue<'_>, places: &Places) -> Result<Option<PathBuf>, String> {
    let path = file(value, places, "%t/udsd/control.sock")?;
    if let DeValue::String(text) = value
        && path.is_some()
    {
        read_address(text, places)?;
    }
    Ok(path)
}

/// A file; `None` for "".
pub(super) fn file(
    value: &DeValue<'_>,
    places: &Places,
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
    let path = PathBuf::from(expand(text, places)?);
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
        return Err(format!(
            "{} contains \"..\": write the path without",
            quote(text)
        ));
    }
    if path.as_os_str().as_bytes().ends_with(b"/") {
        return Err(format!(
            "{} names a folder: write the path of a file in it",
            quote(text)
        ));
    }
    Ok(())
}

/// Puts the places for %t, %S and %L, and one % for two. A control character is refused because
/// paths go into unit files and logs, where a line break would begin a new line.
fn expand(text: &str, places: &Places) -> Result<OsString, String> {
    if text.contains(char::is_control) {
        return Err(format!(
            "{} contains a control character: write the path without",
            quote(text)
        ));
    }
    let mut out = OsString::new();
    let mut parts = text.split('%');
    out.push(parts.next().unwrap_or_default());
    while let Some(part) = parts.next() {
        let (place, rest): (&OsStr, &str) = match part.chars().next() {
            Some('t') => (places.runtime.as_os_str(), &part[1..]),
            Some('S') => (places.state.as_os_str(), &part[1..]),
            Some('L') => (places.logs.as_os_str(), &part[1..]),
            // An empty part before another one: the two % of "%%".
            None => match parts.next() {
                Some(rest) => (OsStr::new("%"), rest),
                None => return Err(wrong_specifier(text, "%")),
            },
            Some(other) => return Err(wrong_specifier(text, &format!("%{other}"))),
        };
        out.push(place);
        out.push(rest);
    }
    Ok(out)
}

fn wrong_specifier(text: &str, specifier: &str) -> String {
    format!(
        "{} contains {specifier}: only %t, %S, %L have a meaning, and %% is a plain %",
        quote(text)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specifiers_expand() {
        let places = Places::system();
        for (text, path) in [
            ("%t/a", "/run/a"),
            ("%S/a", "/var/lib/a"),
            ("%L/a", "/var/log/a"),
            ("/a%%b", "/a%b"),
            ("/%%%%", "/%%"),
            ("/%%t", "/%t"),
            ("/%t%%", "//run%"),
        ] {
            assert_eq!(expand(text, &places), Ok(path.into()), "{text}");
        }
        for text in ["/a%", "/a%%%", "/%h/a", "/%é"] {
            assert!(expand(text, &places).is_err(), "{text}");
        }
    }

    #[test]
    fn a_path_holds_107_bytes() {
        let places = Places::system();
        let longest = format!("/{}", "a".repeat(106));
        assert_eq!(
            read_address(&longest, &places),
            Ok(Address::Path(longest.clone().into()))
        );
        assert!(read_address(&format!("{longest}a"), &places).is_err());
        let name = "n".repeat(107);
        assert_eq!(
            read_address(&format!("@{name}"), &places),
            Ok(Address::Abstract(name.clone().into()))
        );
        assert!(read_address(&format!("@{name}n"), &places).is_err());
    }
}
