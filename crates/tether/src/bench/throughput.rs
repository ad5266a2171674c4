//! Tokens in a second with one, four and sixteen answers at once: through the mesh, by mistral.rs
//! driven directly, and by llama.cpp's server, on the same files.
//!
//! # Layout
//!
//! * `programs` – the builds of this program that are measured
//! * `models` – the small model, and one of a size at which arithmetic counts
//! * `sides` – who is asked, and how
//! * `table` – what was found

mod models;
mod programs;
mod server;
mod sides;
mod table;

use super::report::Report;
use clap::Args;
use models::Measured;
use programs::Programs;
use serde_json::json;
use sides::Side;
use std::path::PathBuf;
use table::Row;

/// Most answers at once.
const MAX_STREAMS: u16 = 16;

/// See [`super::BenchCommand`].
#[derive(Debug, Args)]
pub(crate) struct ThroughputArgs {
    /// Number of runs that count
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    /// Answers at once
    #[arg(long, value_delimiter = ',', default_value = "1,4,16", value_parser = clap::value_parser!(u16).range(1..=i64::from(MAX_STREAMS)))]
    streams: Vec<u16>,
    /// Most tokens of each answer of the small model
    #[arg(long, default_value_t = 128)]
    tokens: u32,
    /// Most tokens of each answer of the larger model
    #[arg(long, default_value_t = 32)]
    large_tokens: u32,
    /// llama.cpp's server, which is then asked, too
    #[arg(long, value_name = "PROGRAM")]
    llama: Option<PathBuf>,
}

/// What is asked by the n-th of several at once. Different ones of equal length: mistral.rs takes
/// them as one batch.
fn question(n: usize) -> String {
    format!("Count to {}.", 200 - n)
}

fn questions(count: usize) -> Vec<String> {
    (0..count).map(question).collect()
}

impl ThroughputArgs {
    pub(super) async fn measure(self) -> anyhow::Result<Report> {
        let programs = Programs::find()?;
        let models = models::make()?;
        let meshes = sides::meshes(&programs, &models).await?;
        let (mut text, mut samples) = (String::new(), serde_json::Map::new());
        for (model, tokens) in models
            .measured()
            .iter()
            .zip([self.tokens, self.large_tokens])
        {
            let mut sides = sides::of(&programs, &meshes, model, self.llama.as_deref()).await?;
            let rows = self.rows(&mut sides, tokens).await?;
            text += &table::table(model, tokens, &self.streams, &rows);
            for row in rows {
                samples.insert(format!("{}, {}", model.words, row.name), json!(row.found));
            }
        }
        for note in [programs.note(), self.note()].into_iter().flatten() {
            text += &format!("\n{note}\n");
        }
        for mesh in meshes {
            mesh.stop().await?;
        }
        Ok(Report::new("throughput", self.runs, text, samples.into()))
    }

    fn note(&self) -> Option<&'static str> {
        let is_missing = self.llama.is_none();
        is_missing.then_some("llama.cpp is not in the table: its server was not built here.")
    }

    /// Everybody in turns, so that what the machine does meanwhile is everybody's.
    async fn rows(&self, sides: &mut [Side], tokens: u32) -> anyhow::Result<Vec<Row>> {
        let most = self.streams.iter().copied().max().unwrap_or(1);
        let mut rows = Vec::new();
        for side in sides.iter_mut() {
            let mut alone = Vec::new();
            for question in questions(most.into()) {
                let answered = side.ask(vec![question], tokens).await?;
                alone.extend(answered.answers.into_iter().map(|(text, _)| text));
            }
            rows.push(Row::new(side.name(), alone, self.streams.len()));
        }
        for _ in 0..self.runs {
            for (at, streams) in self.streams.iter().enumerate() {
                for (side, row) in sides.iter_mut().zip(&mut rows) {
                    let answered = side.ask(questions(usize::from(*streams)), tokens).await?;
                    row.add(at, &answered);
                }
            }
        }
        Ok(rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_differ_and_are_equally_long() {
        let all: std::collections::BTreeSet<String> = questions(16).into_iter().collect();
        assert_eq!(all.len(), 16);
        assert!(all.iter().all(|it| it.len() == question(0).len()));
    }
}
