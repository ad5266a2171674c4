//! Sealing what is a tenant's: XChaCha20-Poly1305, bound to the place where it lies. Pure;
//! randomness is passed in.
//!
//! What is sealed: a version byte, the id of the key, a nonce of 192 bits, the text and its tag. The
//! nonce is drawn at random, of which this cipher allows any number under one key. The place is
//! authenticated and not stored, so that a row which was moved to another one does not open there.

use chacha20poly1305::XChaCha20Poly1305;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use std::fmt;
use tether_wire::{CorrelationId, Digest, TenantId, codec};

/// Bytes of a key.
pub const KEY_BYTES: usize = 32;
/// Bytes of a nonce.
pub const NONCE_BYTES: usize = 24;
/// Bytes of a key's id.
pub const KEY_ID_BYTES: usize = 8;
/// The form of what is sealed.
const VERSION: u8 = 1;
const HEAD_BYTES: usize = 1 + KEY_ID_BYTES + NONCE_BYTES;

/// By which keys are told apart; tells nothing of the key.
pub type KeyId = [u8; KEY_ID_BYTES];

/// A key, never shown.
#[derive(Clone)]
pub struct Key([u8; KEY_BYTES]);

impl Key {
    /// The key of these random bytes.
    #[must_use]
    pub fn new(bytes: [u8; KEY_BYTES]) -> Self {
        Self(bytes)
    }

    pub(super) fn bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> KeyId {
        let named = [b"tether 2026 id of a sealing key v1".as_slice(), &self.0].concat();
        let mut id = [0; KEY_ID_BYTES];
        id.copy_from_slice(&Digest::of(&named).0[..KEY_ID_BYTES]);
        id
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

/// Why something does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// It was sealed under another key.
    #[error("it was sealed under another key")]
    OtherKey,
    /// It is not what was sealed, or not where it was sealed for.
    #[error("it was damaged, changed or moved")]
    Damaged,
}

/// The place of something sealed: which table, whose, of which job and run.
#[must_use]
pub fn place(table: &str, tenant: &TenantId, job: CorrelationId, fence: u64) -> Vec<u8> {
    codec::encode(&(table, tenant, job, fence))
}

/// Seals a text for a place.
///
/// # Panics
/// Never: the cipher refuses only what is longer than any text in memory.
#[must_use]
pub fn seal(key: &Key, nonce: [u8; NONCE_BYTES], place: &[u8], text: &[u8]) -> Vec<u8> {
    let payload = Payload {
        msg: text,
        aad: place,
    };
    let sealed = XChaCha20Poly1305::new(key.bytes().into())
        .encrypt((&nonce).into(), payload)
        .expect("a text in memory is shorter than 256 GiB");
    [[VERSION].as_slice(), &key.id(), &nonce, &sealed].concat()
}

/// Opens what was sealed for a place.
///
/// # Errors
/// When it is not that, or of another key.
///
/// # Panics
/// Never: the head's parts have their lengths.
pub fn unseal(key: &Key, place: &[u8], sealed: &[u8]) -> Result<Vec<u8>, SealError> {
    if sealed.len() < HEAD_BYTES || sealed[0] != VERSION {
        return Err(SealError::Damaged);
    }
    let (head, text) = sealed.split_at(HEAD_BYTES);
    if head[1..=KEY_ID_BYTES] != key.id() {
        return Err(SealError::OtherKey);
    }
    let payload = Payload {
        msg: text,
        aad: place,
    };
    let nonce: [u8; NONCE_BYTES] =
        (head[1 + KEY_ID_BYTES..].try_into()).expect("the head ends with the nonce");
    XChaCha20Poly1305::new(key.bytes().into())
        .decrypt((&nonce).into(), payload)
        .map_err(|_| SealError::Damaged)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NONCE: [u8; NONCE_BYTES] = [9; NONCE_BYTES];

    fn here() -> Vec<u8> {
        let acme = TenantId::new("acme").expect("valid");
        place("results", &acme, CorrelationId([1; 16]), 7)
    }

    #[test]
    fn what_is_sealed_opens_only_where_it_was_sealed_for() {
        let key = Key::new([3; KEY_BYTES]);
        let sealed = seal(&key, NONCE, &here(), b"the answer");
        assert_eq!(unseal(&key, &here(), &sealed), Ok(b"the answer".to_vec()));
        let (acme, other) = (TenantId::new("acme"), TenantId::new("other"));
        let (acme, other) = (acme.expect("valid"), other.expect("valid"));
        for elsewhere in [
            place("dead_letters", &acme, CorrelationId([1; 16]), 7),
            place("results", &other, CorrelationId([1; 16]), 7),
            place("results", &acme, CorrelationId([2; 16]), 7),
            place("results", &acme, CorrelationId([1; 16]), 8),
        ] {
            let opened = unseal(&key, &elsewhere, &sealed);
            assert_eq!(opened, Err(SealError::Damaged));
        }
        let another = Key::new([4; KEY_BYTES]);
        let opened = unseal(&another, &here(), &sealed);
        assert_eq!(opened, Err(SealError::OtherKey));
    }

    #[test]
    fn nothing_of_a_text_or_a_key_is_in_what_is_sealed_or_shown() {
        let key = Key::new(*b"0123456789abcdef0123456789abcdef");
        let sealed = seal(&key, NONCE, &here(), b"the answer");
        let holds = |part: &[u8]| sealed.windows(part.len()).any(|it| it == part);
        assert!(!holds(b"answer") && !holds(b"01234567"));
        assert_eq!(format!("{key:?}"), "Key(…)");
    }

    proptest! {
        #[test]
        fn no_bit_can_be_flipped(at in 0_usize..400, bit in 0_u8..8, text: Vec<u8>) {
            let key = Key::new([3; KEY_BYTES]);
            let mut sealed = seal(&key, NONCE, &here(), &text);
            let at = at % sealed.len();
            sealed[at] ^= 1 << bit;
            prop_assert!(unseal(&key, &here(), &sealed).is_err());
            sealed[at] ^= 1 << bit;
            prop_assert_eq!(unseal(&key, &here(), &sealed), Ok(text));
        }

        #[test]
        fn what_was_never_sealed_does_not_open(bytes: Vec<u8>) {
            let key = Key::new([3; KEY_BYTES]);
            prop_assert!(unseal(&key, &here(), &bytes).is_err());
        }
    }
}
