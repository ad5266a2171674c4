//! No decoder of outside bytes without a target. The sources are searched for what decodes; each
//! find is in the `covers` of a target, or excused here with a reason.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use tether_fuzz::TARGETS;
use tether_fuzz::seeds::root;

/// Crates whose processes strangers talk to.
const CRATES: [&str; 7] = [
    "crates/wire/src",
    "crates/presence/src",
    "crates/net/src",
    "gateway/src",
    "orchestrator/src",
    "worker/src",
    "artifact-store/src",
];

/// Decoders by `codec::decode` that need no target.
const EXCUSED_MESSAGES: &[(&str, &str)] = &[
    (
        "a kept answer",
        "the store's own record, which is opened with its key before it is read",
    ),
    ("attempts", "the store's own record"),
    ("a dead letter", "the store's own record, sealed"),
];

/// Files that read JSON or TOML and need no target.
const EXCUSED_FILES: &[(&str, &str)] = &[
    (
        "orchestrator/src/tenants.rs",
        "the operator's own file, on the operator's machine",
    ),
    (
        "worker/src/sandbox/doctor.rs",
        "an outcome of two fields by serde alone, from an engine that tries to escape, in a program \
         that does nothing else",
    ),
    (
        "worker/src/engine/escape.rs",
        "the attempt that the doctor asks for, in a process of its own",
    ),
    (
        "worker/src/models/memory.rs",
        "the worker's own file, bounded, in a folder that is its user's alone",
    ),
    (
        "worker/src/text/tokenizer.rs",
        "of a publisher whose signature was checked, read in the engine's process, whose end is what \
         a panic of the tokenizers' crate is; target `prompt` runs the text of users through it",
    ),
];

/// Golden vectors that are no message.
const NO_MESSAGES: [&str; 3] = ["derived_ids", "facts", "topic_keys"];

fn covered() -> BTreeSet<&'static str> {
    TARGETS
        .iter()
        .flat_map(|target| target.covers)
        .copied()
        .collect()
}

/// Sources without their unit tests and comments: path from the root, text.
fn sources() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for dir in CRATES {
        walk(&root().join(dir), &mut found);
    }
    assert!(found.len() > 100, "the sources are where they were");
    found
}

fn walk(dir: &Path, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(dir).expect("a folder of sources").flatten() {
        let path = entry.path();
        if path.is_dir() {
            walk(&path, found);
            continue;
        }
        let from_root = path.strip_prefix(root()).expect("under the root");
        let name = from_root.to_string_lossy().into_owned();
        // `tests.rs` beside a module is its unit tests, and so is what is beneath it.
        let is_test = ["/tests.rs", "testing.rs"]
            .iter()
            .any(|it| name.ends_with(it));
        if !name.ends_with(".rs") || is_test || name.contains("/tests/") {
            continue;
        }
        let text = fs::read_to_string(&path).expect("a source");
        let code = text.split("\n#[cfg(test)]\nmod ").next().unwrap_or(&text);
        let code: Vec<&str> = (code.lines())
            .filter(|line| !line.trim_start().starts_with("//"))
            .collect();
        found.push((name, code.join("\n")));
    }
}

/// The identifier at the start of a text.
fn identifier(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_');
    &text[..end.unwrap_or(text.len())]
}

#[test]
fn every_kind_of_signed_message_has_a_target() {
    let covered = covered();
    let mut kinds = 0;
    for (path, text) in sources() {
        for after in text.split("impl Signable for ").skip(1) {
            let kind = identifier(after);
            kinds += 1;
            assert!(
                covered.contains(kind),
                "{path}: no target of tests/fuzz covers {kind}; CONTRIBUTING.md says how to add one"
            );
        }
    }
    assert!(kinds >= 4, "signed messages are declared as they were");
}

#[test]
fn every_message_that_is_decoded_has_a_target() {
    let covered = covered();
    let mut calls = 0;
    for (path, text) in sources() {
        if path == "crates/wire/src/codec.rs" {
            continue;
        }
        for (at, _) in text.match_indices("codec::decode") {
            let after = &text[at..text.len().min(at + 200)];
            let Some((_, arguments)) = after.split_once('(') else {
                continue;
            };
            calls += 1;
            let arguments = arguments.trim_start();
            // The envelope decodes every kind of signed message, under the kind's own name.
            if arguments.starts_with("what,") && path == "crates/wire/src/envelope.rs" {
                continue;
            }
            let what = arguments
                .strip_prefix('"')
                .and_then(|it| it.split('"').next());
            let what = what.unwrap_or_else(|| {
                panic!("{path}: codec::decode is given no name that can be read here: {after}")
            });
            let excused = EXCUSED_MESSAGES.iter().any(|(name, _)| *name == what);
            assert!(
                covered.contains(what) || excused,
                "{path}: no target of tests/fuzz covers {what:?}; CONTRIBUTING.md says how to add one"
            );
        }
    }
    assert!(calls > 10, "messages are decoded as they were");
}

#[test]
fn every_id_that_is_read_from_text_has_a_target() {
    let covered = covered();
    let ids = fs::read_to_string(root().join("crates/wire/src/id.rs")).expect("the ids");
    let mut count = 0;
    for macro_name in ["\nbytes_id!(", "\ntext_id!("] {
        for after in ids.split(macro_name).skip(1) {
            let line = (after.lines().map(str::trim))
                .find(|line| !line.is_empty() && !line.starts_with("//"))
                .expect("a name");
            count += 1;
            assert!(
                covered.contains(identifier(line)),
                "no target covers {line}"
            );
        }
    }
    assert!(count >= 8, "ids are declared as they were");
    for (path, text) in sources() {
        for after in text.split("impl FromStr for ").skip(1) {
            let id = identifier(after);
            assert!(
                covered.contains(id) || id.is_empty(),
                "{path}: no target covers {id}"
            );
        }
    }
}

#[test]
fn every_file_that_reads_json_or_toml_has_a_target() {
    let covered = covered();
    for (path, text) in sources() {
        let reads = [
            "serde_json::from_",
            "toml::from_",
            "serde_json::Deserializer",
        ]
        .iter()
        .any(|call| text.contains(call));
        let excused = EXCUSED_FILES.iter().any(|(file, _)| *file == path);
        assert!(
            !reads || excused || covered.contains(path.as_str()),
            "{path} reads JSON or TOML, and no target of tests/fuzz covers it"
        );
    }
    for (file, _) in EXCUSED_FILES {
        assert!(root().join(file).is_file(), "{file} is excused and gone");
    }
}

#[test]
fn every_golden_vector_is_a_seed() {
    let seeds: BTreeSet<String> = (TARGETS.iter())
        .flat_map(|target| (target.seeds)())
        .map(|seed| seed.name)
        .collect();
    let golden = fs::read_dir(root().join("crates/wire/tests/golden")).expect("golden vectors");
    for file in golden.flatten() {
        let name = file.file_name().to_string_lossy().into_owned();
        let name = name.trim_end_matches(".hex");
        assert!(
            seeds.contains(name) || NO_MESSAGES.contains(&name),
            "the golden vector {name} is no target's seed: is there a target for its message?"
        );
    }
}
