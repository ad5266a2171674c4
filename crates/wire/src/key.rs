//! One 32-byte seed is a node's identity everywhere. (NET-1) [T-KEY-1]

use crate::id::NodeId;
use ed25519_dalek::{Signer, SigningKey, VerifyingKey};

/// A node's secret key. It is never shown: `Debug` prints the public half only.
#[derive(Clone)]
pub struct NodeKey(SigningKey);

impl NodeKey {
    /// The key that belongs to a seed of 32 random bytes.
    #[must_use]
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(SigningKey::from_bytes(&seed))
    }

    /// The seed, for the transports that derive the same identity from it.
    #[must_use]
    pub fn seed(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// The public half: the node's id.
    #[must_use]
    pub fn id(&self) -> NodeId {
        NodeId(self.0.verifying_key().to_bytes())
    }

    /// Signs bytes as they are. Callers go through [`crate::Signed`], which separates domains.
    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }
}

impl std::fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NodeKey({})", self.id())
    }
}

/// Strict verification (RFC 8032 with small-order keys and non-canonical encodings refused), so
/// that all nodes agree on what is valid. [T-ENV-4]
pub(crate) fn verify(key: &NodeId, message: &[u8], signature: &[u8; 64]) -> bool {
    let Ok(key) = VerifyingKey::from_bytes(&key.0) else {
        return false;
    };
    key.verify_strict(message, &ed25519_dalek::Signature::from_bytes(signature))
        .is_ok()
}
