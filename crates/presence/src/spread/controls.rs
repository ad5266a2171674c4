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

/// A peer whose hashes differ is told one's own at most once in this time: where it cannot take
/// what it lacks, they differ for ever.
const TELL_AGAIN_MS: u64 = 1_000;

#[derive(Debug)]
struct Held {
    sealed: ByteBuf,
    urgent: bool,
}

/// What is held, by the id of what it says.
#[derive(Debug, Default)]
pub(super) struct Controls {
    held: BTreeMap<Digest, Held>,
}

impl Controls {
    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.held.values().map(|held| held.sealed.as_slice())
    }

    pub(super) fn get(&self, id: &Digest) -> Option<&ByteBuf> {
        self.held.get(id).map(|held| &held.sealed)
    }

    pub(super) fn remove(&mut self, id: &Digest) {
        self.held.remove(id);
    }

    /// One hash for each bucket.
    pub(super) fn summary(&self) -> Vec<u64> {
        let mut hashes = vec![0u64; BUCKETS];
        for id in self.held.keys() {
            let hash = &mut hashes[usize::from(id.0[0])];
            *hash = hash.wrapping_add(first_eight(id));
        }
        hashes
    }
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
}

impl Telling {
    /// Says what is held, to begin with.
    pub(super) fn new() -> Self {
        Self {
            summary: true,
            ..Self::default()
        }
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

    /// Whether the hashes are to be told now; they are from then on.
    pub(super) fn take_summary(&mut self, now: Now) -> bool {
        let told = std::mem::take(&mut self.summary);
        if told {
            self.told_ms = Some(now.mono_ms);
        }
        told
    }

    fn was_told_lately(&self, now: Now) -> bool {
        (self.told_ms).is_some_and(|told_ms| now.mono_ms < told_ms + TELL_AGAIN_MS)
    }
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
        self.controls.held.insert(id, Held { sealed, urgent });
        for peer in self.peers.values_mut() {
            peer.telling.waiting.insert((!urgent, id));
        }
    }

    /// Sends a peer what it may lack; and what its own hashes are to be compared with.
    pub(super) fn compare_controls(&mut self, from: NodeId, theirs: &[u64], now: Now) {
        let own = self.controls.summary();
        if own == theirs || theirs.len() != own.len() {
            return;
        }
        let Some(peer) = self.peers.get_mut(&from) else {
            return;
        };
        peer.telling.summary |= !peer.telling.was_told_lately(now);
        for (id, held) in &self.controls.held {
            let bucket = usize::from(id.0[0]);
            if own[bucket] != theirs[bucket] {
                peer.telling.waiting.insert((!held.urgent, *id));
            }
        }
    }
}
