//! A client of the control socket, as any Varlink client is one.

use std::{
    io::{ErrorKind, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
};

use serde_json::{Value, json};

use super::connect;

/// A connection to the control socket.
#[derive(Debug)]
pub struct Caller {
    pub stream: UnixStream,
    read: Vec<u8>,
}

impl Caller {
    /// A new one.
    pub fn new(path: &Path) -> Self {
        Caller {
            stream: connect(path),
            read: Vec::new(),
        }
    }

    /// Sends a call of `dev.udsd.Daemon`; `more`: of many replies.
    pub fn send(&mut self, method: &str, parameters: Value, more: bool) {
        let method = format!("dev.udsd.Daemon.{method}");
        let call = json!({"method": method, "parameters": parameters, "more": more});
        self.stream
            .write_all(format!("{call}\0").as_bytes())
            .unwrap();
    }

    /// The next reply; `None` at the end.
    pub fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.read.iter().position(|&byte| byte == 0) {
                let reply: Vec<u8> = self.read.drain(..=end).collect();
                return Some(serde_json::from_slice(&reply[..end]).unwrap());
            }
            let mut buffer = [0; 8192];
            match self.stream.read(&mut buffer) {
                Ok(0) => return None,
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("{error}"),
                Ok(n) => self.read.extend_from_slice(&buffer[..n]),
            }
        }
    }

    /// The parameters of the only reply, which is no error.
    pub fn ask(&mut self, method: &str, parameters: Value) -> Value {
        self.send(method, parameters, false);
        let mut reply = self.next().unwrap();
        assert!(reply.get("error").is_none(), "{method}: {reply}");
        reply["parameters"].take()
    }

    /// The reply to a call without parameters; `None` where the daemon is gone.
    pub fn try_ask(&mut self, method: &str) -> Option<Value> {
        let call = json!({"method": format!("dev.udsd.Daemon.{method}")});
        let sent = self.stream.write_all(format!("{call}\0").as_bytes());
        sent.ok().and_then(|()| self.next())
    }

    /// The name of the error that is the reply, without its interface, and what it says.
    pub fn fail(&mut self, method: &str, parameters: Value) -> (String, Value) {
        self.send(method, parameters, false);
        let mut reply = self.next().unwrap();
        let error = reply["error"]
            .as_str()
            .unwrap_or_else(|| panic!("{method}: {reply}"));
        let name = error.rsplit('.').next().unwrap().to_owned();
        (name, reply["parameters"].take())
    }

    /// The parameters of all replies.
    pub fn all(&mut self, method: &str, parameters: Value) -> Vec<Value> {
        self.send(method, parameters, true);
        let mut all = Vec::new();
        loop {
            let mut reply = self.next().unwrap();
            assert!(reply.get("error").is_none(), "{method}: {reply}");
            all.push(reply["parameters"].take());
            if reply.get("continues").is_none() {
                return all;
            }
        }
    }

    /// The clients of all sockets.
    pub fn clients(&mut self, parameters: Value) -> Vec<Value> {
        let parts = self.all("Clients", parameters);
        let lists = parts.into_iter().map(|mut part| part["clients"].take());
        lists
            .flat_map(|list| list.as_array().unwrap().clone())
            .collect()
    }
}
