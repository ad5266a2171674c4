//! Signed messages. What a stranger sends is an envelope; what a member sends is one around any
//! body. Bytes that begin as an envelope does are taken for one, others for a body, which no CBOR
//! map begins like.

use crate::Verdict;
use crate::known::{member, mesh};
use crate::message::refused;
use ed25519_dalek::{Signature, VerifyingKey};
use tether_wire::envelope::{ENVELOPE_VERSION, HEADER_LEN};
use tether_wire::grant::Access;
use tether_wire::{MeshId, Signable, Signed, VerifyError, codec};

/// Runs one kind.
pub(crate) fn run<T: Signable>(bytes: &[u8]) -> Verdict {
    if bytes.first() == Some(&ENVELOPE_VERSION) {
        envelope::<T>(bytes)
    } else {
        body::<T>(bytes)
    }
}

fn mesh_id() -> MeshId {
    mesh(Access::Invite).id
}

/// A [`tether_wire::Verified`] comes from a right signature and from nothing else, as [T-ENV-2] says it,
/// followed here without the wire's own code.
fn envelope<T: Signable>(bytes: &[u8]) -> Verdict {
    let mesh = mesh_id();
    let signed = Signed::<T>::from_bytes(bytes);
    let Ok(verified) = signed.verify(&mesh) else {
        return Verdict::Refused;
    };
    assert!(bytes.len() <= T::MAX_BYTES, "longer than its kind may be");
    assert_eq!(**verified.bytes(), *bytes, "what is passed on is what came");
    let signer = VerifyingKey::from_bytes(bytes[1..33].try_into().expect("32 bytes"));
    let signature = Signature::from_bytes(bytes[33..HEADER_LEN].try_into().expect("64 bytes"));
    let in_mesh = if T::MESH_BOUND { mesh.0 } else { [0; 32] };
    let input = [T::DOMAIN.as_bytes(), &[0], &in_mesh, &bytes[HEADER_LEN..]].concat();
    signer
        .expect("a key")
        .verify_strict(&input, &signature)
        .expect("only what is rightly signed is verified");
    changed_is_refused::<T>(bytes);
    Verdict::Accepted
}

/// What a member of the mesh could sign.
fn body<T: Signable>(bytes: &[u8]) -> Verdict {
    let key = member();
    let value = match codec::decode::<T>(T::WHAT, bytes, T::MAX_BYTES) {
        Ok(value) => value,
        Err(error) => return refused(&error),
    };
    if let Err(error) = value.check(&key.id()) {
        let sealed = Signed::seal(&key, &mesh_id(), &value);
        assert!(sealed.is_err(), "we seal what we would refuse");
        return refused(&error);
    }
    let once = codec::encode(&value);
    let again: T = codec::decode(T::WHAT, &once, usize::MAX).expect("our own bytes");
    assert_eq!(codec::encode(&again), once, "it reads the same again");
    let sealed = match Signed::seal(&key, &mesh_id(), &value) {
        Ok(sealed) => sealed,
        // Defaults are written out, and the header is longer than nothing.
        Err(VerifyError::TooLarge { .. }) => return Verdict::Refused,
        Err(error) => panic!("it was checked, and is not sealed: {error}"),
    };
    let verified = sealed.verify(&mesh_id()).expect("what we sealed");
    assert_eq!(verified.signer(), key.id());
    assert_eq!(codec::encode(&verified.into_inner()), once);
    changed_is_refused::<T>(sealed.as_bytes());
    Verdict::Accepted
}

/// One bit more or less, one byte less or more, another mesh: refused. Which bit follows from the
/// bytes, so that a find can be replayed.
fn changed_is_refused<T: Signable>(sealed: &[u8]) {
    let drawn = blake3::hash(sealed);
    let draw = u64::from_le_bytes(drawn.as_bytes()[..8].try_into().expect("8 bytes"));
    let at = usize::try_from(draw % sealed.len() as u64).expect("an index");
    let mut flipped = sealed.to_vec();
    flipped[at] ^= 1 << (drawn.as_bytes()[8] % 8);
    let cut = sealed[..at].to_vec();
    let longer = [sealed, &[0]].concat();
    for changed in [flipped, cut, longer] {
        let refused = Signed::<T>::from_bytes(changed).verify(&mesh_id());
        assert!(refused.is_err(), "changed at byte {at}, and accepted");
    }
    if T::MESH_BOUND {
        let elsewhere = Signed::<T>::from_bytes(sealed).verify(&MeshId(*drawn.as_bytes()));
        assert!(elsewhere.is_err(), "accepted in another mesh");
    }
}
