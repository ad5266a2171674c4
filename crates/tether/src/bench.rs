//! `tether bench`, hidden: what `ops/bench/run` measures. Each prints a table in Markdown and then
//! one line of JSON with every sample.

mod direct;
mod first_token;
mod mesh;
mod overhead;
mod report;

use clap::{Args, Subcommand};

/// See [`crate::cli`].
#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Time from starting this binary to the first token of `tether up`
    FirstToken(Runs),
    /// What the mesh adds to the engine alone
    Overhead(Runs),
}

/// How often.
#[derive(Debug, Args)]
pub(crate) struct Runs {
    /// Number of runs that count
    #[arg(long, default_value_t = 11, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
}

impl BenchCommand {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let report = runtime.block_on(async {
            match self {
                Self::FirstToken(Runs { runs }) => first_token::measure(runs).await,
                Self::Overhead(Runs { runs }) => overhead::measure(runs).await,
            }
        })?;
        Ok(report.print()?)
    }
}
