//! One death each: when each view says so, and which requests the dead were given.

use super::found::Found;
use crate::journal;
use crate::load::Window;
use crate::mesh::{Mesh, PATIENCE};
use crate::views::{Fleet, Views};
use anyhow::Context;
use rustix::process::Signal;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long the load goes on after a doubt, so that a request to the dead one would show.
const AFTERWARDS: Duration = Duration::from_millis(1_000);
/// Guard for what must happen within 15 s.
const LONG: Duration = Duration::from_secs(40);

/// A mesh whose workers die and come back.
pub(super) struct Deaths {
    mesh: Mesh,
    views: Views,
    logs: Vec<PathBuf>,
    pub(super) found: Found,
}

/// Whether a view gives it no requests while others can serve.
fn is_out(fleet: &Fleet, id: &str) -> bool {
    fleet.get(id).is_none_or(|row| !row.is_routable())
}

/// Whether a view does not show it any more.
fn is_gone(fleet: &Fleet, id: &str) -> bool {
    !fleet.contains_key(id)
}

type Says = fn(&Fleet, &str) -> bool;

impl Deaths {
    pub(super) fn new(mesh: Mesh) -> anyhow::Result<Self> {
        Ok(Self {
            views: mesh.views()?,
            logs: mesh.orchestrators.iter().map(|it| it.seat.log()).collect(),
            mesh,
            found: Found::default(),
        })
    }

    fn id(&self, at: usize) -> String {
        self.mesh.workers[at].seat.id.to_hex()
    }

    /// One dies, and comes back.
    pub(super) async fn kill(&mut self, at: usize) -> anyhow::Result<()> {
        let (id, from) = (self.id(at), self.log_ends()?);
        let begin = Instant::now();
        self.mesh.workers[at].kill().await?;
        let (views, says) = (&self.views, |fleet: &Fleet, id: &String| is_out(fleet, id));
        let seen = views
            .first(begin, LONG, std::slice::from_ref(&id), says)
            .await?;
        self.found.doubted.add(&seen[0]);
        tokio::time::sleep(AFTERWARDS).await;
        self.read_logs(&from, &[id])?;
        self.come_back(&[at]).await
    }

    /// One says goodbye, and comes back.
    pub(super) async fn goodbye(&mut self, at: usize) -> anyhow::Result<()> {
        let id = self.id(at);
        let mut process = self.mesh.workers[at].process.take().context("it runs")?;
        let begin = Instant::now();
        process.signal(Signal::TERM)?;
        let ended = async {
            process.ended().await?;
            anyhow::Ok(begin.elapsed())
        };
        let things: [Says; 2] = [is_out, is_gone];
        let seen = self
            .views
            .first(begin, LONG, &things, |fleet, says| says(fleet, &id));
        let (seen, ended) = tokio::try_join!(seen, ended)?;
        self.found.not_chosen.add(&seen[0]);
        self.found.departed.add(&seen[1]);
        self.found.exited.push(ended.as_secs_f64() * 1e3);
        self.come_back(&[at]).await
    }

    /// Some fall silent at once and for good; when they are gone, they are started anew.
    pub(super) async fn silence(&mut self, some: usize, stop: bool) -> anyhow::Result<()> {
        let places: Vec<usize> = (0..some).collect();
        let ids: Vec<String> = places.iter().map(|at| self.id(*at)).collect();
        let from = self.log_ends()?;
        let begin = Instant::now();
        let signal = if stop { Signal::STOP } else { Signal::KILL };
        for at in &places {
            self.mesh.workers[*at].process()?.signal(signal)?;
        }
        let things: Vec<(&String, Says)> = (ids.iter())
            .flat_map(|id| [(id, is_out as Says), (id, is_gone as Says)])
            .collect();
        let says = |fleet: &Fleet, (id, says): &(&String, Says)| says(fleet, id);
        let seen = self.views.first(begin, LONG, &things, says).await?;
        let found = &mut self.found;
        let (doubted, gone) = if stop {
            (&mut found.stopped, &mut found.stopped_gone)
        } else {
            (&mut found.doubted, &mut found.killed_gone)
        };
        for views in seen.chunks(2) {
            doubted.add(&views[0]);
            gone.add(&views[1]);
        }
        let doubts = seen.iter().step_by(2).flatten();
        let until = doubts
            .map(|it| it.map_or(Instant::now(), |after| begin + after))
            .max();
        found.blind.push(Window {
            from: begin,
            until: until.unwrap_or(begin),
        });
        self.read_logs(&from, &ids)?;
        for at in &places {
            self.mesh.workers[*at].kill().await?;
        }
        self.come_back(&places).await
    }

    /// Where the orchestrators' logs end now.
    fn log_ends(&self) -> anyhow::Result<Vec<u64>> {
        let ends = self
            .logs
            .iter()
            .map(|log| Ok(std::fs::metadata(log)?.len()));
        ends.collect()
    }

    /// Counts attempts at the dead, from where the logs ended before their death.
    fn read_logs(&mut self, from: &[u64], ids: &[String]) -> anyhow::Result<()> {
        for (log, from) in self.logs.iter().zip(from) {
            let entries = journal::read(log, *from)?;
            self.found.attempts += journal::all_attempts(&entries);
            for id in ids {
                let after = journal::attempts_after_doubt(&entries, id);
                self.found.unlogged += usize::from(!journal::is_doubted(&entries, id));
                self.found.attempts_after += after;
                self.found.attempts_before += journal::attempts(&entries, id) - after;
            }
        }
        Ok(())
    }

    /// Starts workers anew, and waits until all get work in every view.
    async fn come_back(&mut self, places: &[usize]) -> anyhow::Result<()> {
        for at in places {
            self.mesh.workers[*at].start(&self.mesh.site).await?;
        }
        let all = self.mesh.workers.len();
        let routable =
            |fleet: &Fleet| fleet.values().filter(|row| row.is_routable()).count() == all;
        let what = "the restarted workers are routable";
        self.views.until(PATIENCE, what, routable).await?;
        Ok(())
    }
}
