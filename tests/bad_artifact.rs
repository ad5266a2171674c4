//! An artifact that is not what a trusted publisher signed is refused before anything parses it;
//! the worker stays up, does not offer the model, and says why.

mod support;

use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use support::{Mesh, Tether, repository};

/// Damaged models beside the good one, each in its own way.
struct Models {
    dir: tempfile::TempDir,
    publisher: String,
}

impl Models {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("temporary folder");
        let key = dir.path().join("publisher.key");
        let publisher = Tether::ok(&["keys", "new", key.to_str().expect("UTF-8")]);
        Self { dir, publisher }
    }

    /// A copy of the small model under another name, signed by our publisher.
    fn signed(&self, name: &str) -> PathBuf {
        self.signed_by(name, &self.dir.path().join("publisher.key"))
    }

    fn signed_by(&self, name: &str, key: &Path) -> PathBuf {
        let model = self.dir.path().join(name);
        std::fs::create_dir(&model).expect("made");
        let files = std::fs::read_dir(repository().join("crates/tiny-model/model"));
        for entry in files.expect("the committed model") {
            let entry = entry.expect("readable");
            std::fs::copy(entry.path(), model.join(entry.file_name())).expect("copied");
        }
        let (dir, key) = (model.to_str().expect("UTF-8"), key.to_str().expect("UTF-8"));
        let reference = format!("{name}@1.0");
        Tether::ok(&["artifact", "pack", dir, "--model", &reference, "--key", key]);
        model
    }
}

fn faults(row: &Value) -> String {
    row["faults"].to_string()
}

#[test]
fn damaged_and_strange_models_are_refused_each_by_its_own_error_and_the_worker_stays_up() {
    let models = Models::new();
    let good = models.signed("good");

    let flipped = models.signed("flipped");
    let weights = flipped.join("tether-tiny-q8_0.gguf");
    let mut bytes = std::fs::read(&weights).expect("read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    std::fs::write(&weights, bytes).expect("written");

    let stranger_key = models.dir.path().join("stranger.key");
    Tether::ok(&["keys", "new", stranger_key.to_str().expect("UTF-8")]);
    let strange = models.signed_by("strange", &stranger_key);

    let missing = models.signed("missing");
    std::fs::remove_file(missing.join("tokenizer.json")).expect("removed");

    let forged = models.signed("forged");
    let manifest = forged.join("tether.manifest");
    let mut bytes = std::fs::read(&manifest).expect("read");
    *bytes.last_mut().expect("not empty") ^= 1;
    std::fs::write(&manifest, bytes).expect("written");

    let mut args = vec!["--publisher", models.publisher.as_str()];
    for dir in [&good, &flipped, &strange, &missing, &forged] {
        args.extend(["--model", dir.to_str().expect("UTF-8")]);
    }
    let mesh = Mesh::start(&args);

    let said = std::fs::read_to_string(mesh.dir().join("up.stderr")).expect("read");
    for dir in [&flipped, &strange, &missing, &forged] {
        let line = format!("model {} is not served: ", dir.display());
        assert_eq!(said.matches(&line).count(), 1, "{line:?} in {said}");
    }
    assert!(
        said.find("workers routable") < said.find("is not served"),
        "after the workers were counted: {said}"
    );

    let fleet = mesh.fleet();
    let row = &fleet[0];
    let offered: Vec<&str> = row["models"]
        .as_array()
        .expect("models")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    assert!(offered.contains(&"tether-tiny@1.0"), "{row}");
    assert!(offered.contains(&"good@1.0"), "{row}");
    assert_eq!(offered.len(), 2, "nothing damaged is offered: {row}");
    let faults = faults(row);
    for words in ["is corrupt", "trusted publishers", "is missing", "is wrong"] {
        assert!(faults.contains(words), "{words:?} in {faults}");
    }

    // The good ones answer. What a trusted publisher signed is a known model, though its files are
    // damaged here; what nobody trusted signed is no model that anybody knows.
    assert!(
        mesh.chat("What is the capital of France?")
            .answer()
            .contains("Paris")
    );
    let ask = |model: &str| {
        mesh.chat_body(&json!({
            "model": model,
            "messages": [{"role": "user", "content": "What is the capital of France?"}],
            "temperature": 0,
        }))
    };
    assert!(ask("good").answer().contains("Paris"));
    for (model, status) in [
        ("flipped", 503),
        ("missing", 503),
        ("strange", 404),
        ("forged", 404),
    ] {
        let reply = ask(model);
        assert_eq!(reply.status, status, "{model}: {}", reply.text);
    }
}
