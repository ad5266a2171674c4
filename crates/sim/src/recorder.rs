//! What an attacker keeps of the beats that pass through an orchestrator, to send it again.

use crate::random::Random;
use crate::verifier::IdMap;
use serde_bytes::ByteBuf;
use tether_wire::spread::{Batch, RelayedBeat, Suspicion};
use tether_wire::{Beat, NodeId, Verified};

/// Most beats that are kept of the past; a random choice of all.
const MAX_KEPT: usize = 100_000;

/// The recordings of one orchestrator.
#[derive(Default)]
pub(crate) struct Recorder {
    kept: Vec<Verified<Beat>>,
    seen: usize,
    last: IdMap<usize>,
    latest: Vec<Verified<Beat>>,
    cards: IdMap<ByteBuf>,
}

impl Recorder {
    pub(crate) fn record(&mut self, beat: &Verified<Beat>, random: &mut Random) {
        self.seen += 1;
        if self.kept.len() < MAX_KEPT {
            self.kept.push(beat.clone());
        } else {
            let at = random.below(self.seen);
            if at < MAX_KEPT {
                self.kept[at] = beat.clone();
            }
        }
        match self.last.get(&beat.signer()) {
            Some(&at) if self.latest[at].order() < beat.order() => self.latest[at] = beat.clone(),
            Some(_) => {}
            None => {
                self.last.insert(beat.signer(), self.latest.len());
                self.latest.push(beat.clone());
            }
        }
    }

    pub(crate) fn record_card(&mut self, node: NodeId, sealed: &[u8]) {
        self.cards.insert(node, ByteBuf::from(sealed));
    }

    /// Something to send again: half of it out of all the past, half the last that was heard of
    /// somebody; with what is said beside it, which is not signed, as false as it may be.
    pub(crate) fn replay(
        &self,
        beats: usize,
        suspicions: usize,
        lie_ms: [f64; 2],
        random: &mut Random,
    ) -> Batch {
        let mut batch = Batch::default();
        if self.kept.is_empty() {
            return batch;
        }
        for _ in 0..beats {
            let from = if random.chance(0.5) {
                &self.kept
            } else {
                &self.latest
            };
            let beat = &from[random.below(from.len())];
            if let Some(card) = self.cards.get(&beat.signer())
                && random.chance(0.1)
            {
                batch.cards.push(card.clone());
            }
            batch.beats.push(self.misstate(beat, lie_ms, random));
        }
        for _ in 0..suspicions {
            let beat = &self.latest[random.below(self.latest.len())];
            batch.suspicions.push(Suspicion {
                node: beat.signer(),
                epoch: beat.epoch,
                seq: beat.seq,
            });
        }
        batch
    }

    #[expect(clippy::cast_possible_truncation, reason = "5 s at most")]
    fn misstate(
        &self,
        beat: &Verified<Beat>,
        lie_ms: [f64; 2],
        random: &mut Random,
    ) -> RelayedBeat {
        // A receiver may skip what it says it has; so one half says that it is newer than that.
        let inflated = random.chance(0.5);
        RelayedBeat {
            epoch: beat.epoch,
            seq: beat.seq + if inflated { 1_000_000 } else { 0 },
            ahead_ms: random.between(lie_ms[0], lie_ms[1]) as i32,
            beat: beat.bytes().to_vec(),
        }
    }
}
