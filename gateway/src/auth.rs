//! From a bearer key to a tenant. The tenant comes from the key and from nothing else. (GW-2)

use crate::directory::Directory;
use crate::problem::Problem;
use axum::http::{HeaderMap, StatusCode, header};
use tether_wire::TenantId;
use tether_wire::directory::api_key_hash;

/// Longest key that is looked at; ours have 50 bytes or so.
const MAX_KEY_BYTES: usize = 512;

/// Who asks.
///
/// Keys are compared by their hash, so that the time of a comparison says nothing about a key.
pub(crate) fn tenant(directory: &Directory, headers: &HeaderMap) -> Result<TenantId, Problem> {
    let key = bearer(headers)?;
    directory
        .tenant(&api_key_hash(key))
        .cloned()
        .ok_or_else(|| refused("invalid_api_key", "Incorrect API key provided."))
}

pub(crate) fn bearer(headers: &HeaderMap) -> Result<&str, Problem> {
    let missing = || {
        refused(
            "missing_api_key",
            "You didn't provide an API key. Send it in an Authorization header: 'Authorization: Bearer YOUR_KEY'.",
        )
    };
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next().ok_or_else(missing)?;
    if values.next().is_some() {
        // A proxy in front may have looked at the other one.
        return Err(refused(
            "invalid_api_key",
            "There is more than one Authorization header: send one.",
        ));
    }
    let text = value.to_str().map_err(|_| {
        refused(
            "invalid_api_key",
            "The API key has characters that no key has.",
        )
    })?;
    let (scheme, key) = text.split_once(' ').ok_or_else(missing)?;
    let key = key.trim();
    if !scheme.eq_ignore_ascii_case("bearer") || key.is_empty() {
        return Err(missing());
    }
    if key.len() > MAX_KEY_BYTES {
        return Err(refused("invalid_api_key", "Incorrect API key provided."));
    }
    Ok(key)
}

fn refused(code: &'static str, message: &str) -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, code, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::Told;
    use axum::http::HeaderValue;
    use tether_wire::directory::{DirectoryUpdate, TenantEntry};

    fn directory() -> Directory {
        let update = DirectoryUpdate {
            version: 1,
            whole: true,
            tenants: vec![TenantEntry {
                id: "acme".parse().expect("valid"),
                key_hashes: vec![api_key_hash("tk-right")],
                rule: 0,
            }],
            ..DirectoryUpdate::default()
        };
        let mut told = Told::default();
        let directory = told.take(update).expect("well");
        directory.expect("whole").clone()
    }

    fn ask(value: Option<&str>) -> Result<TenantId, &'static str> {
        let mut headers = HeaderMap::new();
        if let Some(value) = value {
            let value = HeaderValue::from_bytes(value.as_bytes()).expect("a header");
            headers.insert(header::AUTHORIZATION, value);
        }
        tenant(&directory(), &headers).map_err(|problem| {
            assert_eq!(problem.status, StatusCode::UNAUTHORIZED);
            problem.code
        })
    }

    #[test]
    fn the_key_says_who_it_is() {
        assert_eq!(
            ask(Some("Bearer tk-right")).expect("known").as_str(),
            "acme"
        );
        assert_eq!(
            ask(Some("bearer  tk-right ")).expect("known").as_str(),
            "acme"
        );
    }

    #[test]
    fn everything_else_is_nobody() {
        for missing in [None, Some("tk-right"), Some("Basic dGs="), Some("Bearer ")] {
            assert_eq!(ask(missing), Err("missing_api_key"), "{missing:?}");
        }
        let long = format!("Bearer {}", "x".repeat(600));
        for wrong in ["Bearer tk-wrong", "Bearer tk-righ", "Bearer é", &long] {
            assert_eq!(ask(Some(wrong)), Err("invalid_api_key"), "{wrong}");
        }
        let mut headers = HeaderMap::new();
        for key in ["Bearer tk-right", "Bearer tk-right"] {
            headers.append(header::AUTHORIZATION, HeaderValue::from_static(key));
        }
        let problem = tenant(&directory(), &headers).expect_err("which of them?");
        assert_eq!(problem.status, StatusCode::UNAUTHORIZED);
    }
}
