//! Makes and checks simulated signatures, the same bytes once.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use tether_presence::{AdmittedCard, Rejected};
use tether_wire::{Beat, Card, MeshId, NodeId, Signable, Signed, Tier, Verified};

/// Beats of a node that are remembered: those that are on their way at one time.
const REMEMBERED: usize = 4;

/// A hash of ids, which are random already.
#[derive(Default)]
pub struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 = self.0.rotate_left(5) ^ u64::from_le_bytes(word);
        }
    }
}

/// A map by id, the same in each run.
pub type IdMap<V> = HashMap<NodeId, V, BuildHasherDefault<IdHasher>>;

/// Checks signatures of simulated nodes. Bytes that were checked a moment ago, for another
/// orchestrator, are compared rather than checked and decoded again: it is the same answer.
pub struct Verifier {
    mesh: MeshId,
    beats: RefCell<IdMap<Last<Beat>>>,
    cards: RefCell<IdMap<Last<Card>>>,
}

struct Last<T> {
    ring: [Option<Verified<T>>; REMEMBERED],
    next: usize,
}

impl<T: Clone> Last<T> {
    fn new() -> Self {
        Self {
            ring: std::array::from_fn(|_| None),
            next: 0,
        }
    }

    fn get(&self, bytes: &[u8]) -> Option<Verified<T>> {
        (self.ring.iter().flatten())
            .find(|it| it.bytes().as_ref() == bytes)
            .cloned()
    }

    fn put(&mut self, verified: Verified<T>) {
        self.ring[self.next] = Some(verified);
        self.next = (self.next + 1) % REMEMBERED;
    }
}

impl Verifier {
    pub(crate) fn new(mesh: MeshId) -> Self {
        Self {
            mesh,
            beats: RefCell::default(),
            cards: RefCell::default(),
        }
    }

    /// The beat, if its signature holds.
    pub fn check_beat(&self, sealed: &Signed<Beat>) -> Option<Verified<Beat>> {
        check(&self.beats, sealed, &self.mesh)
    }

    /// The card, if its signature holds.
    pub fn check_card(&self, sealed: &Signed<Card>) -> Option<Verified<Card>> {
        check(&self.cards, sealed, &self.mesh)
    }

    /// Signs a beat.
    pub(crate) fn seal_beat(&self, node: NodeId, beat: &Beat) -> Verified<Beat> {
        let verified = seal(node, &self.mesh, beat);
        remember(&self.beats, verified.clone());
        verified
    }

    /// Signs a card.
    pub(crate) fn seal_card(&self, node: NodeId, card: &Card) -> Verified<Card> {
        let verified = seal(node, &self.mesh, card);
        remember(&self.cards, verified.clone());
        verified
    }
}

impl tether_presence::Verifier for Verifier {
    fn beat(&self, sealed: &Signed<Beat>) -> Result<Verified<Beat>, Rejected> {
        self.check_beat(sealed).ok_or(Rejected::Forged)
    }

    fn card(&self, sealed: &Signed<Card>, _: u64) -> Result<AdmittedCard, Rejected> {
        let card = self.check_card(sealed).ok_or(Rejected::Forged)?;
        Ok(AdmittedCard::new(card, Tier::Untrusted, None))
    }
}

fn check<T: Signable + Clone>(
    known: &RefCell<IdMap<Last<T>>>,
    sealed: &Signed<T>,
    mesh: &MeshId,
) -> Option<Verified<T>> {
    let node = sealed.claimed_signer()?;
    let same = (known.borrow().get(&node)).and_then(|last| last.get(sealed.as_bytes()));
    if same.is_some() {
        return same;
    }
    let verified = sealed.verify_simulated(mesh).ok()?;
    remember(known, verified.clone());
    Some(verified)
}

fn remember<T: Clone>(known: &RefCell<IdMap<Last<T>>>, verified: Verified<T>) {
    let mut known = known.borrow_mut();
    let last = known.entry(verified.signer()).or_insert_with(Last::new);
    last.put(verified);
}

fn seal<T: Signable>(node: NodeId, mesh: &MeshId, value: &T) -> Verified<T> {
    Signed::seal_simulated(node, mesh, value)
        .and_then(|sealed| sealed.verify_simulated(mesh))
        .expect("the simulator makes only what is inside the limits")
}
