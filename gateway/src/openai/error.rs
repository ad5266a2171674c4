//! Problems in OpenAI's shape: `{"error": {"message", "type", "param", "code"}}`.

use crate::problem::Problem;
use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

#[derive(Serialize)]
pub(super) struct ErrorJson<'a> {
    error: Inner<'a>,
}

#[derive(Serialize)]
struct Inner<'a> {
    message: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    param: Option<&'a str>,
    code: &'static str,
}

pub(super) fn error_json(problem: &Problem) -> ErrorJson<'_> {
    ErrorJson {
        error: Inner {
            message: &problem.message,
            kind: kind(problem.status),
            param: problem.param.as_deref(),
            code: problem.code,
        },
    }
}

/// OpenAI's types of errors.
fn kind(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 => "authentication_error",
        403 => "permission_error",
        429 => "rate_limit_error",
        400..=499 => "invalid_request_error",
        503 => "service_unavailable_error",
        _ => "server_error",
    }
}

/// A response with the problem's status, `Retry-After` where it helps.
pub(crate) fn problem_response(problem: &Problem) -> Response {
    let mut response = (problem.status, Json(error_json(problem))).into_response();
    let headers = response.headers_mut();
    if let Some(ms) = problem.retry_after_ms {
        // Whole seconds, rounded up; the SDKs look for the exact milliseconds first.
        headers.insert(
            header::RETRY_AFTER,
            HeaderValue::from(ms.div_ceil(1_000).max(1)),
        );
        headers.insert("retry-after-ms", HeaderValue::from(ms));
    }
    if problem.status == StatusCode::UNAUTHORIZED {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}
