//! Looks up, dials and watches, as the plan says.

use super::memory::{Entry, Memory};
use super::{DialFailure, MAX_CONFIGURED, UplinkView};
use crate::error::LinkError;
use crate::link::{Link, LinkEvent};
use crate::lonely::Lonely;
use crate::node::Node;
use rand::seq::SliceRandom;
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant, SystemTime};
use tether_presence::plan::{FIRST_REDIAL_MS, next_lookup_ms};
use tether_presence::uplinks::{Source, Uplink, Uplinks as Plan};
use tether_wire::{NodeId, Role, Topic};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::task::JoinSet;

/// How long a look-up may take before it is given up.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest nap where nothing is due.
const LONGEST_NAP: Duration = Duration::from_secs(30);
/// How often the times at which orchestrators were seen are written down.
const REMEMBER_INTERVAL: Duration = Duration::from_secs(600);
/// How long a link that nobody needs is kept: one that flaps would be made again.
const SURPLUS_GRACE: Duration = Duration::from_secs(10);

/// Most failures that are remembered, for people; all go when there are more.
const MAX_FAILURES: usize = 512;
/// Most characters of one.
const MAX_WHY_CHARS: usize = 300;

/// What a task of the keeper came to.
enum Done {
    LookedUp(Option<Vec<NodeId>>),
    Dialled(NodeId, Result<Link, LinkError>),
}

pub(super) struct Keeper {
    node: Node,
    topic: Topic,
    plan: Plan,
    memory: Memory,
    remembered: BTreeMap<NodeId, Entry>,
    written: Instant,
    links: watch::Sender<Vec<Link>>,
    events: broadcast::Receiver<LinkEvent>,
    tasks: JoinSet<Done>,
    looking_up: bool,
    lookup_at: Instant,
    surplus_since: BTreeMap<NodeId, Instant>,
    lonely: Lonely,
    /// Why they were not linked last, for people.
    failures: HashMap<NodeId, DialFailure>,
    started: Instant,
}

impl Keeper {
    pub(super) fn new(
        node: Node,
        k: usize,
        mut configured: Vec<NodeId>,
        memory: Memory,
        links: watch::Sender<Vec<Link>>,
    ) -> Self {
        configured.truncate(MAX_CONFIGURED);
        let remembered = memory.load();
        let ids: Vec<NodeId> = remembered.iter().map(|entry| entry.key).collect();
        for entry in &remembered {
            node.remember(entry.key, entry.seq, &entry.addresses);
        }
        let now = Instant::now();
        Self {
            topic: Topic::Control(node.region().clone()),
            plan: Plan::new(node.id(), k, &configured, &ids),
            remembered: remembered.into_iter().map(|it| (it.key, it)).collect(),
            memory,
            written: now,
            links,
            events: node.events(),
            tasks: JoinSet::new(),
            looking_up: false,
            lookup_at: now,
            surplus_since: BTreeMap::new(),
            lonely: Lonely::default(),
            failures: HashMap::new(),
            started: now,
            node,
        }
    }

    /// Without end.
    pub(super) async fn run(mut self, mut asked: mpsc::Receiver<oneshot::Sender<Vec<UplinkView>>>) {
        loop {
            self.look();
            self.look_up();
            self.dial();
            let nap = tokio::time::sleep(self.nap());
            tokio::select! {
                () = nap => {}
                event = self.events.recv() => match event {
                    Err(broadcast::error::RecvError::Closed) => return,
                    // What is true now is looked at in any case.
                    Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                },
                Some(Ok(done)) = self.tasks.join_next() => self.done(done),
                // Whoever asked may have gone.
                Some(reply) = asked.recv() => drop(reply.send(self.views())),
            }
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Takes over how the links stand, and tells those who use them.
    fn look(&mut self) {
        let mut links = self.node.links();
        links.retain(|link| link.is_up() && link.peer().role == Role::Orchestrator);
        let seen: Vec<(NodeId, bool)> = links
            .iter()
            .map(|link| (link.peer().id, link.is_quiet()))
            .collect();
        let had_any = !self.plan.chosen().is_empty();
        self.plan.linked(&seen, self.now_ms(), rand::random());
        let chosen = self.plan.chosen();
        let find = |id: &NodeId| links.iter().find(|link| link.peer().id == *id).cloned();
        let chosen: Vec<Link> = chosen.iter().filter_map(find).collect();
        if had_any && chosen.is_empty() {
            let soon = Instant::now() + Duration::from_millis(FIRST_REDIAL_MS);
            self.lookup_at = self.lookup_at.min(soon);
        }
        self.say_if_lonely(chosen.is_empty());
        self.remember(&seen);
        self.end_surplus(&links);
        self.links.send_if_modified(|now| {
            let is_same = now.len() == chosen.len()
                && now
                    .iter()
                    .zip(&chosen)
                    .all(|(one, other)| one.is_same(other));
            *now = chosen;
            !is_same
        });
    }

    fn say_if_lonely(&mut self, alone: bool) {
        // An orchestrator may well be the only one.
        let alone = alone && self.node.role() != Role::Orchestrator;
        if self.lonely.is_due(alone, Instant::now()) {
            let (region, mesh) = (self.node.region(), self.node.mesh().id);
            tracing::warn!(
                "no orchestrator of region {region} is found in mesh {mesh}: check node.mesh, node.region and node.bootstrap, and that an orchestrator runs there"
            );
        }
    }

    /// Writes down who is linked, when somebody is new or elsewhere, and now and then.
    fn remember(&mut self, linked: &[(NodeId, bool)]) {
        let mut is_news = false;
        let unix_ms = unix_ms();
        for (id, _) in linked {
            let (seq, addresses) = self.node.remembered(id).unwrap_or_default();
            let entry = self.remembered.entry(*id).or_insert_with(|| {
                is_news = true;
                Entry {
                    key: *id,
                    addresses: Vec::new(),
                    seq: 0,
                    seen_ms: 0,
                }
            });
            if entry.addresses != addresses && !addresses.is_empty() {
                is_news = true;
                entry.addresses = addresses;
            }
            entry.seq = entry.seq.max(seq);
            entry.seen_ms = unix_ms;
        }
        if is_news || self.written.elapsed() >= REMEMBER_INTERVAL {
            self.written = Instant::now();
            let proven: Vec<NodeId> = self.plan.proven().collect();
            self.remembered.retain(|id, _| proven.contains(id));
            let entries = self.remembered.values().cloned().collect();
            let memory = self.memory.clone();
            // A slow disk must not hold up the links.
            tokio::task::spawn_blocking(move || memory.store(entries));
        }
    }

    /// Closes links that this node dialled, needs no more, and that nobody uses.
    fn end_surplus(&mut self, links: &[Link]) {
        let surplus = self.plan.surplus();
        self.surplus_since.retain(|id, _| surplus.contains(id));
        let now = Instant::now();
        for id in surplus {
            let since = *self.surplus_since.entry(id).or_insert(now);
            if now.saturating_duration_since(since) < SURPLUS_GRACE {
                continue;
            }
            let link = links.iter().find(|link| link.peer().id == id);
            if let Some(link) = link.filter(|link| link.origin().dialled_here && link.is_idle()) {
                link.release("this node has better links");
            }
        }
    }

    fn look_up(&mut self) {
        if self.looking_up || Instant::now() < self.lookup_at {
            return;
        }
        self.looking_up = true;
        let (node, topic) = (self.node.clone(), self.topic.clone());
        self.tasks.spawn(async move {
            let found = tokio::time::timeout(LOOKUP_TIMEOUT, node.lookup(&topic)).await;
            Done::LookedUp(match found {
                Ok(Ok(found)) => Some(found),
                Ok(Err(error)) => {
                    tracing::debug!(%error, "no orchestrators were looked up");
                    None
                }
                Err(_) => {
                    tracing::debug!("a look-up of orchestrators took too long");
                    None
                }
            })
        });
    }

    fn dial(&mut self) {
        for id in self.plan.take_due(self.now_ms()) {
            let node = self.node.clone();
            self.tasks.spawn(async move {
                let dialled = node.link(id, Role::Orchestrator).await;
                Done::Dialled(id, dialled)
            });
        }
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::LookedUp(found) => {
                self.looking_up = false;
                let links = self.plan.chosen().len();
                let wait = next_lookup_ms(links, rand::random());
                self.lookup_at = Instant::now() + Duration::from_millis(wait);
                if let Some(mut found) = found {
                    // Nobody outside chooses who comes first where room is short.
                    found.shuffle(&mut rand::rng());
                    self.plan.found(&found);
                }
            }
            Done::Dialled(id, Ok(link)) if link.is_up() && !link.is_quiet() => {
                self.plan.answered(&id, self.now_ms());
            }
            Done::Dialled(id, dialled) => {
                let failures = self.plan.failed(&id, self.now_ms(), rand::random());
                let error = dialled.err();
                self.note_failure(id, error.as_ref());
                let error = error.map_or("it was lost at once".to_owned(), |it| it.to_string());
                // The first failure may be news, the later ones are not.
                if failures == 1 {
                    tracing::warn!(peer = %id, error, "cannot link with an orchestrator");
                } else {
                    tracing::debug!(peer = %id, error, failures, "still no link");
                }
            }
        }
    }

    fn note_failure(&mut self, id: NodeId, error: Option<&LinkError>) {
        let Some(error) = error else { return };
        if self.failures.len() >= MAX_FAILURES {
            self.failures.clear();
        }
        let refused = match error {
            LinkError::Refused(refusal) | LinkError::Rejected(refusal) => {
                Some(refusal.code.as_str())
            }
            _ => None,
        };
        let why = error.to_string().chars().take(MAX_WHY_CHARS).collect();
        self.failures.insert(id, DialFailure { why, refused });
    }

    /// Everybody that is known, for people.
    fn views(&self) -> Vec<UplinkView> {
        let now_ms = self.now_ms();
        let view = |it: Uplink| UplinkView {
            id: it.id,
            source: match it.source {
                Source::Configured => "configured",
                Source::Remembered => "remembered",
                Source::Found => "found",
            },
            state: it.state,
            failures: it.failures,
            last_failure: (it.failures > 0)
                .then(|| self.failures.get(&it.id).cloned())
                .flatten(),
            missed: it.missed,
            linked_ago: (it.linked_ms > 0)
                .then(|| Duration::from_millis(now_ms.saturating_sub(it.linked_ms))),
            dial_in: (it.dial_at_ms).map(|at| Duration::from_millis(at.saturating_sub(now_ms))),
            addresses: (self.node.remembered(&it.id)).map_or_else(Vec::new, |it| it.1),
        };
        self.plan.views().into_iter().map(view).collect()
    }

    fn nap(&self) -> Duration {
        let now = Instant::now();
        let mut nap = LONGEST_NAP;
        if !self.looking_up {
            nap = nap.min(self.lookup_at.saturating_duration_since(now));
        }
        if let Some(at_ms) = self.plan.next_dial_ms() {
            nap = nap.min(Duration::from_millis(at_ms.saturating_sub(self.now_ms())));
        }
        if !self.surplus_since.is_empty() {
            nap = nap.min(SURPLUS_GRACE);
        }
        nap
    }
}

fn unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(0))
}
