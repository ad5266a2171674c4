//! What is asked of the judge on the way and at the end.

use super::{ASK, Event, World};
use crate::host::{Host, Key, Kind};
use crate::machine::{How, Machine};
use crate::network::us;
use crate::outcome::{Outcome, Traffic};
use crate::queue::{MS, SECOND, Us};
use tether_wire::NodeId;
use tether_wire::beat::{BEAT_INTERVAL_MS, EXPIRY_MS, MAX_SKEW_MS};

/// For how long a node must have been soundly connected to be missed: two intervals, and the way.
const MISSED_AFTER: Us = (2 * BEAT_INTERVAL_MS + 2_000) * MS;
/// For how long a node must have been soundly connected that may not expire.
const SAFE_AFTER: Us = (EXPIRY_MS + 1_000) * MS;

impl<M: Machine> World<M> {
    pub(super) fn goes(&mut self, host: Host, node: NodeId, how: How) {
        let now = self.now();
        let Some((subject, key)) = self.key_of(&node) else {
            return;
        };
        self.mark(host, key, 4);
        self.trace
            .line(now, subject, Some(host), || format!("it is gone: {how:?}"));
        let is_judged = self.judge.shows(host, key).is_some();
        self.judge.gone(host, key, how, now);
        if !is_judged || how != How::Expired || !self.judge.lives(key) {
            return;
        }
        self.judge.found.expired_alive += 1;
        if self.is_connected(key, host, SAFE_AFTER) {
            self.judge.found.false_expiries += 1;
            let what = "a false expiry: it lives and is connected, and expired".to_owned();
            self.violate(Some(host), key, what);
        }
    }

    pub(super) fn ghost_after(&self) -> Us {
        (EXPIRY_MS + MAX_SKEW_MS) * MS + us(self.scenario.expect.ghost_margin_ms)
    }

    pub(super) fn check_ghosts(&mut self, key: Key, died: Us) {
        let dead_for = (self.now() - died) / MS;
        for host in self.judge.ghosts_of(key, died) {
            let what = format!("a ghost: dead for {dead_for} ms, and still live");
            self.violate(Some(host), key, what);
        }
    }

    /// Whether a key's process has had, for all of this time, a sound link with this orchestrator
    /// or with an honest one that has one with it.
    fn is_connected(&self, key: Key, to: Host, time: Us) -> bool {
        let now = self.now();
        let Some(viewer) = &self.host(to).process else {
            return false;
        };
        let holders = self.holders[key.at()].iter();
        holders.into_iter().any(|host| {
            let state = self.host(*host);
            let Some(process) = &state.process else {
                return false;
            };
            if state.epoch != self.judge.epoch(key) || now - process.started < time {
                return false;
            }
            let is_sound =
                |link: &crate::link::LinkId| self.links[link.0 as usize].is_sound_for(now, time);
            *host == to
                || (process.links.iter()).any(|(peer, link)| {
                    self.host(*peer).kind == Kind::Orchestrator
                        && is_sound(link)
                        && (*peer == to || viewer.links.get(peer).is_some_and(is_sound))
                })
        })
    }

    /// Asks each view for who is missing.
    pub(super) fn ask(&mut self) {
        let wrong: Vec<_> = (self.judge.wrong())
            .filter(|(_, _, lives)| *lives)
            .collect();
        for (host, key, _) in wrong {
            if self.is_connected(key, host, MISSED_AFTER) {
                self.judge.found.missing += 1;
                let what = "missing: it lives and is connected, and is not shown".to_owned();
                self.violate(Some(host), key, what);
            }
        }
        let at = self.now() + ASK;
        self.queue.plan(at, Event::Ask);
    }

    pub(super) fn outcome(&mut self) -> Outcome {
        let mut failures = self.audit();
        if self.scenario.expect.clones_reported {
            failures.extend(self.unreported_clones());
        }
        if self.judge.converged_ms(0).is_none() {
            let wrong: Vec<_> = self.judge.wrong().take(10).collect();
            for (host, key, lives) in wrong {
                let what = format!("wrong at the end: it lives: {lives}");
                self.violate(Some(host), key, what);
            }
        }
        let now = self.now();
        let traffic = [0, 1].map(|class| {
            let running: Us = (self.hosts.iter())
                .filter_map(|host| host.process.as_ref())
                .filter(|process| usize::from(process.brain.is_some()) == class)
                .map(|process| now - process.started)
                .sum();
            let sent = self.sent[class];
            traffic(sent.messages, sent.bytes, sent.lived + running)
        });
        let converged_ms = self.judge.converged_ms(self.last_disturbance);
        let found = std::mem::take(&mut self.judge.found);
        let mut outcome = Outcome {
            seed: self.seed,
            nodes: self.scenario.nodes,
            living: self.judge.living(),
            ghosts: found.ghosts,
            false_expiries: found.false_expiries,
            expired_alive: found.expired_alive,
            missing: found.missing,
            unheard_goodbyes: found.unheard_goodbyes,
            suspicions: found.suspicions,
            suspects: self.judge.suspects(),
            clone_reports: found.clone_reports,
            converged_ms,
            suspect: found.suspect,
            revocation: found.revocation,
            expiry: found.expiry,
            goodbye: found.goodbye,
            appear: found.appear,
            newcomer: found.newcomer,
            incomplete_newcomers: self.judge.incomplete_newcomers(),
            relink: found.relink,
            rejected: found.rejected,
            worker: traffic[0],
            orchestrator: traffic[1],
            events: self.events,
            trace: format!("{:016x}", self.trace.hash()),
            wall_s: 0.0,
            cpu_s: 0.0,
            violations: found.violations,
            failures,
        };
        outcome.judge(&self.scenario.expect);
        outcome
    }

    /// What the machines said must be what they show.
    fn audit(&self) -> Vec<String> {
        let mut failures = Vec::new();
        for host in self.judge.viewers() {
            let process = self.host(host).process.as_ref();
            let Some(brain) = process.and_then(|it| it.brain.as_ref()) else {
                continue;
            };
            let differing = (self.holders.iter())
                .filter_map(|holders| holders.first())
                .filter(|node| {
                    let node = self.host(**node);
                    self.judge.shows(host, node.key) != Some(brain.machine.shows(&node.id))
                })
                .count();
            if differing > 0 {
                failures.push(format!(
                    "the machine of o{} shows {differing} nodes otherwise than it said",
                    host.0
                ));
            }
        }
        failures
    }

    fn unreported_clones(&self) -> Vec<String> {
        (self.clones.iter())
            .filter(|key| !self.judge.knows_of_clone(**key))
            .map(|key| format!("the clone of h{} was reported by nobody", key.0))
            .collect()
    }
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn traffic(messages: u64, bytes: u64, lived: Us) -> Traffic {
    let seconds = (lived as f64 / SECOND as f64).max(1e-9);
    Traffic {
        messages_per_s: messages as f64 / seconds,
        bytes_per_s: bytes as f64 / seconds,
    }
}
