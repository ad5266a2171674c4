//! A million recorded heartbeats, after their workers left. (PRE-4) [T-LIV-1] to [T-LIV-5], [T-SPR-4]
//!
//! # Layout
//!
//! * `recording` – workers' lives, with real keys, grants and signatures
//! * `player` – the same recording as a peer's batches, and as a member's pushes
//! * `watch` – whether anybody of it is in the fleet

mod player;
mod recording;
mod watch;

use crate::SiteArgs;
use crate::cost::{self, MemoryWatch, Share, mib};
use crate::journal;
use crate::mesh::{Admin, EngineSettings, Mesh, PATIENCE, Shape, WorkerSettings};
use crate::report::{Report, progress};
use anyhow::{Context, ensure};
use clap::Args;
use player::{Peer, Pusher};
use recording::{Life, Recording};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use tether_net::testing::now_ms;
use tether_wire::beat::{EXPIRY_MS, MAX_SKEW_MS};
use watch::Ghosts;

/// Until the freshest beat of a recording is too old for whatever anybody says of clocks.
const STALE_AFTER: Duration = Duration::from_millis(EXPIRY_MS + 2 * MAX_SKEW_MS);
const REJECTED: &str = "tether_orchestrator_heartbeats_rejected_total";

/// See [`crate::Drill`].
#[derive(Debug, Args)]
pub(crate) struct ReplayArgs {
    /// Workers of the recording
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    workers: u32,
    /// Beats of each
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(4..=10_000))]
    beats: u32,
}

/// How it is replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Batches,
    Pushes,
}

/// One replay.
#[derive(Debug)]
struct Played {
    name: String,
    beats: usize,
    took: Duration,
    /// Age of the freshest beat when the replay began, and when the fresh ones had been played.
    fresh: [Duration; 2],
    /// Most of them that were in the fleet at a look, and looks.
    most: usize,
    looks: usize,
    /// Those that the log says came.
    came: usize,
    memory: [u64; 3],
    share: Share,
    rejected: BTreeMap<String, f64>,
}

impl ReplayArgs {
    pub(crate) async fn run(self, site: &SiteArgs) -> anyhow::Result<Report> {
        let shape = Shape {
            orchestrators: 1,
            shared_store: false,
            workers: 0,
            models: 1,
            worker: WorkerSettings {
                slots: 1,
                engine: EngineSettings::Echo { token_ms: 0 },
            },
        };
        let mut mesh = Mesh::start(site, &shape).await?;
        let begin = Instant::now();
        let recording = Recording::make(&mesh.site.local, self.workers, self.beats).await?;
        progress(format!(
            "{} beats of {} workers are sealed after {:.0} s",
            recording.len(),
            self.workers,
            begin.elapsed().as_secs_f64()
        ));
        let mut all = Vec::new();
        for restart in [false, true] {
            for way in [Way::Batches, Way::Pushes] {
                let played = self.play(&mut mesh, &recording, way, restart).await?;
                progress(format!(
                    "{}: {:.0} beats in a second",
                    played.name,
                    played.per_s()
                ));
                all.push(played);
            }
        }
        Ok(self.report(&all))
    }

    /// The workers live and leave once more; then everything is replayed.
    async fn play(
        &self,
        mesh: &mut Mesh,
        recording: &Recording,
        way: Way,
        restart: bool,
    ) -> anyhow::Result<Played> {
        let orchestrator = mesh.orchestrators[0].seat.id;
        let life = recording.live(&mesh.site.local, now_ms()).await?;
        let mut admin = mesh.views()?.admins.remove(0);
        // They were really there, as far as the orchestrator could know, and said goodbye.
        let mut peer = Peer::join(&mesh.site.local, orchestrator).await?;
        peer.introduce(&life).await?;
        peer.play(&life.beats).await?;
        let (workers, ids) = (recording.workers(), recording.ids());
        until_workers(&admin, workers)
            .await
            .context("the recorded workers come")?;
        peer.play(&life.goodbyes).await?;
        until_workers(&admin, 0).await.context("they say goodbye")?;
        if restart {
            peer.leave().await;
            mesh.orchestrators[0].kill().await?;
            mesh.orchestrators[0].start(&mesh.site).await?;
            admin = mesh.views()?.admins.remove(0);
            peer = Peer::join(&mesh.site.local, orchestrator).await?;
        }
        let pid = mesh.orchestrators[0].process()?.pid();
        let log = mesh.orchestrators[0].seat.log();
        let from = std::fs::metadata(&log)?.len();
        let metrics = admin.metrics().await?;
        let memory = MemoryWatch::start(pid);
        let (before, spent) = (cost::resident_bytes(pid)?, cost::spent(pid)?);
        let ghosts = Ghosts::watch(admin.clone());
        let begin = Instant::now();
        let age = |life: &Life| Duration::from_millis(now_ms().saturating_sub(life.until_ms));
        let first = age(&life);
        let second = match way {
            Way::Batches => {
                peer.introduce(&life).await?;
                peer.play(&life.beats).await?;
                peer.heard_all(&admin).await?;
                let second = age(&life);
                peer.play_all(recording, &life).await?;
                peer.heard_all(&admin).await?;
                second
            }
            Way::Pushes => {
                let pusher = Pusher::join(&mesh.site.local, orchestrator).await?;
                pusher.play(&life.beats).await?;
                let second = age(&life);
                pusher.play_all(recording, &life).await?;
                let pushed = recording.len() + 2 * life.beats.len();
                pusher.heard_all(&admin, &metrics, pushed).await?;
                pusher.leave().await;
                second
            }
        };
        let (took, share) = (begin.elapsed(), cost::spent(pid)?.since(&spent));
        // Nobody comes later either: until the freshest of them is stale by any clock.
        tokio::time::sleep(STALE_AFTER.saturating_sub(age(&life))).await;
        let (most, looks) = ghosts.end().await?;
        let entries = journal::read(&log, from)?;
        let after = admin.metrics().await?;
        peer.leave().await;
        let which = if restart {
            "an orchestrator just restarted"
        } else {
            "a live orchestrator"
        };
        let how = match way {
            Way::Batches => "a peer's batches",
            Way::Pushes => "a member's pushes",
        };
        Ok(Played {
            name: format!("{which}, {how}"),
            beats: recording.len() + 2 * life.beats.len(),
            took,
            fresh: [first, second],
            most,
            looks,
            came: journal::came(&entries, &ids).len(),
            memory: [before, memory.most(), cost::resident_bytes(pid)?],
            share,
            rejected: after.added(REJECTED, &metrics),
        })
    }

    fn report(&self, all: &[Played]) -> Report {
        let mut report = Report::new(
            "replay",
            format!(
                "{} recorded beats of {} workers with real keys, shuffled, and 3 fresh ones of each, after all of them said goodbye",
                u64::from(self.workers) * u64::from(self.beats),
                self.workers
            ),
        );
        let rows: Vec<Vec<String>> = (all.iter())
            .map(|it| {
                let reasons: Vec<String> = (it.rejected.iter())
                    .map(|(why, n)| format!("{why} {n:.0}"))
                    .collect();
                vec![
                    it.name.clone(),
                    it.beats.to_string(),
                    format!("{:.0}", it.per_s()),
                    format!(
                        "{:.1} to {:.1}",
                        it.fresh[0].as_secs_f64(),
                        it.fresh[1].as_secs_f64()
                    ),
                    format!(
                        "{:.0} / {:.0} / {:.0}",
                        mib(it.memory[0]),
                        mib(it.memory[1]),
                        mib(it.memory[2])
                    ),
                    format!("{:.2}", it.share.process),
                    reasons.join(", "),
                    it.most.max(it.came).to_string(),
                ]
            })
            .collect();
        report.table(
            &[
                "replayed at, as",
                "beats",
                "in a second",
                "age of the freshest while it was replayed, s",
                "orchestrator MiB before / most / after",
                "its cores",
                "rejected, by reason (what is known to be older is skipped uncounted)",
                "revived",
            ],
            &rows,
        );
        for it in all {
            report.sample(
                &it.name,
                json!({
                    "beats": it.beats, "seconds": it.took.as_secs_f64(), "per_s": it.per_s(),
                    "looks": it.looks, "most_in_the_fleet": it.most, "came": it.came,
                    "memory_bytes": it.memory, "cpu": it.share.process, "rejected": it.rejected,
                }),
            );
            report.promise(
                &format!("{}: none is revived", it.name),
                it.most == 0 && it.came == 0 && it.looks > 0,
                format!(
                    "{} in the log, at most {} at {} looks",
                    it.came, it.most, it.looks
                ),
            );
            report.promise(
                &format!("{}: the freshest were fresh", it.name),
                it.fresh[1] < Duration::from_millis(EXPIRY_MS),
                format!("{:.1} s old at most", it.fresh[1].as_secs_f64()),
            );
        }
        report
    }
}

impl Played {
    #[expect(clippy::cast_precision_loss, reason = "a million is far below 2^52")]
    fn per_s(&self) -> f64 {
        self.beats as f64 / self.took.as_secs_f64()
    }
}

/// Waits until so many workers are in the fleet.
async fn until_workers(admin: &Admin, count: usize) -> anyhow::Result<()> {
    let begin = Instant::now();
    loop {
        let now = watch::workers(&admin.metrics().await?);
        if now == count {
            return Ok(());
        }
        ensure!(
            begin.elapsed() < PATIENCE,
            "{now} workers are in the fleet, not {count}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// For the log, ids as it writes them.
type Ids = BTreeSet<String>;
