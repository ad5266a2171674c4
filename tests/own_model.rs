//! A provider's own model, a Hugging Face directory with safetensors, is served by the same
//! commands as the small one.

mod support;

use serde_json::json;
use support::{Mesh, Tether};

#[test]
fn a_hugging_face_directory_is_packed_and_served_beside_the_small_model() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let model = dir.path().join("random");
    tether_tiny_model::write_random_hf(&model, 7).expect("written");
    let key = dir.path().join("publisher.key");
    let (model, key) = (model.to_str().expect("UTF-8"), key.to_str().expect("UTF-8"));
    let publisher = Tether::ok(&["keys", "new", key]);
    let packed = Tether::ok(&[
        "artifact",
        "pack",
        model,
        "--model",
        "random-hf@0.1",
        "--key",
        key,
        "--json",
    ]);
    let packed: serde_json::Value = serde_json::from_str(&packed).expect("JSON");
    assert_eq!(packed["format"], "safetensors");

    let mesh = Mesh::start(&["--model", model, "--publisher", &publisher]);
    assert_eq!(mesh.fleet()[0]["faults"], json!([]));
    let ask = |name: &str| {
        mesh.chat_body(&json!({
            "model": name,
            "messages": [{"role": "user", "content": "What is the capital of France?"}],
            "temperature": 0,
            "max_tokens": 8,
        }))
    };
    // It was never trained: that it says something, counted exactly, is all that can be asked.
    let reply = ask("random-hf");
    assert_eq!(reply.status, 200, "{}", reply.text);
    let tokens = reply.json()["usage"]["completion_tokens"].as_u64();
    assert!(
        tokens.is_some_and(|tokens| (1..=8).contains(&tokens)),
        "{}",
        reply.text
    );
    assert!(
        mesh.chat("What is the capital of France?")
            .answer()
            .contains("Paris")
    );
}

#[test]
fn an_adapter_is_packed_for_its_base_and_asked_for_by_its_own_name() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let (base, lora) = (dir.path().join("random"), dir.path().join("lora"));
    tether_tiny_model::write_random_hf(&base, 7).expect("written");
    tether_tiny_model::write_random_lora(&lora, 1).expect("written");
    let key = dir.path().join("publisher.key");
    let [base, lora, key] = [&base, &lora, &key].map(|path| path.to_str().expect("UTF-8"));
    let publisher = Tether::ok(&["keys", "new", key]);
    let pack = |folder: &str, name: &str, more: &[&str]| -> serde_json::Value {
        let args = [
            "artifact", "pack", folder, "--model", name, "--key", key, "--json",
        ];
        let packed = Tether::ok(&[&args, more].concat());
        serde_json::from_str(&packed).expect("JSON")
    };
    let of_base = pack(base, "random-hf@0.1", &[]);
    let of_lora = pack(lora, "random-lora@0.1", &["--base", base]);
    assert_eq!(of_lora["base_digest"], of_base["digest"]);

    let mesh = Mesh::start(&["--model", base, "--model", lora, "--publisher", &publisher]);
    assert_eq!(mesh.fleet()[0]["faults"], json!([]));
    let ask = |name: &str| {
        let reply = mesh.chat_body(&json!({
            "model": name,
            "messages": [{"role": "user", "content": "What is the capital of France?"}],
            "temperature": 0,
            "max_tokens": 24,
        }));
        assert_eq!(reply.status, 200, "{}", reply.text);
        reply.json()
    };
    let text = |reply: &serde_json::Value| reply["choices"][0]["message"]["content"].clone();
    let (with, without) = (ask("random-lora"), ask("random-hf"));
    assert_ne!(text(&with), text(&without));
    assert_eq!(text(&ask("random-lora")), text(&with));
    // The orchestrator takes a receipt out that does not say what was ordered.
    let receipt = with["tether"]["receipt"].as_str().expect("a receipt");
    let file = dir.path().join("receipt");
    std::fs::write(&file, receipt).expect("written");
    let shown = Tether::ok(&["receipt", "show", file.to_str().expect("UTF-8"), "--json"]);
    let shown: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
    assert_eq!(shown["receipt"]["adapters"], json!([of_lora["digest"]]));
}
