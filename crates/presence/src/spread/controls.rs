//! Control messages, from one orchestrator to the others. [T-SPR-9]
//!
//! What changed goes to every peer at once. What was there before is compared first: both sides of a
//! new pair say hashes of what they hold, and each sends the parts in which they differ.

use super::{MAX_CONTROLS, Output, Spread};
use crate::event::{Effect, Now};
use crate::presence::first_eight;
use crate::rejected::Rejected;
use serde_bytes::ByteBuf;
use std::collections::{BTreeMap, BTreeSet};
use tether_wire::control::MAX_CONTROL_BYTES;
use tether_wire::spread::BUCKETS;
use tether_wire::{Digest, NodeId};

/// A peer is told one's own hashes, and its own are looked at, at most once in this time: where one
/// cannot take what it lacks, they differ for ever.
const AGAIN_MS: u64 = 1_000;

/// How often that time is doubled at most: some nine minutes.
const MAX_DOUBLINGS: u32 = 9;

#[derive(Debug)]
struct Held {
    sealed: ByteBuf,
    urgent: bool,
}

/// What is held, by the id of what it says.
#[derive(Debug)]
pub(super) struct Controls {
    held: BTreeMap<Digest, Held>,
    /// One hash for each bucket.
    hashes: Box<[u64; BUCKETS]>,
}

impl Default for Controls {
    fn default() -> Self {
        Self {
            held: BTreeMap::new(),
            hashes: Box::new([0; BUCKETS]),
        }
    }
}

impl Controls {
    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.held.values().map(|held| held.sealed.as_slice())
    }

    pub(super) fn get(&self, id: &Digest) -> Option<&ByteBuf> {
        self.held.get(id).map(|held| &held.sealed)
    }

    fn insert(&mut self, id: Digest, held: Held) {
        let hash = &mut self.hashes[bucket(&id)];
        *hash = hash.wrapping_add(first_eight(&id));
        self.held.insert(id, held);
    }

    fn remove(&mut self, id: &Digest) -> Option<Held> {
        let held = self.held.remove(id)?;
        let hash = &mut self.hashes[bucket(id)];
        *hash = hash.wrapping_sub(first_eight(id));
        Some(held)
    }

    /// One hash for each bucket.
    pub(super) fn summary(&self) -> &[u64] {
        self.hashes.as_slice()
    }
}

fn bucket(id: &Digest) -> usize {
    usize::from(id.0[0])
}

/// What one peer is to be told.
#[derive(Debug, Default)]
pub(super) struct Telling {
    /// Messages that wait; those that are not urgent come last.
    waiting: BTreeSet<(bool, Digest)>,
    /// Whether the hashes are to be told.
    pub(super) summary: bool,
    /// When they were told.
    told_ms: Option<u64>,
    /// When those of the peer were looked at.
    heard_ms: Option<u64>,
    /// What they and one's own were then, and how often they were the same before.
    compared: (u64, u32),
}

impl Telling {
    /// Says what is held, to begin with.
    pub(super) fn new() -> Self {
        Self {
            summary: true,
            ..Self::default()
        }
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// The next one of those that are urgent, or of all.
    pub(super) fn next(&mut self, all: bool) -> Option<Digest> {
        let (later, id) = *self.waiting.first()?;
        if later && !all {
            return None;
        }
        self.waiting.remove(&(later, id));
        Some(id)
    }

    /// Whether a comparison comes too soon. Where one changed nothing on either side, the next one
    /// is left for twice as long.
    fn is_fruitless(&mut self, own: &[u64], theirs: &[u64], now: Now) -> bool {
        let both = (own.iter().zip(theirs)).fold(0u64, |sum, (own, theirs)| {
            sum.rotate_left(1)
                .wrapping_add(own ^ theirs.rotate_left(32))
        });
        let (before, times) = self.compared;
        let times = if both == before { times + 1 } else { 0 };
        let pause_ms = AGAIN_MS << times.min(MAX_DOUBLINGS);
        if self
            .heard_ms
            .is_some_and(|heard_ms| now.mono_ms < heard_ms + pause_ms)
        {
            return true;
        }
        self.compared = (both, times);
        self.heard_ms = Some(now.mono_ms);
        false
    }

    /// Whether the hashes are to be told now; they are from then on.
    pub(super) fn take_summary(&mut self, now: Now) -> bool {
        let told = std::mem::take(&mut self.summary);
        if told {
            self.told_ms = Some(now.mono_ms);
        }
        told
    }
}

fn is_lately(at_ms: Option<u64>, now: Now) -> bool {
    at_ms.is_some_and(|at_ms| now.mono_ms < at_ms + AGAIN_MS)
}

impl Spread {
    pub(super) fn control(
        &mut self,
        id: Digest,
        sealed: Vec<u8>,
        urgent: bool,
        outputs: &mut Vec<Output>,
    ) {
        if self.controls.held.contains_key(&id) {
            return;
        }
        if self.controls.held.len() >= MAX_CONTROLS || sealed.len() > MAX_CONTROL_BYTES {
            let (node, reason) = (None, Rejected::Full);
            outputs.push(Output::Effect(Effect::Rejected { node, reason }));
            return;
        }
        let sealed = ByteBuf::from(sealed);
        self.controls.insert(id, Held { sealed, urgent });
        for peer in self.peers.values_mut() {
            peer.telling.waiting.insert((!urgent, id));
        }
    }

    /// What no longer matters is told to nobody.
    pub(super) fn control_gone(&mut self, id: &Digest) {
        let Some(held) = self.controls.remove(id) else {
            return;
        };
        for peer in self.peers.values_mut() {
            peer.telling.waiting.remove(&(!held.urgent, *id));
        }
    }

    /// Sends a peer what it may lack; and what its own hashes are to be compared with. While it has
    /// not been told all of that, its hashes say nothing new.
    pub(super) fn compare_controls(&mut self, from: NodeId, theirs: &[u64], now: Now) {
        let own = self.controls.summary();
        if own == theirs || theirs.len() != own.len() {
            return;
        }
        let Some(telling) = self.peers.get_mut(&from).map(|peer| &mut peer.telling) else {
            return;
        };
        if !telling.waiting.is_empty() || telling.is_fruitless(own, theirs, now) {
            return;
        }
        telling.summary |= !is_lately(telling.told_ms, now);
        let differ = |id: &Digest| own[bucket(id)] != theirs[bucket(id)];
        for (id, held) in (self.controls.held.iter()).filter(|(id, _)| differ(id)) {
            telling.waiting.insert((!held.urgent, *id));
        }
    }
}
