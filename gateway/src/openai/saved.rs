//! Requests and answers as a tenant kept them, so that they can be held against a receipt.
//! [T-RCP-3], [T-RCP-4]
//!
//! A request is read by the very code that reads it when it is sent; [`response`] reads answers.

mod response;

use super::chat::parse_chat;
pub use response::{SavedAnswer, SavedResponse, SavedUsage, Says, answers, receipt, response};
use tether_wire::infer::{Input, Output, Sampling};
use tether_wire::{CorrelationId, Digest, receipt::hash};

/// A request as it was sent.
#[derive(Clone, Debug, PartialEq)]
pub struct SavedRequest {
    /// The model as it was named: `NAME` or `NAME@MAJOR.MINOR`.
    pub model: String,
    /// What the model was given.
    pub input: Input,
    /// How the answers were to be drawn.
    pub sampling: Sampling,
    /// What they had to be.
    pub output: Output,
}

impl SavedRequest {
    /// The seed that was asked for, for the answer of this index; nothing where it was left open.
    #[must_use]
    pub fn seed(&self, index: u32) -> Option<u64> {
        let seed = self.sampling.seed?;
        Some(seed.wrapping_add(u64::from(index)))
    }

    /// The digest that a receipt names it by. `limit`: the most tokens that a policy let the answer
    /// have; it counts where the request sets no limit.
    #[must_use]
    pub fn digest(&self, seed: u64, limit: Option<u32>) -> Digest {
        let sampling = Sampling {
            max_tokens: self.sampling.max_tokens.or(limit),
            ..self.sampling.clone()
        };
        hash::request(&self.input, &sampling, &self.output, seed)
    }
}

/// Reads the body of a request.
///
/// # Errors
/// What the gateway would have answered.
pub fn request(body: &[u8]) -> Result<SavedRequest, String> {
    let chat = parse_chat(body).map_err(|problem| problem.message)?;
    Ok(SavedRequest {
        model: chat.model,
        input: Input::Chat(chat.messages),
        sampling: chat.sampling,
        output: chat.output,
    })
}

/// How an answer of ours names what it was made with: the artifact, and the numerics class, outside of
/// which the same seed may draw another answer. Empty where the class was not known when it began.
#[must_use]
pub fn fingerprint(digest: &Digest, numerics_class: &str) -> String {
    let made_with = [FINGERPRINT, &digest.0, numerics_class.as_bytes()].concat();
    format!("fp_{}", Digest::of(&made_with).short())
}

/// Keeps fingerprints apart from other digests.
const FINGERPRINT: &[u8] = b"tether 2026 system fingerprint v1";

/// How an answer of ours names the job that its first answer is.
#[must_use]
pub(crate) fn completion_id(correlation: &CorrelationId) -> String {
    format!("{COMPLETION_ID}{correlation}")
}

/// What the ids of completions begin with.
const COMPLETION_ID: &str = "chatcmpl-";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_tells_artifacts_and_numerics_classes_apart() {
        let (one, other) = (Digest([1; 32]), Digest([2; 32]));
        let of = fingerprint(&one, "mistralrs/cpu");
        assert_eq!(of, fingerprint(&one, "mistralrs/cpu"));
        assert!(of.starts_with("fp_") && of.len() == 11, "{of}");
        for else_ in [
            fingerprint(&other, "mistralrs/cpu"),
            fingerprint(&one, "mistralrs/cuda"),
            fingerprint(&one, ""),
        ] {
            assert_ne!(of, else_);
        }
    }

    #[test]
    fn a_request_is_read_as_the_gateway_reads_it() {
        let body =
            br#"{"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "seed": -1}"#;
        let read = request(body).expect("a request");
        assert_eq!(read.model, "tiny");
        assert_eq!((read.seed(0), read.seed(1)), (Some(u64::MAX), Some(0)));
        assert_ne!(read.digest(1, None), read.digest(2, None));
        assert_ne!(read.digest(1, None), read.digest(1, Some(64)));
        let limited = br#"{"model": "tiny", "messages": [{"role": "user", "content": "hi"}],
            "seed": -1, "max_tokens": 64}"#;
        let limited = request(limited).expect("a request");
        assert_eq!(read.digest(1, Some(64)), limited.digest(1, None));
        assert_eq!(
            limited.digest(1, Some(9)),
            limited.digest(1, None),
            "its own limit"
        );
        assert!(request(b"{}").expect_err("no model").contains("model"));
    }
}
