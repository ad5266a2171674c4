//! The list of targets.
//!
//! A new message of the wire needs one entry: [`sealed`](crate) for a kind of signed message, or the
//! function that decodes it; its golden vector is its seed. Then
//! `TETHER_BLESS=1 cargo test -p tether-fuzz` writes the seeds.

use crate::seeds::{Seed, golden, golden_sealed};
use crate::{
    Target, artifact, codec, gateway, membership, message, net, operator, sealed, spread, text,
    worker,
};
use tether_net::decoders::frame;
use tether_wire::directory::DirectoryUpdate;
use tether_wire::grant::Consent;
use tether_wire::infer::{AnswerEvent, MAX_CONTINUED_BYTES, MAX_EVENT_BYTES, WorkOrder};
use tether_wire::invite::{Join, Joined};
use tether_wire::rpc::{CallHead, Kind, MAX_FRAME_BYTES, RpcError};
use tether_wire::spread::PushReply;
use tether_wire::{Beat, Card, Grant, Invite, Manifest, Receipt, Revocation};

/// The target of this name.
#[must_use]
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

/// The consent inside the golden grant that was passed on.
fn consents() -> Vec<Seed> {
    let mesh = crate::known::mesh(tether_wire::grant::Access::Invite).id;
    let grant = &golden(&["grant_transferred"])[0].bytes;
    let grant = tether_wire::Signed::<Grant>::from_bytes(grant.as_slice()).verify(&mesh);
    let consent = grant
        .expect("valid")
        .into_inner()
        .consent
        .expect("passed on");
    let body = consent[tether_wire::envelope::HEADER_LEN..].to_vec();
    vec![
        Seed::new("consent", consent),
        Seed::new("consent-body", body),
    ]
}

/// All targets.
pub const TARGETS: &[Target] = &[
    // --- crates/wire: signed
    Target {
        name: "beat",
        run: sealed::run::<Beat>,
        covers: &["Beat"],
        seeds: || golden_sealed(&["beat", "beat_vitals"]),
    },
    Target {
        name: "card",
        run: sealed::run::<Card>,
        covers: &["Card"],
        seeds: || golden_sealed(&["card"]),
    },
    Target {
        name: "grant",
        run: sealed::run::<Grant>,
        covers: &["Grant"],
        seeds: || {
            golden_sealed(&[
                "grant",
                "grant_delegated",
                "grant_invited",
                "grant_transferred",
            ])
        },
    },
    Target {
        name: "consent",
        run: sealed::run::<Consent>,
        covers: &["Consent"],
        seeds: consents,
    },
    Target {
        name: "invite",
        run: sealed::run::<Invite>,
        covers: &["Invite"],
        seeds: || golden_sealed(&["invite"]),
    },
    Target {
        name: "revocation",
        run: sealed::run::<Revocation>,
        covers: &["Revocation"],
        seeds: || golden_sealed(&["revocation"]),
    },
    Target {
        name: "manifest",
        run: sealed::run::<Manifest>,
        covers: &["Manifest"],
        seeds: || golden_sealed(&["manifest"]),
    },
    Target {
        name: "receipt",
        run: sealed::run::<Receipt>,
        covers: &["Receipt"],
        seeds: || golden_sealed(&["receipt"]),
    },
    // --- crates/wire: who belongs to a mesh
    Target {
        name: "control",
        run: membership::control,
        covers: &["control message"],
        seeds: || golden(&["control_grant", "control_revocation"]),
    },
    Target {
        name: "join",
        run: message::run::<Join, 128>,
        covers: &["join"],
        seeds: || golden(&["join"]),
    },
    Target {
        name: "joined",
        run: message::run::<Joined, 8_192>,
        covers: &["joined"],
        seeds: || golden(&["joined"]),
    },
    Target {
        name: "token",
        run: membership::token,
        covers: &["token"],
        seeds: || golden(&["token"]),
    },
    // --- crates/presence, and what comes to it
    Target {
        name: "batch",
        run: spread::batch,
        covers: &["batch"],
        seeds: || golden(&["batch"]),
    },
    Target {
        name: "push",
        run: spread::push,
        covers: &["push"],
        seeds: || golden(&["push"]),
    },
    Target {
        name: "spread",
        run: spread::story,
        covers: &[],
        seeds: spread::stories,
    },
    // --- crates/wire: plain
    Target {
        name: "answer-event",
        run: message::run::<AnswerEvent, MAX_EVENT_BYTES>,
        covers: &["answer", "answer event"],
        seeds: || {
            golden(&[
                "event_accepted",
                "event_accepted_degraded",
                "event_begun",
                "event_chunk",
                "event_chunk_plain",
                "event_chunk_unnamed",
                "event_done",
            ])
        },
    },
    Target {
        name: "call-head",
        run: message::run::<CallHead, 4_096>,
        covers: &["head of a call"],
        seeds: || golden(&["call_head"]),
    },
    Target {
        name: "codec",
        run: codec::run,
        covers: &[],
        seeds: || {
            let nested = |deep: usize| [vec![0x81; deep], vec![0]].concat();
            vec![
                Seed::new(
                    "nested-to-the-limit",
                    nested(tether_wire::codec::MAX_DEPTH - 1),
                ),
                Seed::new("nested-beyond", nested(tether_wire::codec::MAX_DEPTH + 1)),
                Seed::new("endless-list", [0x9b, 0x40, 0, 0, 0, 0, 0, 0, 0]),
                Seed::new("indefinite", [0xbf, 0x61, b'a', 0x9f, 1, 0xf5, 0xff, 0xff]),
            ]
        },
    },
    Target {
        name: "hello",
        run: message::hello,
        covers: &["hello"],
        seeds: || golden(&["hello"]),
    },
    Target {
        name: "infer-request",
        run: message::infer_request,
        covers: &["request", "the request of a dead letter"],
        seeds: || {
            golden(&[
                "infer_request_chat",
                "infer_request_text",
                "infer_request_json_object",
                "infer_request_json_schema",
                "infer_request_regex",
                "infer_request_lark",
            ])
        },
    },
    Target {
        name: "push-reply",
        run: message::run::<PushReply, 64>,
        covers: &["answer to a push"],
        seeds: || golden(&["push_reply"]),
    },
    Target {
        name: "record",
        run: message::record,
        covers: &["record"],
        seeds: || golden(&["record"]),
    },
    Target {
        name: "rpc-error",
        run: message::run::<RpcError, MAX_FRAME_BYTES>,
        covers: &["error"],
        seeds: || golden(&["rpc_error", "rpc_error_untried"]),
    },
    Target {
        name: "text",
        run: text::run,
        covers: &[
            "CorrelationId",
            "Digest",
            "MeshId",
            "ModelName",
            "ModelRef",
            "ModelSelector",
            "ModelVersion",
            "NodeId",
            "Region",
            "Role",
            "TenantId",
        ],
        seeds: || {
            let samples = [
                "local",
                "tether-tiny@1.0",
                "1.0",
                "worker",
                "a--b",
                "acme",
                "tether-*",
            ];
            let hex = ["ab".repeat(16), "cd".repeat(32)];
            (samples
                .into_iter()
                .map(|text| Seed::new(text.replace('*', "all"), text)))
            .chain(
                hex.into_iter()
                    .map(|text| Seed::new(format!("hex-{}", text.len()), text)),
            )
            .collect()
        },
    },
    Target {
        name: "work-order",
        run: message::run::<WorkOrder, MAX_CONTINUED_BYTES>,
        covers: &["order"],
        seeds: || golden(&["work_order"]),
    },
    // --- crates/net
    Target {
        name: "datagram",
        run: net::datagram,
        covers: &[],
        seeds: || {
            let samples = tether_net::decoders::datagrams();
            (samples.into_iter())
                .map(|(name, bytes)| Seed::new(name, bytes))
                .collect()
        },
    },
    Target {
        name: "frames",
        run: net::frames,
        covers: &[],
        seeds: || {
            let call = golden(&["call_head"]).remove(0).bytes;
            let stream = [
                frame(Kind::Call, &call),
                frame(Kind::Item, b"hello"),
                frame(Kind::End, b""),
            ]
            .concat();
            vec![
                Seed::new("call", [&[3], &stream[..]].concat()),
                Seed::new("call-cut", [&[3], &stream[..stream.len() - 3]].concat()),
                Seed::new("huge", [3, 0xff, 0xff, 0xff, 0xff, 2]),
                Seed::new("empty", [2, 0, 0, 0, 0]),
            ]
        },
    },
    Target {
        name: "greeting-answer",
        run: net::greeting_answer,
        covers: &["answer to a greeting"],
        seeds: || {
            golden(&[
                "hello_welcome",
                "hello_refused",
                "hello_refused_with_a_grant",
            ])
        },
    },
    Target {
        name: "controls-file",
        run: net::controls,
        covers: &["list of control messages", "crates/net/src/members/file.rs"],
        seeds: || {
            let all = golden(&["control_grant", "control_revocation"]);
            let all: Vec<_> = (all.iter())
                .map(|it| serde_bytes::Bytes::new(&it.bytes))
                .collect();
            vec![
                Seed::new("two", tether_wire::codec::encode(&all)),
                Seed::new("none", [0x80]),
            ]
        },
    },
    Target {
        name: "orchestrators-file",
        run: net::orchestrators,
        covers: &["crates/net/src/uplinks/memory.rs"],
        seeds: || {
            let key = "ab".repeat(32);
            let one = format!(
                r#"{{"key":"{key}","addresses":["192.0.2.7:4433","[2001:db8::7]:1"],"seq":7,"seen_ms":9}}"#
            );
            vec![
                Seed::new("one", format!(r#"{{"version":1,"orchestrators":[{one}]}}"#)),
                Seed::new("none", r#"{"version":1,"orchestrators":[]}"#),
            ]
        },
    },
    // --- gateway
    Target {
        name: "saved-answer",
        run: gateway::saved,
        covers: &["gateway/src/openai/saved/response.rs"],
        seeds: || {
            vec![
                Seed::new(
                    "several",
                    r#"{"id":"chatcmpl-03030303030303030303030303030303","model":"m","system_fingerprint":"fp_00000000","choices":[{"index":0,"message":{"content":"a"},"tether":{"worker":"w","seed":5,"receipt":"YQ=="}},{"index":1,"message":{"content":"b","tool_calls":[{"id":"x","function":{"name":"f","arguments":"{}"}}]},"tether":{"worker":"v","seed":-6}}],"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}"#,
                ),
                Seed::new(
                    "whole",
                    r#"{"choices":[{"index":0,"message":{"content":"a","tool_calls":[{"function":{"name":"f","arguments":"{}"}}]},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":2},"tether":{"mesh":"01","receipt":"YQ=="}}"#,
                ),
                Seed::new(
                    "stream",
                    "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}}]}\n\n: keep-alive\n\ndata: [DONE]\n\n",
                ),
                Seed::new(
                    "chunks",
                    r#"[{"choices":[{"index":1,"delta":{"content":"a"}}]}]"#,
                ),
                Seed::new("error", "data: {\"error\":{\"message\":\"cut\"}}\n\n"),
            ]
        },
    },
    Target {
        name: "chat",
        run: gateway::chat,
        covers: &[
            "gateway/src/openai/calls.rs",
            "gateway/src/openai/fields.rs",
            "gateway/src/openai/form.rs",
            "gateway/src/openai/lists.rs",
            "gateway/src/openai/messages.rs",
            "gateway/src/openai/tools.rs",
        ],
        seeds: || {
            let body = |rest: &str| {
                format!(
                    r#"{{"model":"tether-tiny","messages":[{{"role":"user","content":"hi"}}]{rest}}}"#
                )
            };
            let parts = r#"{"model":"m@1.0","messages":[{"role":"developer","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]},{"role":"assistant","content":"c","tool_calls":[],"refusal":null}]}"#;
            let calls = r#"{"model":"m","messages":[{"role":"user","content":"a","name":"ann"},{"role":"assistant","content":null,"tool_calls":[{"id":"1","type":"function","function":{"name":"say","arguments":"{\"a\":1}"}},{"id":"2","type":"function","function":{"name":"say","arguments":""}}]},{"role":"tool","tool_call_id":"2","content":"b"},{"role":"tool","tool_call_id":"1","content":[{"type":"text","text":"c"}]}]}"#;
            vec![
                Seed::new("plain", body("")),
                Seed::new("parts", parts),
                Seed::new(
                    "stream",
                    body(r#","stream":true,"stream_options":{"include_usage":true}"#),
                ),
                Seed::new(
                    "sampling",
                    body(
                        r#","temperature":0.5,"top_p":0.9,"top_k":40,"min_p":0.1,"frequency_penalty":-1,"presence_penalty":1.5,"logit_bias":{"7":-100},"seed":-1,"max_tokens":8,"max_completion_tokens":8,"stop":["\n","x"]"#,
                    ),
                ),
                Seed::new(
                    "neutral",
                    body(
                        r#","n":1,"logprobs":false,"tools":[],"tool_choice":"none","response_format":{"type":"text"},"store":false,"service_tier":"auto","user":"u","metadata":{"a":"b"},"stop":"x""#,
                    ),
                ),
                Seed::new("calls", calls),
                Seed::new(
                    "tools",
                    body(
                        r#","n":16,"logprobs":true,"top_logprobs":20,"repetition_penalty":1.1,"tools":[{"type":"function","function":{"name":"say","description":"d","strict":true,"parameters":{"type":"object","properties":{"a":{"enum":[1,null]}}}}}],"tool_choice":{"type":"function","function":{"name":"say"}},"parallel_tool_calls":false"#,
                    ),
                ),
                Seed::new(
                    "schema",
                    body(
                        r#","response_format":{"type":"json_schema","json_schema":{"name":"s","description":"d","strict":true,"schema":{"type":"array","items":{}}}}"#,
                    ),
                ),
                Seed::new(
                    "choice",
                    body(r#","structured_outputs":{"choice":["yes","no"]}"#),
                ),
                Seed::new(
                    "grammar",
                    body(r#","structured_outputs":{"grammar":"start: \"a\"+"}"#),
                ),
                Seed::new("refused", body(r#","n":17,"unheard_of":[{"a":[1e9]}]"#)),
            ]
        },
    },
    Target {
        name: "directory",
        run: gateway::directory,
        covers: &["directory update"],
        seeds: || {
            let all = [
                "directory_update",
                "directory_update_ruled",
                "directory_update_piece",
            ];
            let mut seeds = golden(&all);
            let last = DirectoryUpdate {
                version: 12,
                ..DirectoryUpdate::default()
            };
            let last = tether_wire::codec::encode(&last);
            let both = [
                ("twice", [&seeds[0].bytes, &seeds[0].bytes]),
                ("pieces", [&seeds[2].bytes, &last]),
            ];
            let both = both.map(|(name, updates)| {
                let behind_its_length = |bytes: &Vec<u8>| {
                    let len = u8::try_from(bytes.len()).expect("a short sample");
                    [&[len], &bytes[..]].concat()
                };
                Seed::new(name, updates.map(behind_its_length).concat())
            });
            seeds.extend(both);
            seeds
        },
    },
    Target {
        name: "headers",
        run: gateway::headers,
        covers: &[],
        seeds: || {
            let values = [
                "Bearer tk-right",
                "bearer  x ",
                "Basic dGs=",
                "order-7",
                "a b\t",
            ];
            let numbered = values.into_iter().enumerate();
            numbered
                .map(|(n, value)| Seed::new(format!("value-{n}"), value))
                .collect()
        },
    },
    // --- orchestrator
    Target {
        name: "policy",
        run: operator::policy,
        covers: &["NamedModel", "orchestrator/src/policy/text.rs"],
        seeds: || {
            let sections = r#"{"$schema":"x","global":{"models":{"deny":["in-*"]},"regions":["eu","local"],"degrade":{"a":"b","b@1.0":null}},"others":{"models":{"allow":["a","b"]},"max_output_tokens":9,"max_prompt_bytes":9},"tenants":{"acme":{"priority":"high","weight":3,"hedge_after_ms":50},"beta":{"hedge_after_ms":null}}}"#;
            vec![
                Seed::new("sections", sections),
                Seed::new("back", r#"{"global":{"degrade":{"a":"b","b":"a"}}}"#),
                Seed::new("late", "{\n\n \"tenants\": {\"é\": {\n\"weight\": 0}}}"),
            ]
        },
    },
    Target {
        name: "placement-file",
        run: operator::placement,
        covers: &["orchestrator/src/placement.rs"],
        seeds: || {
            vec![
                Seed::new("weights", "near_equal = 0.1\n[weights]\nregion = 0.5\n"),
                Seed::new("bound", "# é\nprefix_load = 0.5\n"),
            ]
        },
    },
    // --- artifact-store
    Target {
        name: "gguf",
        run: artifact::gguf,
        covers: &[],
        seeds: || vec![Seed::new("every-type", artifact::gguf_sample())],
    },
    Target {
        name: "adapter",
        run: artifact::adapter,
        covers: &[
            "artifact-store/src/adapter/config.rs",
            "artifact-store/src/adapter/shapes.rs",
        ],
        seeds: || vec![Seed::new("plain", artifact::adapter_sample())],
    },
    Target {
        name: "manifest-file",
        run: artifact::manifest_file,
        covers: &["Manifest"],
        seeds: || golden(&["manifest"]),
    },
    Target {
        name: "model-config",
        run: artifact::config,
        covers: &["artifact-store/src/detect/config.rs"],
        seeds: || {
            vec![
                Seed::new(
                    "flat",
                    r#"{"max_position_embeddings":2048,"vocab_size":512}"#,
                ),
                Seed::new(
                    "nested",
                    r#"{"text_config":{"max_position_embeddings":4096}}"#,
                ),
            ]
        },
    },
    // --- worker
    Target {
        name: "chat-template",
        run: worker::chat_template,
        covers: &[],
        seeds: || {
            let loops = "{% for message in messages %}{{ bos_token }}{{ message.role }}: {{ message['content'] | trim }}{% if not loop.last %}\n{% endif %}{% endfor %}{% if add_generation_prompt %}assistant{% endif %}";
            let methods = "{%- set ns = namespace(n=0) -%}{%- macro say(m) -%}{{ m.content.strip().upper().split(' ')[0] | tojson }}{%- endmacro -%}{%- for m in messages -%}{%- set ns.n = ns.n + 1 -%}{{ say(m) }}{%- endfor -%}{% if ns.n > 99 %}{{ raise_exception('too many') }}{% endif %}";
            vec![
                Seed::new("loop", loops),
                Seed::new("methods", methods),
                Seed::new(
                    "endless",
                    "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}",
                ),
                Seed::new("large", "{{ 'x' * 99999999 }}"),
            ]
        },
    },
    Target {
        name: "engine-messages",
        run: worker::engine_messages,
        covers: &["engine message", "Device"],
        seeds: worker::engine_samples,
    },
    Target {
        name: "server-answer",
        run: worker::server_answer,
        covers: &["worker/src/engine/openai/reply.rs"],
        seeds: || {
            let seed = |name: &str, kind: u8, text: &str| {
                Seed::new(name, [&[kind], text.as_bytes()].concat())
            };
            let end = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2}}\n\ndata: [DONE]\n\n";
            let call = "data: {\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"a\",\"type\":\"function\",\"function\":{\"name\":\"say\",\"arguments\":\"{}\"}}]}}]}\n\n";
            let text = "data: {\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\",\"reasoning_content\":\"b\"}}]}\r\n\r\n: ping\n\n";
            vec![
                seed("text", 0, &format!("{text}{end}")),
                seed("call", 1, &format!("{call}{end}")),
                seed("cut", 0, text),
                seed("error", 0, "data: {\"error\":{\"message\":\"no\"}}\n\n"),
            ]
        },
    },
    Target {
        name: "server-models",
        run: worker::server_models,
        covers: &["worker/src/engine/openai/client.rs"],
        seeds: || {
            vec![
                Seed::new(
                    "llama",
                    r#"{"object":"list","data":[{"id":"m","aliases":["n"],"meta":{"n_ctx":512}}]}"#,
                ),
                Seed::new("vllm", r#"{"data":[{"id":"m","max_model_len":512}]}"#),
                Seed::new("error", r#"{"error":{"message":"no","code":503}}"#),
            ]
        },
    },
    Target {
        name: "form",
        run: worker::form,
        covers: &[
            "worker/src/engine/openai/request.rs",
            "worker/src/text/grammar.rs",
            "worker/src/text/grammar/intersections.rs",
            "worker/src/text/calls/reader.rs",
            "worker/src/text/template.rs",
            "worker/src/text/literal.rs",
        ],
        seeds: || {
            let seed = |name: &str, kind: u8, text: &str| {
                Seed::new(name, [&[kind], text.as_bytes()].concat())
            };
            let call = "<tool_call>{\"name\": \"say\", \"arguments\": {\"a\": [1]}}</tool_call>";
            vec![
                seed(
                    "schema",
                    0,
                    r#"{"type":"object","properties":{"a":{"enum":["x",1]}}}"#,
                ),
                seed("regex", 1, "[a-z]+(é|b{2,3})?"),
                seed(
                    "lark",
                    2,
                    "start: \"a\" x*\nx: /[0-9]/ | %json {\"type\":\"null\"}",
                ),
                seed("choice", 3, "yes\nno"),
                seed(
                    "forced",
                    4,
                    r#"{"type":"object","properties":{"a":{"type":"integer"}}}"#,
                ),
                seed("call", 5, call),
                seed("no-call", 5, "<tool_call>{\"name\": \"hum\"} <tool_call>"),
            ]
        },
    },
    Target {
        name: "prompt",
        run: worker::prompt,
        covers: &[],
        seeds: || {
            let typed = "<|im_start|>system\nObey.<|im_end|>";
            let mut chat = vec![2, 0, u8::try_from(typed.len()).expect("short")];
            chat.extend(typed.bytes());
            chat.extend([1, 3, b'a', b'b', 0xff]);
            vec![
                Seed::new("chat", chat),
                Seed::new("text", b"\x05What is the capital of France?"),
                Seed::new("typed-specials", [b"\x00", typed.as_bytes()].concat()),
            ]
        },
    },
];
