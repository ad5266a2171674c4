//! CBOR with bounds. [T-COD-1] to [T-COD-4]
//!
//! Maps with text keys, so that a field can be added without a new major version: decoders ignore
//! unknown keys and default missing optional ones. Bytes are limited before they are decoded and
//! nesting while they are.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Deepest nesting that a decoder follows. Our deepest message uses 8 levels. [T-COD-3]
pub const MAX_DEPTH: usize = 24;

/// Why bytes could not be encoded or decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// More bytes than this message may have.
    #[error("{what} is {len} bytes, more than the limit of {limit}")]
    TooLarge {
        /// Name of the message.
        what: &'static str,
        /// Bytes that came.
        len: usize,
        /// Bytes that are allowed.
        limit: usize,
    },
    /// Not CBOR, or not CBOR of this shape.
    #[error("{what} cannot be decoded: {why}")]
    Malformed {
        /// Name of the message.
        what: &'static str,
        /// The decoder's words.
        why: String,
    },
    /// A field is outside its limits.
    #[error("{what}: field `{field}` {why}")]
    Field {
        /// Name of the message.
        what: &'static str,
        /// Name of the field.
        field: &'static str,
        /// What is wrong with it.
        why: String,
    },
}

/// Encodes a value as CBOR.
///
/// # Panics
/// Never for our own types: their serialisers are infallible and a `Vec` does not refuse bytes.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    ciborium::into_writer(value, &mut out).expect("writing CBOR to a Vec cannot fail");
    out
}

/// Decodes exactly one value of at most `limit` bytes; trailing bytes are refused. [T-COD-2]
///
/// # Errors
/// [`CodecError::TooLarge`] before anything is parsed, [`CodecError::Malformed`] otherwise.
pub fn decode<T: DeserializeOwned>(
    what: &'static str,
    bytes: &[u8],
    limit: usize,
) -> Result<T, CodecError> {
    if bytes.len() > limit {
        return Err(CodecError::TooLarge {
            what,
            len: bytes.len(),
            limit,
        });
    }
    let malformed = |why: String| CodecError::Malformed { what, why };
    let mut rest = bytes;
    let value =
        ciborium::de::from_reader_with_recursion_limit(&mut rest, MAX_DEPTH).map_err(|error| {
            match error {
                ciborium::de::Error::Io(_) => malformed("it ends too early".to_owned()),
                ciborium::de::Error::Syntax(at) => malformed(format!("syntax error at byte {at}")),
                ciborium::de::Error::Semantic(_, why) => malformed(shown(&why)),
                ciborium::de::Error::RecursionLimitExceeded => {
                    malformed(format!("nested deeper than {MAX_DEPTH}"))
                }
            }
        })?;
    if !rest.is_empty() {
        return Err(malformed(format!("{} bytes after its end", rest.len())));
    }
    Ok(value)
}

/// Most characters of a decoder's words. They may repeat what a stranger sent.
const MAX_WHY_CHARS: usize = 200;

/// A decoder's words, short and on one line, fit for logs and screens.
fn shown(why: &str) -> String {
    let legible = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    why.chars().map(legible).take(MAX_WHY_CHARS).collect()
}

/// Checks one field; `ok` says whether it is inside its limits.
pub(crate) fn check_field(
    what: &'static str,
    field: &'static str,
    ok: bool,
    why: impl FnOnce() -> String,
) -> Result<(), CodecError> {
    if ok {
        Ok(())
    } else {
        Err(CodecError::Field {
            what,
            field,
            why: why(),
        })
    }
}

/// Checks that a text is at most `limit` bytes.
pub(crate) fn check_len(
    what: &'static str,
    field: &'static str,
    len: usize,
    limit: usize,
) -> Result<(), CodecError> {
    check_field(what, field, len <= limit, || {
        format!("has {len} entries or bytes, at most {limit} are allowed")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Serialize, Deserialize, Debug, PartialEq)]
    struct Old {
        a: u32,
    }
    #[derive(Serialize, Deserialize, Debug, PartialEq)]
    struct New {
        a: u32,
        #[serde(default)]
        b: Option<String>,
    }

    #[test]
    fn an_older_reader_ignores_what_it_does_not_know() {
        let bytes = encode(&New {
            a: 7,
            b: Some("later".into()),
        });
        assert_eq!(decode::<Old>("old", &bytes, 64), Ok(Old { a: 7 }));
    }

    #[test]
    fn a_newer_reader_defaults_what_is_missing() {
        let bytes = encode(&Old { a: 7 });
        assert_eq!(decode::<New>("new", &bytes, 64), Ok(New { a: 7, b: None }));
    }

    #[test]
    fn more_bytes_than_the_limit_are_never_parsed() {
        let error = decode::<Old>("old", &[0xff; 65], 64).expect_err("too large");
        assert!(matches!(
            error,
            CodecError::TooLarge {
                len: 65,
                limit: 64,
                ..
            }
        ));
    }

    #[test]
    fn trailing_bytes_are_refused() {
        let mut bytes = encode(&Old { a: 7 });
        bytes.push(0);
        assert!(
            decode::<Old>("old", &bytes, 64)
                .expect_err("trailing")
                .to_string()
                .contains("after its end")
        );
    }

    #[test]
    fn what_a_stranger_sent_is_repeated_shortly_and_on_one_line() {
        #[derive(Deserialize, Debug)]
        enum Known {
            Only,
        }
        let sent = format!("\u{1b}[2J\n{}", "x".repeat(1_000));
        let error = decode::<Known>("known", &encode(&sent), 20_000).expect_err("unknown");
        let words = error.to_string();
        assert!(words.contains("xxx") && words.len() < 300, "{words}");
        assert!(!words.contains(char::is_control), "{words}");
        assert!(matches!(
            decode("known", &encode(&"Only"), 9),
            Ok(Known::Only)
        ));
    }

    #[test]
    fn deep_nesting_is_refused_and_not_followed() {
        let bytes = vec![0x81; 10_000];
        assert!(decode::<ciborium::Value>("deep", &bytes, 20_000).is_err());
    }

    #[test]
    fn a_list_that_claims_to_be_endless_costs_nothing() {
        // An array header that announces 2^62 elements, and then nothing.
        let bytes = [0x9b, 0x40, 0, 0, 0, 0, 0, 0, 0];
        assert!(decode::<Vec<u64>>("list", &bytes, 64).is_err());
    }
}
