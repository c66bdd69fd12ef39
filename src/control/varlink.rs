//! The messages of the Varlink protocol (varlink.org): each is a JSON object, with a NUL behind it. The socket's
//! framing cuts them apart, so nothing of the protocol is left but these forms and the errors of
//! `org.varlink.service`.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

/// What a client calls.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Call {
    /// With its interface, as "dev.udsd.Daemon.Status".
    pub method: String,
    /// By their names.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub parameters: Value,
    /// More than one reply may come.
    #[serde(default, skip_serializing_if = "is_not")]
    pub more: bool,
    /// No reply is to come.
    #[serde(default, skip_serializing_if = "is_not")]
    pub oneway: bool,
    /// The connection is to speak another protocol afterwards.
    #[serde(default, skip_serializing_if = "is_not")]
    pub upgrade: bool,
}

/// What comes back.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Reply {
    /// What the method returns, or what the error says.
    #[serde(default)]
    pub parameters: Value,
    /// Further replies follow.
    #[serde(default, skip_serializing_if = "is_not")]
    pub continues: bool,
    /// With its interface, as "dev.udsd.Daemon.NoSuchSocket".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_not(flag: &bool) -> bool {
    !flag
}

impl Call {
    /// Reads a message of a client, without its NUL.
    ///
    /// # Errors
    /// What to answer to one that is no call.
    pub fn read(message: &[u8]) -> Result<Self, Reply> {
        let given: Value = serde_json::from_slice(message).map_err(|_| Reply::invalid("method"))?;
        let call: Call =
            read(&given).map_err(|wrong| Reply::invalid(wrong.as_deref().unwrap_or("method")))?;
        if call.upgrade {
            return Err(Reply::invalid("upgrade"));
        }
        Ok(call)
    }

    /// A call without parameters.
    #[must_use]
    pub fn new(method: &str, parameters: Value) -> Self {
        Call {
            method: method.into(),
            parameters,
            more: false,
            oneway: false,
            upgrade: false,
        }
    }

    /// The parameters; those that are left out are null.
    ///
    /// # Errors
    /// What to answer where they are not of the right form.
    pub fn parameters<T: DeserializeOwned>(&self) -> Result<T, Reply> {
        let none = json!({});
        let given = match &self.parameters {
            Value::Null => &none,
            given => given,
        };
        read(given).map_err(|wrong| Reply::invalid(wrong.as_deref().unwrap_or("parameters")))
    }

    /// With its NUL, for the wire.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }
}

/// Fields of a call among which the wrong one is looked for.
const LOOKED_AT: usize = 32;

/// Reads the fields of an object, or says which of them is missing, unknown or not of the right form; `None` where
/// `given` is no object.
fn read<T: DeserializeOwned>(given: &Value) -> Result<T, Option<String>> {
    let Value::Object(fields) = given else {
        return Err(None);
    };
    let error = match T::deserialize(given) {
        Ok(read) => return Ok(read),
        Err(error) => error,
    };
    let is_missing = |error: &serde_json::Error| error.to_string().starts_with("missing field `");
    // Alone, one that is right lets at most others be missing. A call may be full of what nobody knows.
    let wrong = fields.iter().take(LOOKED_AT).find(|(name, value)| {
        let alone = json!({ name.as_str(): value });
        T::deserialize(&alone).is_err_and(|error| !is_missing(&error))
    });
    let missing = || error.to_string().split('`').nth(1).map(Into::into);
    Err(wrong.map(|(name, _)| name.clone()).or_else(missing))
}

impl Reply {
    /// The only reply, or the last one.
    pub fn last(parameters: impl Serialize) -> Self {
        Reply {
            parameters: value(parameters),
            ..Reply::default()
        }
    }

    /// One that others follow.
    pub fn more(parameters: impl Serialize) -> Self {
        Reply {
            continues: true,
            ..Reply::last(parameters)
        }
    }

    /// An error of an interface.
    pub fn error(name: &str, parameters: impl Serialize) -> Self {
        Reply {
            error: Some(name.into()),
            ..Reply::last(parameters)
        }
    }

    /// A parameter is missing, unknown, or not of the right form.
    #[must_use]
    pub fn invalid(parameter: &str) -> Self {
        let name = "org.varlink.service.InvalidParameter";
        Reply::error(name, json!({ "parameter": parameter }))
    }

    /// With its NUL, for the wire.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }
}

fn value(of: impl Serialize) -> Value {
    // Fails for maps whose keys are no text, of which there are none.
    serde_json::to_value(of).unwrap_or_default()
}

fn encode(of: &impl Serialize) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(of).unwrap_or_default();
    bytes.push(0);
    bytes
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]

    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Named {
        name: Option<String>,
        id: u64,
    }

    fn call(text: &str) -> Result<Call, Reply> {
        Call::read(text.as_bytes())
    }

    #[test]
    fn a_call_is_read_as_it_was_written() {
        let mut written = Call::new("a.B", json!({ "id": 3 }));
        written.more = true;
        let bytes = written.encode();
        let (nul, text) = bytes.split_last().unwrap();
        assert_eq!((Call::read(text).unwrap(), *nul), (written, 0));
    }

    #[test]
    fn what_is_no_call_is_answered_with_what_is_wrong() {
        for (text, parameter) in [
            ("", "method"),
            ("{", "method"),
            ("[]", "method"),
            ("{}", "method"),
            (r#"{"method": 3}"#, "method"),
            (r#"["a.B"]"#, "method"),
            (r#"{"method": "a.B", "more": 3}"#, "more"),
            (r#"{"method": "a.B", "upgrade": true}"#, "upgrade"),
        ] {
            let reply = call(text).unwrap_err();
            assert_eq!(reply.parameters["parameter"], parameter, "{text}");
        }
    }

    #[test]
    fn parameters_are_named_where_they_are_wrong() {
        let read = |text: &str| {
            let call = call(&format!(r#"{{"method": "a.B", "parameters": {text}}}"#));
            call.unwrap().parameters::<Named>()
        };
        let named = Named { name: None, id: 3 };
        assert_eq!(read(r#"{"id": 3}"#).unwrap(), named);
        for (text, parameter) in [
            ("{}", "id"),
            ("null", "id"),
            (r#"{"id": 3, "x": 1}"#, "x"),
            (r#"{"id": 3, "a`b`c": 1}"#, "a`b`c"),
            (r#"{"id": "3"}"#, "id"),
            (r#"{"id": -1, "name": null}"#, "id"),
            (r#"{"id": 3, "name": 3}"#, "name"),
            (r#"{"id": 3, "name": "`id`", "x": 1}"#, "x"),
            ("7", "parameters"),
            (r#"["a name", 3]"#, "parameters"),
        ] {
            let reply = read(text).unwrap_err();
            assert_eq!(reply.parameters["parameter"], parameter, "{text}");
        }
    }
}
