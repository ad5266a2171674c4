//! Adapters with their bases: what is looked for, verified, shown, offered and signed. (WRK-5)
//! [T-ART-6] [T-CRD-3]

use crate::fixture::{TestMesh, TestWorker, order, patiently, publisher, until};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use tether_artifact_store::{Base, MANIFEST_FILE, PackOptions, Trust, pack, read_manifest};
use tether_tiny_model::{write_random_hf, write_random_lora};
use tether_wire::infer::{AnswerEvent, WorkOrder};
use tether_wire::manifest::Format;
use tether_wire::receipt;
use tether_wire::{Digest, Manifest, MeshId, NodeKey, Signed};
use tether_worker::{ModelState, Worker};

/// A base and two adapters for it, each in a folder.
struct Shelf {
    dir: TempDir,
    base: Digest,
    adapters: [Digest; 2],
}

impl Shelf {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("tempdir");
        let packed = |folder: &str, base: Option<Base>| {
            let name = format!("{folder}@1.0").parse().expect("valid");
            let options = PackOptions {
                base,
                ..PackOptions::new(name)
            };
            let packed = pack(&dir.path().join(folder), options, &publisher(), &mut |_| ());
            packed.expect("packed").digest
        };
        write_random_hf(&dir.path().join("base"), 7).expect("written");
        let base = packed("base", None);
        let adapters = [1, 2].map(|seed| {
            let folder = format!("lora{seed}");
            write_random_lora(&dir.path().join(&folder), seed).expect("written");
            let base = Base::read(&dir.path().join("base")).expect("packed");
            packed(&folder, Some(base))
        });
        Self {
            dir,
            base,
            adapters,
        }
    }

    fn folder(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

/// Signs what a careless publisher might.
fn resign(folder: &Path, change: impl FnOnce(&mut Manifest)) -> Digest {
    let trust = Trust::in_publishers([publisher().id()]);
    let (_, manifest) = read_manifest(folder, &trust).expect("there");
    let mut manifest = manifest.into_inner();
    change(&mut manifest);
    let sealed = Signed::seal(&publisher(), &MeshId([0; 32]), &manifest).expect("sealed");
    fs::write(folder.join(MANIFEST_FILE), sealed.as_bytes()).expect("written");
    Digest::of(sealed.as_bytes())
}

fn order_of(n: u8, name: &str, digest: Digest) -> WorkOrder {
    WorkOrder {
        model: format!("{name}@1.0").parse().expect("valid"),
        ..order(n, digest, "one two")
    }
}

/// Code and words of the fault of a model.
async fn fault(worker: &Worker, index: usize) -> (&'static str, String) {
    let fault = until(worker.models(), |models| match &models[index].state {
        ModelState::Faulted { code, reason, .. } => Some((*code, reason.clone())),
        _ => None,
    });
    patiently(fault).await
}

async fn serving(worker: &Worker, index: usize) {
    let served = until(worker.models(), |models| {
        matches!(models[index].state, ModelState::Serving(_)).then_some(())
    });
    patiently(served).await;
}

/// All that lies in a folder and its folders.
fn below(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let entry = entry.expect("readable");
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type().expect("known").is_dir() {
            let inner = below(&entry.path()).into_iter();
            found.extend(inner.map(|inner| format!("{name}/{inner}")));
        } else {
            found.push(name);
        }
    }
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_is_shown_the_verified_files_of_the_adapter_and_of_its_base_and_no_others() {
    let (mesh, shelf) = (TestMesh::new(), Shelf::new());
    for folder in ["base", "lora1"] {
        fs::write(shelf.folder(folder).join("extra.safetensors"), "x").expect("written");
    }
    let data = tempfile::tempdir().expect("tempdir");
    // A plain model stood in this place before.
    fs::create_dir_all(data.path().join("engine-views/0")).expect("made");
    fs::write(data.path().join("engine-views/0/model.safetensors"), "old").expect("written");
    let folders = [shelf.folder("lora1"), shelf.folder("base")];
    let folders = [folders[0].as_path(), folders[1].as_path()];
    let key = NodeKey::from_seed([71; 32]);
    let worker = mesh.worker_in(data.path(), key, &folders, |_| ()).await;
    serving(&worker, 0).await;
    assert_eq!(
        below(&data.path().join("engine-views/0")),
        [
            "adapter/adapter_config.json",
            "adapter/adapter_model.safetensors",
            "base/config.json",
            "base/generation_config.json",
            "base/model.safetensors",
            "base/tokenizer.json",
            "base/tokenizer_config.json",
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_base_that_is_nowhere_is_a_fault_that_says_what_to_do_and_passes_when_it_is_there() {
    let (mesh, shelf) = (TestMesh::new(), Shelf::new());
    let mut orchestrator = mesh.orchestrator().await;
    let source = tempfile::tempdir().expect("tempdir");
    let lora = shelf.folder("lora1");
    let worker = mesh
        .worker(&[&lora], |config| {
            config.sources = vec![source.path().to_owned()];
        })
        .await;
    let (code, reason) = fault(&worker.worker, 0).await;
    assert_eq!(code, "base-missing");
    let base = shelf.base.to_string();
    assert!(
        reason.contains(&base) && reason.contains("`sources`"),
        "{reason}"
    );
    // It is looked for again, by itself.
    fs::rename(shelf.folder("base"), source.path().join("base")).expect("moved");
    serving(&worker.worker, 0).await;
    let call = orchestrator
        .order(&worker.worker, &order_of(1, "lora1", shelf.adapters[0]))
        .await;
    call.events().await.expect("served");
    // The base itself is not offered: nobody configured it.
    let said = orchestrator
        .said_where(|said| !said.worker.models.is_empty())
        .await;
    let offered: Vec<_> = said.worker.models.iter().map(|it| it.digest).collect();
    assert_eq!(offered, [shelf.adapters[0]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_base_that_is_damaged_or_no_base_is_refused_by_its_own_error() {
    let mesh = TestMesh::new();
    type Damage = fn(&Shelf);
    let cases: [(&str, &str, Damage); 4] = [
        ("corrupt-file", "the adapter's base", |shelf| {
            let path = shelf.folder("base").join("model.safetensors");
            let mut bytes = fs::read(&path).expect("read");
            bytes[5_000] ^= 1;
            fs::write(path, bytes).expect("written");
        }),
        ("base-missing", "in no folder", |shelf| {
            resign(&shelf.folder("lora1"), |it| {
                it.base_digest = Some(Digest([9; 32]))
            });
        }),
        ("base-unsupported", "not in safetensors", |shelf| {
            let base = resign(&shelf.folder("base"), |it| it.format = Format::Gguf);
            resign(&shelf.folder("lora1"), |it| it.base_digest = Some(base));
        }),
        ("base-unsupported", "an adapter itself", |shelf| {
            let base = resign(&shelf.folder("base"), |it| {
                it.base_digest = Some(Digest([9; 32]))
            });
            resign(&shelf.folder("lora1"), |it| it.base_digest = Some(base));
        }),
    ];
    for (code, words, damage) in cases {
        let shelf = Shelf::new();
        damage(&shelf);
        let folders = [shelf.folder("lora1"), shelf.folder("base")];
        let worker = mesh.worker(&[&folders[0], &folders[1]], |_| ()).await;
        let found = fault(&worker.worker, 0).await;
        assert!(found.0 == code && found.1.contains(words), "{found:?}");
    }
    let shelf = Shelf::new();
    let folders = [shelf.folder("lora1"), shelf.folder("base")];
    let worker = mesh
        .worker(&[&folders[0], &folders[1]], |config| {
            config.max_warm_adapters = 0
        })
        .await;
    let found = fault(&worker.worker, 0).await;
    assert!(
        found.0 == "adapters-off" && found.1.contains("max_warm_adapters"),
        "{found:?}"
    );
    serving(&worker.worker, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_adapters_are_warm_than_may_be_and_the_base_says_which() {
    let (mesh, shelf) = (TestMesh::new(), Shelf::new());
    let mut orchestrator = mesh.orchestrator().await;
    let folders = ["base", "lora1", "lora2"].map(|name| shelf.folder(name));
    let folders = [folders[0].as_path(), &folders[1], &folders[2]];
    let worker: TestWorker = mesh
        .worker(&folders, |config| config.max_warm_adapters = 1)
        .await;
    worker
        .models(|states| {
            let count = |name| states.iter().filter(|it| it.as_str() == name).count();
            count("warm") == 2 && count("cold") == 1
        })
        .await;
    for (n, which) in [0, 1, 0].into_iter().enumerate() {
        let digest = shelf.adapters[which];
        let name = format!("lora{}", which + 1);
        let order = order_of(u8::try_from(n).expect("small"), &name, digest);
        let call = orchestrator.order(&worker.worker, &order).await;
        let events = call.events().await.expect("answered");
        let Some(AnswerEvent::Done(done)) = events.last() else {
            panic!("{events:?}");
        };
        let sealed = done.receipt.as_deref().expect("a receipt");
        let proof = receipt::verify(&Signed::from_bytes(sealed), &mesh.mesh).expect("a worker's");
        assert_eq!(proof.receipt.adapters, [digest]);
        assert_eq!(proof.receipt.digest, digest);
        let said = orchestrator
            .said_where(|said| {
                let base = said.worker.models.iter().find(|it| it.digest == shelf.base);
                base.is_some_and(|it| it.warm && it.adapters == [digest])
            })
            .await;
        let mut warm = said.worker.models.iter().filter(|it| it.warm);
        assert_eq!(warm.clone().count(), 2, "{:?}", said.worker.models);
        assert!(warm.any(|it| it.digest == digest && it.adapters.is_empty()));
        assert_eq!(said.worker.models.len(), 3, "the cold one is offered, too");
    }
    let report = worker.worker.status().models[1].report();
    assert_eq!(report.base, Some(shelf.base));
    // The base's own answers bear no adapter.
    let call = orchestrator
        .order(&worker.worker, &order_of(9, "base", shelf.base))
        .await;
    let events = call.events().await.expect("answered");
    let Some(AnswerEvent::Done(done)) = events.last() else {
        panic!("{events:?}");
    };
    let sealed = done.receipt.as_deref().expect("a receipt");
    let proof = receipt::verify(&Signed::from_bytes(sealed), &mesh.mesh).expect("a worker's");
    assert_eq!(proof.receipt.adapters, []);
}
