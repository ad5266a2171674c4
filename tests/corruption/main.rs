//! The corruption corpus, for GGUF, safetensors and adapters, with real files and the real engine.
//!
//! What was damaged after it was signed is refused, each kind by its own error, before anything parses
//! a byte. What a trusted publisher signed as such is loaded, and whatever it does there happens in
//! the engine's process: the worker goes on serving its other model, which is asked throughout.

#[allow(dead_code, reason = "the worker's own tests use all of it")]
#[path = "../../worker/tests/worker/fixture.rs"]
mod fixture;

#[path = "../support/engines.rs"]
mod engines;

use fixture::{TestMesh, TestOrchestrator, TestWorker, order, publisher};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use tether_artifact_store::{Base, MANIFEST_FILE, PackOptions, Trust, pack, sign, verify};
use tether_tiny_model::{GGUF_FILE, files, write_random_hf, write_random_lora};
use tether_wire::infer::{AnswerEvent, Input, WorkOrder};
use tether_wire::manifest::Format;
use tether_wire::{Digest, NodeKey};
use tether_worker::ModelState;
use tether_worker::engine::protocol::EngineKind;

/// Bits that are flipped, spread over the file of the weights.
const FLIPS: usize = 200;
/// The same of an adapter's, which is small.
const ADAPTER_FLIPS: usize = 40;
/// Flipped models of one worker, which offers 64 at most.
const BATCH: usize = 50;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Gguf,
    Safetensors,
    /// Over a base beside it, which is a good model of the kind `Safetensors`.
    Adapter,
}

impl Kind {
    fn weights(self) -> &'static str {
        match self {
            Self::Gguf => GGUF_FILE,
            Self::Safetensors => "model.safetensors",
            Self::Adapter => "adapter_model.safetensors",
        }
    }

    /// The other files that an engine reads.
    fn texts(self) -> &'static [&'static str] {
        match self {
            Self::Gguf | Self::Safetensors => &["tokenizer.json", "tokenizer_config.json"],
            Self::Adapter => &["adapter_config.json"],
        }
    }

    /// Files that say what cannot be: a name, the file, and its content.
    fn lies(self) -> Vec<(&'static str, &'static str, &'static str)> {
        match self {
            Self::Gguf | Self::Safetensors => vec![
                ("empty", self.weights(), ""),
                ("tokenizer-empty", "tokenizer.json", ""),
                ("tokenizer-text", "tokenizer.json", "not even JSON"),
                (
                    "tokenizer-other",
                    "tokenizer.json",
                    r#"{"version":"1.0","model":{}}"#,
                ),
                (
                    "template",
                    "tokenizer_config.json",
                    r#"{"chat_template":"{% if %}{{ x"}"#,
                ),
                ("config", "config.json", r#"{"hidden_size":99999999}"#),
            ],
            Self::Adapter => vec![
                ("empty", self.weights(), ""),
                ("config-empty", "adapter_config.json", ""),
                ("config-text", "adapter_config.json", "not even JSON"),
                (
                    "config-rank",
                    "adapter_config.json",
                    r#"{"r":4096,"lora_alpha":1,"target_modules":["q_proj"]}"#,
                ),
                (
                    "config-dora",
                    "adapter_config.json",
                    r#"{"r":4,"lora_alpha":1,"target_modules":["q_proj"],"use_dora":true}"#,
                ),
                (
                    "config-target",
                    "adapter_config.json",
                    r#"{"r":4,"lora_alpha":1,"target_modules":["(((q_proj|.*)+)+)+$"]}"#,
                ),
            ],
        }
    }

    fn flips(self) -> usize {
        match self {
            Self::Gguf | Self::Safetensors => FLIPS,
            Self::Adapter => ADAPTER_FLIPS,
        }
    }

    /// The files of a good model.
    fn write(self, dir: &Path) {
        match self {
            Self::Gguf => {
                fs::create_dir_all(dir).expect("made");
                for file in files() {
                    fs::write(dir.join(file.name), file.bytes).expect("written");
                }
            }
            Self::Safetensors => write_random_hf(dir, 7).expect("written"),
            Self::Adapter => write_random_lora(dir, 1).expect("written"),
        }
    }
}

fn signed(dir: &Path, name: &str) -> Digest {
    let mut options = PackOptions::new(format!("{name}@1.0").parse().expect("valid"));
    // What is damaged is packed by hand: `pack` reads headers, which may say nonsense now.
    options.context_tokens = Some(512);
    if dir.join(Kind::Adapter.weights()).exists() {
        options.base = Some(Base::read(&dir.with_file_name("good")).expect("packed before"));
    }
    let packed = pack(dir, options, &publisher(), &mut |_| ());
    packed.expect("packed").digest
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).expect("read");
    bytes[at] ^= 1 << (at % 8);
    fs::write(path, bytes).expect("written");
}

/// Half of the positions lie in the first 16 KiB, where headers are.
fn position(n: usize, of: usize, len: usize) -> usize {
    let head = len.min(16 * 1024);
    let half = of / 2;
    if n < half {
        n * head / half
    } else {
        head + (n - half) * (len - head) / half
    }
}

#[test]
fn what_was_damaged_after_it_was_signed_is_refused_each_by_its_own_error() {
    let trust = Trust::in_publishers([publisher().id()]);
    let code = |dir: &Path, expect: Option<&Digest>| {
        let refused = verify(dir, &trust, expect, &mut |_| ());
        refused.expect_err("must be refused").code()
    };
    for kind in [Kind::Gguf, Kind::Safetensors, Kind::Adapter] {
        let parent = tempfile::tempdir().expect("tempdir");
        let good = parent.path().join("good");
        Kind::Safetensors.write(&good);
        signed(&good, "good");
        let dir = parent.path().join("model");
        kind.write(&dir);
        let digest = signed(&dir, "small");
        let weights = dir.join(kind.weights());
        let whole = fs::read(&weights).expect("read");
        for n in 0..kind.flips() {
            let at = position(n, kind.flips(), whole.len());
            flip(&weights, at);
            assert_eq!(code(&dir, None), "corrupt-file", "{kind:?} bit at {at}");
            flip(&weights, at);
        }
        for len in [0, 1, 7, 8, 100, whole.len() / 2, whole.len() - 1] {
            fs::write(&weights, &whole[..len]).expect("written");
            assert_eq!(code(&dir, None), "wrong-size", "{kind:?} cut to {len}");
        }
        fs::write(&weights, &whole).expect("written");
        assert_eq!(code(&dir, Some(&Digest([1; 32]))), "wrong-digest");
        for file in kind.texts() {
            let path = dir.join(file);
            let good = fs::read(&path).expect("read");
            let mut bad = good.clone();
            bad[good.len() / 2] ^= 1;
            fs::write(&path, bad).expect("written");
            assert_eq!(code(&dir, None), "corrupt-file", "{file}");
            fs::remove_file(&path).expect("removed");
            assert_eq!(code(&dir, None), "missing-file", "{file}");
            let outside = parent.path().join("outside");
            fs::write(&outside, &good).expect("written");
            symlink(&outside, &path).expect("linked");
            assert_eq!(code(&dir, None), "not-a-regular-file", "{file}");
            fs::remove_file(&path).expect("removed");
            fs::write(&path, &good).expect("written");
        }
        // A file too many is no fault: nobody shows it to the engine.
        fs::write(dir.join("extra.safetensors"), "x").expect("written");
        let artifact = verify(&dir, &trust, Some(&digest), &mut |_| ()).expect("right");
        assert_eq!(artifact.unlisted(), ["extra.safetensors"]);
        let view = artifact.expose(&parent.path().join("view")).expect("shown");
        assert!(!view.join("extra.safetensors").exists());
        let manifest = dir.join(MANIFEST_FILE);
        let sealed = fs::read(&manifest).expect("read");
        flip(&manifest, sealed.len() - 1);
        assert_eq!(code(&dir, None), "bad-signature");
        fs::write(&manifest, &sealed[..20]).expect("written");
        assert_eq!(code(&dir, None), "manifest-malformed");
        fs::write(&manifest, &sealed).expect("written");
        sign(&dir, &NodeKey::from_seed([66; 32])).expect("signed");
        assert_eq!(code(&dir, None), "untrusted-publisher");
        fs::remove_file(&manifest).expect("removed");
        assert_eq!(code(&dir, None), "missing-manifest");
    }
}

/// A model that a trusted publisher signed though it is damaged.
struct Signed {
    dir: PathBuf,
    name: String,
    digest: Digest,
}

/// Packs first and damages then, and signs what came of it: so a header may say anything.
fn signed_as_such(parent: &Path, name: &str, kind: Kind, damage: impl FnOnce(&Path)) -> Signed {
    let dir = parent.join(name);
    kind.write(&dir);
    signed(&dir, name);
    damage(&dir);
    let trust = Trust::in_publishers([publisher().id()]);
    let (_, manifest) = tether_artifact_store::read_manifest(&dir, &trust).expect("there");
    let mut manifest = manifest.into_inner();
    assert_eq!(manifest.format == Format::Gguf, kind == Kind::Gguf);
    for file in &mut manifest.files {
        let bytes = fs::read(dir.join(&file.path)).expect("read");
        file.size_bytes = bytes.len() as u64;
        file.digest = Digest::of(&bytes);
    }
    let mesh = tether_wire::MeshId([0; 32]);
    let sealed = tether_wire::Signed::seal(&publisher(), &mesh, &manifest).expect("sealed");
    fs::write(dir.join(MANIFEST_FILE), sealed.as_bytes()).expect("written");
    Signed {
        dir,
        name: name.to_owned(),
        digest: Digest::of(sealed.as_bytes()),
    }
}

fn question(n: usize, of: &Signed) -> WorkOrder {
    let mut order = order(u8::try_from(n % 251).expect("small"), of.digest, "x");
    order.correlation.0[1] = u8::try_from(n / 251).expect("small");
    order.model = format!("{}@1.0", of.name).parse().expect("valid");
    order.input = Input::Text("What is 2 + 2?".to_owned());
    order.sampling.max_tokens = Some(2);
    order
}

/// What came of asking: `answered`, or the code of the refusal.
async fn asked(orchestrator: &TestOrchestrator, worker: &TestWorker, order: &WorkOrder) -> String {
    let call = orchestrator.order(&worker.worker, order).await;
    match call.events().await {
        Ok(events) if matches!(events.last(), Some(AnswerEvent::Done(_))) => "answered".to_owned(),
        Ok(events) => panic!("a stream without an end: {events:?}"),
        Err(error) => error.code.as_str().to_owned(),
    }
}

/// Asks each of these models of one worker, and its good one after each.
async fn contained(good: &Signed, damaged: &[Signed], count: &mut usize) -> Vec<String> {
    let mesh = TestMesh::new();
    let orchestrator = mesh.orchestrator().await;
    let mut folders = vec![good.dir.as_path()];
    folders.extend(damaged.iter().map(|model| model.dir.as_path()));
    let worker = mesh
        .worker(&folders, |config| {
            config.engine.kind = EngineKind::Mistralrs;
            config.engine.threads = 1;
            config.models[0].pin = true;
            // Two beside the good one, so that two cores are busy and no more.
            config.memory_budget_mib = 450;
        })
        .await;
    worker
        .models(|states| {
            let is_known = |it: &ModelState| !matches!(it, ModelState::Verifying { .. });
            matches!(states[0], ModelState::Serving(_)) && states.iter().all(is_known)
        })
        .await;
    let mut ends = Vec::new();
    for model in damaged {
        *count += 1;
        let end = asked(&orchestrator, &worker, &question(*count, model)).await;
        ends.push(end);
        *count += 1;
        let still = asked(&orchestrator, &worker, &question(*count, good)).await;
        assert_eq!(still, "answered", "the good model, after {}", model.name);
    }
    ends
}

fn run(kind: Kind) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let began = std::time::Instant::now();
    let parent = TempDir::new().expect("tempdir");
    let good = match kind {
        Kind::Gguf | Kind::Safetensors => Kind::Gguf,
        Kind::Adapter => Kind::Safetensors,
    };
    let good = signed_as_such(parent.path(), "good", good, |_| ());
    let weights = kind.weights();
    let mut ends = Vec::new();
    let mut count = 0;
    let of = |name: &str, damage: &dyn Fn(&Path)| {
        signed_as_such(parent.path(), name, kind, |dir| damage(dir))
    };
    let cut = |share: usize| {
        move |dir: &Path| {
            let bytes = fs::read(dir.join(weights)).expect("read");
            fs::write(dir.join(weights), &bytes[..bytes.len() * share / 100]).expect("written");
        }
    };
    let whole = of("whole", &|_| ());
    let len = fs::read(whole.dir.join(weights)).expect("read").len();
    let mut others = vec![of("half", &cut(50)), of("short", &cut(99))];
    for (name, file, text) in kind.lies() {
        let put = |dir: &Path| fs::write(dir.join(file), text).expect("written");
        others.push(of(name, &put));
    }
    ends.extend(runtime.block_on(contained(&good, &others, &mut count)));
    if kind == Kind::Adapter {
        // Its configuration and header say all; nothing of it is applied that is not whole.
        assert!(ends.iter().all(|end| end == "unavailable"), "{ends:?}");
    }
    let positions: Vec<usize> = (0..kind.flips())
        .map(|n| position(n, kind.flips(), len))
        .collect();
    for batch in positions.chunks(BATCH) {
        let flipped = batch.iter().map(|at| {
            of(&format!("flip-{at}"), &|dir: &Path| {
                flip(&dir.join(weights), *at);
            })
        });
        let flipped: Vec<Signed> = flipped.collect();
        ends.extend(runtime.block_on(contained(&good, &flipped, &mut count)));
    }
    let answered = ends.iter().filter(|end| *end == "answered").count();
    let refused = ends.len() - answered;
    eprintln!(
        "{kind:?}: {} damaged models, {answered} answered all the same, {refused} were refused, in {:?}",
        ends.len(),
        began.elapsed()
    );
    assert!(refused > 0, "nothing was damaged");
    for end in &ends {
        let is_known = [
            "answered",
            "unavailable",
            "invalid",
            "internal",
            "overloaded",
        ];
        assert!(is_known.contains(&end.as_str()), "{end}");
    }
}

#[test]
fn a_gguf_that_was_signed_damaged_hurts_its_own_engine_only() {
    run(Kind::Gguf);
}

#[test]
fn safetensors_that_were_signed_damaged_hurt_their_own_engine_only() {
    run(Kind::Safetensors);
}

#[test]
fn adapters_that_were_signed_damaged_hurt_their_own_engine_only() {
    run(Kind::Adapter);
}
