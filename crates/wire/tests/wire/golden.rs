//! Committed bytes of each message, in `tests/golden/*.hex`.
//!
//! Another implementation can check itself against these files; here a change of bytes fails. After
//! a change that is meant, `TETHER_BLESS=1 cargo test -p tether-wire` writes them anew, and the
//! commit shows what peers will see.

use crate::samples;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use std::path::PathBuf;
use tether_wire::codec;
use tether_wire::directory::{DirectoryUpdate, api_key_hash};
use tether_wire::infer::{AnswerEvent, Format, InferRequest, WorkOrder};
use tether_wire::invite::{Join, Joined};
use tether_wire::link::{Hello, HelloAnswer};
use tether_wire::record::Record;
use tether_wire::rpc::{CallHead, RpcError};
use tether_wire::spread::{Batch, Push, PushReply};
use tether_wire::{
    Beat, Control, CorrelationId, Grant, Manifest, Membership, MeshId, Signable, Signed, Topic,
    topic,
};

/// Compares with the committed bytes; `TETHER_BLESS=1` commits these instead.
fn golden(name: &str, bytes: &[u8]) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(format!("{name}.hex"));
    let text: String = hex::encode(bytes)
        .as_bytes()
        .chunks(64)
        .map(|line| String::from_utf8_lossy(line).into_owned() + "\n")
        .collect();
    if std::env::var_os("TETHER_BLESS").is_some_and(|v| v == "1") {
        std::fs::write(&path, text).expect("the golden file can be written");
        return;
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        committed, text,
        "the bytes of {name} differ from the committed ones: peers of this version would no longer \
         understand each other (TETHER_BLESS=1 if that is meant)"
    );
}

/// The bytes are the committed ones, and reading them gives the value back.
macro_rules! plain {
    ($name:ident, $value:expr, $kind:ty) => {
        #[test]
        fn $name() {
            let value: $kind = $value;
            let bytes = codec::encode(&value);
            golden(stringify!($name), &bytes);
            let read: $kind = codec::decode(stringify!($name), &bytes, bytes.len()).expect("read");
            assert_eq!(read, value);
        }
    };
}

plain!(event_chunk_unnamed, samples::unnamed_chunk(), AnswerEvent);
plain!(hello, samples::hello(), Hello);
plain!(hello_welcome, samples::welcome(), HelloAnswer);
plain!(hello_refused, samples::refused(), HelloAnswer);
plain!(
    hello_refused_with_a_grant,
    samples::refused_with_a_grant(),
    HelloAnswer
);
plain!(record, samples::record(), Record);
plain!(call_head, samples::call_head(), CallHead);
plain!(rpc_error, samples::rpc_error(), RpcError);
plain!(rpc_error_untried, samples::rpc_error_untried(), RpcError);
plain!(
    infer_request_chat,
    samples::request(samples::chat()),
    InferRequest
);
plain!(
    infer_request_text,
    samples::request(tether_wire::infer::Input::Text("Once".into())),
    InferRequest
);
plain!(work_order, samples::work_order(), WorkOrder);
plain!(event_accepted, samples::accepted(), AnswerEvent);
plain!(event_accepted_degraded, samples::degraded(), AnswerEvent);
plain!(event_begun, samples::begun(), AnswerEvent);
plain!(event_chunk, samples::chunk(), AnswerEvent);
plain!(event_chunk_plain, samples::plain_chunk(), AnswerEvent);
plain!(
    infer_request_json_object,
    samples::formatted(Format::JsonObject),
    InferRequest
);
plain!(
    infer_request_json_schema,
    samples::formatted(Format::JsonSchema(r#"{"type":"integer"}"#.into())),
    InferRequest
);
plain!(
    infer_request_regex,
    samples::formatted(Format::Regex("[a-z]+".into())),
    InferRequest
);
plain!(
    infer_request_lark,
    samples::formatted(Format::Lark("start: \"a\"".into())),
    InferRequest
);
plain!(event_done, samples::done(), AnswerEvent);
plain!(
    directory_update,
    samples::directory_update(),
    DirectoryUpdate
);
plain!(
    directory_update_ruled,
    samples::ruled_update(),
    DirectoryUpdate
);
plain!(
    directory_update_piece,
    samples::update_piece(),
    DirectoryUpdate
);

plain!(push, samples::push(), Push);
plain!(push_reply, samples::push_reply(), PushReply);
plain!(batch, samples::batch(), Batch);
plain!(
    control_revocation,
    Control::Revocation(samples::sealed_revocation().as_bytes().to_vec()),
    Control
);
plain!(control_grant, samples::control(), Control);
plain!(join, Join { secret: [9; 32] }, Join);
plain!(joined, samples::joined(), Joined);

fn sealed<T: Signable + PartialEq + std::fmt::Debug>(name: &str, signed: &Signed<T>, value: &T) {
    golden(name, signed.as_bytes());
    let read = Signed::<T>::from_bytes(signed.as_bytes());
    assert_eq!(*read.verify(&samples::mesh()).expect("valid"), *value);
}

#[test]
fn grant() {
    sealed("grant", &samples::sealed_grant(), &samples::grant());
}

#[test]
fn grant_delegated() {
    let signed = samples::delegated_grant();
    golden("grant_delegated", signed.as_bytes());
    holds(&signed);
}

fn holds(sealed: &Signed<Grant>) {
    let members = Membership::new(samples::full_mesh());
    let read = Signed::<Grant>::from_bytes(sealed.as_bytes());
    members
        .verify_grant(&read, samples::NOW_MS)
        .expect("it holds");
}

#[test]
fn grant_transferred() {
    let signed = samples::transferred_grant();
    golden("grant_transferred", signed.as_bytes());
    holds(&signed);
}

#[test]
fn grant_invited() {
    let signed = samples::invited_grant();
    golden("grant_invited", signed.as_bytes());
    holds(&signed);
}

#[test]
fn invite() {
    sealed("invite", &samples::sealed_invite(), &samples::invite());
}

#[test]
fn revocation() {
    let (signed, value) = (samples::sealed_revocation(), samples::revocation());
    sealed("revocation", &signed, &value);
}

#[test]
fn token() {
    golden("token", samples::token().to_text().as_bytes());
}

#[test]
fn card() {
    sealed("card", &samples::sealed_card(), &samples::card());
}

#[test]
fn beat_vitals() {
    let beat = samples::vital_beat();
    let sealed_beat = Signed::seal(&samples::worker_key(), &samples::mesh(), &beat);
    sealed(
        "beat_vitals",
        &sealed_beat.expect("inside its limits"),
        &beat,
    );
}

#[test]
fn beat() {
    sealed("beat", &samples::sealed_beat(), &samples::beat());
}

#[test]
fn receipt() {
    let signed = samples::sealed_receipt();
    sealed("receipt", &signed, &samples::receipt());
    tether_wire::receipt::verify(&signed, &samples::full_mesh()).expect("a worker's");
}

#[test]
fn manifest() {
    sealed(
        "manifest",
        &samples::sealed_manifest(),
        &samples::manifest(),
    );
}

#[test]
fn facts() {
    let members = Membership::new(samples::full_mesh());
    let mut bytes = Vec::new();
    for control in [
        Control::Revocation(samples::sealed_revocation().as_bytes().to_vec()),
        samples::control(),
        Control::Grant(samples::invited_grant().as_bytes().to_vec()),
    ] {
        for checked in members.check(&control).expect("authorised") {
            bytes.extend(codec::encode(checked.fact()));
            bytes.extend(checked.fact().id().0);
        }
    }
    golden("facts", &bytes);
}

#[test]
fn topic_keys() {
    let topics = [
        Topic::Presence(samples::region()),
        Topic::Model(samples::model(), samples::region()),
        Topic::Control(samples::region()),
        Topic::Job(CorrelationId([0xab; 16])),
    ];
    let mut bytes = Vec::new();
    for topic in &topics {
        bytes.extend(topic.key(None).0);
        bytes.extend(topic.key(Some(&samples::mesh())).0);
    }
    golden("topic_keys", &bytes);
    assert_eq!(
        topics[3].to_string(),
        "tether/jobs/abababababababababababababababab"
    );
    // The convention of Hyperswarm, checked against Python's
    // `hashlib.blake2b(b"tether/presence/local", digest_size=32).hexdigest()`.
    assert_eq!(
        topics[0].key(None),
        topic::TopicKey(
            <[u8; 32]>::try_from(
                hex::decode("389d734da92f4acecb103a11aa39a2e1d232e2d83e6bb1d9576fde4d5bc3e672")
                    .expect("hex")
            )
            .expect("32 bytes")
        )
    );
}

#[test]
fn derived_ids() {
    let mut bytes = CorrelationId::derive(&samples::tenant(), "retry-1")
        .0
        .to_vec();
    bytes.extend(api_key_hash("sk-example").0);
    let correlation = CorrelationId::derive(&samples::tenant(), "retry-1");
    bytes.extend(tether_wire::infer::call_id(&correlation, 1).into_bytes());
    golden("derived_ids", &bytes);
}

/// Clause [T-ENV-2] followed by hand, without our own code: another implementation can do the same.
fn signing_input(domain: &str, mesh: [u8; 32], body: &[u8]) -> Vec<u8> {
    [domain.as_bytes(), &[0], &mesh, body].concat()
}

#[test]
fn an_envelope_made_by_hand_from_the_specification_is_accepted() {
    let key = SigningKey::from_bytes(&[2; 32]);
    let body = codec::encode(&samples::beat());
    let input = signing_input("tether/beat/1", samples::mesh().0, &body);
    let mut envelope = vec![1];
    envelope.extend(key.verifying_key().to_bytes());
    envelope.extend(key.sign(&input).to_bytes());
    envelope.extend(&body);
    let signed = Signed::<Beat>::from_bytes(envelope);
    assert!(signed.verify(&samples::mesh()).is_ok());
    assert_eq!(signed, samples::sealed_beat(), "Ed25519 is deterministic");
}

#[test]
fn an_envelope_of_ours_is_verified_by_hand_from_the_specification() {
    let signed = samples::sealed_manifest();
    let bytes = signed.as_bytes();
    assert_eq!(bytes[0], 1);
    let key = VerifyingKey::from_bytes(bytes[1..33].try_into().expect("32 bytes")).expect("a key");
    let signature = Signature::from_bytes(bytes[33..97].try_into().expect("64 bytes"));
    // A manifest is the same in every mesh: zeros stand in the place of the mesh id. [T-ART-1]
    let input = signing_input("tether/manifest/1", [0; 32], &bytes[97..]);
    assert!(key.verify_strict(&input, &signature).is_ok());
    let elsewhere = Signed::<Manifest>::from_bytes(bytes).verify(&MeshId([0xee; 32]));
    assert!(elsewhere.is_ok());
}
