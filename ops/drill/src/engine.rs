//! Engines die, abort and hang under load, one model of many at a time: the worker says so, its
//! other models notice nothing, and the model is back. (WRK-2)
//!
//! # Layout
//!
//! * `fates` – one end of an engine each, measured
//! * `found` – what was measured, as a report

mod fates;
mod found;

use crate::SiteArgs;
use crate::load::{Caller, Load};
use crate::mesh::{EngineSettings, Mesh, Shape, WorkerSettings};
use crate::report::{Report, progress};
use clap::Args;
use fates::{Fate, Fates};

/// See [`crate::Drill`].
#[derive(Debug, Args)]
pub(crate) struct EngineArgs {
    /// Engines that end in each way
    #[arg(long, default_value_t = 50)]
    runs: usize,
    /// Models that the worker serves
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(2..=64))]
    models: u16,
    /// Processes of each model; one of them ends at a time
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=16))]
    processes: u16,
    /// Short requests in a second, over all models in turns
    #[arg(long, default_value_t = 8.0)]
    rate: f64,
    /// Milliseconds in which an engine must give a sign of life
    #[arg(long, default_value_t = 2_000)]
    hang_ms: u64,
    /// Milliseconds in which an engine must make a step
    #[arg(long, default_value_t = 5_000)]
    step_ms: u64,
}

/// What the load asks for: a few tokens.
const SHORT: &str = "What is the capital of France?";
/// What the engine that ends was in the middle of: hundreds of tokens.
const LONG: &str = "Count to 200.";

impl EngineArgs {
    pub(crate) async fn run(self, site: &SiteArgs) -> anyhow::Result<Report> {
        let shape = Shape {
            orchestrators: 1,
            shared_store: false,
            workers: 1,
            models: usize::from(self.models),
            worker: WorkerSettings {
                slots: 32,
                engine: EngineSettings::Real {
                    processes: self.processes,
                    threads: 0,
                    hang_ms: self.hang_ms,
                    step_ms: self.step_ms,
                },
            },
        };
        let mesh = Mesh::start(site, &shape).await?;
        let caller = Caller::new(&mesh.gateway_url()?, mesh.api_key())?;
        let mut fates = Fates::new(mesh, caller.clone(), self.processes).await?;
        let (mut short, mut long) = (Vec::new(), Vec::new());
        for model in fates.models() {
            short.push(caller.learn(&model, SHORT).await?);
            long.push(caller.learn(&model, LONG).await?);
        }
        for fate in Fate::ALL {
            let load = Load::start(caller.clone(), self.rate, short.clone());
            for run in 0..self.runs {
                fates.end(fate, &long[run % shape.models]).await?;
                if run % 10 == 9 {
                    progress(format!("{} of {} {}", run + 1, self.runs, fate.words()));
                }
            }
            fates.found.asked(fate, load.stop().await);
        }
        Ok(fates.found.report(&self))
    }
}
