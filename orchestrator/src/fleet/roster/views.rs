//! Views of workers on their way in and out of the roster and its index.

use super::{Passage, Roster, Waiting, place_of};
use crate::fleet::worker::{Live, WorkerView};
use std::ops::Bound;
use std::sync::Arc;
use tether_wire::NodeId;
use tether_wire::beat::NodeState;

/// Workers with work of ours that are gone, before a look for those whose work has ended.
const SPARE: usize = 64;
/// Workers for which it is looked at once whether there is room for what was left out.
const READMITTED: usize = 1_024;

impl Roster {
    pub(super) fn wait(&mut self, id: NodeId) -> &mut Waiting {
        let unfinished = &mut self.unfinished;
        self.waiting.entry(id).or_insert_with(|| Waiting {
            // One count over all lives of a worker, so that what still runs is not forgotten.
            live: unfinished.remove(&id).unwrap_or_default(),
            ..Waiting::default()
        })
    }

    /// Makes a worker of which beat and card are known a view.
    pub(super) fn promote(&mut self, id: &NodeId) -> Option<Passage> {
        let waiting = self.waiting.get(id)?;
        let (state, (offering, tier)) = (waiting.state?, waiting.card.clone()?);
        let live = self.waiting.remove(id)?.live;
        self.enter(WorkerView {
            id: *id,
            offering,
            live,
            tier,
            state,
        });
        self.views.get(id).cloned().map(Passage::Came)
    }

    /// Puts a view in, in the place of the one before.
    pub(super) fn enter(&mut self, view: WorkerView) {
        self.met = true;
        view.live.set_withdrawn(view.state != NodeState::Serving);
        let (id, view) = (view.id, Arc::new(view));
        let index = Arc::make_mut(&mut self.index);
        let old = self.views.put(view.clone());
        if let Some(old) = &old {
            self.counts[place_of(old)] -= 1;
            index.leave(old, Some(&view));
        }
        self.counts[place_of(&view)] += 1;
        if index.enter(&view) {
            self.left_out.remove(&id);
        } else {
            self.left_out.insert(id);
        }
        self.set_changed();
    }

    fn set_changed(&mut self) {
        self.news.changed = true;
    }

    pub(super) fn take_out(&mut self, id: &NodeId) -> Option<Arc<Live>> {
        let old = self.views.remove(id)?;
        old.live.set_withdrawn(true);
        self.counts[place_of(&old)] -= 1;
        Arc::make_mut(&mut self.index).leave(&old, None);
        self.left_out.remove(id);
        self.set_changed();
        Some(old.live.clone())
    }

    pub(super) fn forget_other(&mut self, id: &NodeId) {
        self.news.noted |= self.others.remove(id).is_some();
    }

    pub(super) fn keep_unfinished(&mut self, id: NodeId, live: Option<Arc<Live>>) {
        let Some(live) = live.filter(|live| live.ours() > 0) else {
            return;
        };
        // Not each time: where a whole region goes, that would be its size squared.
        if self.unfinished.len() >= 2 * self.kept_unfinished + SPARE {
            self.unfinished.retain(|_, live| live.ours() > 0);
            self.kept_unfinished = self.unfinished.len();
        }
        self.unfinished.insert(id, live);
    }

    pub(super) fn recount(&mut self, before: usize, after: usize) {
        self.counts[before] -= 1;
        self.counts[after] += 1;
    }

    /// Ranks the workers of groups anew where that is due, and says when to do so again.
    pub(crate) fn rank(&mut self, now_mono_ms: u64) -> u64 {
        let (due, again_ms) = self.index.due(now_mono_ms);
        if !due.is_empty() {
            self.merits.turn();
            Arc::make_mut(&mut self.index).rank(&due, &self.merits, now_mono_ms);
            self.news.ranked = true;
        }
        again_ms
    }

    /// Looks again whether there is room for what was left out, some at a time: strangers can be
    /// many, and offer much.
    pub(crate) fn readmit(&mut self) {
        let from = self.readmitted.map_or(Bound::Unbounded, Bound::Excluded);
        let turn = (self.left_out.range((from, Bound::Unbounded))).take(READMITTED);
        let turn: Vec<NodeId> = turn.copied().collect();
        self.readmitted = turn.get(READMITTED - 1).copied();
        for id in turn {
            let Some(view) = self.views.get(&id) else {
                continue;
            };
            if Arc::make_mut(&mut self.index).enter(view) {
                self.left_out.remove(&id);
            }
            self.set_changed();
        }
    }
}
