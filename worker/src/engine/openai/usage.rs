//! How many tokens an answer cost, when a server that nobody verifies says so. Pure.
//!
//! Tenants are billed by it, so that a number is believed only where it can be true; what cannot is
//! counted here instead, low rather than high, and told apart.

use crate::engine::in_flight::most_tokens;
use crate::engine::protocol::Task;
use tether_wire::infer::{MAX_UNSEEN_TOKENS, PromptSize, Usage};

/// Tokens that end an answer or part it and have no text.
const UNSEEN: u64 = 64;
/// Bytes of a prompt that are counted as one token where nobody says better.
const BYTES_PER_TOKEN: u64 = 4;

/// What the server says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) prompt_tokens: u64,
    pub(super) completion_tokens: u64,
}

/// What was asked, as far as counts follow from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    prompt: PromptSize,
    stop_bytes: u64,
    most_tokens: u32,
    context_tokens: u32,
}

/// What was seen of the answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// Pieces of text or calls: each is a token at least.
    pub(super) pieces: u32,
    /// Bytes of text and calls: each is a token at most.
    pub(super) bytes: u64,
}

/// The counts, and what of the server's words was not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Settled {
    pub(super) usage: Usage,
    pub(super) doubts: &'static [&'static str],
}

impl Asked {
    pub(super) fn of(task: &Task, context_tokens: u32) -> Self {
        let stop = task.sampling.stop.iter().map(String::len).max();
        Self {
            prompt: PromptSize::of(&task.input, &task.output),
            stop_bytes: stop.unwrap_or(0) as u64,
            most_tokens: most_tokens(task, context_tokens),
            context_tokens,
        }
    }

    /// Positions that a piece of the answer takes while it comes: one, as long as as many were
    /// ordered. The end sets right what was more.
    pub(super) fn positions(&self, pieces: u32) -> u32 {
        u32::from(pieces < self.most_tokens)
    }

    /// The counts of a whole answer.
    pub(super) fn settle(&self, claim: Option<Claim>, seen: Seen) -> Settled {
        let prompt = claim.map(|it| it.prompt_tokens);
        let completion = claim.map(|it| it.completion_tokens);
        let most_prompt = u64::from(self.prompt.most_tokens().min(self.context_tokens));
        let least = u64::from(seen.pieces.max(1));
        let unseen = (self.stop_bytes + UNSEEN).min(u64::from(MAX_UNSEEN_TOKENS));
        let most = (seen.bytes + unseen).min(u64::from(self.most_tokens));
        let true_prompt = prompt.filter(|it| (1..=most_prompt).contains(it));
        let true_completion = completion.filter(|it| (least..=most).contains(it));
        let own_prompt =
            (self.prompt.bytes().div_ceil(BYTES_PER_TOKEN)).clamp(1, most_prompt.max(1));
        let count = |tokens: u64| u32::try_from(tokens).unwrap_or(u32::MAX);
        Settled {
            usage: Usage {
                prompt_tokens: count(true_prompt.unwrap_or(own_prompt)),
                completion_tokens: count(true_completion.unwrap_or(least)),
            },
            doubts: match (claim, true_prompt, true_completion) {
                (None, _, _) => &["usage-missing"],
                (_, Some(_), Some(_)) => &[],
                (_, None, Some(_)) => &["prompt-tokens"],
                (_, Some(_), None) => &["completion-tokens"],
                (_, None, None) => &["prompt-tokens", "completion-tokens"],
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tether_wire::CorrelationId;
    use tether_wire::infer::Input;
    use tether_wire::infer::{Output, Sampling};

    fn asked(max_tokens: Option<u32>) -> Asked {
        let sampling = Sampling {
            max_tokens,
            stop: vec!["END".to_owned()],
            ..Sampling::default()
        };
        let task = Task {
            correlation: CorrelationId([1; 16]),
            input: Input::Text("x".repeat(40)),
            sampling,
            output: Output::default(),
            transcript: Vec::new(),
        };
        Asked::of(&task, 10_000)
    }

    fn settle(max_tokens: Option<u32>, claim: (u64, u64)) -> (u32, u32, usize) {
        let seen = Seen {
            pieces: 5,
            bytes: 20,
        };
        let claim = Claim {
            prompt_tokens: claim.0,
            completion_tokens: claim.1,
        };
        let settled = asked(max_tokens).settle(Some(claim), seen);
        let usage = settled.usage;
        (
            usage.prompt_tokens,
            usage.completion_tokens,
            settled.doubts.len(),
        )
    }

    #[test]
    fn what_can_be_true_is_believed() {
        assert_eq!(settle(None, (12, 6)), (12, 6, 0));
        assert_eq!(
            settle(None, (4_000, 5)),
            (4_000, 5, 0),
            "a template's own words"
        );
        assert_eq!(
            settle(None, (1, 20 + 3 + 64)),
            (1, 87, 0),
            "all of a stop string"
        );
    }

    #[test]
    fn what_cannot_be_true_is_counted_here_and_said() {
        assert_eq!(settle(None, (0, 6)), (10, 6, 1));
        assert_eq!(settle(None, (9_000, 6)), (10, 6, 1));
        assert_eq!(settle(None, (12, 4)), (12, 5, 1), "a piece is a token");
        assert_eq!(settle(None, (12, 88)), (12, 5, 1), "more than bytes");
        assert_eq!(settle(Some(6), (12, 7)), (12, 5, 1), "more than ordered");
        assert_eq!(settle(None, (u64::MAX, u64::MAX)), (10, 5, 2));
    }

    #[test]
    fn silence_is_counted_here_and_an_empty_answer_is_one_token() {
        let settled = asked(None).settle(None, Seen::default());
        assert_eq!(settled.usage.completion_tokens, 1);
        assert_eq!(settled.doubts, ["usage-missing"]);
    }

    #[test]
    fn pieces_take_no_more_positions_than_tokens_were_ordered() {
        assert_eq!([0, 1, 2].map(|n| asked(Some(2)).positions(n)), [1, 1, 0]);
        assert_eq!([9_999, 10_000].map(|n| asked(None).positions(n)), [1, 0]);
    }
}
