//! What the kernel says of one datagram: the address of its sender, its credentials, its length. The
//! bytes themselves stand elsewhere.

use std::{
    fmt,
    hash::{Hash, Hasher},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{peer::Peer, serde_base64};

/// Datagrams that one call may receive.
pub const BATCH: usize = 64;
/// Longest address, in bytes (`sun_path`, `unix(7)`).
pub const ADDRESS: usize = 108;

/// The address of a datagram's sender.
#[derive(Clone, Copy)]
pub struct Address {
    bytes: [u8; ADDRESS],
    length: u8,
}

/// What an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressKind<'a> {
    /// A path in the sender's file system, which need not be that of the daemon.
    Path(&'a [u8]),
    /// A name in the sender's abstract namespace, without the leading NUL.
    Abstract(&'a [u8]),
}

impl Address {
    /// What the kernel writes into `sun_path`: nothing, a path that may end in a NUL, or a NUL and an
    /// abstract name. Bytes beyond `ADDRESS` cannot come and are left out.
    #[must_use]
    pub fn new(sun_path: &[u8]) -> Self {
        let is_path = sun_path.first().is_some_and(|&first| first != 0);
        let end = sun_path.iter().position(|&byte| is_path && byte == 0);
        let name = &sun_path[..end.unwrap_or(sun_path.len()).min(ADDRESS)];
        let mut bytes = [0; ADDRESS];
        bytes[..name.len()].copy_from_slice(name);
        Address {
            bytes,
            length: name.len() as u8,
        }
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }

    /// Whether the kernel may have made it up (autobind, `unix(7)`): an abstract name of five
    /// hexadecimal digits.
    #[must_use]
    pub fn is_autobound(&self) -> bool {
        let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        matches!(self.as_bytes(), [0, name @ ..] if name.len() == 5 && name.iter().all(is_digit))
    }

    /// Where an answer would go; `None` for a sender without an address.
    #[must_use]
    pub fn kind(&self) -> Option<AddressKind<'_>> {
        match self.as_bytes() {
            [] => None,
            [0, name @ ..] => Some(AddressKind::Abstract(name)),
            path => Some(AddressKind::Path(path)),
        }
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serde_base64::serialize(self.as_bytes(), serializer)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes: Vec<u8> = serde_base64::deserialize(deserializer)?;
        Ok(Address::new(&bytes))
    }
}

impl PartialEq for Address {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Address {}

impl Hash for Address {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

/// As the log shows it: its sender chose the bytes, so none of them reaches the log as it is.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind() {
            None => f.write_str("no address"),
            Some(AddressKind::Abstract(name)) => write!(f, "@{}", name.escape_ascii()),
            Some(AddressKind::Path(path)) => write!(f, "{}", path.escape_ascii()),
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One datagram without its bytes.
#[derive(Clone, Copy, Debug)]
pub struct Header {
    /// The address that its sender is bound to.
    pub from: Address,
    /// Its sender's process and real ids (SCM_CREDENTIALS, `unix(7)`). `Peer::NONE` where the
    /// kernel vouches for nobody.
    pub peer: Peer,
    /// Bytes that were sent, of which fewer may have been kept.
    pub length: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_what_the_kernel_means_by_it() {
        let long = [b'p'; ADDRESS];
        for (bytes, place, shown) in [
            (&b""[..], None, "no address"),
            (b"/a\0", Some(AddressKind::Path(b"/a")), "/a"),
            (b"/a", Some(AddressKind::Path(b"/a")), "/a"),
            (b"\0x\0y", Some(AddressKind::Abstract(b"x\0y")), "@x\\x00y"),
            (b"\0", Some(AddressKind::Abstract(b"")), "@"),
            (b"\n<0>\0", Some(AddressKind::Path(b"\n<0>")), "\\n<0>"),
            (&long, Some(AddressKind::Path(&long)), &"p".repeat(ADDRESS)),
        ] {
            let address = Address::new(bytes);
            assert_eq!(address.kind(), place);
            assert_eq!(address.to_string(), shown);
        }
        for (bytes, autobound) in [
            (&b"\x000a1f9"[..], true),
            (b"\x000a1f", false),
            (b"\x000a1f9b", false),
            (b"\x000A1F9", false),
            (b"0a1f9", false),
            (b"\x00/run/", false),
        ] {
            assert_eq!(Address::new(bytes).is_autobound(), autobound);
        }
        assert_eq!(Address::new(b"/a\0"), Address::new(b"/a"));
        assert_ne!(Address::new(b"\0a"), Address::new(b"\0a\0"));
    }
}
