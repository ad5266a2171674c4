//! What the tests of this crate share.

use tether_wire::heartbeat::{ModelOffer, WorkerState};
use tether_wire::{Digest, Heartbeat, MeshId, NodeKey, Region, Signed, Tier, Verified};

/// A time to start from.
pub(crate) const NOW: u64 = 1_800_000_000_000;

/// The mesh of the tests.
pub(crate) fn mesh() -> MeshId {
    MeshId(NodeKey::from_seed([1; 32]).id().0)
}

/// The key of worker `n`.
pub(crate) fn key(n: u8) -> NodeKey {
    NodeKey::from_seed([n.wrapping_add(100); 32])
}

/// A heartbeat of worker `n` that serves `tiny@1.0`.
pub(crate) fn beat(n: u8, epoch: u64, seq: u64, issued_ms: u64) -> Heartbeat {
    Heartbeat {
        worker: key(n).id(),
        epoch,
        seq,
        nonce: [n; 16],
        issued_ms,
        state: WorkerState::Serving,
        region: Region::new("local").expect("valid"),
        gpu_class: "cpu".into(),
        vram_gb: 0,
        accelerators: 0,
        capacity: 4,
        queue_depth: 0,
        in_flight: 0,
        models: vec![offer("tiny@1.0", 7)],
        faults: Vec::new(),
        price_per_1k_micro: 0,
        tier: Tier::Trusted,
        engine: "echo".into(),
        tokens_per_s: 0.0,
        first_token_ms: 0,
        minor: 0,
        addresses: Vec::new(),
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

/// The heartbeat, signed by its worker and verified.
pub(crate) fn verified(n: u8, beat: &Heartbeat) -> Verified<Heartbeat> {
    Signed::seal(&key(n), &mesh(), beat)
        .expect("inside limits")
        .verify(&mesh())
        .expect("rightly signed")
}
