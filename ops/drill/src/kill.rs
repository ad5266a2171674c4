//! Workers die under load: by `kill -9`, with a goodbye, and by silence alone.
//! [T-LIV-2], [T-LNK-5], [T-BEA-3], [T-BEA-5]
//!
//! # Layout
//!
//! * `deaths` – one death each, measured
//! * `found` – what was measured, as a report

mod deaths;
mod found;

use crate::SiteArgs;
use crate::load::{Asked, Caller, Load, Question};
use crate::mesh::{EngineSettings, Mesh, Shape, WorkerSettings};
use crate::report::{Report, progress};
use clap::Args;
use deaths::Deaths;

/// See [`crate::Drill`].
#[derive(Debug, Args)]
pub(crate) struct KillArgs {
    /// Workers that are killed by SIGKILL one after the other
    #[arg(long, default_value_t = 50)]
    runs: usize,
    /// Workers that say goodbye, by SIGTERM
    #[arg(long, default_value_t = 20)]
    goodbyes: usize,
    /// Workers that fall silent for good, half of all at once: in turns those of a round are stopped
    /// or killed
    #[arg(long, default_value_t = 20)]
    silences: usize,
    /// Workers that there are
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(3..=256))]
    workers: u16,
    /// Requests in a second
    #[arg(long, default_value_t = 20.0)]
    rate: f64,
}

/// Words of each answer, and the milliseconds that each takes: an answer takes a tenth of a second.
const WORDS: usize = 20;
const TOKEN_MS: u64 = 5;

/// The requests of each part.
#[derive(Debug, Default)]
struct Requests {
    kills: Vec<Asked>,
    goodbyes: Vec<Asked>,
    silences: Vec<Asked>,
}

impl KillArgs {
    pub(crate) async fn run(self, site: &SiteArgs) -> anyhow::Result<Report> {
        let shape = Shape {
            orchestrators: 3,
            shared_store: false,
            workers: usize::from(self.workers),
            models: 1,
            worker: WorkerSettings {
                slots: 4,
                engine: EngineSettings::Echo { token_ms: TOKEN_MS },
            },
        };
        let mesh = Mesh::start(site, &shape).await?;
        let caller = Caller::new(&mesh.gateway_url()?, mesh.api_key())?;
        let load = || Load::start(caller.clone(), self.rate, vec![Question::echo(WORDS)]);
        let mut requests = Requests::default();
        let mut deaths = Deaths::new(mesh)?;
        if self.runs > 0 {
            let load = load();
            for run in 0..self.runs {
                deaths.kill(run % shape.workers).await?;
                if run % 10 == 9 {
                    progress(format!("{} of {} killed", run + 1, self.runs));
                }
            }
            requests.kills = load.stop().await;
        }
        if self.goodbyes > 0 {
            let load = load();
            for run in 0..self.goodbyes {
                deaths.goodbye(run % shape.workers).await?;
            }
            requests.goodbyes = load.stop().await;
            progress(format!("{} said goodbye", self.goodbyes));
        }
        if self.silences > 0 {
            let load = load();
            let (mut left, mut round) = (self.silences, 0);
            while left > 0 {
                let some = left.min(shape.workers / 2);
                deaths.silence(some, round % 2 == 0).await?;
                (left, round) = (left - some, round + 1);
                let silent = self.silences - left;
                progress(format!("{silent} of {} fell silent", self.silences));
            }
            requests.silences = load.stop().await;
        }
        Ok(deaths.found.report(&self, &requests))
    }
}
