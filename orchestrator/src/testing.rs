//! What the tests of this crate share.

use crate::breaker::BreakerSettings;
use crate::dispatch::breaking::Breaking;
use crate::fleet::Roster;
use tether_presence::{AdmittedCard, Effect};
use tether_telemetry::metrics::{OrchestratorMetrics, Registry};
use tether_wire::beat::NodeState;
use tether_wire::card::{ModelOffer, WorkerCard};
use tether_wire::{
    Beat, Card, Digest, MeshId, NodeId, NodeKey, Region, Role, Signable, Signed, Tier, Verified,
};

/// A time to start from.
pub(crate) const NOW: u64 = 1_800_000_000_000;

/// The mesh of the tests.
pub(crate) fn mesh() -> MeshId {
    MeshId(NodeKey::from_seed([1; 32]).id().0)
}

/// The key of node `n`.
pub(crate) fn key(n: u16) -> NodeKey {
    let mut seed = [100; 32];
    seed[..2].copy_from_slice(&n.to_be_bytes());
    NodeKey::from_seed(seed)
}

/// Its id.
pub(crate) fn id(n: u16) -> NodeId {
    key(n).id()
}

/// The card of a worker that serves `tiny@1.0`.
pub(crate) fn card() -> Card {
    Card {
        role: Role::Worker,
        epoch: 1,
        revision: 1,
        issued_ms: NOW,
        region: region("local"),
        grant: None,
        agent: String::new(),
        minor: 0,
        addresses: Vec::new(),
        worker: Some(WorkerCard {
            gpu_class: "cpu".into(),
            vram_gb: 0,
            accelerators: 0,
            capacity: 4,
            models: vec![offer("tiny@1.0", 7)],
            faults: Vec::new(),
            price_per_1k_micro: 0,
            tier: Tier::Trusted,
            engine: "echo".into(),
        }),
    }
}

/// A beat of a node that serves and has nothing to do.
pub(crate) fn beat(seq: u64) -> Beat {
    Beat {
        epoch: 1,
        seq,
        nonce: [0; 16],
        issued_ms: NOW,
        state: NodeState::Serving,
        card: Digest([0; 32]),
        queue_depth: 0,
        in_flight: 0,
        tokens_per_s: 0.0,
        first_token_ms: 0,
        vitals: None,
    }
}

/// An offer of a model.
pub(crate) fn offer(model: &str, digest: u8) -> ModelOffer {
    ModelOffer {
        model: model.parse().expect("valid"),
        digest: Digest([digest; 32]),
        warm: true,
        context_tokens: 2_048,
        adapters: Vec::new(),
        numerics_class: "test".into(),
    }
}

/// A region.
pub(crate) fn region(name: &str) -> Region {
    Region::new(name).expect("valid")
}

/// Signed by node `n` and verified.
pub(crate) fn verified<T: Signable>(n: u16, value: &T) -> Verified<T> {
    Signed::seal(&key(n), &mesh(), value)
        .expect("inside limits")
        .verify(&mesh())
        .expect("rightly signed")
}

/// What a worker says.
pub(crate) struct Says {
    pub(crate) region: Region,
    pub(crate) worker: WorkerCard,
    pub(crate) beat: Beat,
    pub(crate) tier: Tier,
    pub(crate) heard_mono_ms: u64,
}

/// Presence decided that worker `n` is there and says this: card, then beat.
pub(crate) fn says(n: u16, change: impl FnOnce(&mut Says)) -> [Effect; 2] {
    let card = card();
    let mut says = Says {
        region: card.region.clone(),
        worker: card.worker.clone().expect("a worker"),
        beat: beat(1),
        tier: Tier::Trusted,
        heard_mono_ms: 0,
    };
    change(&mut says);
    let card = Card {
        region: says.region,
        worker: Some(says.worker),
        ..card
    };
    let card = AdmittedCard::new(verified(n, &card), says.tier, None);
    [
        Effect::Carded(Box::new(card)),
        Effect::Beat {
            beat: verified(n, &says.beat),
            heard_mono_ms: says.heard_mono_ms,
            carded: true,
        },
    ]
}

/// Worker `n` is there and says this.
pub(crate) fn there(roster: &mut Roster, n: u16, change: impl FnOnce(&mut Says)) {
    for effect in says(n, change) {
        roster.apply(effect);
    }
}

/// Breakers that are closed.
pub(crate) fn breaking() -> Breaking {
    let metrics = OrchestratorMetrics::register(&Registry::new());
    Breaking::new(BreakerSettings::default(), metrics)
}
