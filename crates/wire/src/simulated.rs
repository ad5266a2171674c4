//! Signatures of simulated nodes: a hash, which anyone could make, some fifty times cheaper than
//! Ed25519, so that a simulator can afford a hundred million of them. Only a simulator turns the
//! feature on; what real nodes exchange is never checked by it.

use crate::id::NodeId;

/// Context of the hash.
const CONTEXT: &str = "tether 2026 simulated signature v1";

pub(crate) fn sign(signer: &NodeId, message: &[u8]) -> [u8; 64] {
    let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
    hasher.update(&signer.0);
    hasher.update(message);
    let mut signature = [0; 64];
    hasher.finalize_xof().fill(&mut signature);
    signature
}

pub(crate) fn verify(signer: &NodeId, message: &[u8], signature: &[u8; 64]) -> bool {
    sign(signer, message) == *signature
}
