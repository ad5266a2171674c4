//! With whom a node wants links: what it knows of orchestrators, and how each link stands.
//!
//! The decisions are those of [`tether_presence::plan`], which real workers use.

use crate::queue::{MS, Us};
use crate::random::Random;
use std::collections::{BTreeMap, BTreeSet};
use tether_presence::plan::{self, Known};
use tether_wire::NodeId;

/// How a link stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// It is dialled for the first time.
    New,
    /// Beats are pushed on it.
    Up,
    /// It was lost, or never came up, and is dialled again.
    Failing,
}

#[derive(Clone, Debug)]
struct Kept {
    standing: Standing,
    failures: u32,
}

/// What changes after a look at what is known.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// To be dialled now.
    pub(crate) dial: Vec<NodeId>,
    /// No longer wanted.
    pub(crate) drop: Vec<NodeId>,
    /// When to look up again.
    pub(crate) look_up_in: Us,
}

/// The orchestrators that a node links with.
#[derive(Clone, Debug)]
pub(crate) struct Finder {
    own: NodeId,
    links: usize,
    known: Known,
    kept: BTreeMap<NodeId, Kept>,
}

impl Finder {
    pub(crate) fn new(own: NodeId, links: usize) -> Self {
        Self {
            own,
            links,
            known: Known::default(),
            kept: BTreeMap::new(),
        }
    }

    pub(crate) fn looked_up(&mut self, mut found: Vec<NodeId>) {
        found.retain(|node| *node != self.own);
        self.known.looked_up(&found);
    }

    /// Chooses anew, as a worker does whenever a link or a look-up changed something.
    pub(crate) fn choose(&mut self, random: &mut Random) -> Plan {
        let up = self.standing(Standing::Up);
        let failing = self.standing(Standing::Failing);
        let chosen = self.known.choose(self.own, &up, &failing, self.links);
        let drop: Vec<NodeId> = (self.kept.keys().copied())
            .filter(|node| !chosen.contains(node))
            .collect();
        for node in &drop {
            self.kept.remove(node);
        }
        let dial: Vec<NodeId> = (chosen.into_iter())
            .filter(|node| !self.kept.contains_key(node))
            .collect();
        for node in &dial {
            let kept = Kept {
                standing: Standing::New,
                failures: 0,
            };
            self.kept.insert(*node, kept);
        }
        let look_up_in = plan::next_lookup_ms(up.len(), random.unit()) * MS;
        Plan {
            dial,
            drop,
            look_up_in,
        }
    }

    /// Whether a dial of this node still makes sense.
    pub(crate) fn wants(&self, node: &NodeId) -> bool {
        (self.kept.get(node)).is_some_and(|kept| kept.standing != Standing::Up)
    }

    /// A link is up; whether that is news.
    pub(crate) fn linked(&mut self, node: &NodeId) -> bool {
        let Some(kept) = self.kept.get_mut(node) else {
            return false;
        };
        kept.failures = 0;
        std::mem::replace(&mut kept.standing, Standing::Up) != Standing::Up
    }

    /// A dial failed or a link was lost: whether the standing is news, and when to dial again.
    pub(crate) fn failed(&mut self, node: &NodeId, random: &mut Random) -> Option<(bool, Us)> {
        let kept = self.kept.get_mut(node)?;
        kept.failures += 1;
        let was = std::mem::replace(&mut kept.standing, Standing::Failing);
        let wait = plan::redial_ms(kept.failures, random.unit()) * MS;
        Some((was != Standing::Failing, wait))
    }

    fn standing(&self, wanted: Standing) -> BTreeSet<NodeId> {
        (self.kept.iter())
            .filter(|(_, kept)| kept.standing == wanted)
            .map(|(node, _)| *node)
            .collect()
    }
}
