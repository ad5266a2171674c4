//! Under which id a request is known: the client's, where it is fit, or ours. (GW-3)

use crate::problem::Problem;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use tether_wire::infer::MAX_RETRY_TOKEN_BYTES;

/// The header, in and out.
pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// OpenAI's and the IETF draft's name for a retry token.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Longest id of a client that is taken over.
const MAX_REQUEST_ID_BYTES: usize = 128;

/// The id of one HTTP request.
#[derive(Clone, Debug)]
pub(crate) struct RequestId(pub(crate) String);

impl RequestId {
    /// The client's id, where it is made of letters, digits, `.`, `_` and `-`; a random one
    /// otherwise, so that nothing else gets into logs and headers.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let theirs = headers
            .get(X_REQUEST_ID)
            .and_then(|value| value.to_str().ok())
            .filter(|id| {
                (1..=MAX_REQUEST_ID_BYTES).contains(&id.len())
                    && id
                        .bytes()
                        .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
            });
        Self(match theirs {
            Some(id) => id.to_owned(),
            None => format!("req_{:032x}", rand::random::<u128>()),
        })
    }

    /// As a header.
    pub(crate) fn header(&self) -> HeaderValue {
        HeaderValue::from_str(&self.0).expect("an id has only characters that headers may have")
    }
}

/// Whether the client gave a key, and may come again with it.
pub(crate) fn is_keyed(headers: &HeaderMap) -> bool {
    headers.contains_key(IDEMPOTENCY_KEY)
}

/// The retry token: the client's key, or a fresh random one that nobody else has.
pub(crate) fn retry_token(headers: &HeaderMap) -> Result<String, Problem> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else {
        return Ok(format!("{:032x}", rand::random::<u128>()));
    };
    let key = value.to_str().unwrap_or_default();
    if (1..=MAX_RETRY_TOKEN_BYTES).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic())
    {
        return Ok(key.to_owned());
    }
    Err(Problem::invalid(
        "invalid_idempotency_key",
        format!(
            "Idempotency-Key must have 1 to {MAX_RETRY_TOKEN_BYTES} printable ASCII characters without spaces."
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: HeaderName, value: &str) -> HeaderMap {
        let value = HeaderValue::from_bytes(value.as_bytes()).expect("a header");
        HeaderMap::from_iter([(name, value)])
    }

    #[test]
    fn a_fit_id_is_kept_and_an_unfit_one_replaced() {
        assert_eq!(RequestId::of(&with(X_REQUEST_ID, "a-1.b_2")).0, "a-1.b_2");
        for unfit in ["", "a b", "a\"b", "é", &"x".repeat(129)] {
            let id = RequestId::of(&with(X_REQUEST_ID, unfit)).0;
            assert!(id.starts_with("req_"), "{unfit:?} gave {id}");
        }
    }

    #[test]
    fn the_key_is_the_token_and_without_one_each_request_is_its_own() {
        let token = |value| retry_token(&with(IDEMPOTENCY_KEY, value));
        assert_eq!(token("order-7").as_deref(), Ok("order-7"));
        for unfit in ["", "a b", "é", &"x".repeat(256)] {
            assert!(token(unfit).is_err(), "{unfit:?}");
        }
        let none = HeaderMap::new();
        assert_ne!(
            retry_token(&none).expect("random"),
            retry_token(&none).expect("random")
        );
    }
}
