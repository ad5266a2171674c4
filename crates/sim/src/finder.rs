//! With whom a node wants links.
//!
//! The decisions are those of [`tether_presence::uplinks`], which real nodes use; what is around
//! them here is what `tether-net` does around them there.

use crate::queue::{MS, SECOND, Us};
use crate::random::Random;
use std::collections::BTreeMap;
use tether_presence::plan;
use tether_presence::uplinks::Uplinks;
use tether_wire::NodeId;

/// For how long a link that nobody needs is kept, as `tether-net` does.
const SURPLUS_GRACE: Us = 10 * SECOND;

/// What is to be done after a look at the links.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// To be dialled now.
    pub(crate) dial: Vec<NodeId>,
    /// To be closed, if this node dialled them.
    pub(crate) close: Vec<NodeId>,
    /// Those that beats are pushed to from now on.
    pub(crate) begin: Vec<NodeId>,
    /// The last link was lost: look up soon.
    pub(crate) is_alone: bool,
    /// When to look again, if nothing happens before.
    pub(crate) again_at: Option<Us>,
}

/// The orchestrators that a node links with.
#[derive(Clone, Debug)]
pub(crate) struct Finder {
    uplinks: Uplinks,
    chosen: Vec<NodeId>,
    surplus_since: BTreeMap<NodeId, Us>,
}

impl Finder {
    pub(crate) fn new(own: NodeId, links: usize, remembered: &[NodeId]) -> Self {
        Self {
            uplinks: Uplinks::new(own, links, &[], remembered),
            chosen: Vec::new(),
            surplus_since: BTreeMap::new(),
        }
    }

    /// A look-up gave these; when to look up again.
    pub(crate) fn found(&mut self, ids: &[NodeId], random: &mut Random) -> Us {
        self.uplinks.found(&random.pick(ids, ids.len()));
        plan::next_lookup_ms(self.chosen.len(), random.unit()) * MS
    }

    /// Those that beats are pushed to.
    pub(crate) fn chosen(&self) -> &[NodeId] {
        &self.chosen
    }

    /// Those to remember beyond this run.
    pub(crate) fn proven(&self) -> Vec<NodeId> {
        self.uplinks.proven().collect()
    }

    /// Looks at the links as they are now: which there are, and whether they are quiet.
    pub(crate) fn look(&mut self, links: &[(NodeId, bool)], now: Us, random: &mut Random) -> Plan {
        self.uplinks.linked(links, now / MS, random.unit());
        let chosen = self.uplinks.chosen();
        let begin = chosen.iter().filter(|id| !self.chosen.contains(id));
        let mut plan = Plan {
            begin: begin.copied().collect(),
            is_alone: chosen.is_empty() && !self.chosen.is_empty(),
            ..Plan::default()
        };
        self.chosen = chosen;
        let surplus = self.uplinks.surplus();
        self.surplus_since.retain(|id, _| surplus.contains(id));
        for id in surplus {
            let since = *self.surplus_since.entry(id).or_insert(now);
            if now - since >= SURPLUS_GRACE {
                plan.close.push(id);
            }
        }
        plan.dial = self.uplinks.take_due(now / MS);
        let close_at = self
            .surplus_since
            .values()
            .map(|since| since + SURPLUS_GRACE);
        let next_dial = self.uplinks.next_dial_ms().map(|ms| ms * MS);
        plan.again_at = close_at.filter(|at| *at > now).chain(next_dial).min();
        plan
    }

    /// A dial gave a link.
    pub(crate) fn answered(&mut self, node: &NodeId, now: Us) {
        self.uplinks.answered(node, now / MS);
    }

    /// A dial came to nothing.
    pub(crate) fn failed(&mut self, node: &NodeId, now: Us, random: &mut Random) {
        self.uplinks.failed(node, now / MS, random.unit());
    }
}
