//! The writer's side: what presence decided, as views of workers. Belongs to one task, the keeper.

mod views;

use super::index::Index;
use super::merit::Merits;
use super::offerings::Offerings;
use super::roll::Roll;
use super::snapshot::{STATES, Snapshot};
use super::worker::{Live, Offering, SUSPECT, WorkerView};
use crate::score::Weights;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use tether_presence::{AdmittedCard, Effect};
use tether_wire::beat::NodeState;
use tether_wire::{Beat, NodeId, Role, Tier, Verified};

/// What readers are to learn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct News {
    /// Workers came, went or offer something else.
    pub(crate) changed: bool,
    /// Others are the best now.
    pub(crate) ranked: bool,
    /// Something is to be seen through the snapshot that they hold.
    pub(crate) noted: bool,
}

impl News {
    /// Whether the snapshot that readers hold is not that of now.
    pub(crate) fn is_stale(self) -> bool {
        self.changed || self.ranked
    }
}

/// A worker that came or went.
#[derive(Debug)]
pub(crate) enum Passage {
    Came(Arc<WorkerView>),
    Went(NodeId),
}

/// All live nodes.
#[derive(Debug, Default)]
pub(crate) struct Roster {
    views: Roll,
    /// Whether there ever was one.
    met: bool,
    index: Arc<Index>,
    offerings: Offerings,
    /// Those of which the beat or the card that it names is missing. As many as are live at most.
    waiting: HashMap<NodeId, Waiting>,
    /// Gateways and orchestrators.
    others: HashMap<NodeId, Other>,
    /// The orchestrators of these that live, as readers see it at any time.
    peers: Arc<AtomicU32>,
    /// Workers that are gone while something that we gave them still runs.
    unfinished: HashMap<NodeId, Arc<Live>>,
    /// How many of these there were after the last look for those whose work has ended.
    kept_unfinished: usize,
    /// Workers that offer more than there was room for.
    left_out: BTreeSet<NodeId>,
    /// The last of them for which it was looked again; none at the beginning.
    readmitted: Option<NodeId>,
    counts: [usize; STATES.len()],
    news: News,
    merits: Merits,
}

#[derive(Debug, Default)]
struct Waiting {
    live: Arc<Live>,
    state: Option<NodeState>,
    card: Option<(Arc<Offering>, Tier)>,
}

#[derive(Debug)]
struct Other {
    role: Role,
    suspect: bool,
}

impl Roster {
    /// Nobody yet; workers are kept ready by these merits.
    pub(crate) fn new(merits: Merits) -> Self {
        Self {
            merits,
            ..Self::default()
        }
    }

    /// How much each term counts from the next ranking on.
    pub(crate) fn weigh(&mut self, weights: Weights) {
        self.merits.weights = weights;
    }

    /// Takes over what presence decided.
    pub(crate) fn apply(&mut self, effect: Effect) -> Option<Passage> {
        match effect {
            Effect::Carded(card) => self.carded(*card),
            Effect::Beat {
                beat,
                heard_mono_ms,
                carded,
            } => self.beat(&beat, heard_mono_ms, carded),
            Effect::Suspect(id) => {
                self.doubt(&id, true);
                None
            }
            Effect::Well(id) => {
                self.doubt(&id, false);
                None
            }
            Effect::Gone { node, .. } => {
                self.forget_other(&node);
                let live = (self.waiting.remove(&node)).map(|waiting| waiting.live);
                let went = self.take_out(&node);
                self.keep_unfinished(node, live.or(went.clone()));
                went.map(|_| Passage::Went(node))
            }
            Effect::WantCard { .. } | Effect::Clone { .. } | Effect::Rejected { .. } => None,
        }
    }

    fn carded(&mut self, card: AdmittedCard) -> Option<Passage> {
        let (id, role, tier) = (card.node(), card.role(), card.tier());
        let card = card.into_card().into_inner();
        let Some(offered) = card.worker.filter(|_| role == Role::Worker) else {
            self.waiting.remove(&id);
            let live = self.take_out(&id);
            self.keep_unfinished(id, live);
            let suspect = false;
            self.others.insert(id, Other { role, suspect });
            self.news.noted = true;
            return None;
        };
        let offering = self.offerings.share(Offering {
            region: card.region,
            card: offered,
        });
        self.forget_other(&id);
        if let Some(old) = self.views.get(&id).cloned() {
            self.enter(WorkerView {
                offering,
                tier,
                ..(*old).clone()
            });
            return None;
        }
        self.wait(id).card = Some((offering, tier));
        self.promote(&id)
    }

    fn beat(&mut self, beat: &Verified<Beat>, heard_ms: u64, carded: bool) -> Option<Passage> {
        let id = beat.signer();
        if let Some(view) = self.views.get(&id) {
            if carded && view.state == beat.state {
                let before = place_of(view);
                if view.live.beat(beat, heard_ms) {
                    self.news.noted = true;
                }
                let after = place_of(view);
                self.recount(before, after);
                return None;
            }
            if carded {
                let mut new = (**view).clone();
                new.state = beat.state;
                self.enter(new);
                return self.beat(beat, heard_ms, carded);
            }
            let live = self.take_out(&id)?;
            live.beat(beat, heard_ms);
            let (state, card) = (Some(beat.state), None);
            self.waiting.insert(id, Waiting { live, state, card });
            return Some(Passage::Went(id));
        }
        if let Some(other) = self.others.get_mut(&id) {
            if carded {
                self.news.noted |= std::mem::take(&mut other.suspect);
                return None;
            }
            self.forget_other(&id);
        }
        let waiting = self.wait(id);
        waiting.live.beat(beat, heard_ms);
        waiting.state = Some(beat.state);
        if !carded {
            waiting.card = None;
        }
        self.promote(&id)
    }

    fn doubt(&mut self, id: &NodeId, suspect: bool) {
        self.news.noted = true;
        if let Some(view) = self.views.get(id) {
            let before = place_of(view);
            if suspect {
                view.live.set_suspect();
            } else {
                view.live.set_well();
            }
            let after = place_of(view);
            self.recount(before, after);
        } else if let Some(other) = self.others.get_mut(id) {
            other.suspect = suspect;
        } else if let Some(waiting) = self.waiting.get(id) {
            if suspect {
                waiting.live.set_suspect();
            } else {
                waiting.live.set_well();
            }
        }
    }

    /// A worker's link cannot be had: it is not to be dialled before `until`. Says whether that is
    /// news.
    pub(crate) fn unreachable(&mut self, id: &NodeId, now_mono_ms: u64, until: u64) -> bool {
        let view = self.views.get(id);
        let is_new = view.is_some_and(|view| view.live.set_redial(now_mono_ms, until));
        self.news.noted |= is_new;
        is_new
    }

    /// Whether a worker is there and not doubted.
    pub(crate) fn is_well(&self, id: &NodeId) -> bool {
        self.views.get(id).is_some_and(|view| !view.is_suspect())
    }

    /// Those that are heard of and whose card has not come.
    pub(crate) fn uncarded(&self) -> impl Iterator<Item = &NodeId> {
        let uncarded = self.waiting.iter().filter(|(_, it)| it.card.is_none());
        uncarded.map(|(id, _)| id)
    }

    /// What readers are to learn.
    pub(crate) fn news(&self) -> News {
        self.news
    }

    /// They were told; `all` with a new snapshot.
    pub(crate) fn told(&mut self, all: bool) {
        self.news.noted = false;
        if all {
            self.news = News::default();
        }
    }

    /// The fleet as it is now, for the readers.
    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot {
            workers: self.views.clone(),
            met: self.met,
            index: self.index.clone(),
            peers: self.peers.clone(),
        }
    }

    /// Counts the orchestrators, for the readers.
    pub(crate) fn count_peers(&self) {
        let lives = |it: &&Other| it.role == Role::Orchestrator && !it.suspect;
        let count = self.others.values().filter(lives).count();
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        self.peers.store(count, Ordering::Relaxed);
    }

    /// Workers by state; suspects count as such only.
    pub(crate) fn counts(&self) -> [(&'static str, usize); STATES.len()] {
        std::array::from_fn(|at| (STATES[at], self.counts[at]))
    }

    /// Gateways and orchestrators, by role and whether they are suspect.
    pub(crate) fn others(&self) -> [(&'static str, &'static str, usize); 4] {
        let count = |role, suspect| {
            let is_it = |it: &&Other| it.role == role && it.suspect == suspect;
            self.others.values().filter(is_it).count()
        };
        [
            ("gateway", "live", count(Role::Gateway, false)),
            ("gateway", SUSPECT, count(Role::Gateway, true)),
            ("orchestrator", "live", count(Role::Orchestrator, false)),
            ("orchestrator", SUSPECT, count(Role::Orchestrator, true)),
        ]
    }

    #[cfg(test)]
    pub(crate) fn index(&self) -> &Index {
        &self.index
    }

    #[cfg(test)]
    pub(crate) fn is_spent(&self) -> bool {
        self.unfinished.is_empty() && self.waiting.is_empty() && self.views.is_empty()
    }
}

/// The place of a worker's state among all states.
fn place_of(view: &WorkerView) -> usize {
    let name = view.state_name();
    let unknown = STATES.len() - 1;
    STATES.iter().position(|it| *it == name).unwrap_or(unknown)
}
