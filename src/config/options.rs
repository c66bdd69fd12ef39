//! The configuration of `--socket`: one socket, from options in place of a file.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt, path::Path};

use toml::de::DeValue;

use super::{
    Address, BaseDirs, Config, Record, ServiceKind, Socket, SocketOptions, check,
    diagnostics::Diagnostics, keys, parse::is_name, path,
};
use crate::error::Faults;

impl Config {
    /// The configuration of `--socket PATH` and its options.
    ///
    /// # Errors
    /// `Faults::Config`, its keys named as the options are.
    pub fn ad_hoc(path: &str, options: &SocketOptions, dirs: &BaseDirs) -> Result<Self, Faults> {
        let address = path::ad_hoc_address(path, dirs);
        let name = address.as_ref().map_or_else(|_| "socket".into(), name);
        let whole = |key: &str| format!("socket.{name}.{key}");
        let given = [
            ("type", "--type", &options.kind),
            ("service", "--service", &options.service),
            ("framing", "--framing", &options.framing),
        ];
        let path = (whole("path"), "--socket", true);
        let all = given.map(|(key, option, text)| (whole(key), option, text.is_some()));
        let mut faults = Diagnostics::of_options([path].into_iter().chain(all));

        let mut socket = Socket::new(name.clone(), Address::Abstract(Vec::new()));
        match address {
            Ok(address) => socket.address = address,
            Err(message) => faults.invalid(&whole("path"), &message),
        }
        for (key, _, text) in given {
            let row = keys::SOCKET.rows.iter().find(|row| row.key.name == key);
            if let (Some(row), Some(text)) = (row, text)
                && let Err(message) = (row.read)(&mut socket, &DeValue::String(text.into()), dirs)
            {
                faults.invalid(&whole(key), &message);
            }
        }
        socket.record = (socket.service == ServiceKind::Collect).then(Record::default);

        let mut config = Config {
            sockets: vec![socket],
            ..Config::default()
        };
        config.daemon.control = None;
        check::check(&config, &mut faults);
        faults.verdict().map(|()| config)
    }
}

/// The stem of the file, or of the abstract name, where it can be the name of a socket.
fn name(address: &Address) -> String {
    let path = match address {
        Address::Path(path) => path.as_path(),
        Address::Abstract(name) => Path::new(OsStr::from_bytes(name)),
    };
    let stem = path
        .file_stem()
        .and_then(OsStr::to_str)
        .filter(|stem| is_name(stem));
    stem.unwrap_or("socket").into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]

    use super::{super::Origin, *};

    fn config(path: &str, kind: &str, service: &str, framing: &str) -> Result<Config, Faults> {
        let given = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let options = SocketOptions {
            kind: given(kind),
            service: given(service),
            framing: given(framing),
        };
        Config::ad_hoc(path, &options, &BaseDirs::system())
    }

    fn faults(path: &str, kind: &str, service: &str, framing: &str) -> Vec<String> {
        let Err(Faults::Config(faults)) = config(path, kind, service, framing) else {
            panic!("{path} has no fault");
        };
        assert!(faults.iter().all(|f| f.file.is_none() && f.line.is_none()));
        faults.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_socket_is_named_after_its_file() {
        for (path, name) in [
            ("/tmp/chat.sock", "chat"),
            ("./x/y", "y"),
            ("../up.sock", "up"),
            ("%t/z.sock", "z"),
            ("@echo", "echo"),
            ("/tmp/a b.sock", "socket"),
        ] {
            let config = config(path, "", "", "").unwrap();
            assert_eq!(config.sockets[0].name, name, "{path}");
            assert_eq!(config.daemon.control, None);
            assert_eq!(config.sockets[0].record, None);
            assert_eq!(config.origin, Origin::default());
        }
    }

    #[test]
    fn a_path_that_would_not_load_again_is_refused() {
        for (path, why) in [
            ("..", "names a folder"),
            (".", "names a folder"),
            ("a/../b", "contains \"..\""),
            ("/tmp/../b", "contains \"..\""),
        ] {
            let found = faults(path, "", "", "");
            assert!(
                found[0].starts_with("--socket: ") && found[0].contains(why),
                "{found:?}"
            );
        }
    }

    #[test]
    fn collect_needs_a_framing_and_gets_a_record() {
        let config = config("c", "", "collect", "lines").unwrap();
        assert_eq!(config.sockets[0].record, Some(Record::default()));
        assert_eq!(
            faults("c", "", "collect", ""),
            [
                "--service: --framing none contradicts --service collect: a record needs whole \
              messages; use another framing, as lines"
            ]
        );
    }

    #[test]
    fn faults_name_the_options() {
        let found = faults("", "packet", "proxy", "json");
        for (fault, option) in found
            .iter()
            .zip(["--socket", "--type", "--service", "--framing"])
        {
            assert!(fault.starts_with(&format!("{option}: ")), "{fault}");
        }
        assert_eq!(found.len(), 4);
        let found = faults("a", "datagram", "relay", "");
        assert_eq!(
            found,
            [
                "--service: --service relay contradicts --type datagram: a relay needs connected clients; use stream or seqpacket"
            ]
        );
    }
}
