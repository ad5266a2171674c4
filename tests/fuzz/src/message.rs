//! Messages of the wire that are not signed themselves.

use crate::Verdict;
use crate::known::{NOW_MS, member, members};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Display;
use tether_wire::grant::Access;
use tether_wire::infer::InferRequest;
use tether_wire::link::{Hello, MAX_HELLO_BYTES, admit};
use tether_wire::record::{MAX_RECORD_ADDRESSES, MAX_RECORD_BYTES, Record};
use tether_wire::{Role, Tier, codec};

/// What can be read can be written, and reads the same again.
fn round_trip<T: Serialize + DeserializeOwned>(value: &T) {
    let once = codec::encode(value);
    let again: T = codec::decode("message", &once, usize::MAX).expect("our own bytes");
    assert_eq!(codec::encode(&again), once, "it reads the same again");
}

/// Why something is refused goes into logs and onto screens: it is short and on one line, whatever a
/// stranger sent.
pub(crate) fn refused(error: &impl Display) -> Verdict {
    let words = error.to_string();
    assert!(words.len() <= 2_000, "{words}");
    assert!(!words.contains(char::is_control), "{words}");
    Verdict::Refused
}

/// Runs the decoder of one message, without rules beyond its shape.
pub(crate) fn run<T: Serialize + DeserializeOwned, const LIMIT: usize>(bytes: &[u8]) -> Verdict {
    let value = match codec::decode::<T>("message", bytes, LIMIT) {
        Ok(value) => value,
        Err(error) => return refused(&error),
    };
    assert!(bytes.len() <= LIMIT);
    round_trip(&value);
    Verdict::Accepted
}

/// A greeting, and who is admitted by it.
pub(crate) fn hello(bytes: &[u8]) -> Verdict {
    let hello = match Hello::decode(bytes) {
        Ok(hello) => hello,
        Err(error) => return refused(&error),
    };
    assert!(bytes.len() <= MAX_HELLO_BYTES);
    assert!(hello.agent.len() <= 128);
    round_trip(&hello);
    let peer = member().id();
    let roles = [
        Role::Gateway,
        Role::Orchestrator,
        Role::Worker,
        Role::Publisher,
        Role::Operator,
    ];
    for access in [Access::Invite, Access::Open] {
        let members = members(access);
        let mesh = *members.mesh();
        let admitted = match admit(&members, &roles, peer, &hello, NOW_MS) {
            Ok(admitted) => admitted,
            Err(refusal) => {
                refused(&refusal);
                continue;
            }
        };
        assert_eq!((admitted.id, admitted.role), (peer, hello.role));
        assert_eq!(hello.mesh, mesh.id, "of another mesh");
        if admitted.is_joining {
            let invited = (admitted.role, admitted.tier, hello.grant.is_none());
            assert_eq!(invited, (Role::Worker, Tier::Untrusted, true));
            assert!(hello.invite.is_some(), "joining without an invite");
        } else if hello.grant.is_none() {
            let stranger = (access, admitted.role, admitted.tier);
            assert_eq!(stranger, (Access::Open, Role::Worker, Tier::Untrusted));
        } else {
            let until_ms = admitted.grant_expires_ms.expect("the end of its grant");
            assert!(until_ms > NOW_MS, "a grant that is over");
        }
        let none = admit(&members, &[], peer, &hello, NOW_MS);
        assert!(none.is_err(), "a role that this node does not link with");
    }
    Verdict::Accepted
}

/// A tenant's request, with its rules.
pub(crate) fn infer_request(bytes: &[u8]) -> Verdict {
    let limit = tether_wire::infer::MAX_CONTINUED_BYTES;
    let Ok(request) = codec::decode::<InferRequest>("request", bytes, limit) else {
        return Verdict::Refused;
    };
    round_trip(&request);
    if let Err(error) = request.check() {
        return refused(&error);
    }
    let sampling = &request.sampling;
    assert!((0.0..=2.0).contains(&sampling.temperature));
    assert!((0.0..=1.0).contains(&sampling.top_p) && (0.0..=1.0).contains(&sampling.min_p));
    assert!(sampling.stop.iter().all(|stop| !stop.is_empty()));
    assert!(sampling.logit_bias.values().all(|bias| bias.is_finite()));
    Verdict::Accepted
}

/// The record of a node on the DHT.
pub(crate) fn record(bytes: &[u8]) -> Verdict {
    let Ok(record) = Record::decode(bytes) else {
        return Verdict::Refused;
    };
    assert!(record.addresses.len() <= MAX_RECORD_ADDRESSES);
    let written = record.encode();
    // A relay's URL is not cut, and may be written longer than it was read.
    if let Ok(again) = Record::decode(&written) {
        assert_eq!(again.v, record.v);
        assert!(record.addresses.starts_with(&again.addresses), "first kept");
        assert_eq!(again.relay, record.relay);
    } else {
        assert!(
            written.len() > MAX_RECORD_BYTES,
            "we write what we cannot read"
        );
    }
    Verdict::Accepted
}
