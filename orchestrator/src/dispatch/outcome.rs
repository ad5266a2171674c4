//! How attempts and requests end, and what the gateway is told. Pure.

use tether_wire::infer::Done;
use tether_wire::rpc::{Code, RpcError};

/// How an attempt at one worker ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The answer is whole.
    Done(Done),
    /// The request itself is at fault, or this orchestrator: no other worker would do better.
    Final(RpcError),
    /// The worker is at fault: another may do better.
    Fault(RpcError),
    /// The gateway is gone.
    Cancelled,
}

impl End {
    /// Its label in metrics and spans.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Done(_) => "ok",
            Self::Final(error) | Self::Fault(error) => error.code.as_str(),
            Self::Cancelled => "cancelled",
        }
    }
}

/// What a worker's own error means for the request.
pub(crate) fn of_worker_error(error: RpcError) -> End {
    match error.code {
        // The input is wrong everywhere, and time is over everywhere.
        Code::Invalid | Code::Deadline => End::Final(error),
        // Everything else is between that worker and us: the tenant did nothing wrong.
        _ => End::Fault(error),
    }
}

/// What the gateway is told after the last attempt failed by its worker's fault. Tenants read it:
/// which worker, and what exactly happened to it, is in the log and the trace.
pub(crate) fn told(fault: RpcError, streamed: bool, retry_after_ms: u64) -> RpcError {
    let code = match fault.code {
        Code::Internal => Code::Internal,
        Code::Overloaded if !streamed => Code::Overloaded,
        _ => Code::Unavailable,
    };
    let message = match (code, streamed) {
        // Never presented as finished: the answer is cut and says so.
        (Code::Internal, true) => "the answer was cut off: its worker sent what is no answer",
        (_, true) => "the answer was cut off: its worker was lost",
        (Code::Internal, false) => "the worker sent what is no answer",
        (Code::Overloaded, false) => "every worker of this model is busy",
        (_, false) => "no worker can serve this model now",
    };
    let error = RpcError::new(code, message);
    if streamed || code == Code::Internal {
        return error;
    }
    error.with_retry_after_ms(fault.retry_after_ms.unwrap_or(retry_after_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: Code) -> RpcError {
        RpcError::new(code, "x")
    }

    #[test]
    fn only_the_callers_own_faults_are_final() {
        for code in [Code::Invalid, Code::Deadline] {
            assert!(matches!(of_worker_error(error(code)), End::Final(_)));
        }
        for code in [
            Code::Unavailable,
            Code::Overloaded,
            Code::Internal,
            Code::NotFound,
            Code::Forbidden,
            Code::Unknown,
            Code::Cancelled,
        ] {
            assert!(
                matches!(of_worker_error(error(code)), End::Fault(_)),
                "{code:?}"
            );
        }
    }

    #[test]
    fn what_nothing_can_serve_says_when_to_come_again() {
        let told_of = |code| told(error(code), false, 5_000);
        assert_eq!(told_of(Code::Unavailable).retry_after_ms, Some(5_000));
        assert_eq!(told_of(Code::Forbidden).code, Code::Unavailable);
        assert_eq!(told_of(Code::Overloaded).code, Code::Overloaded);
        assert_eq!(told_of(Code::Internal).retry_after_ms, None);
        let own = error(Code::Overloaded).with_retry_after_ms(70);
        assert_eq!(told(own, false, 5_000).retry_after_ms, Some(70));
    }

    #[test]
    fn a_cut_answer_is_an_error_that_says_so() {
        let cut = told(error(Code::Unavailable), true, 5_000);
        assert_eq!(cut.code, Code::Unavailable);
        assert!(cut.message.contains("cut off"));
        assert_eq!(told(error(Code::Internal), true, 1).code, Code::Internal);
    }
}
