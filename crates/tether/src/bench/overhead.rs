//! The same questions to the engine alone and through the mesh, in turns.

use super::direct::Engine;
use super::mesh::Mesh;
use super::report::{Report, median};
use serde_json::{Value, json};
use std::time::Duration;

/// Questions to each side before it counts: connections are made, caches are warm.
const WARM_UP: u32 = 3;

/// What is asked.
pub(super) struct Question {
    name: &'static str,
    pub(super) text: &'static str,
    pub(super) max_tokens: u32,
}

const QUESTIONS: [Question; 2] = [
    Question {
        name: "short answer",
        text: "What is the capital of France?",
        max_tokens: 32,
    },
    Question {
        name: "long answer",
        text: "Count to 200.",
        max_tokens: 256,
    },
];

/// Times of one answer, in milliseconds.
pub(super) struct Sample {
    first_ms: f64,
    per_token_ms: f64,
    total_ms: f64,
    tokens: u64,
}

impl Sample {
    pub(super) fn new(first: Duration, total: Duration, tokens: u64) -> Self {
        let further = u32::try_from(tokens.saturating_sub(1))
            .unwrap_or(u32::MAX)
            .max(1);
        Self {
            first_ms: first.as_secs_f64() * 1e3,
            per_token_ms: total.saturating_sub(first).as_secs_f64() * 1e3 / f64::from(further),
            total_ms: total.as_secs_f64() * 1e3,
            tokens,
        }
    }
}

/// A measure of a sample, and its name.
type Measure = (&'static str, fn(&Sample) -> f64);

const MEASURES: [Measure; 3] = [
    ("first token", |sample| sample.first_ms),
    ("each further token", |sample| sample.per_token_ms),
    ("whole answer", |sample| sample.total_ms),
];

pub(super) async fn measure(runs: u32) -> anyhow::Result<Report> {
    let mesh = Mesh::start().await?;
    let mut engine = Engine::start(&mesh.model_dir()?).await?;
    let mut table =
        "| ms | engine alone | through the mesh | difference | ratio |\n|---|---|---|---|---|\n"
            .to_owned();
    let mut all = serde_json::Map::new();
    for question in &QUESTIONS {
        let (mut alone, mut through) = (Vec::new(), Vec::new());
        for run in 0..WARM_UP + runs {
            let pair = (engine.ask(question).await?, mesh.ask(question).await?);
            if run >= WARM_UP {
                alone.push(pair.0);
                through.push(pair.1);
            }
        }
        let tokens = alone.first().map_or(0, |sample| sample.tokens);
        let mut samples = serde_json::Map::from_iter([("tokens".to_owned(), json!(tokens))]);
        for (measure, of) in MEASURES {
            let (alone, through) = (values(&alone, of), values(&through, of));
            let (a, t) = (median(&alone), median(&through));
            table.push_str(&format!(
                "| {}, {tokens} tokens: {measure} | {a:.3} | {t:.3} | {:.3} | {:.2} |\n",
                question.name,
                t - a,
                t / a
            ));
            let both = json!({"engine_ms": alone, "mesh_ms": through, "ratio": t / a});
            samples.insert(measure.to_owned(), both);
        }
        all.insert(question.name.to_owned(), Value::Object(samples));
    }
    mesh.stop().await?;
    Ok(Report::new("overhead", runs, table, Value::Object(all)))
}

fn values(samples: &[Sample], of: fn(&Sample) -> f64) -> Vec<f64> {
    samples.iter().map(of).collect()
}
