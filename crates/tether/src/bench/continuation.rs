//! Answers taken up again from each place: how often the two ways to do it give something else than
//! the undisturbed answer, and how long they take.

use super::direct::Engine;
use super::report::{Report, median};
use serde_json::json;
use std::path::Path;
use tether_tiny_model::{GGUF_FILE, write_random_hf};
use tether_wire::infer::{Input, Message, Sampling, Speaker};
use tether_wire::manifest::Format;
use tether_worker::device::Compute;
use tether_worker::engine::protocol::{Continuation, EngineKind, Load, Task};

/// Tokens of each answer.
const TOKENS: u32 = 64;
/// Places apart.
const STEP: usize = 4;
/// Where the time is taken.
const TIMED_AT: usize = 60;
/// Context of both models that is used.
const CONTEXT_TOKENS: u32 = 2_048;

const QUESTIONS: [&str; 4] = [
    "Count to 200.",
    "Hello",
    "What is the capital of France?",
    "Who are you?",
];

/// What one way came to.
#[derive(Default)]
struct Found {
    continuations: u32,
    other_tokens: u32,
    other_bits: u32,
    first_ms: Vec<f64>,
}

pub(super) async fn measure(runs: u32) -> anyhow::Result<Report> {
    let folder = tempfile::tempdir()?;
    let (trained, random) = (folder.path().join("gguf"), folder.path().join("random"));
    std::fs::create_dir_all(&trained)?;
    std::fs::create_dir_all(&random)?;
    for file in tether_tiny_model::files() {
        std::fs::write(trained.join(file.name), file.bytes)?;
    }
    write_random_hf(&random, 7)?;
    let models = [
        ("GGUF, Q8_0", trained, GGUF_FILE, Format::Gguf),
        (
            "safetensors, F32",
            random,
            "model.safetensors",
            Format::Safetensors,
        ),
    ];
    let mut table = "| model | way | answers taken up | other tokens | other last bits | first new token, ms |\n|---|---|---|---|---|---|\n".to_owned();
    let mut threads_table = String::new();
    let mut all = Vec::new();
    for (name, root, weights, format) in &models {
        for (way, continuation) in [
            ("replay", Continuation::Replay),
            ("prefill", Continuation::Prefill),
        ] {
            let load = load(root, weights, *format, continuation, 0);
            let found = take_up(&load, runs).await?;
            let first_ms = median(&found.first_ms);
            table += &format!(
                "| {name} | {way} | {} | {} | {} | {first_ms:.1} |\n",
                found.continuations, found.other_tokens, found.other_bits
            );
            all.push(json!({
                "model": name, "way": way, "continuations": found.continuations,
                "other_tokens": found.other_tokens, "other_bits": found.other_bits,
                "first_ms": found.first_ms,
            }));
        }
        let (answers, other) = threads(root, weights, *format, runs).await?;
        threads_table += &format!("| {name} | {answers} | {other} |\n");
        all.push(json!({"model": name, "answers": answers, "differ_by_threads": other}));
    }
    table += "\n| model | answers with one thread and with two | that differ in a bit |\n|---|---|---|\n";
    table += &threads_table;
    Ok(Report::new("continuation", runs, table, json!(all)))
}

fn load(
    root: &Path,
    weights: &str,
    format: Format,
    continuation: Continuation,
    threads: u32,
) -> Load {
    Load {
        kind: EngineKind::Mistralrs,
        root: root.to_owned(),
        has_adapter: false,
        weights: weights.to_owned(),
        tokenizer: None,
        format,
        context_tokens: CONTEXT_TOKENS,
        threads,
        slots: 1,
        model_name: "bench".to_owned(),
        continuation,
        echo_delay_ms: 0,
        compute: Compute::default(),
        confine: tether_worker::sandbox::Confine::default(),
    }
}

/// The answers of one run: a question each, greedy and warm.
fn tasks(run: u32) -> Vec<Task> {
    let task = |question: &str, temperature| {
        let sampling = Sampling {
            temperature,
            seed: Some(u64::from(run)),
            max_tokens: Some(TOKENS),
            top_logprobs: Some(0),
            // Not to end early: the end of an answer is one token of the small model.
            logit_bias: [(1, -100.0)].into(),
            ..Sampling::default()
        };
        let message = Message::new(Speaker::User, question);
        Task::new(Input::Chat(vec![message]), sampling)
    };
    QUESTIONS
        .iter()
        .flat_map(|question| [task(question, 0.0), task(question, 0.8)])
        .collect()
}

async fn take_up(load: &Load, runs: u32) -> anyhow::Result<Found> {
    let mut engine = Engine::load(load).await?;
    let mut found = Found::default();
    for run in 0..runs {
        for task in tasks(run) {
            let whole = engine.perform(task.clone()).await?;
            for given in (STEP..whole.tokens.len()).step_by(STEP) {
                let transcript = whole.tokens[..given].to_vec();
                let rest = engine
                    .perform(Task {
                        transcript,
                        ..task.clone()
                    })
                    .await?;
                found.continuations += 1;
                found.other_tokens += u32::from(rest.tokens != whole.tokens[given..]);
                found.other_bits += u32::from(rest.logprob_bits != whole.logprob_bits[given..]);
                if given == TIMED_AT {
                    found.first_ms.extend(rest.first_ms);
                }
            }
        }
    }
    Ok(found)
}

/// Answers of engines with one thread and with two, and how many differ.
async fn threads(
    root: &Path,
    weights: &str,
    format: Format,
    runs: u32,
) -> anyhow::Result<(u32, u32)> {
    let way = Continuation::Replay;
    let mut one = Engine::load(&load(root, weights, format, way, 1)).await?;
    let mut two = Engine::load(&load(root, weights, format, way, 2)).await?;
    let (mut answers, mut other) = (0, 0);
    for run in 0..runs {
        for task in tasks(run) {
            let (first, second) = (one.perform(task.clone()).await?, two.perform(task).await?);
            answers += 1;
            other += u32::from(
                first.logprob_bits != second.logprob_bits || first.tokens != second.tokens,
            );
        }
    }
    Ok((answers, other))
}
