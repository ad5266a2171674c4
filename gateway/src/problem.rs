//! Every error that a client can see, and the one place where codes become statuses.

use axum::http::StatusCode;
use tether_wire::codec::CodecError;
use tether_wire::rpc::{Code, RpcError};

/// Milliseconds after which a client is told to come again, where nobody knows better.
const DEFAULT_RETRY_AFTER_MS: u64 = 1_000;

/// A limit of the tenant is reached.
pub(crate) const RATE_LIMIT_EXCEEDED: &str = "rate_limit_exceeded";

/// An error for a client, in no dialect yet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Problem {
    /// HTTP status.
    pub(crate) status: StatusCode,
    /// For programs; from a closed set, so that it can be a label.
    pub(crate) code: &'static str,
    /// For people.
    pub(crate) message: String,
    /// The parameter that is wrong.
    pub(crate) param: Option<String>,
    /// When another try makes sense.
    pub(crate) retry_after_ms: Option<u64>,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            param: None,
            retry_after_ms: None,
        }
    }

    /// A request that is wrong.
    pub(crate) fn invalid(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// With the parameter that is wrong.
    pub(crate) fn at(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    /// Too much at once, or not now.
    pub(crate) fn later(
        status: StatusCode,
        code: &'static str,
        message: impl Into<String>,
        retry_after_ms: Option<u64>,
    ) -> Self {
        let mut problem = Self::new(status, code, message);
        problem.retry_after_ms = Some(retry_after_ms.unwrap_or(DEFAULT_RETRY_AFTER_MS));
        problem
    }

    /// Nothing here can answer now.
    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self::later(
            StatusCode::SERVICE_UNAVAILABLE,
            "unavailable",
            message,
            None,
        )
    }
}

/// How a worker begins the message of an error when prompt and answer do not fit into the model's
/// context. Errors on the wire have few codes; OpenAI's clients know one for this.
const CONTEXT_OVERRUN: &str = "context_length_exceeded: ";

impl From<RpcError> for Problem {
    fn from(error: RpcError) -> Self {
        use StatusCode as S;
        let overrun = error
            .message
            .strip_prefix(CONTEXT_OVERRUN)
            .map(str::to_owned);
        let (status, code) = match error.code {
            Code::Invalid if overrun.is_some() => (S::BAD_REQUEST, "context_length_exceeded"),
            Code::Invalid => (S::BAD_REQUEST, "invalid_value"),
            Code::NotFound => (S::NOT_FOUND, "model_not_found"),
            Code::Forbidden => (S::FORBIDDEN, "permission_denied"),
            Code::Conflict => (S::CONFLICT, "idempotency_conflict"),
            // Nobody could be followed to who has it.
            Code::Unavailable | Code::Elsewhere => (S::SERVICE_UNAVAILABLE, "unavailable"),
            // The mesh is full.
            Code::Overloaded => (S::SERVICE_UNAVAILABLE, "overloaded"),
            // This tenant alone has to wait.
            Code::RateLimited => (S::TOO_MANY_REQUESTS, RATE_LIMIT_EXCEEDED),
            Code::Deadline => (S::GATEWAY_TIMEOUT, "timeout"),
            // Known from nginx: the client closed the request. Nobody reads it but the log.
            Code::Cancelled => (S::from_u16(499).unwrap_or(S::BAD_REQUEST), "cancelled"),
            Code::Unimplemented => (S::NOT_IMPLEMENTED, "unimplemented"),
            Code::Internal | Code::Unknown => (S::INTERNAL_SERVER_ERROR, "internal_error"),
        };
        let param = match error.code {
            Code::Elsewhere => None,
            Code::NotFound => error.param.or_else(|| Some("model".to_owned())),
            // It names a limit and no parameter; the message says it too.
            Code::RateLimited => None,
            _ => error.param,
        };
        let waits = matches!(
            error.code,
            Code::Unavailable | Code::Elsewhere | Code::Overloaded | Code::RateLimited
        );
        Self {
            status,
            code,
            message: overrun.unwrap_or(error.message),
            param,
            retry_after_ms: error
                .retry_after_ms
                .or(waits.then_some(DEFAULT_RETRY_AFTER_MS)),
        }
    }
}

impl From<CodecError> for Problem {
    /// A request that breaks a limit of the wire; its fields have the names that tenants know.
    fn from(error: CodecError) -> Self {
        match error {
            CodecError::Field { field, why, .. } => {
                Self::invalid("invalid_value", format!("'{field}' {why}.")).at(field)
            }
            CodecError::TooLarge { .. } => Self::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "request_too_large",
                error.to_string(),
            ),
            CodecError::Malformed { .. } => Self::invalid("invalid_value", error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_has_its_status() {
        for (code, status) in [
            (Code::Invalid, 400),
            (Code::NotFound, 404),
            (Code::Forbidden, 403),
            (Code::Conflict, 409),
            (Code::Unavailable, 503),
            (Code::Overloaded, 503),
            (Code::RateLimited, 429),
            (Code::Deadline, 504),
            (Code::Cancelled, 499),
            (Code::Internal, 500),
            (Code::Unknown, 500),
            (Code::Unimplemented, 501),
        ] {
            let problem = Problem::from(RpcError::new(code, "why"));
            assert_eq!(problem.status.as_u16(), status, "{code:?}");
            assert_eq!(
                problem.retry_after_ms.is_some(),
                matches!(status, 429 | 503)
            );
        }
    }

    #[test]
    fn a_prompt_that_does_not_fit_has_the_code_that_clients_know() {
        let message = "context_length_exceeded: the prompt has 9 tokens, the context holds 8";
        let problem = Problem::from(RpcError::new(Code::Invalid, message).with_param("messages"));
        assert_eq!(problem.code, "context_length_exceeded");
        assert!(problem.message.starts_with("the prompt has 9"));
        assert_eq!(problem.param.as_deref(), Some("messages"));
    }
}
