//! mistral.rs alone, in a process of its own: what it is asked comes in lines, and goes out in lines.

use super::round::{Answered, Round};
use crate::stdout;
use anyhow::Context;
use clap::Args;
use futures_util::future::try_join_all;
use std::path::PathBuf;
use std::time::Instant;
use tether_worker::engine::alone::Alone;
use tokio::io::{AsyncBufReadExt, BufReader};

/// See [`super::BenchCommand`].
#[derive(Debug, Args)]
pub(crate) struct AloneArgs {
    /// The model's folder
    #[arg(long)]
    model: PathBuf,
    /// The file of its weights
    #[arg(long)]
    weights: String,
    /// Most answers at once
    #[arg(long)]
    at_once: usize,
}

impl AloneArgs {
    pub(super) async fn serve(self) -> anyhow::Result<()> {
        let folder = self.model.canonicalize()?;
        let alone = Alone::load(&folder, &self.weights, self.at_once);
        let alone = alone.await.map_err(anyhow::Error::msg)?;
        let mut lines = BufReader::new(tokio::io::stdin()).lines();
        while let Some(line) = lines.next_line().await? {
            let round: Round = serde_json::from_str(&line).context("not a round")?;
            let begin = Instant::now();
            let answers = (round.questions.iter()).map(|it| alone.answer(it, round.tokens));
            let answers = try_join_all(answers).await.map_err(anyhow::Error::msg)?;
            let seconds = begin.elapsed().as_secs_f64();
            stdout::line(serde_json::to_string(&Answered { seconds, answers })?)?;
        }
        Ok(())
    }
}
