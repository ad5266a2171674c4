//! How attempts and requests end, and what the gateway is told. Pure.

use crate::breaker::Outcome;
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
    /// What it says of the worker. What no other worker would do better is not this one's fault.
    pub(crate) fn outcome(&self) -> Outcome {
        match self {
            Self::Done(_) => Outcome::Success,
            Self::Fault(error) => Outcome::of_error(error.code),
            Self::Final(_) | Self::Cancelled => Outcome::Neutral,
        }
    }

    /// Its label in metrics and spans.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Done(_) => "ok",
            Self::Final(error) | Self::Fault(error) => error.code.as_str(),
            Self::Cancelled => "cancelled",
        }
    }
}

/// Whether an error is the tenant's own, or that the mesh shed the request: the job is refused then,
/// where nothing was given, and has not failed.
pub(crate) fn is_refusal(code: Code) -> bool {
    Code::REFUSALS.contains(&code) || matches!(code, Code::Deadline | Code::Overloaded)
}

/// What a worker's own error means for the request.
pub(crate) fn of_worker_error(error: RpcError) -> End {
    match error.code {
        // The input is wrong everywhere, and time is over everywhere.
        Code::Invalid | Code::Deadline => End::Final(error),
        // A quota is one worker's own count: it says nothing of the others, who may have room for
        // this tenant. So they are tried, as often as after any other refusal, and nobody is blamed.
        Code::RateLimited => End::Fault(error),
        // Everything else is between that worker and us: the tenant did nothing wrong.
        _ => End::Fault(error),
    }
}

/// What the workers that were tried answered instead of an answer.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    /// The last that was not for a limit of the tenant.
    fault: Option<RpcError>,
    /// The limit that is to have room first.
    limit: Option<RpcError>,
}

impl Refusals {
    /// One more.
    pub(crate) fn add(&mut self, error: RpcError) {
        if error.code != Code::RateLimited {
            self.fault = Some(error);
            return;
        }
        // Who does not say when comes last.
        let when = |limit: &RpcError| limit.retry_after_ms.unwrap_or(u64::MAX);
        if (self.limit.as_ref()).is_none_or(|other| when(&error) < when(other)) {
            self.limit = Some(error);
        }
    }

    /// What the gateway is told when there is nobody left to try; nothing where nobody was tried.
    /// That the tenant asked for too much is told only where nothing else stood in the way.
    pub(crate) fn told(self, retry_after_ms: u64) -> Option<RpcError> {
        let why = self.fault.or(self.limit)?;
        Some(told(why, false, retry_after_ms))
    }
}

/// What the gateway is told after the last attempt failed by its worker's fault. Tenants read it:
/// which worker, and what exactly happened to it, is in the log and the trace.
pub(crate) fn told(fault: RpcError, streamed: bool, retry_after_ms: u64) -> RpcError {
    let code = match fault.code {
        Code::Internal => Code::Internal,
        code @ (Code::Overloaded | Code::RateLimited) if !streamed => code,
        _ => Code::Unavailable,
    };
    let message = match (code, streamed) {
        // Never presented as finished: the answer is cut and says so.
        (Code::Internal, true) => "the answer was cut off: its worker sent what is no answer",
        (_, true) => "the answer was cut off: its worker could not go on",
        (Code::Internal, false) => "the worker sent what is no answer",
        (Code::Overloaded, false) => "every worker of this model is busy",
        (Code::RateLimited, false) => return over_limit(&fault, retry_after_ms),
        (_, false) => "no worker can serve this model now",
    };
    let error = RpcError::new(code, message);
    if streamed || code == Code::Internal {
        return error;
    }
    error.with_retry_after_ms(fault.retry_after_ms.unwrap_or(retry_after_ms))
}

/// The tenant asked for too much, and of what, in our words: those of a worker may be anything.
fn over_limit(fault: &RpcError, retry_after_ms: u64) -> RpcError {
    let known = ["requests", "tokens"];
    let limit = known
        .into_iter()
        .find(|it| fault.param.as_deref() == Some(it));
    let of = limit.unwrap_or("requests or tokens");
    let message = format!("too many {of} in the last minutes for the workers of this model");
    let error = RpcError::new(Code::RateLimited, message)
        .with_retry_after_ms(fault.retry_after_ms.unwrap_or(retry_after_ms));
    match limit {
        Some(limit) => error.with_param(limit),
        None => error,
    }
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
            Code::RateLimited,
        ] {
            assert!(
                matches!(of_worker_error(error(code)), End::Fault(_)),
                "{code:?}"
            );
        }
    }

    #[test]
    fn what_the_tenant_did_wrong_or_was_shed_is_no_failure_of_the_mesh() {
        for code in [
            Code::Invalid,
            Code::Deadline,
            Code::RateLimited,
            Code::Overloaded,
        ] {
            assert!(is_refusal(code), "{code:?}");
        }
        for code in [Code::Unavailable, Code::Internal, Code::Unknown] {
            assert!(!is_refusal(code), "{code:?}");
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

    fn limited(what: &str, retry_after_ms: u64) -> RpcError {
        error(Code::RateLimited)
            .with_param(what)
            .with_retry_after_ms(retry_after_ms)
    }

    #[test]
    fn a_tenant_over_its_limits_is_told_which_and_when_the_first_has_room_again() {
        let mut refusals = Refusals::default();
        for error in [
            limited("requests", 9_000),
            limited("tokens", 70),
            limited("requests", 800),
        ] {
            refusals.add(error);
        }
        let told = refusals.told(5_000).expect("some were tried");
        assert_eq!(
            (told.code, told.retry_after_ms),
            (Code::RateLimited, Some(70))
        );
        assert_eq!(told.param.as_deref(), Some("tokens"));
        assert!(told.message.contains("too many tokens"), "{told}");
        let mut odd = Refusals::default();
        odd.add(error(Code::RateLimited).with_param("\u{1b}[2J"));
        let told = odd.told(5_000).expect("one was tried");
        assert_eq!((told.param, told.retry_after_ms), (None, Some(5_000)));
    }

    #[test]
    fn a_limit_at_some_workers_is_not_what_kept_a_request_from_the_others() {
        for fault_is_last in [false, true] {
            let mut refusals = Refusals::default();
            let mut errors = [error(Code::Overloaded), limited("tokens", 70)];
            if fault_is_last {
                errors.reverse();
            }
            errors.into_iter().for_each(|error| refusals.add(error));
            let told = refusals.told(5_000).expect("some were tried");
            assert_eq!(
                (told.code, told.retry_after_ms),
                (Code::Overloaded, Some(5_000))
            );
        }
        assert_eq!(Refusals::default().told(5_000), None);
    }

    #[test]
    fn a_cut_answer_is_an_error_that_says_so() {
        let cut = told(error(Code::Unavailable), true, 5_000);
        assert_eq!(cut.code, Code::Unavailable);
        assert!(cut.message.contains("cut off"));
        assert_eq!(told(error(Code::Internal), true, 1).code, Code::Internal);
    }
}
