//! Properties of every decoder of bytes from outside: none panics, whatever comes; what is written
//! is read back; what is signed cannot be changed.

use crate::samples;
use ed25519_dalek::{Signer, SigningKey};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tether_wire::card::ModelOffer;
use tether_wire::codec;
use tether_wire::directory::{DirectoryUpdate, MAX_UPDATE_BYTES};
use tether_wire::grant::{Access, Consent, Mesh};
use tether_wire::infer::{
    AnswerEvent, Chunk, InferRequest, Input, MAX_EVENT_BYTES, MAX_REQUEST_BYTES, Message, Resume,
    Sampling, Speaker, Started, WorkOrder,
};
use tether_wire::invite::{Join, Joined, Token};
use tether_wire::link::{Hello, HelloAnswer, MAX_HELLO_BYTES, admit};
use tether_wire::manifest::{FileEntry, is_safe_path};
use tether_wire::record::{MAX_RECORD_BYTES, Record};
use tether_wire::rpc::{CallHead, Code, RpcError};
use tether_wire::spread::{Batch, MAX_BATCH_BYTES, MAX_PUSH_BYTES, Push, PushReply};
use tether_wire::{
    Beat, Card, Control, Digest, Grant, Invite, Manifest, Membership, ModelName, ModelRef,
    ModelVersion, NodeId, Receipt, Region, Revocation, Role, Signable, Signed, TenantId,
};

/// Reads bytes as one kind of message. What is read can be written, and reads the same again.
fn read_plain<T: DeserializeOwned + Serialize>(bytes: &[u8], limit: usize) {
    if let Ok(value) = codec::decode::<T>("message", bytes, limit) {
        let once = codec::encode(&value);
        let again: T = codec::decode("message", &once, usize::MAX).expect("our own bytes");
        assert_eq!(codec::encode(&again), once);
    }
}

/// Reads bytes as a sealed message; then as the body of one that is rightly signed, which is how a
/// member of the mesh would attack.
fn read_sealed<T: Signable>(bytes: &[u8]) {
    let _ = Signed::<T>::from_bytes(bytes).verify(&samples::mesh());
    let key = SigningKey::from_bytes(&[2; 32]);
    let mesh = if T::MESH_BOUND {
        samples::mesh().0
    } else {
        [0; 32]
    };
    let input = [T::DOMAIN.as_bytes(), &[0], &mesh, bytes].concat();
    let mut envelope = vec![1];
    envelope.extend(key.verifying_key().to_bytes());
    envelope.extend(key.sign(&input).to_bytes());
    envelope.extend(bytes);
    let _ = Signed::<T>::from_bytes(envelope).verify(&samples::mesh());
}

/// Every decoder of bytes from outside.
fn read_as_everything(bytes: &[u8]) {
    read_plain::<Hello>(bytes, MAX_HELLO_BYTES);
    read_plain::<HelloAnswer>(bytes, MAX_HELLO_BYTES);
    read_plain::<CallHead>(bytes, 4_096);
    read_plain::<RpcError>(bytes, 4_096);
    read_plain::<InferRequest>(bytes, MAX_REQUEST_BYTES);
    read_plain::<WorkOrder>(bytes, MAX_REQUEST_BYTES);
    read_plain::<AnswerEvent>(bytes, MAX_EVENT_BYTES);
    read_plain::<DirectoryUpdate>(bytes, MAX_UPDATE_BYTES);
    read_plain::<Record>(bytes, MAX_RECORD_BYTES);
    read_plain::<Push>(bytes, MAX_PUSH_BYTES);
    read_plain::<PushReply>(bytes, 64);
    read_plain::<Batch>(bytes, MAX_BATCH_BYTES);
    let _ = Push::decode(bytes);
    let _ = Batch::decode(bytes);
    read_sealed::<Beat>(bytes);
    read_sealed::<Card>(bytes);
    read_sealed::<Grant>(bytes);
    read_sealed::<Manifest>(bytes);
    let _ = Record::decode(bytes);
    if let Ok(hello) = Hello::decode(bytes) {
        for access in [Access::Invite, Access::Open] {
            let members = Membership::new(Mesh {
                access,
                ..samples::full_mesh()
            });
            let peer = samples::worker_key().id();
            let _ = admit(&members, &[Role::Worker], peer, &hello, samples::NOW_MS);
        }
    }
    if let Ok(control) = Control::decode(bytes) {
        let _ = Membership::new(samples::full_mesh()).learn(&control, samples::NOW_MS);
    }
    read_plain::<Join>(bytes, 64);
    read_plain::<Joined>(bytes, Grant::MAX_BYTES);
    read_sealed::<Revocation>(bytes);
    read_sealed::<Invite>(bytes);
    read_sealed::<Receipt>(bytes);
    read_sealed::<Consent>(bytes);
    let _ = Token::from_text(&String::from_utf8_lossy(bytes));
}

/// Valid bytes of each message, to be damaged.
fn valid_messages() -> Vec<Vec<u8>> {
    vec![
        codec::encode(&samples::hello()),
        codec::encode(&samples::welcome()),
        codec::encode(&samples::refused()),
        codec::encode(&samples::record()),
        codec::encode(&samples::call_head()),
        codec::encode(&samples::rpc_error()),
        codec::encode(&samples::request(samples::chat())),
        codec::encode(&samples::work_order()),
        codec::encode(&samples::accepted()),
        codec::encode(&samples::degraded()),
        codec::encode(&samples::ruled_update()),
        codec::encode(&samples::begun()),
        codec::encode(&samples::chunk()),
        codec::encode(&samples::plain_chunk()),
        codec::encode(&samples::done()),
        codec::encode(&samples::directory_update()),
        codec::encode(&samples::push()),
        codec::encode(&samples::push_reply()),
        codec::encode(&samples::batch()),
        codec::encode(&samples::beat()),
        codec::encode(&samples::card()),
        samples::sealed_beat().as_bytes().to_vec(),
        samples::sealed_card().as_bytes().to_vec(),
        codec::encode(&samples::grant()),
        codec::encode(&samples::manifest()),
        samples::sealed_grant().as_bytes().to_vec(),
        samples::sealed_manifest().as_bytes().to_vec(),
        codec::encode(&samples::revocation()),
        codec::encode(&samples::invite()),
        codec::encode(&Join { secret: [9; 32] }),
        codec::encode(&samples::joined()),
        codec::encode(&samples::control()),
        samples::sealed_revocation().as_bytes().to_vec(),
        samples::sealed_invite().as_bytes().to_vec(),
        samples::transferred_grant().as_bytes().to_vec(),
        samples::invited_grant().as_bytes().to_vec(),
        samples::token().to_text().into_bytes(),
    ]
}

fn kebab(max: usize) -> impl Strategy<Value = String> {
    vec("[a-z0-9]{1,4}", 1..5).prop_map(move |parts| {
        let text = parts.join("-");
        text.chars()
            .take(max)
            .collect::<String>()
            .trim_end_matches('-')
            .to_owned()
    })
}

fn model() -> impl Strategy<Value = ModelRef> {
    (kebab(64), 0u32..99_999, 0u32..99_999).prop_map(|(name, major, minor)| ModelRef {
        name: ModelName::new(name).expect("kebab"),
        version: ModelVersion::new(format!("{major}.{minor}")).expect("numbers"),
    })
}

fn sampling() -> impl Strategy<Value = Sampling> {
    (
        proptest::option::of(1u32..),
        (0f32..=2.0, 0f32..=1.0, 0f32..=1.0, any::<u32>()),
        (-2f32..=2.0, -2f32..=2.0, 0.1f32..=10.0),
        btree_map(any::<u32>(), -100f32..=100.0, 0..8),
        any::<Option<u64>>(),
        vec(".{1,20}", 0..4),
        proptest::option::of(0u8..=20),
    )
        .prop_map(
            |(max_tokens, draw, penalties, logit_bias, seed, stop, top_logprobs)| Sampling {
                max_tokens,
                temperature: draw.0,
                top_p: draw.1,
                min_p: draw.2,
                top_k: draw.3,
                frequency_penalty: penalties.0,
                presence_penalty: penalties.1,
                repetition_penalty: penalties.2,
                logit_bias,
                seed,
                stop,
                top_logprobs,
            },
        )
}

fn input() -> impl Strategy<Value = Input> {
    let speaker = prop_oneof![
        Just(Speaker::System),
        Just(Speaker::User),
        Just(Speaker::Assistant)
    ];
    let message = (speaker, ".{0,200}").prop_map(|(role, content)| Message::new(role, content));
    prop_oneof![
        vec(message, 1..6).prop_map(Input::Chat),
        ".{1,200}".prop_map(Input::Text),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_never_bring_a_decoder_down(bytes in vec(any::<u8>(), 0..600)) {
        read_as_everything(&bytes);
    }

    #[test]
    fn damaged_messages_never_bring_a_decoder_down(
        which in any::<prop::sample::Index>(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in proptest::option::of(any::<prop::sample::Index>()),
        doubled in any::<bool>(),
    ) {
        let messages = valid_messages();
        let mut bytes = which.get(&messages).clone();
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if doubled {
            bytes.extend_from_within(..);
        }
        read_as_everything(&bytes);
    }

    #[test]
    fn a_request_survives_the_wire(input in input(), sampling in sampling(), token in any::<u32>()) {
        let request = InferRequest { sampling, ..samples::request(input) };
        let started = Started { transcript: vec![token], ..samples::started() };
        let resume = Resume { started: Some(started), ..samples::resume() };
        let request = InferRequest { resume: Some(resume), ..request };
        prop_assert!(request.check().is_ok(), "{:?}", request.check());
        let bytes = codec::encode(&request);
        let read: InferRequest = codec::decode("request", &bytes, MAX_REQUEST_BYTES).expect("read");
        prop_assert_eq!(read, request);
    }

    #[test]
    fn a_chunk_survives_the_wire(position in any::<u32>(), tokens in vec(any::<u32>(), 0..64), text in ".{0,300}", unnamed in any::<u32>()) {
        let event = AnswerEvent::Chunk(Chunk { unnamed, ..Chunk::new(position, tokens, text) });
        let bytes = codec::encode(&event);
        prop_assert_eq!(codec::decode::<AnswerEvent>("event", &bytes, MAX_EVENT_BYTES), Ok(event));
    }

    #[test]
    fn an_error_survives_the_wire(message in ".{0,300}", param in any::<Option<String>>(), retry_after_ms in any::<Option<u64>>(), untried in any::<bool>()) {
        let error = RpcError { code: Code::Conflict, message, param, retry_after_ms, untried };
        let bytes = codec::encode(&error);
        prop_assert_eq!(codec::decode::<RpcError>("error", &bytes, bytes.len()), Ok(error));
    }

    #[test]
    fn a_card_is_verified_as_it_was_sealed_and_by_no_other_mesh(
        (epoch, revision, issued_ms) in any::<(u64, u64, u64)>(),
        capacity in 1u32..=65_536,
        offered in vec(model(), 0..8),
        other in any::<[u8; 32]>(),
    ) {
        let mut card = Card { epoch, revision, issued_ms, ..samples::card() };
        let worker = card.worker.as_mut().expect("a worker's card");
        let template = worker.models[0].clone();
        worker.capacity = capacity;
        worker.models = offered.into_iter().map(|model| ModelOffer { model, ..template.clone() }).collect();
        let signed = Signed::seal(&samples::worker_key(), &samples::mesh(), &card).expect("inside its limits");
        let read = signed.verify(&samples::mesh()).expect("valid");
        prop_assert_eq!(&*read, &card);
        prop_assume!(other != samples::mesh().0);
        prop_assert!(signed.verify(&tether_wire::MeshId(other)).is_err());
    }

    #[test]
    fn a_beat_is_verified_as_it_was_sealed_and_stays_small(
        (seq, issued_ms) in any::<(u64, u64)>(),
        epoch in 0..u64::MAX,
        nonce in any::<[u8; 16]>(),
        load in any::<(u32, u32, u32)>(),
    ) {
        let beat = Beat {
            epoch, seq, issued_ms, nonce,
            queue_depth: load.0, in_flight: load.1, first_token_ms: load.2,
            ..samples::beat()
        };
        let signed = Signed::seal(&samples::worker_key(), &samples::mesh(), &beat).expect("inside its limits");
        prop_assert_eq!(&*signed.verify(&samples::mesh()).expect("valid"), &beat);
        prop_assert!(signed.as_bytes().len() <= 320, "{}", signed.as_bytes().len());
    }

    #[test]
    fn a_manifest_never_names_a_file_outside_itself(path in ".{0,40}") {
        let mut manifest = samples::manifest();
        manifest.files.push(FileEntry { path: path.clone(), size_bytes: 1, digest: Digest([0; 32]) });
        let sealed = Signed::seal(&samples::operator(), &samples::mesh(), &manifest).is_ok();
        prop_assert!(!sealed || is_safe_path(&path));
        if is_safe_path(&path) {
            let joined = std::path::Path::new("root").join(&path);
            prop_assert!(joined.starts_with("root"));
            prop_assert!(joined.components().all(|part| part != std::path::Component::ParentDir));
        }
    }

    #[test]
    fn a_record_fits_the_dht_and_keeps_its_first_addresses(ports in vec(any::<u16>(), 0..40), relay in proptest::option::of("[a-z]{0,300}")) {
        let addresses: Vec<std::net::SocketAddr> = ports.iter()
            .map(|port| (std::net::Ipv6Addr::new(0x2001, 0xdb8, 1, 2, 3, 4, 5, 6), *port).into())
            .collect();
        let bytes = Record { v: 1, addresses: addresses.clone(), relay }.encode();
        prop_assert!(bytes.len() <= MAX_RECORD_BYTES);
        let read = Record::decode(&bytes).expect("our own bytes");
        prop_assert_eq!(&read.addresses[..], &addresses[..read.addresses.len()]);
    }

    #[test]
    fn text_that_breaks_the_rule_of_an_id_never_becomes_one(text in ".{0,80}") {
        let kebab = |t: &str, max: usize| t.len() <= max && !t.is_empty()
            && t.split('-').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()));
        prop_assert_eq!(ModelName::new(text.clone()).is_ok(), kebab(&text, 64));
        prop_assert_eq!(Region::new(text.clone()).is_ok(), kebab(&text, 32));
        prop_assert_eq!(TenantId::new(text.clone()).is_ok(), kebab(&text, 64));
    }

    #[test]
    fn an_id_reads_back_from_its_text(bytes in any::<[u8; 32]>(), model in model()) {
        prop_assert_eq!(NodeId(bytes).to_string().parse::<NodeId>(), Ok(NodeId(bytes)));
        prop_assert_eq!(model.to_string().parse::<ModelRef>(), Ok(model));
    }
}
