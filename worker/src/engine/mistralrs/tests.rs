//! Through the whole conversation, with the committed small model.

mod adapters;
mod continuation;
mod forms;
mod parameters;

use crate::engine::child::conversation::client::{Client, Got, chat, greedy, model_load};
use crate::engine::protocol::{FromEngine, Load, ToEngine};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tether_tiny_model::{GGUF_FILE, files, questions, write_random_hf};
use tether_wire::infer::{Finish, Input, Sampling};
use tether_wire::manifest::Format;
use tether_wire::rpc::Code;

fn small_model() -> (TempDir, Load) {
    let folder = tempfile::tempdir().expect("folder");
    for file in files() {
        std::fs::write(folder.path().join(file.name), file.bytes).expect("write");
    }
    let load = model_load(folder.path(), GGUF_FILE, Format::Gguf);
    (folder, load)
}

/// Untrained: every token is about as likely as any other, so that the last bits of logits decide.
fn random_model() -> (TempDir, Load) {
    let folder = tempfile::tempdir().expect("folder");
    write_random_hf(folder.path(), 7).expect("written");
    let load = model_load(folder.path(), "model.safetensors", Format::Safetensors);
    (folder, load)
}

fn client() -> (TempDir, Client) {
    let (folder, load) = small_model();
    (folder, Client::loaded(&load))
}

fn warm(seed: u64) -> Sampling {
    Sampling {
        temperature: 0.8,
        seed: Some(seed),
        max_tokens: Some(40),
        ..Sampling::default()
    }
}

#[test]
fn the_model_answers_questions_and_counts_exactly() {
    let (_folder, mut client) = client();
    let exam = questions::exam();
    let step = exam.len() / 20;
    let mut wrong = Vec::new();
    let began = Instant::now();
    let mut tokens = 0;
    for (question, expected) in exam.iter().step_by(step).take(20) {
        let got = client.ask(chat(question), &greedy());
        let (finish, usage) = got.done.expect("it ends well");
        assert_eq!(finish, Finish::Stop, "{question}: {}", got.text);
        assert_eq!(got.chunks, usage.completion_tokens as usize);
        tokens += usage.completion_tokens;
        if !got.text.contains(expected.as_str()) {
            wrong.push(format!("{question}: {:?}, not {expected:?}", got.text));
        }
    }
    eprintln!("{tokens} tokens in {:?}", began.elapsed());
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_same_seed_gives_the_same_answer_and_another_seed_another() {
    let (_folder, mut client) = client();
    let hot = |seed| Sampling {
        temperature: 2.0,
        ..warm(seed)
    };
    let ask = |client: &mut Client, seed| client.ask(chat("Hello"), &hot(seed)).tokens;
    let first = ask(&mut client, 1);
    assert_eq!(first, ask(&mut client, 1));
    let others: Vec<_> = (2..6).map(|seed| ask(&mut client, seed)).collect();
    assert!(others.iter().any(|other| *other != first), "{first:?}");
    // Also in another process, which is another engine with the same numerics class.
    let (_other_folder, mut other) = self::client();
    assert_eq!(first, ask(&mut other, 1));
}

#[test]
fn answers_given_at_once_are_those_given_alone() {
    let (_folder, mut client) = client();
    let questions = [
        "What is the capital of France?",
        "What is 2 + 2?",
        "Count to 20.",
        "Who are you?",
    ];
    for sampling in [greedy(), warm(3)] {
        let requests: Vec<(Input, Sampling)> = questions
            .iter()
            .map(|question| (chat(question), sampling.clone()))
            .collect();
        let alone: Vec<Got> = requests
            .iter()
            .map(|(input, sampling)| client.ask(input.clone(), sampling))
            .collect();
        let together = client.ask_all(requests);
        for (alone, together) in alone.iter().zip(&together) {
            assert_eq!(alone.tokens, together.tokens, "{:?}", sampling.temperature);
        }
    }
    // Prompts of one length, which mistral.rs would compute as one batch.
    let requests: Vec<_> = (0..4)
        .map(|seed| (chat("Count to 20."), warm(seed)))
        .collect();
    let alone: Vec<_> = requests
        .iter()
        .map(|(input, sampling)| client.ask(input.clone(), sampling).tokens)
        .collect();
    let together = client.ask_all(requests);
    assert_eq!(
        alone,
        together
            .into_iter()
            .map(|got| got.tokens)
            .collect::<Vec<_>>()
    );
}

#[test]
fn a_cancelled_answer_stops_and_its_neighbours_and_successors_do_not() {
    let (_folder, mut client) = client();
    let long = client.begin(chat("Count to 200."), &greedy());
    let neighbour = client.begin(chat("Count to 50."), &greedy());
    let mut all = BTreeMap::new();
    while all.get(&long).is_none_or(|got: &Got| got.chunks < 5) {
        client.take(&mut all);
    }
    client.send(&ToEngine::Cancel { id: long });
    while ![long, neighbour]
        .iter()
        .all(|id| all.get(id).is_some_and(Got::ended))
    {
        client.take(&mut all);
    }
    assert!(
        all[&neighbour].text.contains("48 49 50"),
        "{:?}",
        all[&neighbour]
    );
    let shown = all[&long].chunks;
    let next = client.ask(chat("What is the capital of France?"), &greedy());
    assert!(next.text.contains("Paris"), "{next:?}");
    assert!(shown < 500 && all[&long].cancelled, "{shown}");
}

#[test]
fn an_answer_cancelled_while_it_waits_for_its_turn_takes_none() {
    let (_folder, mut client) = client();
    let first = client.begin(chat("Count to 100."), &greedy());
    let mut all = BTreeMap::new();
    while all.get(&first).is_none_or(|got: &Got| got.chunks == 0) {
        client.take(&mut all);
    }
    let waiting = client.begin(chat("Count to 200."), &greedy());
    client.send(&ToEngine::Cancel { id: waiting });
    let last = client.begin(chat("What is the capital of France?"), &greedy());
    // At once, and not when the one before it has ended.
    while !all.get(&waiting).is_some_and(Got::ended) {
        client.take(&mut all);
    }
    assert!(all[&waiting].cancelled && !all[&first].ended());
    while ![first, last]
        .iter()
        .all(|id| all.get(id).is_some_and(Got::ended))
    {
        client.take(&mut all);
    }
    assert!(all[&first].text.contains("98 99 100"));
    assert!(all[&last].text.contains("Paris"));
    assert_eq!(all[&waiting].prompt_tokens, None, "its turn never came");
}

#[test]
fn an_answer_cancelled_while_its_prompt_is_read_is_gone_before_the_next_has_its_turn() {
    let (_folder, mut client) = client();
    let mut endless = greedy();
    endless.logit_bias.insert(1, -100.0);
    let long = client.begin(chat(&"all the words ".repeat(150)), &endless);
    let mut all: BTreeMap<u64, Got> = BTreeMap::new();
    while all.get(&long).is_none_or(|got| got.prompt_tokens.is_none()) {
        client.take(&mut all);
    }
    client.send(&ToEngine::Cancel { id: long });
    while !all[&long].ended() {
        client.take(&mut all);
    }
    assert!(all[&long].cancelled, "{:?}", all[&long]);
    let next = client.ask(chat("What is the capital of France?"), &greedy());
    assert!(next.text.contains("Paris"), "{next:?}");
}

#[test]
fn max_tokens_and_stop_strings_end_an_answer_exactly() {
    let (_folder, mut client) = client();
    let whole = client.ask(chat("Count to 20."), &greedy());
    for max in [1, 2, 7] {
        let sampling = Sampling {
            max_tokens: Some(max),
            ..greedy()
        };
        let got = client.ask(chat("Count to 20."), &sampling);
        let (finish, usage) = got.done.expect("done");
        assert_eq!((finish, usage.completion_tokens), (Finish::Length, max));
        assert_eq!(got.tokens, whole.tokens[..max as usize]);
        assert!(whole.text.starts_with(&got.text));
    }
    let sampling = Sampling {
        stop: vec![" 12 13".to_owned(), "99".to_owned()],
        ..greedy()
    };
    let got = client.ask(chat("Count to 20."), &sampling);
    assert!(got.text.ends_with("10 11"), "{:?}", got.text);
    assert_eq!(got.done.expect("done").0, Finish::Stop);
    assert!(got.tokens.len() < whole.tokens.len());
    assert_eq!(got.tokens, whole.tokens[..got.tokens.len()]);
}

#[test]
fn every_chunk_is_whole_characters_whatever_the_model_draws() {
    let (_folder, mut client) = client();
    for seed in 0..4 {
        // Any token is as likely as any other, so most bytes of characters come alone.
        let mut sampling = warm(seed);
        sampling.temperature = 2.0;
        sampling.max_tokens = Some(60);
        sampling.logit_bias.insert(1, -100.0);
        let got = client.ask(chat("Hello"), &sampling);
        let (finish, usage) = got.done.expect("it ends well, also within a character");
        assert_eq!((finish, usage.completion_tokens), (Finish::Length, 60));
    }
}

#[test]
fn bias_and_parameters_reach_the_model() {
    let (_folder, mut client) = client();
    let mut forced = greedy();
    forced.max_tokens = Some(3);
    forced.logit_bias.insert(40, 100.0);
    assert_eq!(client.ask(chat("Hello"), &forced).tokens, [40, 40, 40]);
    let wrong = Sampling {
        temperature: -1.0,
        ..greedy()
    };
    let error = client.ask(chat("Hello"), &wrong).error.expect("refused");
    assert_eq!(error.code, Code::Invalid);
    assert!(error.message.contains("temperature"), "{error}");
}

#[test]
fn the_context_is_never_overrun() {
    let (_folder, mut load) = small_model();
    load.context_tokens = 40;
    let mut client = Client::loaded(&load);
    let got = client.ask(chat("Count to 200."), &greedy());
    let (finish, usage) = got.done.expect("done");
    assert_eq!(finish, Finish::Length);
    assert_eq!(usage.prompt_tokens + usage.completion_tokens, 40);
    let error = client
        .ask(chat(&"long ".repeat(60)), &greedy())
        .error
        .expect("too long");
    assert_eq!(
        (error.code, error.param.as_deref()),
        (Code::Invalid, Some("messages"))
    );
    let one = client.ask(Input::Text("a".to_owned()), &greedy());
    assert_eq!(one.prompt_tokens, Some(1));
    assert!(one.done.is_some(), "a prompt of one token is answered");
}

#[test]
fn a_turn_begins_when_the_one_before_has_ended() {
    let (_folder, mut client) = client();
    let first = client.begin(chat("Count to 50."), &greedy());
    let second = client.begin(chat("What is the capital of France?"), &greedy());
    let mut all: BTreeMap<u64, Got> = BTreeMap::new();
    while all.get(&second).is_none_or(|got| !got.ended()) {
        client.take(&mut all);
        // Counted on threads beside, either may be first.
        let begun = [first, second].map(|id| all.get(&id).is_some_and(|got| !got.ended()));
        assert_ne!(begun, [true, true], "one sequence at a time");
    }
}

#[test]
fn prompts_far_over_the_context_are_refused_uncounted() {
    let (_folder, mut client) = client();
    let long = "word ".repeat(380_000);
    let requests = (0..60).map(|_| (chat(&long), greedy())).collect();
    for got in client.ask_all(requests) {
        let error = got.error.expect("refused");
        assert_eq!(error.code, Code::Invalid);
        assert!(error.message.contains("has at least"), "{error}");
    }
    let next = client.ask(chat("What is the capital of France?"), &greedy());
    assert!(next.text.contains("Paris"), "{next:?}");
}

#[test]
fn a_reader_that_pauses_loses_nothing_and_stalls_nobody() {
    let (_folder, mut client) = client();
    let slow = client.begin(chat("Count to 100."), &greedy());
    let other = client.begin(chat("Count to 100."), &greedy());
    let mut all = BTreeMap::new();
    client.take(&mut all);
    // The engine goes on meanwhile; what it says waits in the outbox and the socket.
    std::thread::sleep(Duration::from_secs(1));
    while ![slow, other]
        .iter()
        .all(|id| all.get(id).is_some_and(Got::ended))
    {
        client.take(&mut all);
    }
    // Given at its own pace, and not at the reader's.
    assert!(all[&slow].decode_ms < 60_000);
    assert_eq!(all[&slow].text, all[&other].text);
    assert!(all[&slow].text.contains("98 99 100"));
}

#[test]
fn a_random_model_in_safetensors_loads_and_counts_exactly() {
    let folder = tempfile::tempdir().expect("folder");
    write_random_hf(folder.path(), 7).expect("written");
    let load = model_load(folder.path(), "model.safetensors", Format::Safetensors);
    let mut client = Client::loaded(&load);
    let mut sampling = warm(9);
    sampling.max_tokens = Some(25);
    let got = client.ask(chat("Hello"), &sampling);
    let (_, usage) = got.done.as_ref().expect("done");
    assert_eq!(usage.completion_tokens as usize, got.tokens.len());
    assert_eq!(got.tokens, client.ask(chat("Hello"), &sampling).tokens);
}

#[test]
fn what_is_missing_is_named_and_never_asked_for_elsewhere() {
    for (missing, format) in [
        ("tokenizer.json", Format::Gguf),
        (GGUF_FILE, Format::Gguf),
        ("config.json", Format::Safetensors),
    ] {
        let (folder, mut load) = small_model();
        load.format = format;
        std::fs::remove_file(folder.path().join(missing)).expect("removed");
        let mut client = Client::start();
        client.send(&ToEngine::Load(load));
        let Some(FromEngine::LoadFailed { reason }) = client.receive() else {
            panic!("{missing}: it must fail");
        };
        assert!(reason.contains(missing), "{reason}");
    }
}
