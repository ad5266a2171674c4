//! Between the wire and the state machines: what is known is skipped before a verification is
//! spent on it, the rest is verified. [T-SPR-4], [T-PUS-3]
//!
//! [`sift`] needs the state and is cheap; [`Sifted::verify`] is all the arithmetic and needs no
//! state, so it can run on another thread. [`batch`] does both, for those who have one thread.

use crate::admission::{AdmittedCard, Verifier, fits};
use crate::event::{Event, Origin};
use crate::rejected::Rejected;
use std::collections::BTreeMap;
use std::sync::Arc;
use tether_wire::beat::Order;
use tether_wire::spread::{Batch, Holding, Push, Suspicion};
use tether_wire::{Beat, Card, Digest, NodeId, Signed, Verified};

/// The last beat of a node that is held.
#[derive(Clone, Copy, Debug)]
pub struct KnownBeat<'a> {
    /// The highest order seen.
    pub order: Order,
    /// The sealed bytes of that order.
    pub sealed: &'a [u8],
    /// Whether its node is live.
    pub live: bool,
}

/// What is held already; [`crate::Presence`] and [`crate::Spread`] know.
pub trait Knows {
    /// The last beat of a node.
    fn beat(&self, node: &NodeId) -> Option<KnownBeat<'_>>;
    /// Whether the node was revoked.
    fn revoked(&self, node: &NodeId) -> bool;
    /// Whether this very card is held.
    fn card(&self, node: &NodeId, digest: &Digest) -> bool;
}

/// Knows nothing: everything is verified.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nothing;

impl Knows for Nothing {
    fn beat(&self, _: &NodeId) -> Option<KnownBeat<'_>> {
        None
    }
    fn revoked(&self, _: &NodeId) -> bool {
        false
    }
    fn card(&self, _: &NodeId, _: &Digest) -> bool {
        false
    }
}

/// A batch without what is known, not yet verified.
#[derive(Clone, Debug, Default)]
pub struct Sifted {
    beats: Vec<(Order, i32, Signed<Beat>)>,
    cards: Vec<Signed<Card>>,
    rest: CheckedBatch,
}

/// A batch of which everything that counts is verified.
#[derive(Clone, Debug, Default)]
pub struct CheckedBatch {
    pub(crate) linked: Option<Vec<NodeId>>,
    pub(crate) beats: Vec<(Verified<Beat>, i32)>,
    pub(crate) cards: BTreeMap<NodeId, Box<AdmittedCard>>,
    /// Nodes whose beat is held byte for byte.
    pub(crate) again: Vec<NodeId>,
    pub(crate) suspicions: Vec<Suspicion>,
    pub(crate) summary: Vec<u64>,
    pub(crate) control_summary: Vec<u64>,
    pub(crate) holdings: Vec<Holding>,
    pub(crate) wants: Vec<NodeId>,
    pub(crate) rejected: Vec<(Option<NodeId>, Rejected)>,
    pub(crate) skipped: usize,
}

impl CheckedBatch {
    /// Beats and cards that were skipped unverified.
    #[must_use]
    pub fn skipped(&self) -> usize {
        self.skipped
    }
    /// Beats and cards that were found good.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.beats.len() + self.cards.len()
    }
    /// What was dropped, and why.
    #[must_use]
    pub fn rejected(&self) -> &[(Option<NodeId>, Rejected)] {
        &self.rejected
    }
}

/// Takes out of a batch what is held already, or cannot count.
#[must_use]
pub fn sift(batch: Batch, known: &impl Knows) -> Sifted {
    let mut sifted = Sifted {
        rest: CheckedBatch {
            linked: batch.linked,
            suspicions: batch.suspicions,
            summary: batch.summary,
            control_summary: batch.control_summary,
            holdings: batch.holdings,
            wants: batch.wants,
            ..CheckedBatch::default()
        },
        ..Sifted::default()
    };
    for relayed in batch.beats {
        let (order, ahead_ms) = (relayed.order(), relayed.ahead_ms);
        if !fits::<Beat>(&relayed.beat) {
            sifted.rest.rejected.push((None, Rejected::Oversized));
            continue;
        }
        let sealed = Signed::<Beat>::from_bytes(relayed.beat);
        let Some(node) = sealed.claimed_signer() else {
            sifted.rest.rejected.push((None, Rejected::Forged));
            continue;
        };
        if known.revoked(&node) {
            (sifted.rest.rejected).push((Some(node), Rejected::Revoked));
            continue;
        }
        match known.beat(&node) {
            Some(held) if held.sealed == sealed.as_bytes() => {
                sifted.rest.again.push(node);
                sifted.rest.skipped += 1;
            }
            Some(held) if order <= held.order => sifted.rest.skipped += 1,
            _ => sifted.beats.push((order, ahead_ms, sealed)),
        }
    }
    for card in batch.cards {
        if !fits::<Card>(&card) {
            sifted.rest.rejected.push((None, Rejected::Oversized));
            continue;
        }
        let digest = Digest::of(&card);
        let sealed = Signed::<Card>::from_bytes(card.into_vec());
        match sealed.claimed_signer() {
            None => sifted.rest.rejected.push((None, Rejected::Forged)),
            Some(node) if known.revoked(&node) => {
                (sifted.rest.rejected).push((Some(node), Rejected::Revoked));
            }
            Some(node) if known.card(&node, &digest) => sifted.rest.skipped += 1,
            Some(_) => sifted.cards.push(sealed),
        }
    }
    sifted
}

impl Sifted {
    /// Verifications that are still to be spent.
    #[must_use]
    pub fn costs(&self) -> usize {
        self.beats.len() + 2 * self.cards.len()
    }

    /// Verifies what is left.
    #[must_use]
    pub fn verify(self, verifier: &impl Verifier, now_unix_ms: u64) -> CheckedBatch {
        let mut checked = self.rest;
        for (stated, ahead_ms, sealed) in &self.beats {
            match verifier.beat(sealed) {
                Ok(beat) if beat.order() == *stated => checked.beats.push((beat, *ahead_ms)),
                Ok(beat) => {
                    (checked.rejected).push((Some(beat.signer()), Rejected::Misstated));
                }
                Err(reason) => checked.rejected.push((sealed.claimed_signer(), reason)),
            }
        }
        for sealed in &self.cards {
            match verifier.card(sealed, now_unix_ms) {
                Ok(card) => {
                    checked.cards.insert(card.node(), Box::new(card));
                }
                Err(reason) => checked.rejected.push((sealed.claimed_signer(), reason)),
            }
        }
        checked
    }
}

/// Sifts and verifies a peer's batch.
#[must_use]
pub fn batch(
    batch: Batch,
    verifier: &impl Verifier,
    known: &impl Knows,
    now_unix_ms: u64,
) -> CheckedBatch {
    sift(batch, known).verify(verifier, now_unix_ms)
}

/// Verifies what a node pushed over its own link. [T-PUS-3]
///
/// # Errors
/// The first reason against its beat. A bad card does not spoil the beat: the second value says
/// what was wrong with it.
pub fn push(
    push: Push,
    peer: NodeId,
    verifier: &impl Verifier,
    known: &impl Knows,
    now_unix_ms: u64,
) -> Result<(Event, Option<Rejected>), Rejected> {
    if !fits::<Beat>(&push.beat) {
        return Err(Rejected::Oversized);
    }
    let sealed = Signed::<Beat>::from_bytes(push.beat);
    if sealed.claimed_signer().ok_or(Rejected::Forged)? != peer {
        return Err(Rejected::WrongNode);
    }
    if known.revoked(&peer) {
        return Err(Rejected::Revoked);
    }
    let (card, wrong) = match push.card {
        Some(bytes) if !fits::<Card>(&bytes) => (None, Some(Rejected::Oversized)),
        Some(bytes) if known.card(&peer, &Digest::of(&bytes)) => (None, None),
        Some(bytes) => own_card(bytes.into(), peer, verifier, now_unix_ms),
        None => (None, None),
    };
    let again = |held: KnownBeat<'_>| held.live && held.sealed == sealed.as_bytes();
    if card.is_none() && known.beat(&peer).is_some_and(again) {
        return Ok((Event::Again(peer), wrong));
    }
    let beat = verifier.beat(&sealed)?;
    let origin = Origin::Direct;
    Ok((Event::Beat { beat, card, origin }, wrong))
}

fn own_card(
    bytes: Arc<[u8]>,
    peer: NodeId,
    verifier: &impl Verifier,
    now_unix_ms: u64,
) -> (Option<Box<AdmittedCard>>, Option<Rejected>) {
    match verifier.card(&Signed::from_bytes(bytes), now_unix_ms) {
        Ok(card) if card.node() == peer => (Some(Box::new(card)), None),
        Ok(_) => (None, Some(Rejected::WrongNode)),
        Err(reason) => (None, Some(reason)),
    }
}
