//! Hosts, the keys that they hold, and the processes that run on them.

use crate::clock::Clock;
use crate::finder::Finder;
use crate::link::LinkId;
use crate::queue::Us;
use crate::recorder::Recorder;
use std::collections::BTreeMap;
use std::sync::Arc;
use tether_wire::{Card, Digest, NodeId, Verified};

/// A host of the simulation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Host(pub u32);

impl Host {
    /// Its place in lists of all hosts.
    #[must_use]
    pub fn at(self) -> usize {
        self.0 as usize
    }
}

/// A key of the simulation. Two hosts hold the same one where one is a clone of the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub u32);

impl Key {
    /// Its place in lists of all keys.
    #[must_use]
    pub fn at(self) -> usize {
        self.0 as usize
    }
}

/// What a host does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It pushes its beats to some orchestrators.
    Worker,
    /// It keeps a view of the fleet, which is judged.
    Orchestrator,
    /// The same in the attacker's hands.
    Attacker,
}

/// A host, whether or not something runs on it.
pub(crate) struct HostState<M> {
    pub(crate) key: Key,
    pub(crate) id: NodeId,
    pub(crate) kind: Kind,
    pub(crate) clock: Clock,
    /// The boot epoch on its disk.
    pub(crate) epoch: u64,
    /// Grows with each start, so that what was planned for an earlier process is known as such.
    pub(crate) incarnation: u32,
    /// Orchestrators with which it once was linked; on its disk, too.
    pub(crate) remembered: Vec<NodeId>,
    pub(crate) process: Option<Process<M>>,
}

/// A running process.
pub(crate) struct Process<M> {
    pub(crate) started: Us,
    pub(crate) seq: u64,
    pub(crate) card: Arc<Verified<Card>>,
    /// Digest of its sealed bytes, which beats name.
    pub(crate) card_digest: Digest,
    pub(crate) last_beat: Option<Us>,
    /// The beat that is planned; another one was overtaken.
    pub(crate) beat_at: Us,
    /// The look-up that is planned.
    pub(crate) look_up_at: Us,
    /// The look at the links that is planned.
    pub(crate) keep_at: Us,
    /// It makes no beats before this time.
    pub(crate) starved_until: Us,
    /// It said goodbye and takes nothing up again.
    pub(crate) is_leaving: bool,
    /// Since when all its orchestrators are dead.
    pub(crate) orphaned: Option<Us>,
    pub(crate) links: BTreeMap<Host, LinkId>,
    pub(crate) finder: Finder,
    /// What makes it an orchestrator.
    pub(crate) brain: Option<Box<Brain<M>>>,
}

pub(crate) struct Brain<M> {
    pub(crate) machine: M,
    /// Links with other orchestrators, by host.
    pub(crate) recorder: Option<Recorder>,
}
