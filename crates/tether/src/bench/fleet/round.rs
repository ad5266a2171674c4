//! Pushes that are ready to be taken in, and their signatures ready to be verified bare.
//!
//! Their bytes lie in one buffer that is there from the beginning, so that they are no part of what
//! the fleet takes.

use super::population::Sealed;
use anyhow::Context;
use ed25519_dalek::{Signature, VerifyingKey};
use std::ops::Range;
use tether_wire::envelope::HEADER_LEN;
use tether_wire::{Beat, MeshId, NodeId, Signable};

/// Pushes in a round.
pub(super) const PUSHES: usize = 10_000;
/// More bytes than a push and what is signed of it have together.
const BYTES: usize = 1_024;

/// The pushes of a round.
pub(super) struct Round {
    bytes: Vec<u8>,
    pushes: Vec<Prepared>,
}

struct Prepared {
    worker: NodeId,
    item: Range<usize>,
    signature: [u8; 64],
    message: Range<usize>,
}

impl Round {
    /// None yet, with the memory for all of them.
    pub(super) fn new() -> Self {
        // Written to, so that it is resident.
        let mut bytes = vec![1; PUSHES * BYTES];
        bytes.clear();
        let none = || Prepared {
            worker: NodeId([1; 32]),
            item: 0..0,
            signature: [1; 64],
            message: 0..0,
        };
        let mut pushes: Vec<_> = std::iter::repeat_with(none).take(PUSHES).collect();
        pushes.clear();
        Self { bytes, pushes }
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.pushes.clear();
    }

    pub(super) fn len(&self) -> usize {
        self.pushes.len()
    }

    pub(super) fn add(&mut self, push: &Sealed, mesh: &MeshId) -> anyhow::Result<()> {
        let (head, body) = push
            .beat
            .split_at_checked(HEADER_LEN)
            .context("an envelope")?;
        let begin = self.bytes.len();
        self.bytes.extend_from_slice(&push.item);
        let item = begin..self.bytes.len();
        self.bytes.extend_from_slice(Beat::DOMAIN.as_bytes());
        self.bytes.push(0);
        self.bytes.extend_from_slice(&mesh.0);
        self.bytes.extend_from_slice(body);
        self.pushes.push(Prepared {
            worker: push.worker,
            message: item.end..self.bytes.len(),
            item,
            signature: head[33..].try_into()?,
        });
        Ok(())
    }

    /// What the links of the workers would carry.
    pub(super) fn items(&self) -> impl Iterator<Item = (NodeId, &[u8])> {
        (self.pushes.iter()).map(|it| (it.worker, &self.bytes[it.item.clone()]))
    }

    /// Verifies every signature strictly, from the bytes of key and signature, and says how many are
    /// good.
    pub(super) fn verify_bare(&self) -> usize {
        let is_good = |it: &&Prepared| {
            let signature = Signature::from_bytes(&it.signature);
            let message = &self.bytes[it.message.clone()];
            VerifyingKey::from_bytes(&it.worker.0)
                .is_ok_and(|key| key.verify_strict(message, &signature).is_ok())
        };
        self.pushes.iter().filter(is_good).count()
    }
}
