//! Chooses the next token from the logits. Pure: nothing is remembered and nothing is random.
//!
//! The noise of a draw is a function of (seed, position, token), so that an answer can be continued
//! elsewhere from any position, and computed again by a checker. Sampling is done by the Gumbel-max
//! trick: the largest of `logit / temperature + noise` is distributed as softmax draws are
//! (Gumbel 1954; Maddison et al. 2014), and needs no running sum, whose rounding would depend on
//! the order of the vocabulary.
//!
//! Order: repetition penalty, bias, penalties, grammar, temperature, `top_k`, `top_p`, `min_p`, draw,
//! as in Hugging Face's `transformers` and vLLM. Ties go to the smaller id.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};
use tether_wire::infer::Sampling;

/// How often each token was drawn in this answer; for `frequency_penalty` and `presence_penalty` the
/// prompt does not count, as in OpenAI's API.
pub type Counts = BTreeMap<u32, u32>;

/// What a draw depends on beside the logits and the position.
#[derive(Clone, Copy)]
pub struct Given<'a> {
    /// The caller's parameters.
    pub sampling: &'a Sampling,
    /// The tokens of the answer so far.
    pub drawn: &'a Counts,
    /// Those of the prompt: `repetition_penalty` counts them too, as `transformers` and vLLM do.
    pub prompt: &'a BTreeSet<u32>,
    /// Whether a grammar allows a token; nothing where there is none.
    pub allowed: Option<&'a dyn Fn(u32) -> bool>,
}

#[derive(Clone, Copy)]
struct Candidate {
    id: u32,
    /// Logit over temperature, relative to the best: at most 0.
    score: f32,
}

/// Chooses a token; nothing when no logit of one that is allowed is a number above minus infinity.
#[must_use]
pub fn choose(position: u32, logits: &[f32], given: Given<'_>) -> Option<u32> {
    let logits = adjusted(logits, given);
    let sampling = given.sampling;
    let (best, top) = argmax(&logits)?;
    if sampling.temperature <= 0.0 || sampling.top_p <= 0.0 {
        return Some(best);
    }
    let mut candidates: Vec<Candidate> = (0u32..)
        .zip(&logits)
        .filter(|(_, logit)| **logit > f32::NEG_INFINITY)
        .map(|(id, logit)| Candidate {
            id,
            score: (logit - top) / sampling.temperature,
        })
        .collect();
    keep_top_k(&mut candidates, sampling.top_k as usize);
    keep_top_p(&mut candidates, sampling.top_p);
    keep_min_p(&mut candidates, sampling.min_p);
    // The noise is read from its stream in the order of ids.
    candidates.sort_unstable_by_key(|candidate| candidate.id);
    Some(draw(sampling.seed.unwrap_or(0), position, &candidates).unwrap_or(best))
}

/// Bias and penalties; what is not a number is never chosen.
fn adjusted(logits: &[f32], given: Given<'_>) -> Vec<f32> {
    let (sampling, drawn) = (given.sampling, given.drawn);
    let mut logits: Vec<f32> = logits
        .iter()
        .map(|logit| {
            if logit.is_nan() {
                f32::NEG_INFINITY
            } else {
                logit.min(f32::MAX)
            }
        })
        .collect();
    let repetition = sampling.repetition_penalty;
    #[expect(clippy::float_cmp, reason = "exactly one is none")]
    if repetition != 1.0 {
        let seen: BTreeSet<u32> = given.prompt.iter().chain(drawn.keys()).copied().collect();
        for id in seen {
            if let Some(logit) = logits.get_mut(id as usize) {
                *logit = if *logit > 0.0 {
                    (*logit / repetition).min(f32::MAX)
                } else {
                    *logit * repetition
                };
            }
        }
    }
    let mut add = |id: u32, by: f32| {
        if let Some(logit) = logits.get_mut(id as usize) {
            *logit = (*logit + by).min(f32::MAX);
        }
    };
    for (id, bias) in &sampling.logit_bias {
        add(*id, *bias);
    }
    if sampling.frequency_penalty != 0.0 || sampling.presence_penalty != 0.0 {
        for (id, count) in drawn {
            #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^24")]
            let penalty = *count as f32 * sampling.frequency_penalty + sampling.presence_penalty;
            add(*id, -penalty);
        }
    }
    if let Some(allowed) = given.allowed {
        for (id, logit) in (0u32..).zip(&mut logits) {
            if !allowed(id) {
                *logit = f32::NEG_INFINITY;
            }
        }
    }
    logits
}

fn argmax(logits: &[f32]) -> Option<(u32, f32)> {
    (0u32..)
        .zip(logits.iter().copied())
        .filter(|(_, logit)| *logit > f32::NEG_INFINITY)
        .reduce(|best, next| if next.1 > best.1 { next } else { best })
}

/// Best first; ties by id, so that a cut through a tie is deterministic.
fn by_rank(a: &Candidate, b: &Candidate) -> std::cmp::Ordering {
    b.score.total_cmp(&a.score).then(a.id.cmp(&b.id))
}

fn keep_top_k(candidates: &mut Vec<Candidate>, top_k: usize) {
    if top_k > 0 && top_k < candidates.len() {
        candidates.select_nth_unstable_by(top_k - 1, by_rank);
        candidates.truncate(top_k);
    }
}

/// The smallest set of the most likely tokens whose probability reaches `top_p`.
fn keep_top_p(candidates: &mut Vec<Candidate>, top_p: f32) {
    if top_p >= 1.0 {
        return;
    }
    candidates.sort_unstable_by(by_rank);
    let weight = |candidate: &Candidate| f64::from(candidate.score).exp();
    let enough = candidates.iter().map(weight).sum::<f64>() * f64::from(top_p);
    let mut sum = 0.0;
    let below = candidates
        .iter()
        .take_while(|candidate| {
            let more = sum < enough;
            sum += weight(candidate);
            more
        })
        .count();
    candidates.truncate(below.max(1));
}

/// Tokens at least `min_p` times as likely as the best, whose score is 0.
fn keep_min_p(candidates: &mut Vec<Candidate>, min_p: f32) {
    if min_p > 0.0 {
        let least = min_p.ln();
        candidates.retain(|candidate| candidate.score >= least);
    }
}

/// The candidates must be in the order of their ids.
fn draw(seed: u64, position: u32, candidates: &[Candidate]) -> Option<u32> {
    let mut noise = Noise::new(seed, position);
    candidates
        .iter()
        .map(|candidate| {
            let score = f64::from(candidate.score) + noise.gumbel(candidate.id);
            (candidate.id, score)
        })
        .reduce(|best, next| if next.1 > best.1 { next } else { best })
        .map(|(id, _)| id)
}

/// Counter-based noise: ChaCha8 keyed by the seed, the position as its stream, and the token's id as
/// the place in the stream.
struct Noise {
    generator: ChaCha8Rng,
    /// Id whose word comes next.
    next: u32,
}

impl Noise {
    fn new(seed: u64, position: u32) -> Self {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        key[8..].copy_from_slice(b"tether sampler noise v1\0");
        let mut generator = ChaCha8Rng::from_seed(key);
        generator.set_stream(u64::from(position));
        Self { generator, next: 0 }
    }

    fn gumbel(&mut self, id: u32) -> f64 {
        if id != self.next {
            self.generator.set_word_pos(u128::from(id) * 2);
        }
        self.next = id.wrapping_add(1);
        // 53 bits in (0, 1): never 0, never 1.
        #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
        let uniform = ((self.generator.next_u64() >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
        -(-uniform.ln()).ln()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sampling(temperature: f32, seed: u64) -> Sampling {
        Sampling {
            temperature,
            seed: Some(seed),
            ..Sampling::default()
        }
    }

    fn choose(position: u32, logits: &[f32], sampling: &Sampling, drawn: &Counts) -> Option<u32> {
        let given = Given {
            sampling,
            drawn,
            prompt: &BTreeSet::new(),
            allowed: None,
        };
        super::choose(position, logits, given)
    }

    fn pick(logits: &[f32], sampling: &Sampling) -> Option<u32> {
        choose(0, logits, sampling, &Counts::new())
    }

    #[test]
    fn repetition_makes_what_was_there_less_likely_also_of_the_prompt() {
        let mut penal = sampling(0.0, 0);
        penal.repetition_penalty = 2.0;
        let pick = |logits: &[f32], drawn: &[u32], prompt: &[u32]| {
            let drawn = drawn.iter().map(|id| (*id, 1)).collect();
            let given = Given {
                sampling: &penal,
                drawn: &drawn,
                prompt: &prompt.iter().copied().collect(),
                allowed: None,
            };
            super::choose(0, logits, given)
        };
        assert_eq!(pick(&[3.0, 2.0], &[], &[]), Some(0));
        assert_eq!(
            pick(&[3.0, 2.0], &[0], &[]),
            Some(1),
            "3 / 2 is less than 2"
        );
        assert_eq!(pick(&[3.0, 2.0], &[], &[0]), Some(1));
        assert_eq!(pick(&[-1.0, -1.5], &[0, 9], &[]), Some(1), "-1 * 2 is less");
        assert_eq!(pick(&[4.5, 2.0], &[0], &[0]), Some(0), "not twice");
    }

    #[test]
    fn what_a_grammar_forbids_is_never_chosen_whatever_its_bias() {
        for temperature in [0.0, 1.0] {
            let mut biased = sampling(temperature, 3);
            biased.logit_bias.insert(0, 100.0);
            let allowed = |ids: &'static [u32]| move |id: u32| ids.contains(&id);
            let pick = |allowed: &dyn Fn(u32) -> bool| {
                let given = Given {
                    sampling: &biased,
                    drawn: &Counts::new(),
                    prompt: &BTreeSet::new(),
                    allowed: Some(allowed),
                };
                super::choose(0, &[9.0, 1.0, 0.5], given)
            };
            assert_eq!(pick(&allowed(&[2])), Some(2));
            assert_eq!(pick(&allowed(&[])), None, "a dead end");
        }
    }

    /// How often each token comes in `draws` draws, one for each seed.
    fn histogram(logits: &[f32], draws: u64, base: &Sampling) -> Vec<f64> {
        let mut counts = vec![0.0; logits.len()];
        for seed in 0..draws {
            let sampling = Sampling {
                seed: Some(seed),
                ..base.clone()
            };
            counts[pick(logits, &sampling).expect("a token") as usize] += 1.0;
        }
        counts
    }

    #[test]
    fn tokens_come_as_often_as_softmax_says() {
        let logits: [f32; 6] = [2.0, 1.0, 0.0, -1.0, 1.5, f32::NEG_INFINITY];
        for temperature in [0.5f32, 1.0, 2.0] {
            let draws = 20_000;
            let seen = histogram(&logits, draws, &sampling(temperature, 0));
            let weights: Vec<f64> = logits
                .iter()
                .map(|logit| f64::from(logit / temperature).exp())
                .collect();
            let total: f64 = weights.iter().sum();
            let chi_square: f64 = weights
                .iter()
                .zip(&seen)
                .filter(|(weight, _)| **weight > 0.0)
                .map(|(weight, seen)| {
                    let expected = weight / total * draws as f64;
                    (seen - expected).powi(2) / expected
                })
                .sum();
            // Four degrees of freedom: 99.99 % of fair generators stay below 23.5.
            assert!(chi_square < 23.5, "{temperature}: {chi_square} {seen:?}");
            assert_eq!(seen[5], 0.0);
        }
    }

    #[test]
    fn positions_draw_independently_of_each_other() {
        let logits = [0.0; 64];
        let sampling = sampling(1.0, 7);
        let answer: Vec<_> = (0..64)
            .map(|position| choose(position, &logits, &sampling, &Counts::new()))
            .collect();
        let mut distinct = answer.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert!(distinct.len() > 25, "{answer:?}");
    }

    #[test]
    fn the_noise_of_a_token_does_not_depend_on_the_other_candidates() {
        let mut all = Noise::new(3, 9);
        let every: Vec<f64> = (0..500).map(|id| all.gumbel(id)).collect();
        for id in [0, 1, 2, 7, 8, 63, 64, 499] {
            let alone = Noise::new(3, 9).gumbel(id);
            assert_eq!(alone.to_bits(), every[id as usize].to_bits(), "{id}");
        }
    }

    #[test]
    fn temperature_zero_takes_the_best_and_the_smaller_id_of_two() {
        assert_eq!(pick(&[0.0, 3.0, 3.0], &sampling(0.0, 1)), Some(1));
        assert_eq!(pick(&[0.0, 3.0, 3.5], &sampling(0.0, 2)), Some(2));
    }

    #[test]
    fn top_p_zero_and_top_k_one_are_greedy() {
        for seed in 0..50 {
            let logits = [0.1, 0.2, 0.3, 0.2];
            let mut narrow = sampling(2.0, seed);
            narrow.top_p = 0.0;
            assert_eq!(pick(&logits, &narrow), Some(2));
            narrow.top_p = 1.0;
            narrow.top_k = 1;
            assert_eq!(pick(&logits, &narrow), Some(2));
            narrow.top_k = 0;
            narrow.min_p = 1.0;
            assert_eq!(pick(&logits, &narrow), Some(2));
        }
    }

    #[test]
    fn top_k_top_p_and_min_p_leave_only_the_likely() {
        // Probabilities 0.5, 0.25, 0.125, 0.125.
        let logits: Vec<f32> = [0.5f32, 0.25, 0.125, 0.125]
            .iter()
            .map(|p| p.ln())
            .collect();
        let support = |change: fn(&mut Sampling)| {
            let mut base = sampling(1.0, 0);
            change(&mut base);
            histogram(&logits, 2_000, &base)
                .iter()
                .map(|count| *count > 0.0)
                .collect::<Vec<_>>()
        };
        assert_eq!(support(|s| s.top_k = 3), [true, true, true, false]);
        assert_eq!(support(|s| s.top_p = 0.5), [true, false, false, false]);
        assert_eq!(support(|s| s.top_p = 0.6), [true, true, false, false]);
        assert_eq!(support(|s| s.min_p = 0.4), [true, true, false, false]);
        assert_eq!(support(|s| s.top_p = 0.99), [true, true, true, true]);
    }

    #[test]
    fn what_is_not_a_number_is_never_chosen() {
        let nan = f32::NAN;
        for temperature in [0.0, 1.0] {
            let sampling = sampling(temperature, 4);
            assert_eq!(pick(&[nan, nan, -5.0, nan], &sampling), Some(2));
            assert_eq!(pick(&[nan, f32::NEG_INFINITY], &sampling), None);
            assert_eq!(pick(&[], &sampling), None);
            assert_eq!(pick(&[0.0, f32::INFINITY], &sampling), Some(1));
        }
    }

    #[test]
    fn bias_forces_and_forbids() {
        let mut biased = sampling(1.0, 5);
        biased.logit_bias.insert(2, 100.0);
        biased.logit_bias.insert(9_999, 100.0);
        assert_eq!(pick(&[5.0, 0.0, -5.0], &biased), Some(2));
        biased.logit_bias.insert(2, -100.0);
        biased.logit_bias.insert(0, -100.0);
        assert_eq!(pick(&[5.0, 0.0, -5.0], &biased), Some(1));
    }

    #[test]
    fn penalties_count_what_was_drawn() {
        let mut penal = sampling(0.0, 0);
        let drawn = Counts::from([(0, 3), (1, 1)]);
        let logits = [2.0, 1.9, 0.9];
        assert_eq!(choose(0, &logits, &penal, &drawn), Some(0));
        penal.frequency_penalty = 0.5;
        assert_eq!(choose(0, &logits, &penal, &drawn), Some(1));
        penal.frequency_penalty = 0.0;
        penal.presence_penalty = 2.0;
        assert_eq!(choose(0, &logits, &penal, &drawn), Some(2));
        penal.presence_penalty = -2.0;
        assert_eq!(choose(0, &logits, &penal, &drawn), Some(0));
    }

    proptest! {
        #[test]
        fn the_choice_is_a_function_of_its_inputs(
            logits in proptest::collection::vec(-20f32..20.0, 1..40),
            position in 0u32..1_000_000,
            seed: u64,
            temperature in 0f32..2.0,
            top_p in 0f32..1.0,
            top_k in 0u32..50,
            min_p in 0f32..1.0,
        ) {
            let sampling = Sampling { temperature, top_p, top_k, min_p, seed: Some(seed), ..Sampling::default() };
            let first = choose(position, &logits, &sampling, &Counts::new());
            prop_assert!(first.is_some_and(|id| (id as usize) < logits.len()));
            prop_assert_eq!(first, choose(position, &logits, &sampling, &Counts::new()));
        }

        #[test]
        fn nothing_that_logits_can_be_makes_it_panic(
            logits in proptest::collection::vec(proptest::num::f32::ANY, 0..40),
            temperature in proptest::num::f32::ANY,
            top_p in proptest::num::f32::ANY,
            min_p in proptest::num::f32::ANY,
        ) {
            let sampling = Sampling { temperature, top_p, min_p, ..Sampling::default() };
            if let Some(id) = choose(0, &logits, &sampling, &Counts::new()) {
                prop_assert!((id as usize) < logits.len());
            }
        }
    }
}
