//! What a large fleet costs one orchestrator: the code that it runs, on one core, with real keys.
//! (FLT-2)
//!
//! Everything goes through the orchestrator's own intake, keeper and snapshots, held to one core.
//! Rates are by the time that this process was on it, so that they do not depend on what else the
//! machine does; a lookup is timed by the clock, one by one.

mod load;
mod measure;
mod population;

use crate::stdout;
use anyhow::Context;
use clap::Args;
use load::Load;
use population::Population;
use serde::Serialize;
use std::collections::BTreeMap;

/// Fleets in which lookups are timed, beside the whole.
const SIZES: [usize; 3] = [1_000, 10_000, 100_000];

/// Which fleet.
#[derive(Debug, Args)]
pub(crate) struct FleetArgs {
    /// Number of workers
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1_000..=1_000_000))]
    workers: u32,
    /// Models that there are; each worker serves two
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(2..=1_000))]
    models: u32,
    /// Regions that there are
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    regions: u32,
    /// Let each worker say something that no other says, so that nothing is shared
    #[arg(long)]
    distinct: bool,
    /// Print the line of JSON only
    #[arg(long)]
    json: bool,
}

/// What was found.
#[derive(Debug, Serialize)]
struct Figures {
    /// Heartbeats a second that one core takes in: decoded, verified, accepted, in the fleet.
    heartbeats_per_s: u64,
    /// Strict verifications of the same signatures that the core makes in a second, alone.
    ed25519_verify_per_s: u64,
    ratio: f64,
    /// Resident memory of the process for each worker.
    bytes_per_worker: u64,
    /// Time to take in a change of one worker in a hundred and have it in the readers' snapshot.
    publish_ms: f64,
    /// Finding the candidates for a request, by the size of the fleet.
    lookup_p99_us: BTreeMap<String, f64>,
    /// The same and ranking them, which is what a request costs.
    #[serde(skip)]
    place_p99_us: BTreeMap<String, f64>,
    #[serde(skip)]
    lookup_p50_us: BTreeMap<String, f64>,
}

impl FleetArgs {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        measure::stay_on_one_core()?;
        let workers = usize::try_from(self.workers)?;
        let population = Population::new(self.models, self.regions, self.distinct);
        let mut load = Load::start(population, workers);
        load.warm_up().await?;
        let empty = measure::resident_bytes()?;
        let (mut lookups, mut medians, mut places) =
            (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let sizes = SIZES.into_iter().filter(|size| *size < workers);
        for size in sizes.chain([workers]) {
            load.grow_to(size).await?;
            if size == workers {
                // Before anything else than the fleet takes memory.
                break;
            }
            let times = load.lookups().await?;
            lookups.insert(size.to_string(), times.lookup_p99_us);
            medians.insert(size.to_string(), times.lookup_p50_us);
            places.insert(size.to_string(), times.place_p99_us);
        }
        let full = measure::resident_bytes()?;
        let times = load.lookups().await?;
        lookups.insert(workers.to_string(), times.lookup_p99_us);
        medians.insert(workers.to_string(), times.lookup_p50_us);
        places.insert(workers.to_string(), times.place_p99_us);
        let publish_ms = load.publish().await?;
        let rates = load.heartbeats().await?;
        // A full round of beats and many snapshots later: what was freed and is not given back to
        // the system counts, too.
        let after = measure::resident_bytes()?;
        let bytes = full.max(after).saturating_sub(empty) / u64::from(self.workers);
        let figures = Figures {
            heartbeats_per_s: rates.accepted_per_s,
            ed25519_verify_per_s: rates.verified_per_s,
            ratio: rates.ratio(),
            bytes_per_worker: bytes,
            publish_ms,
            lookup_p99_us: lookups,
            place_p99_us: places,
            lookup_p50_us: medians,
        };
        if !self.json {
            stdout::line(self.table(&figures))?;
        }
        let json = serde_json::to_string(&figures).context("figures are JSON")?;
        Ok(stdout::line(json)?)
    }

    fn table(&self, figures: &Figures) -> String {
        let mut table = format!(
            "{} workers, {} models of which each serves two, {} regions; {}.\n\n\
             | | |\n|---|---|\n\
             | heartbeats accepted in a second, one core | {} |\n\
             | Ed25519 verifications in a second, the same core and messages | {} |\n\
             | ratio | {:.3} |\n\
             | resident bytes for each worker | {} |\n\
             | publishing a change of one worker in a hundred, ms | {:.2} |\n",
            self.workers,
            self.models,
            self.regions,
            super::report::machine(),
            figures.heartbeats_per_s,
            figures.ed25519_verify_per_s,
            figures.ratio,
            figures.bytes_per_worker,
            figures.publish_ms,
        );
        let rows = [
            ("finding candidates, median", &figures.lookup_p50_us),
            ("finding candidates, p99", &figures.lookup_p99_us),
            ("finding and ranking them, p99", &figures.place_p99_us),
        ];
        for (what, times) in rows {
            let mut sizes: Vec<_> = times.iter().collect();
            sizes.sort_by_key(|(size, _)| size.parse::<u64>().unwrap_or(0));
            for (size, us) in sizes {
                table.push_str(&format!("| {what}, {size} workers, µs | {us:.2} |\n"));
            }
        }
        table
    }
}
