//! One step beyond each bound of the specification: refused, by the field's name, before it is
//! sent and when it is received.

use crate::samples;
use ed25519_dalek::{Signer, SigningKey};
use serde::Serialize;
use serde_bytes::ByteBuf;
use tether_wire::codec::{self, CodecError, MAX_DEPTH};
use tether_wire::grant::MAX_GRANT_LIFE_MS;
use tether_wire::infer::{
    InferRequest, Input, MAX_CALL_ID_BYTES, MAX_CONTINUED_BYTES, MAX_LOGIT_BIAS, MAX_LOST,
    MAX_MESSAGES, MAX_PREFIX_BLOCKS, MAX_REQUEST_BYTES, MAX_RETRY_TOKEN_BYTES, MAX_STOP_BYTES,
    MAX_STOPS, MAX_TOOL_CALLS, MAX_TRANSCRIPT_TOKENS, Message, Output, Prefix, Resume, Speaker,
    Started,
};
use tether_wire::link::{Hello, MAX_HELLO_BYTES};
use tether_wire::manifest::MAX_FILES;
use tether_wire::record::{MAX_RECORD_ADDRESSES, MAX_RECORD_BYTES, Record};
use tether_wire::rpc::Kind;
use tether_wire::spread::{
    BUCKETS, Batch, MAX_BATCH_BYTES, MAX_BATCH_ENTRIES, MAX_LINKED, MAX_PUSH_BYTES, Push,
};
use tether_wire::{
    Beat, Card, CorrelationId, Digest, Grant, Manifest, ModelRef, NodeId, NodeKey, Signable,
    Signed, VerifyError, beat, card,
};

/// An envelope of any body, as a member of the mesh could make it with its own software.
fn sealed_by_hand<T: Signable>(seed: [u8; 32], body: &impl Serialize) -> Signed<T> {
    let key = SigningKey::from_bytes(&seed);
    let mesh = if T::MESH_BOUND {
        samples::mesh().0
    } else {
        [0; 32]
    };
    let body = codec::encode(body);
    let input = [T::DOMAIN.as_bytes(), &[0], &mesh, &body].concat();
    let mut envelope = vec![1];
    envelope.extend(key.verifying_key().to_bytes());
    envelope.extend(key.sign(&input).to_bytes());
    envelope.extend(&body);
    Signed::from_bytes(envelope)
}

/// The value is refused for this field by whoever would send it and by whoever receives it.
#[track_caller]
fn refused<T: Signable + std::fmt::Debug>(seed: [u8; 32], value: &T, expected: &str) {
    let named = |error: VerifyError| match error {
        VerifyError::Body(CodecError::Field { field, .. }) => field,
        other => panic!("refused for another reason: {other}"),
    };
    let key = NodeKey::from_seed(seed);
    let sent = Signed::seal(&key, &samples::mesh(), value).expect_err("not sent");
    assert_eq!(named(sent), expected);
    let received = sealed_by_hand::<T>(seed, value)
        .verify(&samples::mesh())
        .expect_err("not received");
    assert_eq!(named(received), expected);
}

/// [T-CRD-2], [T-CRD-3]
#[test]
fn a_card_beyond_its_bounds_is_refused() {
    let beyond = |field: &str, change: fn(&mut Card)| {
        let mut card = samples::card();
        change(&mut card);
        refused([2; 32], &card, field);
    };
    fn worker(card: &mut Card) -> &mut card::WorkerCard {
        card.worker.as_mut().expect("a worker's card")
    }
    beyond("agent", |c| c.agent = "x".repeat(129));
    beyond("addresses", |c| {
        c.addresses = vec!["192.0.2.1:1".into(); card::MAX_ADDRESSES + 1];
    });
    beyond("addresses", |c| c.addresses[0] = "x".repeat(65));
    beyond("worker", |c| c.worker = None);
    beyond("worker", |c| c.role = tether_wire::Role::Gateway);
    beyond("role", |c| {
        (c.role, c.worker) = (tether_wire::Role::Publisher, None);
    });
    beyond("gpu_class", |c| worker(c).gpu_class = "x".repeat(33));
    beyond("engine", |c| worker(c).engine = "x".repeat(65));
    beyond("capacity", |c| worker(c).capacity = 0);
    beyond("capacity", |c| worker(c).capacity = 65_537);
    beyond("models", |c| {
        let mut offer = worker(c).models[0].clone();
        offer.adapters.clear();
        worker(c).models = vec![offer; card::MAX_MODELS + 1];
    });
    beyond("adapters", |c| {
        worker(c).models[0].adapters = vec![Digest([0; 32]); card::MAX_ADAPTERS + 1];
    });
    beyond("numerics_class", |c| {
        worker(c).models[0].numerics_class = "x".repeat(97);
    });
    beyond("faults", |c| worker(c).faults[0].reason = "x".repeat(640));
    beyond("faults", |c| {
        let fault = card::ModelFault {
            model: "m".into(),
            reason: "r".into(),
        };
        worker(c).faults = vec![fault; card::MAX_MODELS + 1];
    });
}

/// [T-BEA-1]
#[test]
fn a_beat_beyond_its_bounds_is_refused() {
    let beyond = |field: &str, change: fn(&mut Beat)| {
        let mut beat = samples::beat();
        change(&mut beat);
        refused([2; 32], &beat, field);
    };
    beyond("tokens_per_s", |b| b.tokens_per_s = f32::NAN);
    beyond("tokens_per_s", |b| b.tokens_per_s = -1.0);
    beyond("epoch", |b| b.epoch = u64::MAX);
    let vitals = beat::Vitals::default();
    let vitals = |cpu_pct, gpu_pct| {
        Some(beat::Vitals {
            cpu_pct,
            gpu_pct,
            ..vitals
        })
    };
    for wrong in [vitals(101, None), vitals(0, Some(101))] {
        let beat = Beat {
            vitals: wrong,
            ..samples::beat()
        };
        refused([2; 32], &beat, "vitals");
    }
    let unknown = ciborium::Value::Text("asleep".into());
    let state: beat::NodeState =
        codec::decode("state", &codec::encode(&unknown), 64).expect("open");
    assert_eq!(state, beat::NodeState::Unknown);
}

/// [T-PUS-2]
#[test]
fn a_push_over_its_limit_is_refused() {
    let mut push = samples::push();
    assert!(Push::decode(&codec::encode(&push)).is_ok());
    push.card = Some(vec![0; MAX_PUSH_BYTES]);
    assert!(matches!(
        Push::decode(&codec::encode(&push)),
        Err(CodecError::TooLarge { .. })
    ));
}

/// [T-SPR-2]
#[test]
fn a_batch_beyond_its_bounds_is_refused_by_the_fields_name() {
    let beyond = |field: &str, change: fn(&mut Batch)| {
        let mut batch = samples::batch();
        change(&mut batch);
        match Batch::decode(&codec::encode(&batch)) {
            Err(CodecError::Field { field: named, .. }) => assert_eq!(named, field),
            other => panic!("{field}: {other:?}"),
        }
    };
    const MORE: usize = MAX_BATCH_ENTRIES + 1;
    assert!(Batch::decode(&codec::encode(&samples::batch())).is_ok());
    assert!(Batch::default().is_empty() && !samples::batch().is_empty());
    beyond("linked", |b| {
        b.linked = Some(vec![NodeId([1; 32]); MAX_LINKED + 1])
    });
    beyond("cards", |b| {
        b.cards = vec![serde_bytes::ByteBuf::new(); MORE]
    });
    beyond("beats", |b| {
        b.beats[0].beat.clear();
        b.beats = vec![b.beats[0].clone(); MORE];
    });
    beyond("suspicions", |b| b.suspicions = vec![b.suspicions[0]; MORE]);
    beyond("holdings", |b| b.holdings = vec![b.holdings[0]; MORE]);
    beyond("wants", |b| b.wants = vec![NodeId([1; 32]); MORE]);
    beyond("controls", |b| {
        b.controls = vec![serde_bytes::ByteBuf::new(); MORE]
    });
    beyond("summary", |b| b.summary = vec![0; BUCKETS + 1]);
    beyond("control_summary", |b| {
        b.control_summary = vec![0; BUCKETS + 1];
    });
    beyond("ahead_ms", |b| b.beats[0].ahead_ms = 5_001);
    beyond("ahead_ms", |b| b.beats[0].ahead_ms = i32::MIN);
    let mut large = samples::batch();
    large.cards = vec![serde_bytes::ByteBuf::from(vec![0; MAX_BATCH_BYTES])];
    assert!(matches!(
        Batch::decode(&codec::encode(&large)),
        Err(CodecError::TooLarge { .. })
    ));
}

/// [T-ENV-5]
#[test]
fn an_envelope_over_the_limit_of_its_kind_is_refused_before_its_signature_is_looked_at() {
    let bytes = vec![1; Card::MAX_BYTES + 1];
    let error = Signed::<Card>::from_bytes(bytes).verify(&samples::mesh());
    assert!(matches!(error, Err(VerifyError::TooLarge { .. })));
    // Each within its bound, together too much: not sent.
    let mut card = samples::card();
    let worker = card.worker.as_mut().expect("a worker's card");
    worker.faults = vec![worker.faults[0].clone(); card::MAX_MODELS];
    (worker.faults.iter_mut()).for_each(|fault| fault.reason = "x".repeat(600));
    let error = Signed::seal(&samples::worker_key(), &samples::mesh(), &card);
    assert!(matches!(error, Err(VerifyError::TooLarge { .. })));
}

/// [T-ART-2] to [T-ART-4]
#[test]
fn a_manifest_beyond_its_bounds_is_refused() {
    let beyond = |field: &str, change: fn(&mut Manifest)| {
        let mut manifest = samples::manifest();
        change(&mut manifest);
        refused([1; 32], &manifest, field);
    };
    beyond("files", |m| {
        let file = m.files[0].clone();
        m.files.extend((0..MAX_FILES).map(|n| {
            let path = format!("{n}");
            tether_wire::manifest::FileEntry {
                path,
                ..file.clone()
            }
        }));
    });
    beyond("files", |m| m.files[0].path = "../model.gguf".into());
    beyond("files", |m| m.files.push(m.files[0].clone()));
    beyond("weights", |m| m.weights = "other.gguf".into());
    beyond("tokenizer", |m| m.tokenizer = Some("other.json".into()));
    beyond("context_tokens", |m| m.context_tokens = 0);
    beyond("licence", |m| m.licence = Some("x".repeat(257)));
    beyond("adapters", |m| m.adapters = vec![Digest([0; 32]); 65]);
}

/// [T-GRA-3]
#[test]
fn a_grant_that_ends_before_it_begins_or_never_is_refused() {
    let beyond = |change: fn(&mut Grant)| {
        let mut grant = samples::grant();
        change(&mut grant);
        refused([1; 32], &grant, "expires_ms");
    };
    beyond(|g| g.expires_ms = g.not_before_ms);
    beyond(|g| g.expires_ms = g.not_before_ms + MAX_GRANT_LIFE_MS + 1);
}

/// [T-INF-1] to [T-INF-3]
#[test]
fn a_request_beyond_its_bounds_is_refused_by_the_fields_name() {
    let beyond = |field: &str, change: fn(&mut InferRequest)| {
        let mut request = samples::request(samples::chat());
        change(&mut request);
        match request.check() {
            Err(CodecError::Field { field: named, .. }) => assert_eq!(named, field),
            other => panic!("{field}: {other:?}"),
        }
    };
    beyond("retry_token", |r| {
        r.retry_token = "x".repeat(MAX_RETRY_TOKEN_BYTES + 1);
    });
    beyond("correlation", |r| r.correlation = CorrelationId([0; 16]));
    beyond("correlation", |r| {
        r.tenant = tether_wire::TenantId::new("other").expect("a tenant");
    });
    beyond("model", |r| r.model = "x".repeat(129));
    beyond("messages", |r| r.input = Input::Chat(Vec::new()));
    beyond("messages", |r| {
        let message = Message::new(Speaker::User, "hello");
        r.input = Input::Chat(vec![message; MAX_MESSAGES + 1]);
    });
    beyond("prompt", |r| r.input = Input::Text(String::new()));
    let mut order = samples::work_order();
    assert_eq!(order.check(), Ok(()));
    order.sampling.seed = None;
    assert!(order.check().is_err(), "an order has a seed");
    order.sampling.seed = Some(1);
    order.transcript = vec![0; MAX_TRANSCRIPT_TOKENS + 1];
    let error = order.check().expect_err("too long").to_string();
    assert!(error.contains("transcript"), "{error}");
    fn started(request: &mut InferRequest) -> &mut Started {
        let resume = request.resume.as_mut().expect("in the sample");
        resume.started.as_mut().expect("in the sample")
    }
    fn message(request: &mut InferRequest, at: usize) -> &mut Message {
        match &mut request.input {
            Input::Chat(messages) => &mut messages[at],
            Input::Text(_) => panic!("a chat"),
        }
    }
    beyond("messages", |r| {
        message(r, 0).tool_call_id = Some("x".into())
    });
    beyond("messages", |r| message(r, 4).tool_call_id = None);
    beyond("messages", |r| {
        message(r, 4).tool_call_id = Some("x".repeat(MAX_CALL_ID_BYTES + 1))
    });
    beyond("messages", |r| {
        message(r, 0).name = Some("x".repeat(MAX_CALL_ID_BYTES + 1))
    });
    beyond("messages", |r| {
        let calls = message(r, 3).tool_calls.clone();
        message(r, 1).tool_calls = calls;
    });
    beyond("messages", |r| {
        let call = message(r, 3).tool_calls[0].clone();
        message(r, 3).tool_calls = vec![call; MAX_TOOL_CALLS + 1];
    });
    beyond("messages", |r| message(r, 3).tool_calls[0].name.clear());
    beyond("messages", |r| {
        message(r, 3).tool_calls[0].id = "x".repeat(MAX_CALL_ID_BYTES + 1);
    });
    beyond("tools", |r| r.input = Input::Text("x".into()));
    beyond("tools", |r| r.output.tools[0].name.clear());
    beyond("transcript", |r| {
        started(r).transcript = vec![0; MAX_TRANSCRIPT_TOKENS + 1];
    });
    beyond("numerics_class", |r| {
        started(r).numerics_class = "x".repeat(97);
    });
    beyond("lost", |r| {
        let resume = r.resume.as_mut().expect("in the sample");
        resume.lost = vec![resume.lost[0]; MAX_LOST + 1];
    });
    fn prefix(bytes: usize) -> Prefix {
        let bytes = codec::encode(&ByteBuf::from(vec![0; bytes]));
        codec::decode("prefix", &bytes, 1_024).expect("bytes")
    }
    beyond("prefix", |r| r.prefix = prefix(MAX_PREFIX_BLOCKS * 8 + 8));
    beyond("prefix", |r| r.prefix = prefix(12));
    beyond("top_logprobs", |r| r.sampling.top_logprobs = Some(21));
    beyond("stop", |r| {
        r.sampling.stop = vec!["x".into(); MAX_STOPS + 1]
    });
    beyond("stop", |r| {
        r.sampling.stop = vec!["x".repeat(MAX_STOP_BYTES + 1)];
    });
    beyond("logit_bias", |r| {
        let tokens = 0..=u32::try_from(MAX_LOGIT_BIAS).expect("small");
        r.sampling.logit_bias = tokens.map(|token| (token, 0.0)).collect();
    });
}

/// [T-INF-3], [T-INF-11], [T-INF-13]
#[test]
fn the_largest_request_can_be_gone_on_with_behind_the_longest_transcript() {
    let transcript = vec![u32::MAX; MAX_TRANSCRIPT_TOKENS];
    let mut request = samples::request(Input::Text("x".into()));
    let resume = request.resume.take().expect("in the sample");
    let rest = codec::encode(&request).len();
    // A few more are for the longer length.
    let text = "x".repeat(MAX_REQUEST_BYTES - rest - 3);
    request.input = Input::Text(text.clone());
    let bytes = codec::encode(&request).len();
    assert!(
        (MAX_REQUEST_BYTES - 8..=MAX_REQUEST_BYTES).contains(&bytes),
        "{bytes}"
    );
    let model: ModelRef = format!("{}@65535.65535", "m".repeat(64))
        .parse()
        .expect("valid");
    request.resume = Some(Resume {
        lost: vec![resume.lost[0]; MAX_LOST],
        started: resume.started.map(|started| Started {
            model: Some(model.clone()),
            degraded_from: Some(model),
            seed: u64::MAX,
            numerics_class: "c".repeat(96),
            transcript: transcript.clone(),
            ..started
        }),
    });
    assert_eq!(request.check(), Ok(()));
    let bytes = codec::encode(&request);
    assert!(bytes.len() > MAX_REQUEST_BYTES, "{}", bytes.len());
    let read = codec::decode("request", &bytes, MAX_CONTINUED_BYTES);
    assert!(read == Ok(request), "it is read");

    let mut order = samples::work_order();
    (order.input, order.output) = (Input::Text(text), Output::default());
    order.transcript = transcript;
    assert_eq!(order.check(), Ok(()));
    let bytes = codec::encode(&order);
    assert!(bytes.len() > MAX_REQUEST_BYTES, "{}", bytes.len());
    let read = codec::decode("order", &bytes, MAX_CONTINUED_BYTES);
    assert!(read == Ok(order), "it is read");
}

/// [T-LNK-2]
#[test]
fn a_greeting_beyond_its_bounds_is_refused() {
    let mut hello = samples::hello();
    hello.agent = "x".repeat(129);
    assert!(Hello::decode(&codec::encode(&hello)).is_err());
    hello.agent = "x".repeat(MAX_HELLO_BYTES);
    assert!(matches!(
        Hello::decode(&codec::encode(&hello)),
        Err(CodecError::TooLarge { .. })
    ));
}

/// [T-REC-1] to [T-REC-3]
#[test]
fn a_record_beyond_its_bounds_is_as_good_as_none() {
    let mut record = samples::record();
    record.v = 2;
    assert!(Record::decode(&codec::encode(&record)).is_err());
    record.v = 1;
    record.addresses = vec![record.addresses[0]; MAX_RECORD_ADDRESSES + 1];
    assert!(Record::decode(&codec::encode(&record)).is_err());
    assert!(Record::decode(&record.encode()).is_ok(), "cut when written");
    record.relay = Some("x".repeat(MAX_RECORD_BYTES));
    assert!(Record::decode(&codec::encode(&record)).is_err());
}

/// [T-COD-3]
#[test]
fn nesting_is_followed_to_its_bound_and_no_further() {
    let nested = |levels: usize| [vec![0x81; levels], vec![0]].concat();
    let read = |bytes: &[u8]| codec::decode::<ciborium::Value>("nested", bytes, 1_000).is_ok();
    assert!(read(&nested(MAX_DEPTH - 1)));
    assert!(!read(&nested(MAX_DEPTH + 1)));
}

/// [T-RPC-1], [T-RPC-2]
#[test]
fn a_frame_of_an_unknown_kind_is_none_of_ours() {
    let known: Vec<u8> = (0..=u8::MAX)
        .filter(|byte| Kind::from_byte(*byte).is_some())
        .collect();
    assert_eq!(known, [1, 2, 3, 4]);
}
