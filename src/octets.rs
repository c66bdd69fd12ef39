//! Bytes in a text: base64, where serde writes what is no text. For `#[serde(with = "octets")]`.

use base64::{Engine, display::Base64Display, engine::general_purpose::STANDARD as BASE64};
use serde::{Deserialize, Deserializer, Serializer, de::Error};

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
    // Base64 has no character that a JSON text would escape, so this borrows.
    let text = <&str>::deserialize(deserializer)?;
    let bytes = BASE64.decode(text).map_err(D::Error::custom)?;
    Ok(bytes.into())
}
