//! Each parameter changes what it should, and how likely tokens were is exact.

use super::*;
use crate::engine::protocol::Task;
use crate::text::sampler::{Counts, Given, choose};
use std::collections::{BTreeMap, BTreeSet};
use tether_tiny_model::reference::Reference;
use tether_wire::infer::TokenLogprob;

/// The same question with one parameter changed, to one engine.
fn changes(
    client: &mut Client,
    base: &Sampling,
    change: impl Fn(&mut Sampling),
) -> (Vec<u32>, Vec<u32>) {
    let mut changed = base.clone();
    change(&mut changed);
    let question = || chat("Count to 20.");
    (
        client.ask(question(), base).tokens,
        client.ask(question(), &changed).tokens,
    )
}

fn most_repeated(tokens: &[u32]) -> usize {
    let mut counts = BTreeMap::new();
    for token in tokens {
        *counts.entry(token).or_insert(0usize) += 1;
    }
    counts.into_values().max().unwrap_or(0)
}

#[test]
fn penalties_make_a_model_that_repeats_itself_do_it_less() {
    // Nearly indifferent between its tokens, so that little makes it change its mind.
    let (_folder, load) = random_model();
    let mut client = Client::loaded(&load);
    let base = Sampling {
        max_tokens: Some(40),
        ..greedy()
    };
    let kinds: [fn(&mut Sampling); 3] = [
        |s| s.frequency_penalty = 2.0,
        |s| s.presence_penalty = 2.0,
        |s| s.repetition_penalty = 5.0,
    ];
    for kind in kinds {
        let (plain, penal) = changes(&mut client, &base, kind);
        assert!(most_repeated(&penal) <= most_repeated(&plain), "{penal:?}");
        assert_ne!(plain, penal);
    }
}

#[test]
fn cuts_of_the_likely_make_a_hot_answer_the_greedy_one() {
    let hot = Sampling {
        temperature: 2.0,
        max_tokens: Some(20),
        ..warm(4)
    };
    let (_folder, mut client) = client();
    let cold = Sampling {
        temperature: 0.0,
        ..hot.clone()
    };
    let best = client.ask(chat("Count to 20."), &cold).tokens;
    let kinds: [fn(&mut Sampling); 3] = [|s| s.top_k = 1, |s| s.min_p = 1.0, |s| s.top_p = 0.0];
    for kind in kinds {
        let (plain, cut) = changes(&mut client, &hot, kind);
        assert_eq!(cut, best);
        assert_ne!(plain, best);
    }
}

#[test]
fn a_bias_forbids_a_token() {
    let (_folder, mut client) = client();
    let plain = client.ask(chat("Count to 20."), &greedy()).tokens;
    let mut biased = greedy();
    biased.logit_bias.insert(plain[0], -100.0);
    let other = client.ask(chat("Count to 20."), &biased).tokens;
    assert!(!other.contains(&plain[0]), "{other:?}");
}

/// The logits of the reference, which is our own arithmetic on the same file.
#[test]
fn how_likely_tokens_were_is_what_the_models_arithmetic_gives() {
    let (_folder, mut client) = client();
    for sampling in [greedy(), warm(2)] {
        let sampling = Sampling {
            top_logprobs: Some(5),
            max_tokens: Some(6),
            ..sampling
        };
        let got = client.ask(chat("What is the capital of France?"), &sampling);
        assert_eq!(got.logprobs.len(), got.tokens.len());
        for (token, told) in got.tokens.iter().zip(&got.logprobs) {
            assert_eq!(told.token, *token);
            assert_eq!(told.top.len(), 5);
            assert!(
                told.top
                    .windows(2)
                    .all(|two| two[0].logprob >= two[1].logprob)
            );
            let best: f64 = told.top.iter().map(|it| f64::from(it.logprob).exp()).sum();
            assert!(best <= 1.0 + 1e-6, "{best}");
            for top in &told.top {
                if top.token == *token {
                    assert_eq!(top.logprob.to_bits(), told.logprob.to_bits());
                }
            }
        }
        let bytes: Vec<u8> = got
            .logprobs
            .iter()
            .flat_map(|it| it.bytes.clone())
            .collect();
        assert_eq!(bytes, got.text.as_bytes());
        independent(&got.tokens, &got.logprobs);
    }
}

#[test]
fn a_bias_for_what_is_no_token_is_refused_by_name() {
    let (_folder, mut client) = client();
    // The model's own rows and its tokenizer's tokens are as many.
    let tokens = 768;
    for (id, is_one) in [(tokens - 1, true), (tokens, false), (u32::MAX, false)] {
        let mut biased = greedy();
        biased.logit_bias.extend([(5, 1.0), (id, 1.0)]);
        let got = client.ask(chat("What is the capital of France?"), &biased);
        assert_eq!(got.error.is_none(), is_one, "{id}: {got:?}");
        if let Some(error) = got.error {
            let named = (error.code, error.param.as_deref());
            assert_eq!(named, (Code::Invalid, Some("logit_bias")));
            assert!(error.message.contains(&id.to_string()), "{error}");
            assert!(got.tokens.is_empty());
        }
    }
}

/// Computes the same with the reference, whose sums are in another order: equal to a few digits.
fn independent(tokens: &[u32], told: &[TokenLogprob]) {
    let weights = tether_tiny_model::file(GGUF_FILE).expect("committed");
    let model = Reference::from_gguf(weights).expect("the committed model");
    let folder = tempfile::tempdir().expect("folder");
    for file in files() {
        std::fs::write(folder.path().join(file.name), file.bytes).expect("write");
    }
    let text = crate::text::prompt::TextModel::load(folder.path(), "tokenizer.json", 2_048);
    let prompt = text
        .expect("loads")
        .prompt(&chat("What is the capital of France?"), None)
        .expect("fits");
    let mut sequence = model.sequence();
    let mut logits = Vec::new();
    for token in prompt.tokens {
        logits = sequence.push(token);
    }
    for (token, told) in tokens.iter().zip(told) {
        let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = logits
            .iter()
            .map(|logit| f64::from(logit - most).exp())
            .sum();
        let expected = f64::from(logits[*token as usize] - most) - sum.ln();
        let difference = (f64::from(told.logprob) - expected).abs();
        assert!(difference < 0.15, "{} and {expected}", told.logprob);
        logits = sequence.push(*token);
    }
}

#[test]
fn what_is_told_is_the_models_own_opinion_whatever_the_parameters() {
    let (_folder, mut client) = client();
    let first = |client: &mut Client, change: fn(&mut Sampling)| {
        let mut sampling = Sampling {
            top_logprobs: Some(3),
            max_tokens: Some(1),
            ..greedy()
        };
        change(&mut sampling);
        let got = client.perform(Task::new(chat("Hello"), sampling));
        got.logprobs[0].top.clone()
    };
    let plain = first(&mut client, |_| {});
    assert_eq!(first(&mut client, |s| s.temperature = 2.0), plain);
    let banned = first(&mut client, |s| {
        s.logit_bias = (0..512)
            .filter(|id| *id != 40)
            .map(|id| (id, -100.0))
            .collect();
    });
    assert_eq!(banned, plain, "before the bias");
}

#[test]
fn a_draw_is_a_function_of_seed_position_and_logits() {
    let logits: Vec<f32> = (0..512u16).map(|n| f32::from(n % 37) / 9.0).collect();
    let sampling = warm(6);
    let draw = |position| {
        let given = Given {
            sampling: &sampling,
            drawn: &Counts::new(),
            prompt: &BTreeSet::new(),
            allowed: None,
        };
        choose(position, &logits, given)
    };
    let first: Vec<_> = (0..50).map(draw).collect();
    let again: Vec<_> = (0..50).rev().map(draw).rev().collect();
    assert_eq!(first, again);
}

#[test]
fn parameters_that_cannot_be_never_reach_the_model() {
    let (_folder, mut client) = client();
    type Change = fn(&mut Sampling);
    let wrong: [(&str, Change); 6] = [
        ("temperature", |s| s.temperature = -1.0),
        ("temperature", |s| s.temperature = f32::NAN),
        ("top_p", |s| s.top_p = 7.0),
        ("min_p", |s| s.min_p = f32::INFINITY),
        ("repetition_penalty", |s| s.repetition_penalty = 0.0),
        ("max_tokens", |s| s.max_tokens = Some(0)),
    ];
    for (name, change) in wrong {
        let mut sampling = greedy();
        change(&mut sampling);
        let error = client.ask(chat("Hello"), &sampling).error.expect("refused");
        assert_eq!(
            (error.code, error.param.as_deref()),
            (Code::Invalid, Some(name))
        );
    }
    for empty in [Input::Text(String::new()), Input::Text("<|nothing".into())] {
        let got = client.ask(empty.clone(), &greedy());
        let is_empty = empty == Input::Text(String::new());
        assert_eq!(got.error.is_some(), is_empty, "{got:?}");
    }
}

/// A model may have more rows than its tokenizer has tokens.
#[test]
fn rows_beyond_the_vocabulary_are_never_drawn() {
    let (folder, _) = small_model();
    let text = crate::text::prompt::TextModel::load(folder.path(), "tokenizer.json", 64);
    let text = text.expect("loads");
    let task = Task::new(chat("Hello"), greedy());
    let prompt = text.prompt(&task.input, None).expect("fits");
    let mut answering = text.answer(&prompt, &task).expect("begins");
    let mut logits = vec![0.0; text.vocabulary() + 100];
    logits[7] = 1.0;
    logits[text.vocabulary() + 3] = 50.0;
    assert_eq!(answering.draw(&logits), Ok(7));
}
