//! One value of each message, with every field set to something that can be told apart.

use serde_bytes::ByteBuf;
use std::collections::BTreeMap;
use tether_wire::beat::{NodeState, Vitals};
use tether_wire::card::{ModelFault, ModelOffer, WorkerCard};
use tether_wire::control::Target;
use tether_wire::directory::{Availability, DirectoryUpdate, ModelEntry, ModelRule, TenantEntry};
use tether_wire::grant::chain::pass_on;
use tether_wire::grant::{Access, Mesh};
use tether_wire::infer::{
    Accepted, AnswerEvent, Begun, CallDelta, Chunk, Done, Finish, Format, InferRequest, Input,
    Message, Output, Prefix, Resume, Sampling, Speaker, Started, TokenLogprob, Tool, ToolCall,
    ToolChoice, TopLogprob, Usage, WorkOrder,
};
use tether_wire::invite::{Joined, Token};
use tether_wire::link::{Hello, HelloAnswer, Refusal, RefusalCode};
use tether_wire::manifest::{FileEntry, Format as WeightsFormat};
use tether_wire::receipt::hash;
use tether_wire::record::Record;
use tether_wire::rpc::{CallHead, Code, RpcError, method};
use tether_wire::spread::{BUCKETS, Batch, Holding, Push, PushReply, RelayedBeat, Suspicion};
use tether_wire::{
    Beat, Card, Control, CorrelationId, Digest, Grant, Invite, Manifest, MeshId, ModelRef, NodeKey,
    Receipt, Region, Revocation, Role, Signed, TenantId, Tier,
};

/// 15 January 2027, 08:00 UTC.
pub(crate) const NOW_MS: u64 = 1_800_000_000_000;
const DAY_MS: u64 = 86_400_000;

pub(crate) fn operator() -> NodeKey {
    NodeKey::from_seed([1; 32])
}
pub(crate) fn worker_key() -> NodeKey {
    NodeKey::from_seed([2; 32])
}
pub(crate) fn regional_operator() -> NodeKey {
    NodeKey::from_seed([3; 32])
}
pub(crate) fn mesh() -> MeshId {
    MeshId(operator().id().0)
}
pub(crate) fn model() -> ModelRef {
    "tether-tiny@1.0".parse().expect("a valid reference")
}
pub(crate) fn region() -> Region {
    Region::new("local").expect("a valid region")
}
pub(crate) fn tenant() -> TenantId {
    TenantId::new("acme").expect("a valid tenant")
}

pub(crate) fn grant() -> Grant {
    Grant {
        subject: worker_key().id(),
        role: Role::Worker,
        region: Some(region()),
        tier: Tier::Trusted,
        not_before_ms: NOW_MS,
        expires_ms: NOW_MS + 30 * DAY_MS,
        serial: 7,
        issuer: None,
        consent: None,
        invite: None,
    }
}

pub(crate) fn sealed_grant() -> Signed<Grant> {
    Signed::seal(&operator(), &mesh(), &grant()).expect("inside its limits")
}

pub(crate) fn delegated_grant() -> Signed<Grant> {
    let own = Grant {
        subject: regional_operator().id(),
        role: Role::Operator,
        serial: 8,
        ..grant()
    };
    let own = Signed::seal(&operator(), &mesh(), &own).expect("inside its limits");
    let given = Grant {
        serial: 9,
        issuer: Some(own.as_bytes().to_vec()),
        ..grant()
    };
    Signed::seal(&regional_operator(), &mesh(), &given).expect("inside its limits")
}

pub(crate) fn next_key() -> NodeKey {
    NodeKey::from_seed([4; 32])
}
pub(crate) fn orchestrator_key() -> NodeKey {
    NodeKey::from_seed([5; 32])
}
pub(crate) fn full_mesh() -> Mesh {
    Mesh {
        id: mesh(),
        recovery: Some(NodeKey::from_seed([6; 32]).id()),
        access: Access::Invite,
    }
}

/// The worker passes its grant on to its next key.
pub(crate) fn transferred_grant() -> Signed<Grant> {
    let (old, new) = (worker_key(), next_key());
    pass_on(&sealed_grant(), &old, &new, &mesh(), NOW_MS + 1).expect("inside its limits")
}

pub(crate) fn invite() -> Invite {
    Invite {
        region: region(),
        tier: Tier::Trusted,
        not_before_ms: NOW_MS,
        expires_ms: NOW_MS + DAY_MS,
        uses: 5,
        grant_life_ms: 90 * DAY_MS,
        serial: 10,
        secret: Invite::digest_of(&[9; 32]),
        issuer: None,
    }
}

pub(crate) fn sealed_invite() -> Signed<Invite> {
    Signed::seal(&operator(), &mesh(), &invite()).expect("inside its limits")
}

/// An orchestrator lets the worker in by the invite.
pub(crate) fn invited_grant() -> Signed<Grant> {
    let own = Grant {
        subject: orchestrator_key().id(),
        role: Role::Orchestrator,
        serial: 11,
        ..grant()
    };
    let own = Signed::seal(&operator(), &mesh(), &own).expect("inside its limits");
    let given = Grant {
        serial: 12,
        issuer: Some(own.as_bytes().to_vec()),
        invite: Some(sealed_invite().as_bytes().to_vec()),
        ..grant()
    };
    Signed::seal(&orchestrator_key(), &mesh(), &given).expect("inside its limits")
}

pub(crate) fn joined() -> Joined {
    Joined {
        grant: invited_grant().as_bytes().to_vec(),
    }
}

pub(crate) fn control() -> Control {
    Control::Grant(transferred_grant().as_bytes().to_vec())
}

pub(crate) fn token() -> Token {
    Token {
        mesh: mesh(),
        recovery: full_mesh().recovery,
        access: Access::Invite,
        bootstrap: vec!["192.0.2.1:49737".parse().expect("an address")],
        invite: sealed_invite().as_bytes().to_vec(),
        secret: [9; 32],
    }
}

pub(crate) fn revocation() -> Revocation {
    Revocation {
        target: Target::Key(worker_key().id()),
        keeps_issued: true,
        reason: "its disk was stolen".into(),
        issued_ms: NOW_MS,
        issuer: None,
    }
}

pub(crate) fn sealed_revocation() -> Signed<Revocation> {
    Signed::seal(&operator(), &mesh(), &revocation()).expect("inside its limits")
}

pub(crate) fn manifest() -> Manifest {
    let file = |path: &str, size_bytes, fill| FileEntry {
        path: path.into(),
        size_bytes,
        digest: Digest([fill; 32]),
    };
    Manifest {
        model: model(),
        format: WeightsFormat::Gguf,
        weights: "model.gguf".into(),
        tokenizer: Some("tokenizer.json".into()),
        files: vec![
            file("model.gguf", 785_000, 6),
            file("tokenizer.json", 20_000, 7),
        ],
        context_tokens: 2_048,
        licence: Some("MIT OR Apache-2.0".into()),
        base_model: Some("base@0.9".parse().expect("a valid reference")),
        base_digest: Some(Digest([9; 32])),
        cache_width: Some(1_024),
        adapters: vec![Digest([8; 32])],
        created_ms: NOW_MS,
    }
}

pub(crate) fn sealed_manifest() -> Signed<Manifest> {
    Signed::seal(&operator(), &mesh(), &manifest()).expect("inside its limits")
}

pub(crate) fn hello() -> Hello {
    Hello {
        major: tether_wire::PROTOCOL_MAJOR,
        minor: tether_wire::PROTOCOL_MINOR,
        mesh: mesh(),
        role: Role::Worker,
        region: region(),
        grant: Some(sealed_grant().as_bytes().to_vec()),
        invite: None,
        agent: "tether 0.1.0".into(),
        boot: 0x0123_4567_89ab_cdef,
        observed: None,
    }
}

pub(crate) fn welcome() -> HelloAnswer {
    HelloAnswer::Welcome(hello())
}

pub(crate) fn refused() -> HelloAnswer {
    HelloAnswer::Refused(Refusal::new(
        RefusalCode::UnknownKey,
        "show a grant of this mesh",
    ))
}

pub(crate) fn refused_with_a_grant() -> HelloAnswer {
    HelloAnswer::Refused(Refusal {
        grant: Some(vec![7; 40]),
        revocation: Some(vec![8; 40]),
        ..Refusal::new(RefusalCode::Spent, "it has let in all")
    })
}

pub(crate) fn record() -> Record {
    Record {
        v: 1,
        addresses: vec![
            "192.0.2.7:4433".parse().expect("an address"),
            "[2001:db8::7]:4433".parse().expect("an address"),
        ],
        relay: Some("https://relay.example".into()),
    }
}

pub(crate) fn call_head() -> CallHead {
    CallHead {
        method: method::SUBMIT.into(),
        timeout_ms: Some(60_000),
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
    }
}

pub(crate) fn rpc_error() -> RpcError {
    RpcError::new(Code::Overloaded, "every worker is busy")
        .with_param("model")
        .with_retry_after_ms(1_500)
}

pub(crate) fn rpc_error_untried() -> RpcError {
    RpcError::new(Code::Unavailable, "it was just started")
        .with_retry_after_ms(1_000)
        .untried()
}

pub(crate) fn sampling() -> Sampling {
    Sampling {
        max_tokens: Some(64),
        temperature: 0.5,
        top_p: 0.75,
        top_k: 40,
        min_p: 0.0625,
        frequency_penalty: 0.25,
        presence_penalty: -0.5,
        repetition_penalty: 1.25,
        logit_bias: BTreeMap::from([(7, 1.5), (300, -100.0)]),
        seed: Some(u64::MAX),
        stop: vec!["\n\n".into()],
        top_logprobs: Some(2),
    }
}

pub(crate) fn chat() -> Input {
    let said = |role, content: &str| Message::new(role, content);
    Input::Chat(vec![
        said(Speaker::System, "Answer in one word."),
        said(Speaker::User, "What is the capital of France?"),
        said(Speaker::Assistant, "Paris"),
        Message {
            tool_calls: vec![ToolCall {
                id: "a1B2c3D4e".into(),
                name: "weather".into(),
                arguments: r#"{"city":"Paris"}"#.into(),
            }],
            ..said(Speaker::Assistant, "")
        },
        Message {
            tool_call_id: Some("a1B2c3D4e".into()),
            name: Some("weather".into()),
            ..said(Speaker::Tool, "sunny")
        },
    ])
}

pub(crate) fn output() -> Output {
    Output {
        tools: vec![Tool {
            name: "weather".into(),
            description: "How the weather is.".into(),
            parameters: r#"{"type":"object","properties":{"city":{"type":"string"}}}"#.into(),
            strict: true,
        }],
        tool_choice: ToolChoice::Named("weather".into()),
        parallel_tool_calls: false,
        format: Format::Text,
    }
}

/// A chat of two blocks and some.
pub(crate) fn long_chat() -> Input {
    Input::Chat(vec![
        Message::new(Speaker::System, "Be brief. ".repeat(50)),
        Message::new(Speaker::User, "Where is Paris?"),
    ])
}

/// A prompt whose answer has this form.
pub(crate) fn formatted(format: Format) -> InferRequest {
    InferRequest {
        output: Output {
            format,
            ..Output::default()
        },
        ..request(Input::Text("Once".into()))
    }
}

pub(crate) fn request(input: Input) -> InferRequest {
    InferRequest {
        tenant: tenant(),
        correlation: CorrelationId::derive(&tenant(), "retry-1"),
        retry_token: "retry-1".into(),
        model: "tether-tiny".into(),
        output: match &input {
            Input::Chat(_) => output(),
            Input::Text(_) => Output {
                format: Format::Choice(vec!["yes".into(), "no".into()]),
                ..Output::default()
            },
        },
        prefix: Prefix::of(&tenant(), &long_chat(), &Output::default()),
        input,
        sampling: sampling(),
        keyed: true,
        answers: 1,
        resume: Some(resume()),
    }
}

pub(crate) fn resume() -> Resume {
    Resume {
        lost: vec![orchestrator_key().id()],
        started: Some(started()),
    }
}

pub(crate) fn started() -> Started {
    Started {
        model: Some(model()),
        degraded_from: Some("tether-large@2.0".parse().expect("valid")),
        digest: Digest([4; 32]),
        seed: 99,
        numerics_class: "class-1".into(),
        worker: Some(worker_key().id()),
        transcript: vec![17, 511],
    }
}

pub(crate) fn work_order() -> WorkOrder {
    WorkOrder {
        correlation: CorrelationId::derive(&tenant(), "retry-1"),
        attempt: 2,
        fence: 11,
        tenant: tenant(),
        model: model(),
        digest: Digest([4; 32]),
        input: chat(),
        sampling: sampling(),
        output: output(),
        transcript: vec![17, 511],
    }
}

pub(crate) fn accepted() -> AnswerEvent {
    AnswerEvent::Accepted(Accepted {
        worker: worker_key().id(),
        model: model(),
        digest: Digest([4; 32]),
        seed: 99,
        numerics_class: "class-1".into(),
        created_ms: 1_767_225_600_000,
        degraded_from: None,
        max_tokens: None,
    })
}

/// By a policy: with a smaller model, and no more than so many tokens.
pub(crate) fn degraded() -> AnswerEvent {
    let AnswerEvent::Accepted(accepted) = accepted() else {
        unreachable!("made above")
    };
    AnswerEvent::Accepted(Accepted {
        degraded_from: Some("large@2.0".parse().expect("valid")),
        max_tokens: Some(4_096),
        ..accepted
    })
}

pub(crate) fn begun() -> AnswerEvent {
    AnswerEvent::Begun(Begun { prompt_tokens: 13 })
}

pub(crate) fn chunk() -> AnswerEvent {
    AnswerEvent::Chunk(Chunk {
        position: 3,
        tokens: vec![17, 511],
        text: "Par".into(),
        logprobs: vec![
            TokenLogprob {
                token: 17,
                logprob: -0.25,
                bytes: b"Par".to_vec(),
                top: vec![TopLogprob {
                    token: 17,
                    logprob: -0.25,
                    bytes: b"Par".to_vec(),
                }],
            },
            TokenLogprob {
                token: 511,
                logprob: tether_wire::infer::MIN_LOGPROB,
                bytes: vec![0xc3],
                top: Vec::new(),
            },
        ],
        calls: vec![CallDelta {
            index: 1,
            id: Some("a1B2c3D4e".into()),
            name: Some("weather".into()),
            arguments: "{".into(),
        }],
        unnamed: 0,
    })
}

/// Of an engine that does not tell the ids of its tokens.
pub(crate) fn unnamed_chunk() -> AnswerEvent {
    AnswerEvent::Chunk(Chunk {
        unnamed: 2,
        ..Chunk::new(3, vec![], "Par")
    })
}

pub(crate) fn plain_chunk() -> AnswerEvent {
    AnswerEvent::Chunk(Chunk::new(3, vec![17, 511], "Par"))
}

pub(crate) fn done() -> AnswerEvent {
    AnswerEvent::Done(Done {
        finish: Finish::Length,
        usage: Usage {
            prompt_tokens: 21,
            completion_tokens: 5,
        },
        receipt: Some(vec![1, 2, 3]),
    })
}

pub(crate) fn receipt() -> Receipt {
    Receipt {
        correlation: CorrelationId::derive(&tenant(), "retry-1"),
        attempt: 2,
        fence: 11,
        model: model(),
        digest: Digest([4; 32]),
        adapters: vec![Digest([5; 32])],
        numerics_class: "mistralrs-0.8.1/x86-64-v3/q8_0".into(),
        engine: "mistralrs 0.8.1".into(),
        request: hash::request(&chat(), &sampling(), &Output::default(), 99),
        text: hash::text("Paris"),
        calls: Some(Digest([7; 32])),
        tokens: Some(Digest([6; 32])),
        prompt_tokens: 21,
        completion_tokens: 5,
        finish: Finish::Length,
        seed: 99,
        began_ms: NOW_MS + 1_000,
        first_token_ms: Some(NOW_MS + 1_040),
        ended_ms: NOW_MS + 1_200,
        continued_from: 3,
        grant: Some(sealed_grant().as_bytes().to_vec()),
    }
}

pub(crate) fn sealed_receipt() -> Signed<Receipt> {
    Signed::seal(&worker_key(), &mesh(), &receipt()).expect("inside its limits")
}

pub(crate) fn directory_update() -> DirectoryUpdate {
    DirectoryUpdate {
        version: 12,
        whole: true,
        tenants: vec![TenantEntry {
            id: tenant(),
            key_hashes: vec![tether_wire::directory::api_key_hash("sk-example")],
            rule: 0,
        }],
        removed_tenants: vec![TenantId::new("gone").expect("a valid tenant")],
        models: Some(vec![ModelEntry {
            model: model(),
            created_ms: NOW_MS,
            availability: Availability::Available,
        }]),
        rules: None,
        more: false,
    }
}

/// The first of several pieces.
pub(crate) fn update_piece() -> DirectoryUpdate {
    DirectoryUpdate {
        more: true,
        ..directory_update()
    }
}

/// With rules about who may use which models.
pub(crate) fn ruled_update() -> DirectoryUpdate {
    let selectors = |texts: &[&str]| {
        let read = texts.iter().map(|text| text.parse().expect("valid"));
        read.collect::<Vec<_>>()
    };
    let mut update = directory_update();
    update.tenants[0].rule = 1;
    update.rules = Some(vec![
        ModelRule {
            allow: None,
            deny: selectors(&["large@2.0"]),
        },
        ModelRule {
            allow: Some(selectors(&["tiny", "qwen-*"])),
            deny: Vec::new(),
        },
    ]);
    update
}

pub(crate) fn card() -> Card {
    Card {
        role: Role::Worker,
        epoch: NOW_MS,
        revision: 3,
        issued_ms: NOW_MS + 1_000,
        region: region(),
        grant: Some(sealed_grant().as_bytes().to_vec()),
        agent: "tether 0.1.0".into(),
        minor: 0,
        addresses: vec!["192.0.2.7:4433".into()],
        worker: Some(WorkerCard {
            gpu_class: "cpu".into(),
            vram_gb: 24,
            accelerators: 1,
            capacity: 8,
            models: vec![ModelOffer {
                model: model(),
                digest: Digest([4; 32]),
                warm: true,
                context_tokens: 2_048,
                adapters: vec![Digest([5; 32])],
                numerics_class: "mistralrs-0.8.1/x86-64-v3/q8_0".into(),
            }],
            faults: vec![ModelFault {
                model: "other@2.1".into(),
                reason: "the manifest is signed by a stranger".into(),
            }],
            price_per_1k_micro: 250,
            tier: Tier::Trusted,
            engine: "mistralrs 0.8.1".into(),
        }),
    }
}

pub(crate) fn sealed_card() -> Signed<Card> {
    Signed::seal(&worker_key(), &mesh(), &card()).expect("inside its limits")
}

/// Of a worker that says how its machine is.
pub(crate) fn vital_beat() -> Beat {
    Beat {
        vitals: Some(Vitals {
            cpu_pct: 37,
            memory_free_mib: 12_345,
            gpu_pct: Some(99),
            gpu_memory_free_mib: Some(80_000),
        }),
        ..beat()
    }
}

pub(crate) fn beat() -> Beat {
    Beat {
        epoch: NOW_MS,
        seq: 42,
        nonce: *b"0123456789abcdef",
        issued_ms: NOW_MS + 5_000,
        state: NodeState::Serving,
        card: Digest::of(sealed_card().as_bytes()),
        queue_depth: 2,
        in_flight: 3,
        tokens_per_s: 320.5,
        first_token_ms: 12,
        vitals: None,
    }
}

pub(crate) fn sealed_beat() -> Signed<Beat> {
    Signed::seal(&worker_key(), &mesh(), &beat()).expect("inside its limits")
}

pub(crate) fn push() -> Push {
    Push {
        beat: sealed_beat().as_bytes().to_vec(),
        card: Some(sealed_card().as_bytes().to_vec()),
    }
}

pub(crate) fn push_reply() -> PushReply {
    PushReply { wants_card: true }
}

pub(crate) fn batch() -> Batch {
    let node = worker_key().id();
    let (epoch, seq) = (NOW_MS, 42);
    Batch {
        linked: Some(vec![operator().id()]),
        cards: vec![ByteBuf::from(sealed_card().as_bytes().to_vec())],
        beats: vec![RelayedBeat {
            epoch,
            seq,
            ahead_ms: -120,
            beat: sealed_beat().as_bytes().to_vec(),
        }],
        suspicions: vec![Suspicion { node, epoch, seq }],
        summary: (0..BUCKETS as u64).collect(),
        control_summary: (0..BUCKETS as u64).rev().collect(),
        holdings: vec![Holding {
            node,
            epoch,
            seq,
            card: Some(beat().card),
        }],
        wants: vec![regional_operator().id()],
        controls: vec![ByteBuf::from(vec![1, 2, 3])],
    }
}
