//! What is kept beside a job, sealed: the answer of one that is done, the request of one that
//! failed. (RSV-3, RSV-5)

use super::bounded_error;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use std::fmt;
use tether_wire::codec::{self, CodecError};
use tether_wire::infer::MAX_REQUEST_BYTES;
use tether_wire::{NodeId, TenantId};

/// Most bytes of an answer that is kept, its events encoded: that of a long answer without
/// probabilities many times over. A longer one is given and not kept.
pub const MAX_ANSWER_BYTES: usize = 8 * 1024 * 1024;
/// Attempts that a dead letter tells of; of more, the last.
pub const MAX_TOLD_ATTEMPTS: usize = 64;
/// Most bytes of a dead letter's attempts, encoded.
pub(crate) const MAX_ATTEMPTS_BYTES: usize = 128 * 1024;

/// A whole answer: its events as the gateway gets them, for one tenant.
#[derive(Clone, PartialEq, Eq)]
pub struct Answer {
    tenant: TenantId,
    encoded: Vec<u8>,
}

impl Answer {
    /// The answer of these events, each encoded as on the wire; nothing where it is too long to be
    /// kept.
    #[must_use]
    pub fn of<'a>(tenant: TenantId, events: impl IntoIterator<Item = &'a [u8]>) -> Option<Self> {
        let (mut list, mut bytes) = (Vec::new(), 0);
        for event in events {
            bytes += event.len() + EVENT_OVERHEAD;
            if bytes > MAX_ANSWER_BYTES {
                return None;
            }
            list.push(serde_bytes::Bytes::new(event));
        }
        let encoded = codec::encode(&list);
        Some(Self { tenant, encoded })
    }

    /// What was encoded, read back.
    pub(crate) fn read(tenant: TenantId, encoded: Vec<u8>) -> Result<Self, CodecError> {
        let answer = Self { tenant, encoded };
        answer.list().map(|_| answer)
    }

    /// Whose it is.
    #[must_use]
    pub fn tenant(&self) -> &TenantId {
        &self.tenant
    }

    /// Its events, in order.
    #[must_use]
    pub fn events(&self) -> Vec<Vec<u8>> {
        let list = self.list().unwrap_or_default();
        list.into_iter().map(ByteBuf::into_vec).collect()
    }

    pub(crate) fn encoded(&self) -> &[u8] {
        &self.encoded
    }

    fn list(&self) -> Result<Vec<ByteBuf>, CodecError> {
        codec::decode("a kept answer", &self.encoded, 2 * MAX_ANSWER_BYTES)
    }
}

/// Most bytes that CBOR adds to an event.
const EVENT_OVERHEAD: usize = 9;

/// Without what was answered.
impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Answer({}, {} bytes)", self.tenant, self.encoded.len())
    }
}

/// One attempt at a request that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedAttempt {
    /// The worker that it was given to.
    pub worker: NodeId,
    /// The code of its error.
    pub code: String,
    /// Its words, which may quote the request; at most [`super::MAX_ERROR_BYTES`] are kept, sealed
    /// with it. Nothing where that is not opened.
    #[serde(skip)]
    pub message: Option<String>,
    /// Unix milliseconds.
    pub at_ms: u64,
}

/// What is kept of a job that failed, for an operator to look at and to run again. (RSV-3)
#[derive(Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Whose the job is.
    pub tenant: TenantId,
    /// The code of the error that the tenant was told; its words are those of the step.
    pub code: String,
    /// What was tried.
    pub attempts: Vec<FailedAttempt>,
    /// The request, encoded as on the wire: of at most [`MAX_REQUEST_BYTES`], else none is kept.
    pub payload: Vec<u8>,
}

impl DeadLetter {
    /// Whether its request is short enough to be kept.
    #[must_use]
    pub fn fits(&self) -> bool {
        self.payload.len() <= MAX_REQUEST_BYTES
    }

    /// The last attempts, encoded without their words: this lies in the store as it is.
    pub(crate) fn encoded_attempts(&self) -> Vec<u8> {
        let told: Vec<FailedAttempt> = (self.told().iter())
            .map(|attempt| FailedAttempt {
                code: bounded_error(&attempt.code).to_owned(),
                ..attempt.clone()
            })
            .collect();
        codec::encode(&told)
    }

    /// The request, and the words of the last attempts, each bounded: to be sealed.
    pub(crate) fn encoded_secret(&self) -> Vec<u8> {
        let words: Vec<Option<&str>> = (self.told().iter())
            .map(|attempt| attempt.message.as_deref().map(bounded_error))
            .collect();
        codec::encode(&(words, serde_bytes::Bytes::new(&self.payload)))
    }

    fn told(&self) -> &[FailedAttempt] {
        &self.attempts[self.attempts.len().saturating_sub(MAX_TOLD_ATTEMPTS)..]
    }
}

/// What [`DeadLetter::encoded_secret`] encoded, read back: the words of each attempt, and the request.
pub(crate) fn read_secret(encoded: &[u8]) -> Result<(Vec<Option<String>>, Vec<u8>), CodecError> {
    let limit = MAX_ATTEMPTS_BYTES + MAX_REQUEST_BYTES;
    let (words, payload): (_, ByteBuf) = codec::decode("a dead letter", encoded, limit)?;
    Ok((words, payload.into_vec()))
}

/// Without the request.
impl fmt::Debug for DeadLetter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadLetter")
            .field("tenant", &self.tenant)
            .field("code", &self.code)
            .field("attempts", &self.attempts.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant() -> TenantId {
        TenantId::new("acme").expect("valid")
    }

    #[test]
    fn an_answer_is_read_back_event_by_event_and_never_shown() {
        let events: [&[u8]; 3] = [b"one", b"", b"three"];
        let answer = Answer::of(tenant(), events).expect("short");
        assert_eq!(answer.events(), events);
        let again = Answer::read(tenant(), answer.encoded().to_vec()).expect("whole");
        assert_eq!(again, answer);
        assert!(Answer::read(tenant(), b"no list".to_vec()).is_err());
        assert!(!format!("{answer:?}").contains("one"));
    }

    #[test]
    fn an_answer_that_is_too_long_is_not_kept() {
        let event = vec![7; 256 * 1024];
        let events = |count| std::iter::repeat_n(event.as_slice(), count);
        assert!(Answer::of(tenant(), events(31)).is_some());
        assert!(Answer::of(tenant(), events(32)).is_none());
        let none: [u8; 0] = [];
        let empty = std::iter::repeat_n(none.as_slice(), MAX_ANSWER_BYTES / 8);
        assert!(Answer::of(tenant(), empty).is_none(), "each event counts");
    }

    #[test]
    fn a_dead_letter_tells_of_the_last_attempts_in_bounded_words() {
        let attempt = |n: u64| FailedAttempt {
            worker: NodeId([1; 32]),
            code: "internal".into(),
            message: Some("x".repeat(10_000)),
            at_ms: n,
        };
        let letter = DeadLetter {
            tenant: tenant(),
            code: "unavailable".into(),
            attempts: (0..100).map(attempt).collect(),
            payload: b"the prompt".to_vec(),
        };
        let encoded = letter.encoded_attempts();
        let told: Vec<FailedAttempt> =
            codec::decode("attempts", &encoded, MAX_ATTEMPTS_BYTES).expect("inside limits");
        assert_eq!(told.len(), MAX_TOLD_ATTEMPTS);
        assert_eq!(told.last().map(|it| it.at_ms), Some(99));
        assert!(told.iter().all(|it| it.message.is_none()), "only sealed");
        let (words, payload) = read_secret(&letter.encoded_secret()).expect("inside limits");
        assert_eq!(words.len(), MAX_TOLD_ATTEMPTS);
        let first = words[0].as_deref().expect("its words");
        assert_eq!(first.len(), super::super::MAX_ERROR_BYTES);
        assert_eq!(payload, b"the prompt");
        assert!(letter.fits());
        let long = DeadLetter {
            payload: vec![0; MAX_REQUEST_BYTES + 1],
            ..letter.clone()
        };
        assert!(!long.fits());
        let longest = DeadLetter {
            payload: vec![0; MAX_REQUEST_BYTES],
            ..letter.clone()
        };
        assert!(longest.fits() && read_secret(&longest.encoded_secret()).is_ok());
        assert!(!format!("{letter:?}").contains("prompt"));
    }
}
