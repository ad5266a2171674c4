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
