//! An answer that is taken up again is the one that would have come. (SCH-8) [T-INF-11]

use super::*;
use crate::engine::protocol::{Continuation, Task};
use tether_wire::infer::{Format as Form, Output};

/// What is asked of each model: greedy and warm, with penalties, with stop strings over the borders
/// of tokens, with a form, and among single bytes of characters.
fn tasks() -> Vec<(&'static str, Task)> {
    let task = |question: &str, sampling: Sampling| Task::new(chat(question), sampling);
    let mut bytes = warm(5);
    // Any token is as likely as any other, so that most bytes of characters come alone.
    bytes.temperature = 2.0;
    bytes.logit_bias.insert(1, -100.0);
    bytes.max_tokens = Some(24);
    let schema = r#"{"type":"object","properties":{"a":{"type":"string","maxLength":12},
        "b":{"type":"boolean"}},"required":["a","b"],"additionalProperties":false}"#;
    vec![
        ("greedy", task("Count to 20.", greedy())),
        ("warm", task("Hello", warm(3))),
        (
            "penalties",
            task(
                "Count to 12.",
                Sampling {
                    frequency_penalty: 0.5,
                    presence_penalty: 0.4,
                    repetition_penalty: 1.2,
                    ..warm(8)
                },
            ),
        ),
        (
            "stop",
            task(
                "Count to 20.",
                Sampling {
                    stop: vec![" 12 13".to_owned(), "99".to_owned()],
                    ..greedy()
                },
            ),
        ),
        ("bytes", task("Hello", bytes)),
        (
            "schema",
            Task {
                output: Output {
                    format: Form::JsonSchema(schema.to_owned()),
                    ..Output::default()
                },
                ..task("Hello", warm(11))
            },
        ),
    ]
}

fn continued(task: &Task, whole: &Got, given: usize) -> Task {
    Task {
        transcript: whole.tokens[..given].to_vec(),
        ..task.clone()
    }
}

fn from_every_position(load: &Load) {
    let mut client = Client::loaded(load);
    for (name, mut task) in tasks() {
        task.sampling.max_tokens = Some(task.sampling.max_tokens.unwrap_or(40).min(40));
        task.sampling.top_logprobs = Some(2);
        let whole = client.perform(task.clone());
        assert!(whole.done.is_some(), "{name}: {whole:?}");
        let mut said_after = Vec::new();
        for given in 0..=whole.tokens.len() {
            let rest = client.perform(continued(&task, &whole, given));
            assert_eq!(rest.tokens, whole.tokens[given..], "{name} from {given}");
            assert_eq!(rest.done, whole.done, "{name} from {given}");
            assert_eq!(rest.prompt_tokens, whole.prompt_tokens);
            assert_eq!(
                rest.logprobs,
                whole.logprobs[given..],
                "{name}: to the last bit"
            );
            assert_eq!(rest.retold, whole.tokens[..given], "{name} from {given}");
            assert_eq!(
                rest.retold_text + &rest.text,
                whole.text,
                "{name} from {given}"
            );
            said_after.push(rest.text);
        }
        // What a caller was given before is the rest of it: nothing twice, nothing lost.
        assert_eq!(said_after[0], whole.text);
        assert!(said_after.windows(2).all(|two| two[0].ends_with(&two[1])));
    }
}

#[test]
fn an_answer_goes_on_from_every_position_as_it_would_have() {
    let (_folder, load) = small_model();
    from_every_position(&load);
}

#[test]
fn so_does_one_of_an_untrained_model_in_safetensors() {
    let (_folder, load) = random_model();
    from_every_position(&load);
}

#[test]
fn what_cannot_be_a_beginning_of_the_answer_is_refused() {
    let (_folder, mut client) = client();
    let whole = client.ask(chat("Count to 5."), &greedy());
    let mut ask = |transcript: Vec<u32>, max_tokens: Option<u32>, output: Output| {
        let sampling = Sampling {
            max_tokens,
            ..greedy()
        };
        let error = client
            .perform(Task {
                transcript,
                output,
                ..Task::new(chat("Count to 5."), sampling)
            })
            .error
            .expect("refused");
        assert_eq!(
            (error.code, error.param.as_deref()),
            (Code::Invalid, Some("transcript")),
            "{error}"
        );
        error.message
    };
    let beyond: Vec<u32> = whole.tokens.iter().copied().chain([40]).collect();
    let plain = Output::default;
    assert!(ask(beyond, None, plain()).contains("behind the answer's end"));
    assert!(ask(whole.tokens[..3].to_vec(), Some(2), plain()).contains("end"));
    assert!(ask(vec![40, 99_999], None, plain()).contains("99999"));
    let json = Output {
        format: Form::JsonObject,
        ..plain()
    };
    assert!(ask(whole.tokens[..3].to_vec(), None, json).contains("form"));
}

#[test]
fn one_seed_gives_one_answer_a_hundred_times_alone_and_beside_others() {
    for (_folder, load) in [small_model(), random_model()] {
        let mut client = Client::loaded(&load);
        let sampling = Sampling {
            max_tokens: Some(12),
            ..warm(3)
        };
        let first = client.ask(chat("Hello"), &sampling).tokens;
        for _ in 0..50 {
            assert_eq!(client.ask(chat("Hello"), &sampling).tokens, first);
        }
        for round in 0..10 {
            let mut requests = vec![(chat("Hello"), sampling.clone()); 5];
            let other = Sampling {
                seed: Some(round),
                ..sampling.clone()
            };
            requests.insert(2, (chat("Hello"), other.clone()));
            requests.insert(0, (chat("Count to 9."), other));
            let together = client.ask_all(requests);
            for at in [1, 2, 4, 5, 6] {
                assert_eq!(together[at].tokens, first);
            }
        }
    }
}

#[test]
fn the_quick_way_gives_a_whole_answer_too() {
    let (_folder, mut load) = small_model();
    load.continuation = Continuation::Prefill;
    let mut client = Client::loaded(&load);
    let task = Task::new(chat("Count to 20."), greedy());
    let whole = client.perform(task.clone());
    for given in [0, 1, 7, whole.tokens.len()] {
        let rest = client.perform(continued(&task, &whole, given));
        assert_eq!(rest.done, whole.done);
        assert_eq!(rest.tokens.len() + given, whole.tokens.len());
    }
}
