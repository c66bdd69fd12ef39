//! Bytes in a text: base64, where serde writes what is no text. For `#[serde(with = "serde_base64")]`.

use std::{fmt, marker::PhantomData};

use base64::{Engine, display::Base64Display, engine::general_purpose::STANDARD as BASE64};
use serde::{
    Deserializer, Serializer,
    de::{Error, Visitor},
};

/// Writes bytes.
///
/// # Errors
/// Those of the serializer.
pub fn serialize<S: Serializer>(bytes: impl AsRef<[u8]>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&Base64Display::new(bytes.as_ref(), &BASE64))
}

/// Reads them back.
///
/// # Errors
/// Those of the deserializer, and what is no base64.
pub fn deserialize<'de, T: From<Vec<u8>>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    deserializer.deserialize_str(Text(PhantomData))
}

struct Text<T>(PhantomData<T>);

impl<T: From<Vec<u8>>> Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("base64")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        BASE64.decode(text).map(T::from).map_err(E::custom)
    }
}
