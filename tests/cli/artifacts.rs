//! `tether artifact`, and models that `up` is given.

use crate::operator::{CONFIG, FAILURE, fails, text};
use crate::support::{self, Tether};

#[test]
fn an_artifact_is_packed_verified_signed_again_and_refused_when_changed() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let model = dir.path().join("model");
    std::fs::create_dir(&model).expect("made");
    for entry in std::fs::read_dir(support::repository().join("crates/tiny-model/model"))
        .expect("the committed model")
    {
        let entry = entry.expect("readable");
        std::fs::copy(entry.path(), model.join(entry.file_name())).expect("copied");
    }
    let keys = ["one", "two"].map(|name| {
        let path = dir.path().join(name);
        let id = Tether::ok(&["keys", "new", text(&path)]);
        (path, id)
    });
    let [(one, one_id), (two, two_id)] = &keys;
    let packed = Tether::ok(&[
        "artifact",
        "pack",
        text(&model),
        "--model",
        "tiny@1.0",
        "--key",
        text(one),
        "--json",
    ]);
    let packed: serde_json::Value = serde_json::from_str(&packed).expect("JSON");
    assert_eq!(packed["model"], "tiny@1.0");
    assert_eq!(packed["publisher"], **one_id);
    let digest = packed["digest"].as_str().expect("a digest");
    let shown = Tether::ok(&["artifact", "verify", text(&model), "--publisher", one_id]);
    assert!(shown.contains("format     gguf"), "{shown}");
    let verify = ["artifact", "verify", text(&model), "--publisher"];
    let with = |more: &[&'static str], id: &str| {
        let mut args: Vec<String> = verify.iter().map(ToString::to_string).collect();
        args.push(id.to_owned());
        args.extend(more.iter().map(ToString::to_string));
        Tether::output(&args.iter().map(String::as_str).collect::<Vec<_>>())
    };
    assert!(with(&[], one_id).status.success());
    let stranger = with(&["--json"], two_id);
    assert_eq!(stranger.status.code(), Some(FAILURE));
    let error: serde_json::Value = serde_json::from_slice(&stranger.stdout).expect("JSON");
    assert_eq!(error["error"]["code"], "untrusted-publisher");
    Tether::ok(&["artifact", "sign", text(&model), "--key", text(two)]);
    assert!(with(&[], two_id).status.success());
    assert!(
        !with(&[], one_id).status.success(),
        "the first signature is gone, and with it the digest {digest}"
    );
    let weights = model.join("tokenizer.json");
    let mut bytes = std::fs::read(&weights).expect("read");
    bytes[100] ^= 1;
    std::fs::write(&weights, bytes).expect("written");
    let corrupt = with(&["--json"], two_id);
    let error: serde_json::Value = serde_json::from_slice(&corrupt.stdout).expect("JSON");
    assert_eq!(error["error"]["code"], "corrupt-file");
}

#[test]
fn a_model_that_was_never_packed_is_refused_before_anything_is_made() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let data = dir.path().join("data");
    let unpacked = dir.path().join("unpacked");
    std::fs::create_dir(&unpacked).expect("made");
    for (model, words) in [
        (&unpacked, "holds no tether.manifest"),
        (&dir.path().join("none"), "is no directory"),
    ] {
        fails(
            &["up", "--data-dir", text(&data), "--model", text(model)],
            CONFIG,
            &[text(model), words, "tether artifact pack"],
        );
    }
    assert!(!data.exists(), "nothing was made");
}
