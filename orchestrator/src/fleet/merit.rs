//! Which workers of a kind are worth being kept ready. Pure.

use super::worker::WorkerView;
use crate::score::{Wanted, Weights, score, terms};
use tether_wire::Digest;
use tether_wire::card::ModelOffer;

/// Steps of the score within which workers are equals.
const STEPS: f32 = 32.0;

/// Orders workers as placement would, for a request from their own region that begins like no other.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Merits {
    pub(crate) weights: Weights,
    /// What equals are ordered by: drawn anew for each ranking, and otherwise by other
    /// orchestrators, so that equals take turns.
    pub(crate) seed: u64,
}

/// Less is better: suspects last, then by score, then by turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Merit {
    suspect: bool,
    lack: u32,
    turn: u64,
}

impl Merits {
    pub(crate) fn of(&self, worker: &WorkerView, offer: &ModelOffer) -> Merit {
        let wanted = Wanted {
            region: worker.region(),
            digest: None::<Digest>,
            gpu_class: None,
        };
        #[expect(
            clippy::cast_precision_loss,
            reason = "a score needs no more than seven digits"
        )]
        let traits = worker.traits(offer, worker.load() as f32);
        let score = score(&terms(&wanted, &traits), &self.weights);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a score is between 0 and 1"
        )]
        let lack = ((1.0 - score).max(0.0) * STEPS) as u32;
        Merit {
            suspect: worker.is_suspect(),
            lack,
            turn: mixed(worker, self.seed),
        }
    }

    /// The next seed.
    pub(crate) fn turn(&mut self) {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    }
}

fn mixed(worker: &WorkerView, seed: u64) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&worker.id.0[..8]);
    let mut mixed = (u64::from_le_bytes(first) ^ seed).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed ^= mixed >> 31;
    mixed.wrapping_mul(0x94d0_49bb_1331_11eb)
}
