//! What the scenario does to the hosts.

use super::{Event, World};
use crate::host::{Host, Kind};
use crate::judge::Death;
use crate::link::{Link, LinkId, Message};
use crate::machine::{Input, Machine};
use crate::queue::{SECOND, Us, seconds};
use crate::scenario::{Disturbance, Scenario};
use std::ops::Range;

/// Time between two sendings of the attacker: what it sends in a second is spread over them.
const REPLAY_EVERY: Us = SECOND / 10;

/// How often a link is drawn until one is up; those of the past are drawn too.
const DRAWS: usize = 50;

/// A step of a disturbance, which is named by its place in the scenario.
#[derive(Clone, Copy, Debug)]
pub(super) enum Disturbing {
    Begin(usize),
    End(usize),
    ChurnNext(usize),
    CutNext(usize),
    Heal(LinkId),
    CloneEnds(Host),
    ReplayNext(usize),
}

/// The orchestrators that are not there from the start: the last honest ones.
pub(super) fn joining(scenario: &Scenario) -> Range<usize> {
    let honest = scenario.orchestrators - scenario.attackers;
    let count: usize = (scenario.disturbance.iter())
        .map(|it| match it {
            Disturbance::Join { count, .. } => *count,
            _ => 0,
        })
        .sum();
    honest.saturating_sub(count)..honest
}

impl<M: Machine> World<M> {
    pub(super) fn is_joining(&self, host: Host) -> bool {
        joining(&self.scenario).contains(&host.at())
    }

    pub(super) fn plan_disturbances(&mut self) {
        for at in 0..self.scenario.disturbance.len() {
            let (from, until) = times(&self.scenario.disturbance[at]);
            self.queue
                .plan(seconds(from), Event::Disturb(Disturbing::Begin(at)));
            if let Some(until) = until {
                self.queue
                    .plan(seconds(until), Event::Disturb(Disturbing::End(at)));
            }
        }
    }

    pub(super) fn disturb(&mut self, step: Disturbing) {
        match step {
            Disturbing::Begin(at) => self.begin(at),
            Disturbing::End(at) => {
                if matches!(self.scenario.disturbance[at], Disturbance::Storm { .. }) {
                    self.disturbed();
                    self.network.set_storm(0.0, 0.0);
                }
                if self.partitions.remove(&at).is_some() {
                    let now = self.now();
                    self.disturbed();
                    self.paths_changed();
                    self.trace
                        .line_of_viewer(now, None, || "the partition heals".to_owned());
                }
            }
            Disturbing::ChurnNext(at) => self.churn(at),
            Disturbing::CutNext(at) => self.cut(at),
            Disturbing::Heal(link) => {
                let now = self.now();
                let [a, b] = self.links[link.0 as usize].hosts;
                let pair = (a.min(b), a.max(b));
                if self.cuts.get(&pair).is_some_and(|until| *until <= now) {
                    self.cuts.remove(&pair);
                    self.disturbed();
                    self.path_changed(link);
                }
            }
            Disturbing::CloneEnds(clone) => {
                let first = self.holders[self.host(clone).key.at()][0];
                self.stop(clone, Death::Killed, None);
                self.stop(first, Death::Killed, Some(2 * SECOND));
            }
            Disturbing::ReplayNext(at) => self.replay(at),
        }
    }

    fn begin(&mut self, at: usize) {
        let now = self.now();
        let workers = self.running(Kind::Worker);
        let honest = self.running(Kind::Orchestrator);
        match self.scenario.disturbance[at].clone() {
            Disturbance::Churn { .. } => self.plan_churn(at),
            Disturbance::FlakyLinks { .. } => self.plan_cut(at),
            Disturbance::Replay { .. } => self.replay(at),
            Disturbance::Partition { share, .. } => {
                let mut cut = self.chance.pick(&workers, part(workers.len(), share));
                let attackers = self.running(Kind::Attacker);
                cut.extend(self.chance.pick(&honest, part(honest.len(), share)));
                cut.extend(self.chance.pick(&attackers, part(attackers.len(), share)));
                let mut sides = vec![false; self.hosts.len()];
                for host in &cut {
                    sides[host.at()] = true;
                }
                self.partitions.insert(at, sides);
                self.disturbed();
                self.paths_changed();
                self.trace
                    .line_of_viewer(now, None, || format!("a partition: {cut:?}"));
            }
            Disturbance::Leave { share, crashes, .. } => {
                for host in self.chance.pick(&workers, part(workers.len(), share)) {
                    let death = self.draw_death(crashes);
                    self.stop(host, death, None);
                }
            }
            Disturbance::RestartOrchestrators {
                every_s,
                down_s,
                graceful,
                ..
            } => {
                let death = if graceful {
                    Death::Goodbye
                } else {
                    Death::Killed
                };
                for (after, host) in (0_u64..).zip(honest) {
                    let stop = Event::Stop {
                        host,
                        death,
                        back_in: Some(seconds(down_s)),
                    };
                    self.queue.plan(now + after * seconds(every_s), stop);
                }
            }
            Disturbance::KillOrchestrators { count, .. } => {
                for host in self.chance.pick(&honest, count) {
                    self.stop(host, Death::Killed, None);
                }
            }
            Disturbance::Join { .. } => {
                for host in joining(&self.scenario) {
                    self.start(Host(u32::try_from(host).unwrap_or(u32::MAX)));
                }
            }
            Disturbance::Clone { count, for_s, .. } => {
                for host in self.chance.pick(&workers, count) {
                    let (key, id) = (self.host(host).key, self.host(host).id);
                    let clone = self.add_host(key, id, Kind::Worker);
                    self.clones.push(key);
                    self.start(clone);
                    let ends = Event::Disturb(Disturbing::CloneEnds(clone));
                    self.queue.plan(now + seconds(for_s), ends);
                }
            }
            Disturbance::Revoke { count, .. } => {
                self.disturbed();
                let at = self.chance.pick(&honest, 1);
                for host in self.chance.pick(&workers, count) {
                    let (key, id) = (self.host(host).key, self.host(host).id);
                    self.judge.revoked(key, now);
                    self.trace
                        .line(now, host, None, || format!("h{} is revoked", host.0));
                    for orchestrator in &at {
                        self.feed(*orchestrator, Input::Revoke(id), None);
                    }
                }
            }
            Disturbance::Storm {
                batch_loss,
                duplicate,
                ..
            } => self.network.set_storm(batch_loss, duplicate),
            Disturbance::Starve { share, for_s, .. } => {
                for host in self.chance.pick(&workers, part(workers.len(), share)) {
                    if let Some(process) = self.process(host) {
                        process.starved_until = now + seconds(for_s);
                    }
                }
            }
        }
    }

    fn plan_churn(&mut self, at: usize) {
        let Disturbance::Churn {
            until_s,
            per_minute,
            ..
        } = self.scenario.disturbance[at]
        else {
            return;
        };
        let workers = self.scenario.nodes - self.scenario.orchestrators;
        self.plan_next(at, per_minute, workers, until_s, Disturbing::ChurnNext);
    }

    fn churn(&mut self, at: usize) {
        let Disturbance::Churn {
            crashes,
            down_s: [low, high],
            ..
        } = self.scenario.disturbance[at]
        else {
            return;
        };
        let first = self.scenario.orchestrators;
        let workers = self.scenario.nodes - first;
        let host = Host(u32::try_from(first + self.chance.below(workers)).unwrap_or(u32::MAX));
        let death = self.draw_death(crashes);
        let down = seconds(self.chance.between(low, high));
        self.stop(host, death, Some(down));
        self.plan_churn(at);
    }

    fn plan_cut(&mut self, at: usize) {
        let Disturbance::FlakyLinks {
            until_s,
            cuts_per_minute,
            ..
        } = self.scenario.disturbance[at]
        else {
            return;
        };
        let workers = self.scenario.nodes - self.scenario.orchestrators;
        let links = workers * self.scenario.links;
        self.plan_next(at, cuts_per_minute, links, until_s, Disturbing::CutNext);
    }

    fn cut(&mut self, at: usize) {
        let Disturbance::FlakyLinks {
            down_s: [low, high],
            ..
        } = self.scenario.disturbance[at]
        else {
            return;
        };
        let now = self.now();
        let down = seconds(self.chance.between(low, high));
        let drawn = (0..DRAWS)
            .map(|_| LinkId(u32::try_from(self.chance.below(self.links.len())).unwrap_or(0)))
            .find(|link| (self.links.get(link.0 as usize)).is_some_and(Link::is_up));
        if let Some(link) = drawn {
            let [a, b] = self.links[link.0 as usize].hosts;
            self.cuts.insert((a.min(b), a.max(b)), now + down);
            self.disturbed();
            self.path_changed(link);
            self.queue
                .plan(now + down, Event::Disturb(Disturbing::Heal(link)));
            self.trace.line(now, a, None, || {
                format!("the path h{} - h{} is cut", a.0, b.0)
            });
        }
        self.plan_cut(at);
    }

    /// Plans the next one of things that happen at random to each of many, so often in a minute.
    fn plan_next(
        &mut self,
        at: usize,
        per_minute: f64,
        of: usize,
        until_s: f64,
        step: impl Fn(usize) -> Disturbing,
    ) {
        let in_a_second = per_minute * f64::from(u32::try_from(of).unwrap_or(u32::MAX)) / 60.0;
        if in_a_second <= 0.0 {
            return;
        }
        let wait = seconds(self.chance.exponential() / in_a_second);
        let next = self.now() + wait;
        if next < seconds(until_s) {
            self.queue.plan(next, Event::Disturb(step(at)));
        }
    }

    fn replay(&mut self, at: usize) {
        let Disturbance::Replay {
            until_s,
            per_s,
            lie_ms,
            slander_per_s,
            ..
        } = self.scenario.disturbance[at]
        else {
            return;
        };
        let now = self.now();
        for host in self.running(Kind::Attacker) {
            let links = self.process(host).map(|it| it.links.clone());
            for (peer, link) in links.into_iter().flatten() {
                if self.host(peer).kind != Kind::Orchestrator {
                    continue;
                }
                let (beats, suspicions) = (tenth(per_s), tenth(slander_per_s));
                let brain = self.hosts[host.at()].process.as_ref();
                let recorder = brain
                    .and_then(|it| it.brain.as_ref())
                    .and_then(|it| it.recorder.as_ref());
                let Some(recorder) = recorder else { continue };
                let batch = recorder.replay(beats, suspicions, lie_ms, &mut self.attack);
                let end = self.links[link.0 as usize].end_of(host);
                self.send(link, end, Message::Batch(Box::new(batch)));
            }
        }
        if now + REPLAY_EVERY < seconds(until_s) {
            let next = Event::Disturb(Disturbing::ReplayNext(at));
            self.queue.plan(now + REPLAY_EVERY, next);
        }
    }

    fn draw_death(&mut self, crashes: f64) -> Death {
        if self.chance.chance(crashes) {
            Death::Killed
        } else {
            Death::Goodbye
        }
    }

    fn running(&self, kind: Kind) -> Vec<Host> {
        (0..self.hosts.len())
            .map(|at| Host(u32::try_from(at).unwrap_or(u32::MAX)))
            .filter(|host| self.host(*host).kind == kind && self.host(*host).process.is_some())
            .collect()
    }
}

/// When a disturbance begins, and when it ends where that is an event of its own.
fn times(disturbance: &Disturbance) -> (f64, Option<f64>) {
    match *disturbance {
        Disturbance::Partition {
            from_s, until_s, ..
        }
        | Disturbance::Storm {
            from_s, until_s, ..
        } => (from_s, Some(until_s)),
        Disturbance::Churn { from_s, .. }
        | Disturbance::RestartOrchestrators { from_s, .. }
        | Disturbance::FlakyLinks { from_s, .. }
        | Disturbance::Replay { from_s, .. } => (from_s, None),
        Disturbance::Leave { at_s, .. }
        | Disturbance::KillOrchestrators { at_s, .. }
        | Disturbance::Join { at_s, .. }
        | Disturbance::Clone { at_s, .. }
        | Disturbance::Revoke { at_s, .. }
        | Disturbance::Starve { at_s, .. } => (at_s, None),
    }
}

/// A share of some, to the nearest whole.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a share of some hundred thousands at most"
)]
fn part(of: usize, share: f64) -> usize {
    (of as f64 * share).round() as usize
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "validated to be a million at most"
)]
fn tenth(per_s: f64) -> usize {
    (per_s / 10.0).ceil() as usize
}
