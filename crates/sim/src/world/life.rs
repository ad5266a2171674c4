//! Processes start, beat, say goodbye, are killed.

use super::{Event, TICK, World, part_of};
use crate::finder::Finder;
use crate::host::{Brain, Host, Kind, Process};
use crate::judge::Death;
use crate::link::Message;
use crate::machine::{Input, Machine};
use crate::queue::{MS, SECOND, Us};
use crate::recorder::Recorder;
use std::collections::BTreeMap;
use std::sync::Arc;
use tether_wire::beat::{BEAT_INTERVAL_MS, NodeState};
use tether_wire::card::{ModelOffer, WorkerCard};
use tether_wire::spread::MAX_LINKED;
use tether_wire::{Beat, Card, Digest, ModelRef, Region, Role, Tier, Verified};

/// By what part of the interval a beat comes early, at most: a fleet that was started at once does
/// not beat at once for ever.
const BEAT_JITTER: f64 = 0.1;
/// Least time between two beats of a node: what wishes for one at the same time gets one.
const LEAST_BETWEEN_BEATS: Us = 50 * MS;
/// For how long an orchestrator that said goodbye runs on to tell it.
const LINGER: Us = 200 * MS;
/// A process loads itself and opens its sockets in at most this time.
const BOOT: Us = SECOND / 2;

impl<M: Machine> World<M> {
    pub(super) fn start(&mut self, host: Host) {
        if self.host(host).process.is_some() {
            return;
        }
        self.disturbed();
        let now = self.now();
        let clocks = self.clocks(host);
        let boot = part_of(BOOT, self.timers.unit());
        let links = self.scenario.links;
        let state = &mut self.hosts[host.at()];
        state.epoch = clocks.unix_ms.max(state.epoch + 1);
        state.incarnation += 1;
        let (id, key, kind, epoch) = (state.id, state.key, state.kind, state.epoch);
        let incarnation = state.incarnation;
        let card = card(kind, epoch, clocks.unix_ms);
        let card = Arc::new(self.verifier.seal_card(id, &card));
        let brain = (kind != Kind::Worker).then(|| {
            let seed = self.seed ^ u64::from(host.0).rotate_left(32) ^ epoch;
            Box::new(Brain {
                machine: M::start(id, super::MESH, clocks, seed),
                recorder: (kind == Kind::Attacker).then(Recorder::default),
            })
        });
        let is_brain = brain.is_some();
        let links = if is_brain { MAX_LINKED } else { links };
        let remembered = self.host(host).remembered.clone();
        self.hosts[host.at()].process = Some(Process {
            started: now,
            seq: 0,
            card_digest: Digest::of(card.bytes()),
            card,
            last_beat: None,
            beat_at: now + boot,
            look_up_at: now + boot,
            keep_at: now + boot,
            starved_until: 0,
            is_leaving: false,
            orphaned: None,
            links: BTreeMap::new(),
            finder: Finder::new(id, links, &remembered),
            brain,
        });
        self.queue.plan(now + boot, Event::Beat(host));
        self.queue.plan(now + boot, Event::LookUp(host));
        self.queue.plan(now + boot, Event::Keep(host));
        self.judge.started(key, epoch, now);
        self.trace.line(now, host, None, || {
            format!("h{} starts, epoch {epoch}", host.0)
        });
        if is_brain {
            let phase = part_of(TICK, self.timers.unit());
            self.queue
                .plan(now + phase, Event::Tick { host, incarnation });
            self.oracle.announce(host, now);
            if kind == Kind::Orchestrator {
                let joins = self.is_joining(host);
                self.judge.view_started(host, now, joins);
                self.trace
                    .line_of_viewer(now, Some(host), || "the viewer starts".to_owned());
            }
        }
    }

    pub(super) fn stop(&mut self, host: Host, death: Death, back_in: Option<Us>) {
        let Some(process) = self.process(host) else {
            return;
        };
        if process.is_leaving {
            return;
        }
        self.disturbed();
        let now = self.now();
        let (key, epoch) = (self.host(host).key, self.host(host).epoch);
        self.trace
            .line(now, host, None, || format!("h{} stops: {death:?}", host.0));
        if let Some(back_in) = back_in {
            self.queue.plan(now + back_in, Event::Start(host));
        }
        match death {
            Death::Killed => {
                self.oracle.killed(host, now);
                self.exit_silently(host);
            }
            Death::Goodbye => {
                self.oracle.withdrawn(host, now);
                self.beat(host, NodeState::Leaving);
                let incarnation = self.host(host).incarnation;
                if let Some(process) = self.process(host)
                    && process.brain.is_some()
                {
                    process.is_leaving = true;
                    let exit = Event::Exit { host, incarnation };
                    self.queue.plan(now + LINGER, exit);
                } else {
                    self.exit(host);
                }
            }
        }
        if self.judge.stopped(key, epoch, now, death) {
            let due = now + self.ghost_after() + MS;
            self.queue.plan(due, Event::CheckGhosts { key, died: now });
        }
    }

    /// A process ends in good order: it closes its links.
    pub(super) fn exit(&mut self, host: Host) {
        let links = self.process(host).map(|it| it.links.clone());
        for (_, link) in links.into_iter().flatten() {
            let end = self.links[link.0 as usize].end_of(host);
            self.send(link, end, Message::Close);
            self.links[link.0 as usize].up[end.at()] = false;
        }
        self.end(host);
    }

    /// A process is killed: nobody hears of it, but its silence is noticed.
    fn exit_silently(&mut self, host: Host) {
        let links = self.process(host).map(|it| it.links.clone());
        let mut orphans = Vec::new();
        for (peer, link) in links.into_iter().flatten() {
            let end = self.links[link.0 as usize].end_of(host);
            self.links[link.0 as usize].up[end.at()] = false;
            self.plan_notice(link, end.other());
            orphans.push(peer);
        }
        let was_brain = self.host(host).kind != Kind::Worker;
        self.end(host);
        if was_brain {
            self.find_orphans(orphans);
        }
    }

    fn end(&mut self, host: Host) {
        let now = self.now();
        let Some(process) = self.hosts[host.at()].process.take() else {
            return;
        };
        self.hosts[host.at()].remembered = process.finder.proven();
        let class = usize::from(process.brain.is_some());
        self.sent[class].lived += now - process.started;
        self.judge.view_stopped(host, now);
        if process.brain.is_some() {
            self.trace
                .line_of_viewer(now, Some(host), || "the viewer stops".to_owned());
        }
    }

    /// Workers all of whose orchestrators are dead now.
    fn find_orphans(&mut self, among: Vec<Host>) {
        let now = self.now();
        for host in among {
            let Some(process) = &self.host(host).process else {
                continue;
            };
            let is_orphan = process.brain.is_none()
                && (process.links.iter()).all(|(peer, link)| {
                    let link = &self.links[link.0 as usize];
                    let end = link.end_of(*peer);
                    !self.runs(*peer, link.incarnations[end.at()])
                });
            if is_orphan && let Some(process) = self.process(host) {
                process.orphaned.get_or_insert(now);
            }
        }
    }

    pub(super) fn beat_if_due(&mut self, host: Host) {
        let now = self.now();
        let Some(process) = self.process(host) else {
            return;
        };
        if process.beat_at != now || process.is_leaving {
            return;
        }
        if process.starved_until > now {
            process.beat_at = process.starved_until;
            let at = process.beat_at;
            self.queue.plan(at, Event::Beat(host));
            return;
        }
        self.beat(host, NodeState::Serving);
        let early = part_of(BEAT_INTERVAL_MS, BEAT_JITTER * self.timers.unit());
        let wait = self.host(host).clock.wait(BEAT_INTERVAL_MS - early);
        if let Some(process) = self.process(host) {
            process.beat_at = now + wait;
            self.queue.plan(now + wait, Event::Beat(host));
        }
    }

    /// A link wishes for a beat of its own.
    pub(super) fn wish_for_beat(&mut self, host: Host) {
        let now = self.now();
        let Some(process) = self.process(host) else {
            return;
        };
        let at = (process.last_beat).map_or(now, |last| now.max(last + LEAST_BETWEEN_BEATS));
        if at < process.beat_at {
            process.beat_at = at;
            self.queue.plan(at, Event::Beat(host));
        }
    }

    /// Makes a beat, and sends it where it belongs.
    fn beat(&mut self, host: Host, state: NodeState) {
        let now = self.now();
        let clocks = self.clocks(host);
        let nonce = self.timers.bytes();
        let (id, epoch) = (self.host(host).id, self.host(host).epoch);
        let Some(process) = self.process(host) else {
            return;
        };
        process.last_beat = Some(now);
        process.seq += 1;
        let seq = process.seq;
        let Some(process) = self.host(host).process.as_ref() else {
            return;
        };
        if process.finder.chosen().is_empty() && process.brain.is_none() {
            return;
        }
        let beat = Beat {
            epoch,
            seq,
            nonce,
            issued_ms: clocks.unix_ms,
            state,
            card: process.card_digest,
            queue_depth: u32::from(nonce[0]) % 4,
            in_flight: u32::from(nonce[1]) % 8,
            tokens_per_s: f32::from(nonce[2]),
            first_token_ms: u32::from(nonce[3]),
            vitals: None,
        };
        let card = process.card.clone();
        let is_brain = process.brain.is_some();
        // A goodbye goes wherever there is a link; a beat where beats are pushed to.
        let is_leaving = state == NodeState::Leaving;
        let links: Vec<_> = (process.links.iter())
            .filter(|(peer, _)| {
                let peer = self.host(**peer).id;
                is_leaving || process.finder.chosen().contains(&peer)
            })
            .map(|(_, link)| *link)
            .collect();
        let beat = Arc::new(self.verifier.seal_beat(id, &beat));
        self.trace.line(now, host, None, || {
            format!("h{} beats {epoch}/{seq} {state:?}", host.0)
        });
        if is_brain {
            let card = Some(card);
            self.feed(host, Input::Pushed { beat, card }, None);
        } else {
            self.push(host, &links, &beat, &card);
        }
    }

    fn push(
        &mut self,
        host: Host,
        links: &[crate::link::LinkId],
        beat: &Arc<Verified<Beat>>,
        card: &Arc<Verified<Card>>,
    ) {
        for id in links {
            let link = &mut self.links[id.0 as usize];
            let end = link.end_of(host);
            let is_carded = std::mem::replace(&mut link.is_carded, true);
            let message = Message::Push {
                beat: beat.clone(),
                card: (!is_carded).then(|| card.clone()),
            };
            self.send(*id, end, message);
        }
    }
}

/// The card of a simulated node: as long as that of a real one with a model.
fn card(kind: Kind, epoch: u64, issued_ms: u64) -> Card {
    let worker = (kind == Kind::Worker).then(|| WorkerCard {
        gpu_class: "cpu".to_owned(),
        vram_gb: 64,
        accelerators: 1,
        capacity: 8,
        models: vec![ModelOffer {
            model: "tiny@1.0"
                .parse::<ModelRef>()
                .expect("a name and a version"),
            digest: Digest([1; 32]),
            warm: true,
            context_tokens: 4_096,
            adapters: Vec::new(),
            numerics_class: "simulated".to_owned(),
        }],
        faults: Vec::new(),
        price_per_1k_micro: 1,
        tier: Tier::Untrusted,
        engine: "simulated".to_owned(),
    });
    Card {
        role: if kind == Kind::Worker {
            Role::Worker
        } else {
            Role::Orchestrator
        },
        epoch,
        revision: 0,
        issued_ms,
        region: Region::new("local").expect("a name in kebab-case"),
        grant: None,
        agent: "tether-sim".to_owned(),
        minor: 0,
        addresses: vec!["192.0.2.1:4242".to_owned()],
        worker,
    }
}
