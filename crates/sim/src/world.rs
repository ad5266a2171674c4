//! A mesh of simulated hosts, from the first start to the last event.
//!
//! # Layout
//!
//! * `life` – processes start, beat, say goodbye, are killed
//! * `links` – dials, links that come up, break and are noticed to
//! * `messages` – what travels on them, and what it does when it is there
//! * `disturb` – what the scenario does to them
//! * `verdict` – what is asked of the judge on the way and at the end

mod disturb;
mod life;
mod links;
mod messages;
mod verdict;

use crate::clock::Clock;
use crate::discovery::Oracle;
use crate::finder::Finder;
use crate::host::{Host, HostState, Key, Kind, Process};
use crate::judge::{Death, Judge};
use crate::link::{End, Link, LinkId, Message};
use crate::machine::{Machine, Output};
use crate::network::{Network, us};
use crate::outcome::Outcome;
use crate::queue::{MS, Queue, SECOND, Us, seconds};
use crate::random::{Random, Stream};
use crate::scenario::Scenario;
use crate::trace::{Trace, Watch};
use crate::verifier::{IdMap, Verifier};
use disturb::Disturbing;
use rustix::time::{ClockId, clock_gettime};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tether_presence::Now;
use tether_wire::beat::{EXPIRY_MS, MAX_SKEW_MS};
use tether_wire::{MeshId, NodeId};

/// The mesh of all simulated nodes.
const MESH: MeshId = MeshId([7; 32]);
/// How often an orchestrator's machine is told that time passed.
const TICK: Us = 50 * MS;
/// How often each view is asked for who is missing.
const ASK: Us = 5 * SECOND;

#[derive(Debug)]
enum Event {
    Start(Host),
    Stop {
        host: Host,
        death: Death,
        back_in: Option<Us>,
    },
    /// An orchestrator that said goodbye has told it to its peers.
    Exit {
        host: Host,
        incarnation: u32,
    },
    Beat(Host),
    LookUp(Host),
    Found {
        host: Host,
        incarnation: u32,
    },
    Dial {
        host: Host,
        incarnation: u32,
        to: Host,
        since: Us,
        attempt: usize,
    },
    Greeted {
        host: Host,
        incarnation: u32,
        to: Host,
        to_incarnation: u32,
        since: Us,
        delay: Us,
    },
    DialFailed {
        host: Host,
        incarnation: u32,
        to: Host,
    },
    Deliver {
        link: LinkId,
        end: End,
        message: Message,
    },
    /// One end has heard nothing for so long that the link is quiet, or down.
    Notice {
        link: LinkId,
        end: End,
        is_down: bool,
    },
    /// A host looks at its links.
    Keep(Host),
    Tick {
        host: Host,
        incarnation: u32,
    },
    Disturb(Disturbing),
    CheckGhosts {
        key: Key,
        died: Us,
    },
    Ask,
}

/// Messages and bytes that nodes of one kind sent, and how long these lived in all.
#[derive(Clone, Copy, Debug, Default)]
struct Sent {
    messages: u64,
    bytes: u64,
    lived: Us,
}

/// One run.
pub(crate) struct World<M> {
    scenario: Scenario,
    seed: u64,
    queue: Queue<Event>,
    network: Network,
    oracle: Oracle,
    verifier: Verifier,
    nodes: Random,
    timers: Random,
    chance: Random,
    attack: Random,
    hosts: Vec<HostState<M>>,
    host_of: IdMap<Host>,
    /// The hosts that hold each key.
    holders: Vec<Vec<Host>>,
    links: Vec<Link>,
    /// For each partition that holds, who is on its smaller side.
    partitions: BTreeMap<usize, Vec<bool>>,
    /// Paths that are cut, until when.
    cuts: BTreeMap<(Host, Host), Us>,
    judge: Judge,
    trace: Trace,
    outputs: Vec<Output>,
    sent: [Sent; 2],
    clones: Vec<Key>,
    last_disturbance: Us,
    events: u64,
}

impl<M: Machine> World<M> {
    pub(crate) fn new(scenario: &Scenario, seed: u64, watch: Option<Watch>) -> Self {
        let ghost_after = (EXPIRY_MS + MAX_SKEW_MS) * MS + us(scenario.expect.ghost_margin_ms);
        let mut world = Self {
            scenario: scenario.clone(),
            seed,
            queue: Queue::default(),
            network: Network::new(scenario.network.clone(), Random::new(seed, Stream::Network)),
            oracle: Oracle::new(scenario.discovery.clone()),
            verifier: Verifier::new(MESH),
            nodes: Random::new(seed, Stream::Nodes),
            timers: Random::new(seed, Stream::Timers),
            chance: Random::new(seed, Stream::Disturbance),
            attack: Random::new(seed, Stream::Attacker),
            hosts: Vec::new(),
            host_of: IdMap::default(),
            holders: Vec::new(),
            links: Vec::new(),
            partitions: BTreeMap::new(),
            cuts: BTreeMap::new(),
            judge: Judge::new(ghost_after),
            trace: Trace::new(watch),
            outputs: Vec::new(),
            sent: [Sent::default(); 2],
            clones: Vec::new(),
            last_disturbance: 0,
            events: 0,
        };
        world.populate();
        world
    }

    /// Runs it to its end.
    pub(crate) fn run(mut self) -> (Outcome, Vec<String>) {
        let (begun, cpu_begun) = (Instant::now(), cpu_time());
        let end = self.scenario.duration();
        while let Some(event) = self.queue.take(end) {
            self.events += 1;
            self.happen(event);
        }
        let mut outcome = self.outcome();
        let cpu = cpu_time().saturating_sub(cpu_begun);
        outcome.set_cost(begun.elapsed(), cpu);
        (outcome, self.trace.into_lines())
    }

    fn populate(&mut self) {
        let honest = self.scenario.orchestrators - self.scenario.attackers;
        for at in 0..self.scenario.nodes {
            let kind = match at {
                _ if at < honest => Kind::Orchestrator,
                _ if at < self.scenario.orchestrators => Kind::Attacker,
                _ => Kind::Worker,
            };
            let id = NodeId(self.nodes.bytes());
            let key = Key(u32::try_from(at).unwrap_or(u32::MAX));
            self.holders.push(Vec::new());
            self.judge.add_key();
            self.add_host(key, id, kind);
        }
        let joining = disturb::joining(&self.scenario);
        let first = seconds(self.scenario.start_within_s);
        for at in (0..self.scenario.nodes).filter(|at| !joining.contains(at)) {
            let host = Host(u32::try_from(at).unwrap_or(u32::MAX));
            let part = self.nodes.unit();
            self.queue.plan(part_of(first, part), Event::Start(host));
        }
        self.plan_disturbances();
        self.queue.plan(ASK, Event::Ask);
    }

    fn add_host(&mut self, key: Key, id: NodeId, kind: Kind) -> Host {
        let clocks = &self.scenario.clocks;
        let skew = match kind {
            Kind::Worker => clocks.worker_skew_ms,
            Kind::Orchestrator | Kind::Attacker => clocks.orchestrator_skew_ms,
        };
        let clock = Clock::draw(&mut self.nodes, skew, clocks.drift_ppm);
        let host = Host(u32::try_from(self.hosts.len()).unwrap_or(u32::MAX));
        self.hosts.push(HostState {
            key,
            id,
            kind,
            clock,
            epoch: 0,
            incarnation: 0,
            remembered: Vec::new(),
            process: None,
        });
        self.host_of.entry(id).or_insert(host);
        self.holders[key.at()].push(host);
        host
    }

    fn happen(&mut self, event: Event) {
        let now = self.queue.now();
        self.trace.mix(now);
        match event {
            Event::Start(host) => self.start(host),
            Event::Stop {
                host,
                death,
                back_in,
            } => self.stop(host, death, back_in),
            Event::Exit { host, incarnation } => {
                if self.runs(host, incarnation) {
                    self.exit(host);
                }
            }
            Event::Beat(host) => self.beat_if_due(host),
            Event::LookUp(host) => self.look_up_if_due(host),
            Event::Found { host, incarnation } => {
                if self.runs(host, incarnation) {
                    self.found(host);
                }
            }
            Event::Dial {
                host,
                incarnation,
                to,
                since,
                attempt,
            } => {
                if self.runs(host, incarnation) {
                    self.dial(host, to, since, attempt);
                }
            }
            Event::Greeted {
                host,
                incarnation,
                to,
                to_incarnation,
                since,
                delay,
            } => {
                if self.runs(host, incarnation) {
                    self.greeted(host, to, to_incarnation, since, delay);
                }
            }
            Event::DialFailed {
                host,
                incarnation,
                to,
            } => {
                if self.runs(host, incarnation) {
                    self.failed(host, to);
                }
            }
            Event::Deliver { link, end, message } => self.deliver(link, end, message),
            Event::Notice { link, end, is_down } => self.notice(link, end, is_down),
            Event::Keep(host) => self.keep_if_due(host),
            Event::Tick { host, incarnation } => {
                if self.runs(host, incarnation) {
                    self.tick(host);
                }
            }
            Event::Disturb(disturbing) => self.disturb(disturbing),
            Event::CheckGhosts { key, died } => self.check_ghosts(key, died),
            Event::Ask => self.ask(),
        }
    }

    fn now(&self) -> Us {
        self.queue.now()
    }

    fn host(&self, host: Host) -> &HostState<M> {
        &self.hosts[host.at()]
    }

    fn process(&mut self, host: Host) -> Option<&mut Process<M>> {
        self.hosts[host.at()].process.as_mut()
    }

    /// Whether the process of this incarnation runs.
    fn runs(&self, host: Host, incarnation: u32) -> bool {
        let host = self.host(host);
        host.incarnation == incarnation && host.process.is_some()
    }

    /// What the host's clocks show.
    fn clocks(&self, host: Host) -> Now {
        let (clock, now) = (self.host(host).clock, self.now());
        Now {
            unix_ms: clock.unix_ms(now),
            mono_ms: clock.mono_ms(now),
        }
    }

    /// What changes the truth, or what can be known of it, was done.
    fn disturbed(&mut self) {
        self.last_disturbance = self.now();
    }

    fn finder(&mut self, host: Host) -> Option<&mut Finder> {
        self.process(host).map(|process| &mut process.finder)
    }
}

/// Time of the core that this thread has used.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

/// A part of a time.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "times of hours at most"
)]
fn part_of(time: Us, part: f64) -> Us {
    (time as f64 * part) as Us
}
