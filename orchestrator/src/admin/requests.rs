//! Why a request went where it went, for `tether explain`. (SCH-1)

use super::{Admin, bad};
use crate::explained::{Explanation, MAX_EXPLAINED};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use std::sync::Arc;

/// Digits of a correlation id.
const DIGITS: usize = 32;
/// Least digits: fewer than these would name many.
const LEAST: usize = 4;
/// What stands before them in the id of a completion.
const COMPLETION: &str = "chatcmpl-";
/// Ids that are named where more than one begins as asked.
const MAX_NAMED: usize = 10;

/// The beginning of a request's id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestPrefix(String);

impl RequestPrefix {
    /// A correlation id, as in the header `x-tether-correlation-id`, or the first digits of it, or the
    /// `id` of a completion, which holds it.
    ///
    /// # Errors
    /// What is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let digits = text.strip_prefix(COMPLETION).unwrap_or(text);
        let is_hex = digits.bytes().all(|it| it.is_ascii_hexdigit());
        if !is_hex || !(LEAST..=DIGITS).contains(&digits.len()) {
            return Err(format!(
                "a request's id is {DIGITS} hex digits, or at least {LEAST} of the first, as in \
                 x-tether-correlation-id, or the id of a completion"
            ));
        }
        Ok(Self(digits.to_ascii_lowercase()))
    }

    /// Its digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// `GET /requests/{id}`: all that is kept of a request, the last time that it came first.
pub(super) async fn explain(State(admin): State<Arc<Admin>>, Path(id): Path<String>) -> Response {
    let prefix = match RequestPrefix::parse(&id) {
        Ok(prefix) => prefix,
        Err(why) => return bad(&why),
    };
    let found = admin.explanations.find(prefix.as_str());
    let (failed, others) = admin.explanations.counts();
    answer(&found, || {
        let share = 100.0 * admin.placement.load().explained;
        format!(
            "nothing is kept of this request: of {failed} that failed and {others} others, the last \
             {MAX_EXPLAINED} of each, where {share} % of those that did not fail are kept \
             (orchestrator.placement.explained), since this orchestrator was started"
        )
    })
}

fn answer(found: &[Arc<Explanation>], nothing: impl FnOnce() -> String) -> Response {
    let Some(last) = found.first() else {
        let body = json!({"error": nothing()});
        return (StatusCode::NOT_FOUND, axum::Json(body)).into_response();
    };
    let mut ids: Vec<_> = found.iter().map(|it| it.request).collect();
    ids.sort_unstable();
    ids.dedup();
    if ids.len() > 1 {
        let near = &ids[..ids.len().min(MAX_NAMED)];
        let error = "more than one request begins so: give more digits";
        let body = json!({"error": error, "near": near});
        return (StatusCode::CONFLICT, axum::Json(body)).into_response();
    }
    let runs: Vec<&Explanation> = found.iter().map(AsRef::as_ref).collect();
    axum::Json(json!({"request": last.request, "runs": runs})).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_named_by_its_correlation_id_or_by_its_completion() {
        let digits = "0123456789abcdef0123456789ABCDEF";
        let id = |text: &str| RequestPrefix::parse(text).map(|it| it.0);
        assert_eq!(id(digits), Ok(digits.to_lowercase()));
        assert_eq!(id(&format!("chatcmpl-{digits}")), Ok(digits.to_lowercase()));
        assert_eq!(id("01ab"), Ok("01ab".to_owned()));
        for wrong in ["", "abc", "x123", "chatcmpl-", &format!("{digits}0")] {
            assert!(id(wrong).is_err(), "{wrong}");
        }
    }
}
