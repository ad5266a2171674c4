//! `tether bench`, hidden: what `ops/bench/run` measures. Those that time the whole print a table in
//! Markdown and then one line of JSON with every sample; that of the fleet prints either.

#[cfg(feature = "mistralrs")]
mod alone;
mod continuation;
mod direct;
mod first_token;
mod fleet;
mod mesh;
mod overhead;
mod report;
mod round;
mod throughput;

use crate::signals::Signals;
use clap::{Args, Subcommand};
use report::Report;
use std::future::Future;

/// See [`crate::cli`].
#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Time from starting this binary to the first token of `tether up`
    FirstToken(Runs),
    /// What the mesh adds to the engine alone
    Overhead(Runs),
    /// Answers taken up again: how often the ways to do it differ, and what they cost
    Continuation(Runs),
    /// Tokens in a second with several answers at once, beside mistral.rs alone and llama.cpp
    Throughput(throughput::ThroughputArgs),
    /// mistral.rs alone, asked by lines: what `throughput` starts
    #[cfg(feature = "mistralrs")]
    Alone(alone::AloneArgs),
    /// What a large fleet costs one orchestrator: heartbeats, memory, lookups
    Fleet(fleet::FleetArgs),
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
        runtime.block_on(async {
            let report = match self {
                #[cfg(feature = "mistralrs")]
                Self::Alone(alone) => return alone.serve().await,
                // One core is busy with it, and there is nothing to tidy up.
                Self::Fleet(fleet) => return fleet.run().await,
                Self::FirstToken(Runs { runs }) => unless_told(first_token::measure(runs)).await?,
                Self::Overhead(Runs { runs }) => unless_told(overhead::measure(runs)).await?,
                Self::Continuation(Runs { runs }) => {
                    unless_told(continuation::measure(runs)).await?
                }
                Self::Throughput(throughput) => unless_told(throughput.measure()).await?,
            };
            Ok(report.print()?)
        })
    }
}

/// Measures until a signal comes: what is dropped then ends its processes and removes its folders.
async fn unless_told(
    measure: impl Future<Output = anyhow::Result<Report>>,
) -> anyhow::Result<Report> {
    let mut signals = Signals::listen()?;
    tokio::select! {
        report = measure => report,
        signal = signals.next() => anyhow::bail!("{signal}: nothing was measured"),
    }
}
