//! How likely tokens were. Pure.
//!
//! What is told is the model's own opinion: the logarithm of the softmax of its logits as they come,
//! before biases, penalties, grammar, temperature and cuts, as in vLLM (`logprobs_mode` raw). So they
//! can be compared between requests, say something at temperature 0, where the draw itself is certain,
//! and a token that a grammar forced shows how unlikely the model found it.

use tether_wire::infer::{MIN_LOGPROB, TokenLogprob, TopLogprob};

/// The probability of the token that was drawn, and of the `top` most likely. `bytes` says what a
/// token stands for.
pub(crate) fn logprob<'a>(
    logits: &[f32],
    drawn: u32,
    top: usize,
    bytes: impl Fn(u32) -> &'a [u8],
) -> TokenLogprob {
    let total = log_sum_exp(logits);
    let of = |id: u32| {
        let logit = logits.get(id as usize).copied().unwrap_or(f32::NAN);
        told(logit, total)
    };
    let top = best(logits, top).into_iter().map(|id| TopLogprob {
        token: id,
        logprob: of(id),
        bytes: bytes(id).to_vec(),
    });
    TokenLogprob {
        token: drawn,
        logprob: of(drawn),
        bytes: bytes(drawn).to_vec(),
        top: top.collect(),
    }
}

/// In double precision, so that the sum over a large vocabulary is exact to what is told.
fn log_sum_exp(logits: &[f32]) -> f64 {
    let numbers = || logits.iter().filter(|logit| logit.is_finite());
    let most = f64::from(numbers().copied().fold(f32::NEG_INFINITY, f32::max));
    let sum: f64 = numbers()
        .map(|logit| (f64::from(*logit) - most).exp())
        .sum();
    most + sum.ln()
}

fn told(logit: f32, total: f64) -> f32 {
    let logprob = f64::from(logit) - total;
    if logprob.is_nan() {
        return MIN_LOGPROB;
    }
    #[expect(clippy::cast_possible_truncation, reason = "within the range of f32")]
    let logprob = logprob.clamp(f64::from(MIN_LOGPROB), 0.0) as f32;
    logprob
}

/// The ids of the largest logits, largest first; ties by id.
fn best(logits: &[f32], count: usize) -> Vec<u32> {
    let mut ids: Vec<u32> = (0u32..)
        .zip(logits)
        .filter(|(_, logit)| logit.is_finite())
        .map(|(id, _)| id)
        .collect();
    let by_rank = |a: &u32, b: &u32| {
        let (left, right) = (logits[*a as usize], logits[*b as usize]);
        right.total_cmp(&left).then(a.cmp(b))
    };
    if count == 0 {
        return Vec::new();
    }
    if count < ids.len() {
        ids.select_nth_unstable_by(count - 1, by_rank);
        ids.truncate(count);
    }
    ids.sort_unstable_by(by_rank);
    ids
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn none(_: u32) -> &'static [u8] {
        b"x"
    }

    #[test]
    fn probabilities_are_those_of_softmax() {
        // 1/2, 1/4, 1/8, 1/8.
        let logits: Vec<f32> = [4f32, 2.0, 1.0, 1.0].iter().map(|p| p.ln()).collect();
        let told = logprob(&logits, 2, 3, none);
        assert!((told.logprob - 0.125f32.ln()).abs() < 1e-6);
        let top: Vec<u32> = told.top.iter().map(|it| it.token).collect();
        assert_eq!(top, [0, 1, 2], "of two alike the smaller id");
        assert!((told.top[0].logprob - 0.5f32.ln()).abs() < 1e-6);
        assert_eq!(told.bytes, b"x");
    }

    #[test]
    fn what_cannot_come_has_the_least_that_is_told() {
        let logits = [0.0, f32::NEG_INFINITY, f32::NAN, -50_000.0];
        for id in [1, 2, 3, 99] {
            assert_eq!(logprob(&logits, id, 20, none).logprob, MIN_LOGPROB, "{id}");
        }
        assert_eq!(logprob(&logits, 0, 20, none).top.len(), 2);
        assert_eq!(logprob(&[], 0, 5, none).logprob, MIN_LOGPROB);
    }

    proptest! {
        #[test]
        fn they_sum_to_one_and_the_best_come_first(
            logits in proptest::collection::vec(-30f32..30.0, 1..60),
            top in 0usize..25,
        ) {
            let all: f64 = (0..logits.len() as u32)
                .map(|id| f64::from(logprob(&logits, id, 0, none).logprob).exp())
                .sum();
            prop_assert!((all - 1.0).abs() < 1e-4, "{all}");
            let told = logprob(&logits, 0, top, none).top;
            prop_assert_eq!(told.len(), top.min(logits.len()));
            prop_assert!(told.windows(2).all(|two| two[0].logprob >= two[1].logprob));
        }
    }
}
