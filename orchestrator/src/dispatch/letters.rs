//! What is kept of a request that its workers failed at, for an operator to look at. Pure. (RSV-3)

use crate::job::kept::MAX_TOLD_ATTEMPTS;
use crate::job::{DeadLetter, FailedAttempt};
use std::collections::VecDeque;
use std::sync::Arc;
use tether_wire::NodeId;
use tether_wire::codec;
use tether_wire::infer::InferRequest;
use tether_wire::rpc::{Code, RpcError};

/// Attempts at a request that failed.
#[derive(Clone, Debug, Default)]
pub(crate) struct FailedAttempts {
    /// The last of them.
    last: VecDeque<FailedAttempt>,
    /// Whether a worker was at fault, rather than full.
    is_anybodys_fault: bool,
}

impl FailedAttempts {
    /// One more.
    pub(crate) fn add(&mut self, worker: NodeId, fault: &RpcError, at_ms: u64) {
        self.is_anybodys_fault |= !matches!(fault.code, Code::RateLimited | Code::Overloaded);
        if self.last.len() == MAX_TOLD_ATTEMPTS {
            self.last.pop_front();
        }
        self.last.push_back(FailedAttempt {
            worker,
            code: fault.code.as_str().to_owned(),
            message: Some(crate::job::bounded_error(&fault.message).to_owned()),
            at_ms,
        });
    }

    /// The dead letter of a request that ends with this error. Nothing where no worker was at fault,
    /// or where the request ended for another reason: its time was over, its tenant at a limit, its
    /// orchestrator about to stop.
    pub(crate) fn letter(
        &self,
        request: impl FnOnce() -> InferRequest,
        told: &RpcError,
    ) -> Option<Arc<DeadLetter>> {
        let is_failure = matches!(told.code, Code::Unavailable | Code::Internal);
        (is_failure && self.is_anybodys_fault).then(|| {
            let request = request();
            Arc::new(DeadLetter {
                tenant: request.tenant.clone(),
                code: told.code.as_str().to_owned(),
                attempts: self.last.iter().cloned().collect(),
                payload: codec::encode(&request),
            })
        })
    }
}

/// Why a request ended, as its job keeps it: without the words of a worker, which may quote the prompt,
/// for this lies in the store as it is.
pub(crate) fn reason(told: &RpcError) -> String {
    let code = told.code.as_str();
    match told.code {
        // Whatever a worker said, the tenant is told so in words of ours.
        Code::Unavailable
        | Code::Internal
        | Code::Overloaded
        | Code::RateLimited
        | Code::Elsewhere => format!("{code}: {told}"),
        Code::Deadline => format!("{code}: the time for this request was over"),
        _ => format!("{code}: the request cannot be answered as it is"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::outcome::{End, of_worker_error, told};
    use super::*;
    use tether_wire::infer::{Input, Output, Prefix, Sampling};
    use tether_wire::{CorrelationId, TenantId};

    fn request() -> InferRequest {
        let tenant = TenantId::new("acme").expect("valid");
        InferRequest {
            correlation: CorrelationId::derive(&tenant, "a"),
            tenant,
            retry_token: "a".to_owned(),
            model: "tiny".to_owned(),
            input: Input::Text("x".to_owned()),
            sampling: Sampling::default(),
            output: Output::default(),
            keyed: true,
            answers: 1,
            prefix: Prefix::default(),
            resume: None,
        }
    }

    fn failed(codes: &[Code]) -> FailedAttempts {
        let mut failed = FailedAttempts::default();
        for (at_ms, code) in (0..).zip(codes) {
            failed.add(NodeId([1; 32]), &RpcError::new(*code, "why"), at_ms);
        }
        failed
    }

    #[test]
    fn what_workers_failed_at_is_kept_with_what_was_tried() {
        let told = RpcError::new(Code::Unavailable, "no worker can serve this model now");
        let codes = [Code::Overloaded, Code::Internal];
        let letter = failed(&codes).letter(request, &told).expect("kept");
        assert_eq!(
            (letter.code.as_str(), letter.attempts.len()),
            ("unavailable", 2)
        );
        assert_eq!(letter.attempts[1].code, "internal");
        let kept: InferRequest = codec::decode("request", &letter.payload, 1 << 20).expect("whole");
        assert_eq!(kept, request());
    }

    #[test]
    fn what_was_shed_or_late_or_limited_is_not_kept() {
        let told = |code| RpcError::new(code, "x");
        let fault = failed(&[Code::Internal]);
        for code in [
            Code::Deadline,
            Code::Invalid,
            Code::Elsewhere,
            Code::Overloaded,
        ] {
            assert!(fault.letter(request, &told(code)).is_none(), "{code:?}");
        }
        let limits = failed(&[Code::Overloaded, Code::RateLimited]);
        assert!(limits.letter(request, &told(Code::Unavailable)).is_none());
        assert!(failed(&[]).letter(request, &told(Code::Internal)).is_none());
    }

    #[test]
    fn no_word_of_a_worker_is_in_what_a_job_keeps() {
        let codes = Code::REFUSALS.into_iter().chain([
            Code::Elsewhere,
            Code::Unavailable,
            Code::Overloaded,
            Code::Deadline,
            Code::Cancelled,
            Code::Internal,
            Code::Unknown,
        ]);
        for code in codes {
            let quoting = RpcError::new(code, "no: my secret").with_param("my secret");
            let ended = match of_worker_error(quoting) {
                End::Fault(fault) => vec![told(fault.clone(), false, 5), told(fault, true, 5)],
                End::Final(error) => vec![error],
                other => panic!("{other:?}"),
            };
            for error in ended {
                let kept = reason(&error);
                assert!(!kept.contains("secret"), "{code:?}: {kept}");
                assert!(kept.starts_with(error.code.as_str()), "{kept}");
            }
        }
    }

    #[test]
    fn of_more_attempts_than_are_told_the_last_are() {
        let failed = failed(&[Code::Unavailable; MAX_TOLD_ATTEMPTS + 3]);
        let told = RpcError::new(Code::Unavailable, "x");
        let letter = failed.letter(request, &told).expect("kept");
        assert_eq!(letter.attempts.len(), MAX_TOLD_ATTEMPTS);
        assert_eq!(letter.attempts[0].at_ms, 3);
    }
}
