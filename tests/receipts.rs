//! A tenant keeps what it asked and what it got, and proves by the receipt who answered. (TRU-3)

mod support;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use support::{Mesh, Reply, Tether, post};
use tether_wire::{Grant, MeshId, NodeKey, Receipt, Role, Signed, Tier};

/// A folder with what a tenant kept.
struct Kept(tempfile::TempDir);

impl Kept {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn put(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, content).expect("written");
        path
    }
}

/// Exit code and both outputs of `tether receipt verify`.
#[track_caller]
fn verify(file: &Path, more: &[&str]) -> (i32, String) {
    let file = file.to_str().expect("UTF-8");
    let output = Tether::output(&[&["receipt", "verify", file], more].concat());
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.code().expect("it exits"),
        String::from_utf8(said).expect("UTF-8"),
    )
}

fn ask(mesh: &Mesh, body: &Value) -> Reply {
    let url = format!("{}/v1/chat/completions", mesh.gateway());
    let reply = post(&url, mesh.api_key(), body);
    assert_eq!(reply.status, 200, "{}", reply.text);
    reply
}

fn flipped(text: &str, from: &str, to: &str) -> String {
    let changed = text.replacen(from, to, 1);
    assert_ne!(changed, text, "{from} is in it");
    changed
}

/// A receipt of a node to which the operator of a mesh gave this role, in base64.
fn receipt(operator: &NodeKey, node: &NodeKey, role: Role) -> String {
    let mesh = MeshId(operator.id().0);
    let grant = Grant {
        subject: node.id(),
        role,
        region: None,
        tier: Tier::Untrusted,
        not_before_ms: 0,
        expires_ms: 1_000_000_000,
        serial: 1,
        issuer: None,
        consent: None,
        invite: None,
    };
    let grant = Signed::seal(operator, &mesh, &grant).expect("inside limits");
    let receipt = Receipt {
        correlation: tether_wire::CorrelationId([3; 16]),
        attempt: 1,
        fence: 1,
        model: "tiny@1.0".parse().expect("valid"),
        digest: tether_wire::Digest([4; 32]),
        adapters: Vec::new(),
        numerics_class: String::new(),
        engine: String::new(),
        request: tether_wire::Digest([5; 32]),
        text: tether_wire::receipt::hash::Given::default().text(),
        calls: None,
        tokens: None,
        prompt_tokens: 1,
        completion_tokens: 1,
        finish: tether_wire::infer::Finish::Stop,
        seed: 1,
        began_ms: 1,
        first_token_ms: None,
        ended_ms: 2,
        continued_from: 0,
        grant: Some(grant.as_bytes().to_vec()),
    };
    let sealed = Signed::seal(node, &mesh, &receipt).expect("inside limits");
    STANDARD.encode(sealed.as_bytes())
}

#[test]
fn a_tenant_can_prove_who_answered_what_and_no_byte_can_be_changed() {
    let mesh = Mesh::start(&[]);
    let kept = Kept::new();
    let mesh_id = mesh.ready["mesh"].as_str().expect("an id").to_owned();
    let request = json!({
        "model": mesh.model(),
        "messages": [{"role": "user", "content": "What is the capital of France?"}],
        "max_tokens": 24,
    });
    let whole = ask(&mesh, &request);
    let asked = kept.put("request.json", request.to_string());
    let asked = asked.to_str().expect("UTF-8");
    let answer = kept.put("answer.json", &whole.text);

    // Whole: signer, request and answer.
    let worker = whole.worker().to_owned();
    let all = ["--request", asked, "--mesh", &mesh_id, "--worker", &worker];
    let (code, said) = verify(&answer, &all);
    assert_eq!(code, 0, "{said}");
    for words in [
        "genuine",
        worker.as_str(),
        "no proof that the model was run",
    ] {
        assert!(said.contains(words), "{words} in {said}");
    }
    let (code, said) = verify(&answer, &[all.as_slice(), &["--json"]].concat());
    assert_eq!(code, 0, "{said}");
    let said: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(said["valid"], true);
    assert_eq!(
        (&said["mesh"], &said["mesh_given"]),
        (&json!(mesh_id), &json!(true))
    );
    assert_eq!(
        (&said["request"], &said["answer"]),
        (&json!("matches"), &json!("matches"))
    );
    assert_eq!(said["worker"], worker);
    assert_eq!(
        (&said["usage"], &said["not_compared"]),
        (&json!("matches"), &json!([]))
    );
    let covered_not = said["not_covered"].as_array().expect("a list");
    assert!(covered_not.contains(&json!("logprobs")), "{said}");

    // A stream, as it came; the seed that was chosen is in the receipt.
    let mut streamed = request.clone();
    streamed["stream"] = true.into();
    streamed["stream_options"] = json!({"include_usage": true});
    let stream = ask(&mesh, &streamed);
    let stream = kept.put("stream.txt", &stream.text);
    let streamed = kept.put("streamed.json", streamed.to_string());
    let streamed = streamed.to_str().expect("UTF-8");
    let (code, said) = verify(&stream, &["--request", streamed, "--mesh", &mesh_id]);
    assert_eq!(code, 0, "{said}");

    // What was asked, changed by a character; by a parameter; by its model.
    for (from, to) in [("France", "Francf"), ("24", "25"), (mesh.model(), "other")] {
        let changed = flipped(&request.to_string(), from, to);
        let changed = kept.put("changed.json", changed);
        let (code, said) = verify(&answer, &["--request", changed.to_str().expect("UTF-8")]);
        assert_eq!(code, 12, "{from}: {said}");
        assert!(said.contains("not of this request"), "{said}");
    }

    // What was answered, changed by a character; by its counts; by its end.
    let text = whole.answer();
    let mut other = whole.json();
    other["choices"][0]["message"]["content"] = format!("{text}.").into();
    let mut counted = whole.json();
    counted["usage"]["completion_tokens"] = 1.into();
    let mut ended = whole.json();
    ended["choices"][0]["finish_reason"] = "tool_calls".into();
    let mut totalled = whole.json();
    totalled["usage"]["total_tokens"] = 1.into();
    for changed in [other, counted, ended, totalled] {
        let changed = kept.put("changed.json", changed.to_string());
        let (code, said) = verify(&changed, &[]);
        assert_eq!(code, 13, "{said}");
        let path = changed.to_str().expect("UTF-8");
        assert_eq!(verify(&answer, &["--answer", path]).0, 13);
    }

    // What the response says of itself.
    for (at, value) in [
        ("/model", json!("other@1.0")),
        ("/id", json!(format!("chatcmpl-{}", "3".repeat(32)))),
        ("/system_fingerprint", json!("fp_00000000")),
        ("/tether/worker", json!("ab".repeat(32))),
        ("/tether/model", json!("other@1.0")),
        ("/tether/seed", json!(1)),
        ("/tether/mesh", json!("ab".repeat(32))),
    ] {
        let mut changed = whole.json();
        *changed.pointer_mut(at).expect("it is there") = value;
        let changed = kept.put("changed.json", changed.to_string());
        let (code, said) = verify(&changed, &["--mesh", &mesh_id]);
        assert_eq!(code, 13, "{at}: {said}");
    }

    // The receipt, changed by a bit in each part: version, key, signature, body.
    let text = whole.json()["tether"]["receipt"]
        .as_str()
        .expect("one")
        .to_owned();
    let sealed = STANDARD.decode(&text).expect("base64");
    let alone = kept.put("receipt.txt", &text);
    assert_eq!(verify(&alone, &["--mesh", &mesh_id]).0, 0);
    for at in [0, 1, 33, 97, sealed.len() - 1] {
        let mut changed = sealed.clone();
        changed[at] ^= 1;
        let changed = kept.put("changed.txt", STANDARD.encode(changed));
        let (code, said) = verify(&changed, &["--mesh", &mesh_id]);
        assert_eq!(code, 10, "byte {at}: {said}");
    }

    // Another mesh; another worker; no mesh at all.
    let elsewhere = NodeKey::from_seed([9; 32]).id().to_hex();
    assert_eq!(verify(&alone, &["--mesh", &elsewhere]).0, 10);
    let (code, said) = verify(&answer, &["--worker", &elsewhere]);
    assert_eq!(code, 11, "{said}");
    let (code, said) = verify(&alone, &[]);
    assert_eq!((code, said.contains("give --mesh")), (1, true), "{said}");

    let shown = Tether::ok(&["receipt", "show", alone.to_str().expect("UTF-8"), "--json"]);
    let shown: Value = serde_json::from_str(&shown).expect("JSON");
    assert_eq!(
        (&shown["verified"], &shown["worker"]),
        (&json!(false), &json!(worker))
    );
}

#[test]
fn each_of_several_answers_is_held_against_its_receipt_and_their_counts_against_all() {
    let mesh = Mesh::start(&[]);
    let kept = Kept::new();
    let mesh_id = mesh.ready["mesh"].as_str().expect("an id").to_owned();
    let by_mesh = ["--mesh", mesh_id.as_str()];
    for stream in [false, true] {
        let mut request = json!({
            "model": mesh.model(),
            "messages": [{"role": "user", "content": "What is the capital of France?"}],
            "max_tokens": 24,
            "temperature": 1,
            "n": 3,
            "seed": 7,
            "stream": stream,
        });
        if stream {
            request["stream_options"] = json!({"include_usage": true});
        }
        let reply = ask(&mesh, &request);
        let asked = kept.put("request.json", request.to_string());
        let answer = kept.put("answer", &reply.text);
        let all = ["--request", asked.to_str().expect("UTF-8"), "--json"];
        let (code, said) = verify(&answer, &[by_mesh.as_slice(), &all].concat());
        assert_eq!(code, 0, "{said}");
        let said: Value = serde_json::from_str(&said).expect("JSON");
        assert_eq!(
            (&said["valid"], &said["usage"]),
            (&json!(true), &json!("matches"))
        );
        let answers = said["answers"].as_array().expect("a list");
        for (index, answer) in answers.iter().enumerate() {
            assert_eq!(answer["choice"], index);
            assert_eq!(
                (&answer["request"], &answer["answer"]),
                (&json!("matches"), &json!("matches"))
            );
        }
        assert_eq!(answers.len(), 3);
        let (code, said) = verify(&answer, &by_mesh);
        assert_eq!(code, 0, "{said}");
        assert!(
            said.contains("Answer 2") && said.contains("Not compared: request."),
            "{said}"
        );
        let one = [by_mesh.as_slice(), &["--choice", "1"]].concat();
        let (code, said) = verify(&answer, &one);
        assert_eq!(code, 0, "{said}");
        assert!(said.contains("Not compared: request, usage, id."), "{said}");
        if stream {
            continue;
        }

        let mut text = reply.json();
        text["choices"][2]["message"]["content"] = "Lyon".into();
        let mut seed = reply.json();
        seed["choices"][1]["tether"]["seed"] = 7.into();
        let mut total = reply.json();
        total["usage"]["total_tokens"] = 1.into();
        let mut swapped = reply.json();
        let other = swapped["choices"][0]["tether"].clone();
        swapped["choices"][1]["tether"] = other;
        let mut bare = reply.json();
        bare["choices"][1]["tether"]["receipt"].take();
        for (changed, expected, words) in [
            (text, 13, "answer 2"),
            (seed, 13, "answer 1"),
            (total, 13, "counts of tokens"),
            (swapped, 13, "one job"),
            (bare, 10, "answer 1"),
        ] {
            let changed = kept.put("changed.json", changed.to_string());
            let (code, said) = verify(&changed, &by_mesh);
            assert_eq!(code, expected, "{said}");
            assert!(said.contains(words), "{words} in {said}");
        }
    }
}

#[test]
fn a_receipt_of_a_mesh_that_only_the_response_names_proves_nothing() {
    let kept = Kept::new();
    let (forger, node) = (NodeKey::from_seed([1; 32]), NodeKey::from_seed([2; 32]));
    let mesh = MeshId(forger.id().0);
    let text = receipt(&forger, &node, Role::Worker);
    let response = json!({
        "choices": [{"index": 0, "message": {"content": ""}, "finish_reason": "stop"}],
        "tether": {"mesh": mesh.to_hex(), "receipt": text},
    });
    let file = kept.put("forged.json", response.to_string());
    let other = kept.put("given.txt", &text);
    let other = other.to_str().expect("UTF-8");
    let (code, said) = verify(Path::new(other), &["--mesh", &mesh.to_hex(), "--json"]);
    assert_eq!(code, 0, "by its own mesh it is right: {said}");
    let (code, said) = verify(&file, &[]);
    assert_eq!(code, 14, "{said}");
    assert!(said.contains("if this mesh is yours"), "{said}");
    let (code, said) = verify(&file, &["--json"]);
    assert_eq!(code, 14, "{said}");
    let said: Value = serde_json::from_str(said.lines().next().expect("a line")).expect("JSON");
    assert_eq!(said["valid"], false);
    assert_eq!(said["code"], "mesh-not-given");
    assert_eq!(said["mesh_given"], false);
    assert_eq!(said["mesh"], mesh.to_hex());
}

#[test]
fn what_another_role_signs_is_no_receipt() {
    let kept = Kept::new();
    let (operator, node) = (NodeKey::from_seed([1; 32]), NodeKey::from_seed([2; 32]));
    let mesh = MeshId(operator.id().0);
    let receipt = |role| kept.put("receipt.txt", receipt(&operator, &node, role));
    let mesh_id = mesh.to_hex();
    assert_eq!(verify(&receipt(Role::Worker), &["--mesh", &mesh_id]).0, 0);
    let (code, said) = verify(&receipt(Role::Gateway), &["--mesh", &mesh_id]);
    assert_eq!(code, 11, "{said}");
    assert!(said.contains("signed by a gateway"), "{said}");
}
