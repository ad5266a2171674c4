//! Signatures over the exact bytes sent. [T-ENV-1] to [T-ENV-5]
//!
//! ```text
//! byte 0        version of the envelope, 1
//! bytes 1..33   Ed25519 public key of the signer
//! bytes 33..97  signature
//! bytes 97..    body, CBOR
//! ```
//!
//! The layout is fixed, so that nothing which a stranger sends reaches a parser before its
//! signature is checked. What is signed is
//! `domain ‖ 0x00 ‖ mesh id (32 bytes; zeros where the kind belongs to no mesh) ‖ body`.

use crate::codec::{self, CodecError};
use crate::id::{MeshId, NodeId};
use crate::key::{self, NodeKey};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::marker::PhantomData;
use std::sync::Arc;

/// Version of the envelope.
pub const ENVELOPE_VERSION: u8 = 1;
/// Bytes before the body.
pub const HEADER_LEN: usize = 1 + 32 + 64;

/// A kind of message that is signed.
pub trait Signable: Serialize + DeserializeOwned {
    /// Name of the kind, in errors.
    const WHAT: &'static str;
    /// Domain string: a signature of one kind never passes for another.
    const DOMAIN: &'static str;
    /// Most bytes that the whole envelope may have.
    const MAX_BYTES: usize;
    /// Whether the mesh id is part of what is signed. Only a manifest is the same in every mesh.
    const MESH_BOUND: bool = true;

    /// Checks limits of fields and agreement with the signer.
    ///
    /// # Errors
    /// Names the field that is wrong.
    fn check(&self, signer: &NodeId) -> Result<(), CodecError>;
}

/// Why an envelope is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// Longer than its kind may be; nothing was read.
    #[error("{what} is {len} bytes, more than the limit of {limit}")]
    TooLarge {
        /// Kind of message.
        what: &'static str,
        /// Bytes that came.
        len: usize,
        /// Bytes that are allowed.
        limit: usize,
    },
    /// Too short to hold a signature, or of an unknown version.
    #[error("{what} is not a signed envelope of version {ENVELOPE_VERSION}")]
    NotAnEnvelope {
        /// Kind of message.
        what: &'static str,
    },
    /// The signature does not fit key, kind, mesh and bytes.
    #[error("the signature of {what} by {signer} is wrong")]
    BadSignature {
        /// Kind of message.
        what: &'static str,
        /// Who it claims to be from.
        signer: NodeId,
    },
    /// Rightly signed, but its content is outside the specification.
    #[error(transparent)]
    Body(#[from] CodecError),
}

/// Signed bytes of one kind, not yet verified.
#[derive(Clone, PartialEq, Eq)]
pub struct Signed<T> {
    bytes: Arc<[u8]>,
    kind: PhantomData<fn() -> T>,
}

impl<T: Signable> Signed<T> {
    /// Takes bytes as they came.
    #[must_use]
    pub fn from_bytes(bytes: impl Into<Arc<[u8]>>) -> Self {
        Self {
            bytes: bytes.into(),
            kind: PhantomData,
        }
    }

    /// Signs a value.
    ///
    /// # Errors
    /// When the value is outside its own limits: what we would refuse we do not send.
    pub fn seal(key: &NodeKey, mesh: &MeshId, value: &T) -> Result<Self, VerifyError> {
        Self::seal_by(key.id(), mesh, value, |message| key.sign(message))
    }

    /// Signs as a simulated node, by a hash that anyone could make: for simulators alone.
    ///
    /// # Errors
    /// As [`Signed::seal`].
    #[cfg(feature = "simulated")]
    pub fn seal_simulated(signer: NodeId, mesh: &MeshId, value: &T) -> Result<Self, VerifyError> {
        Self::seal_by(signer, mesh, value, |message| {
            crate::simulated::sign(&signer, message)
        })
    }

    fn seal_by(
        signer: NodeId,
        mesh: &MeshId,
        value: &T,
        sign: impl Fn(&[u8]) -> [u8; 64],
    ) -> Result<Self, VerifyError> {
        value.check(&signer)?;
        let body = codec::encode(value);
        let signature = sign(&signing_input::<T>(mesh, &body));
        let mut bytes = Vec::with_capacity(HEADER_LEN + body.len());
        bytes.push(ENVELOPE_VERSION);
        bytes.extend_from_slice(&signer.0);
        bytes.extend_from_slice(&signature);
        bytes.extend_from_slice(&body);
        if bytes.len() > T::MAX_BYTES {
            return Err(VerifyError::TooLarge {
                what: T::WHAT,
                len: bytes.len(),
                limit: T::MAX_BYTES,
            });
        }
        Ok(Self::from_bytes(bytes))
    }

    /// The bytes as they are sent.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Who claims to have signed it, before verification; for counting only.
    #[must_use]
    pub fn claimed_signer(&self) -> Option<NodeId> {
        Some(NodeId(self.bytes.get(1..33)?.try_into().ok()?))
    }

    /// Verifies and decodes, in this order: size, version, signature, body, limits. [T-ENV-3]
    ///
    /// # Errors
    /// The first of these that fails.
    pub fn verify(&self, mesh: &MeshId) -> Result<Verified<T>, VerifyError> {
        self.verify_by(mesh, key::verify)
    }

    /// Takes what a simulated signer made, by a hash that anyone could make: for simulators alone.
    ///
    /// # Errors
    /// As [`Signed::verify`].
    #[cfg(feature = "simulated")]
    pub fn verify_simulated(&self, mesh: &MeshId) -> Result<Verified<T>, VerifyError> {
        self.verify_by(mesh, crate::simulated::verify)
    }

    fn verify_by(
        &self,
        mesh: &MeshId,
        is_signed: impl Fn(&NodeId, &[u8], &[u8; 64]) -> bool,
    ) -> Result<Verified<T>, VerifyError> {
        let what = T::WHAT;
        let len = self.bytes.len();
        if len > T::MAX_BYTES {
            return Err(VerifyError::TooLarge {
                what,
                len,
                limit: T::MAX_BYTES,
            });
        }
        let not_an_envelope = VerifyError::NotAnEnvelope { what };
        let (Some(&version), Some(signer), Some(signature), Some(body)) = (
            self.bytes.first(),
            self.claimed_signer(),
            self.bytes
                .get(33..HEADER_LEN)
                .and_then(|s| <&[u8; 64]>::try_from(s).ok()),
            self.bytes.get(HEADER_LEN..),
        ) else {
            return Err(not_an_envelope);
        };
        if version != ENVELOPE_VERSION {
            return Err(not_an_envelope);
        }
        if !is_signed(&signer, &signing_input::<T>(mesh, body), signature) {
            return Err(VerifyError::BadSignature { what, signer });
        }
        let value: T = codec::decode(what, body, T::MAX_BYTES)?;
        value.check(&signer)?;
        Ok(Verified {
            signer,
            value,
            bytes: self.bytes.clone(),
        })
    }
}

impl<T: Signable> std::fmt::Debug for Signed<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Signed<{}>({} bytes)", T::WHAT, self.bytes.len())
    }
}

fn signing_input<T: Signable>(mesh: &MeshId, body: &[u8]) -> Vec<u8> {
    let mut input = Vec::with_capacity(T::DOMAIN.len() + 33 + body.len());
    input.extend_from_slice(T::DOMAIN.as_bytes());
    input.push(0);
    input.extend_from_slice(if T::MESH_BOUND { &mesh.0 } else { &[0; 32] });
    input.extend_from_slice(body);
    input
}

/// A value whose signature was checked. Only [`Signed::verify`] makes one.
#[derive(Clone)]
pub struct Verified<T> {
    signer: NodeId,
    value: T,
    bytes: Arc<[u8]>,
}

impl<T> Verified<T> {
    /// Who signed it.
    pub fn signer(&self) -> NodeId {
        self.signer
    }
    /// The exact bytes, to pass on.
    pub fn bytes(&self) -> &Arc<[u8]> {
        &self.bytes
    }
    /// The value alone.
    pub fn into_inner(self) -> T {
        self.value
    }
}

impl<T> std::ops::Deref for Verified<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: std::fmt::Debug> std::fmt::Debug for Verified<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Verified(by {}, {:?})", self.signer.short(), self.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Serialize, Deserialize, Debug, PartialEq, Clone)]
    struct Note {
        text: String,
    }
    impl Signable for Note {
        const WHAT: &'static str = "note";
        const DOMAIN: &'static str = "tether/test-note/1";
        const MAX_BYTES: usize = 256;
        fn check(&self, _: &NodeId) -> Result<(), CodecError> {
            codec::check_len("note", "text", self.text.len(), 100)
        }
    }
    #[derive(Serialize, Deserialize)]
    struct Order {
        text: String,
    }
    impl Signable for Order {
        const WHAT: &'static str = "order";
        const DOMAIN: &'static str = "tether/test-order/1";
        const MAX_BYTES: usize = 256;
        fn check(&self, _: &NodeId) -> Result<(), CodecError> {
            Ok(())
        }
    }

    const MESH: MeshId = MeshId([9; 32]);

    fn sealed() -> (NodeKey, Signed<Note>) {
        let key = NodeKey::from_seed([1; 32]);
        let note = Note {
            text: "hello".into(),
        };
        (
            key.clone(),
            Signed::seal(&key, &MESH, &note).expect("inside limits"),
        )
    }

    #[test]
    fn what_is_sealed_is_verified() {
        let (key, signed) = sealed();
        let verified = signed.verify(&MESH).expect("valid");
        assert_eq!(verified.signer(), key.id());
        assert_eq!(verified.text, "hello");
    }

    #[test]
    fn any_flipped_bit_is_refused() {
        let (_, signed) = sealed();
        for at in 0..signed.as_bytes().len() {
            for bit in 0..8 {
                let mut bytes = signed.as_bytes().to_vec();
                bytes[at] ^= 1 << bit;
                assert!(
                    Signed::<Note>::from_bytes(bytes).verify(&MESH).is_err(),
                    "byte {at} bit {bit}"
                );
            }
        }
    }

    #[test]
    fn every_truncation_is_refused() {
        let (_, signed) = sealed();
        for len in 0..signed.as_bytes().len() {
            assert!(
                Signed::<Note>::from_bytes(&signed.as_bytes()[..len])
                    .verify(&MESH)
                    .is_err()
            );
        }
    }

    #[test]
    fn a_signature_is_worth_nothing_in_another_mesh_or_as_another_kind() {
        let (_, signed) = sealed();
        let elsewhere = signed.verify(&MeshId([8; 32])).expect_err("another mesh");
        assert!(matches!(elsewhere, VerifyError::BadSignature { .. }));
        let other_kind = Signed::<Order>::from_bytes(signed.as_bytes()).verify(&MESH);
        assert!(matches!(other_kind, Err(VerifyError::BadSignature { .. })));
    }

    #[test]
    fn an_oversized_envelope_is_refused_before_anything_is_read() {
        let bytes = vec![0xff; 257];
        assert!(matches!(
            Signed::<Note>::from_bytes(bytes).verify(&MESH),
            Err(VerifyError::TooLarge {
                len: 257,
                limit: 256,
                ..
            })
        ));
    }

    #[test]
    fn we_do_not_send_what_we_would_refuse() {
        let key = NodeKey::from_seed([1; 32]);
        let note = Note {
            text: "x".repeat(101),
        };
        assert!(matches!(
            Signed::seal(&key, &MESH, &note),
            Err(VerifyError::Body(_))
        ));
    }
}
