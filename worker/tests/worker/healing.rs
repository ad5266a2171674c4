//! Copies of our own that are not right any more are fetched anew; the provider's folders are left as
//! they are. (WRK-5, ART-4)

use crate::fixture::{TestMesh, TestOrchestrator, artifact, order, patiently, until};
use crate::metrics;
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use tether_wire::infer::AnswerEvent;
use tether_wire::{Digest, NodeKey};
use tether_worker::{ModelConfig, ModelState, Worker};

/// A source with one artifact, and the data folder of a worker.
struct Scene {
    shelf: TempDir,
    data: TempDir,
    digest: Digest,
}

impl Scene {
    fn new() -> Self {
        let tempdir = || tempfile::tempdir().expect("tempdir");
        let (shelf, data) = (tempdir(), tempdir());
        let (dir, digest) = artifact();
        fs::rename(dir.path(), shelf.path().join("echo")).expect("put on the shelf");
        Self {
            shelf,
            data,
            digest,
        }
    }

    /// A file of the artifact where it comes from.
    fn at_source(&self, file: &str) -> PathBuf {
        self.shelf.path().join("echo").join(file)
    }

    /// The same of the copy in the store.
    fn in_store(&self, file: &str) -> PathBuf {
        let store = self.data.path().join("artifacts");
        store.join(self.digest.to_string()).join(file)
    }

    /// A worker of this data folder, that serves the artifact by its name.
    async fn worker(&self, mesh: &TestMesh) -> Worker {
        self.worker_of(mesh, vec![self.shelf.path().to_owned()])
            .await
    }

    async fn worker_of(&self, mesh: &TestMesh, sources: Vec<PathBuf>) -> Worker {
        let key = NodeKey::from_seed([78; 32]);
        let change = |config: &mut tether_worker::WorkerConfig| {
            config.sources = sources;
            config.models = vec![ModelConfig {
                name: Some("echo@1.0".parse().expect("valid")),
                ..ModelConfig::default()
            }];
        };
        mesh.worker_in(self.data.path(), key, &[], change).await
    }

    /// A worker served it, so that its copy is in the store, and is gone.
    async fn was_served(&self, mesh: &TestMesh) {
        let worker = self.worker(mesh).await;
        serving(&worker).await;
        worker.drain(std::time::Duration::ZERO).await;
    }

    async fn answers(&self, orchestrator: &TestOrchestrator, worker: &Worker) {
        let order = order(1, self.digest, "x");
        let call = orchestrator.order(worker, &order).await;
        let events = call.events().await.expect("served");
        assert!(matches!(events.last(), Some(AnswerEvent::Done(_))));
    }
}

fn flip(path: &Path) {
    let mut bytes = fs::read(path).expect("read");
    let last = bytes.last_mut().expect("not empty");
    *last ^= 1;
    fs::write(path, bytes).expect("written");
}

fn copy_to(to: &Path, from: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        fs::copy(entry.path(), to.join(entry.file_name())).expect("copied");
    }
}

async fn serving(worker: &Worker) -> u32 {
    let pid = until(worker.models(), |models| match &models[0].state {
        ModelState::Serving(served) => served.pids.first().copied(),
        _ => None,
    });
    patiently(pid).await
}

async fn fault(worker: &Worker) -> (&'static str, String) {
    let fault = until(worker.models(), |models| models[0].report().fault);
    patiently(fault).await
}

fn kill(pid: u32) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    kill_process(pid.expect("a process"), Signal::KILL).expect("killed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_was_damaged_while_the_worker_was_away_is_fetched_anew() {
    let (mesh, scene) = (TestMesh::new(), Scene::new());
    let orchestrator = mesh.orchestrator().await;
    scene.was_served(&mesh).await;
    for file in ["model.safetensors", "tether.manifest"] {
        flip(&scene.in_store(file));
        let worker = scene.worker(&mesh).await;
        serving(&worker).await;
        scene.answers(&orchestrator, &worker).await;
        let same =
            |file| fs::read(scene.in_store(file)).ok() == fs::read(scene.at_source(file)).ok();
        assert!(same("model.safetensors") && same("tether.manifest"));
        worker.drain(std::time::Duration::ZERO).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_is_damaged_while_it_is_served_is_fetched_anew_before_the_next_load() {
    let (mesh, scene) = (TestMesh::new(), Scene::new());
    let orchestrator = mesh.orchestrator().await;
    let worker = scene.worker(&mesh).await;
    let first = serving(&worker).await;
    flip(&scene.in_store("model.safetensors"));
    kill(first);
    let second = until(worker.models(), |models| match &models[0].state {
        ModelState::Serving(served) => served.pids.first().copied().filter(|it| *it != first),
        _ => None,
    });
    patiently(second).await;
    scene.answers(&orchestrator, &worker).await;
    let copy = fs::read(scene.in_store("model.safetensors")).expect("read");
    assert_eq!(copy, b"weights");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_several_processes_find_damaged_is_one_fault() {
    let (mesh, scene) = (TestMesh::new(), Scene::new());
    let sources = vec![scene.shelf.path().to_owned()];
    let key = NodeKey::from_seed([79; 32]);
    let change = |config: &mut tether_worker::WorkerConfig| {
        config.sources = sources;
        config.models = vec![ModelConfig {
            name: Some("echo@1.0".parse().expect("valid")),
            ..ModelConfig::default()
        }];
        config.engine.replicas = 4;
        config.metrics = Some(metrics::any_port());
    };
    let worker = mesh.worker_in(scene.data.path(), key, &[], change).await;
    let all = |without: Vec<u32>| {
        let all = until(worker.models(), move |models| match &models[0].state {
            ModelState::Serving(served) if served.pids.len() == 4 => {
                let is_old = |pid| without.contains(pid);
                (!served.pids.iter().any(is_old)).then(|| served.pids.clone())
            }
            _ => None,
        });
        patiently(all)
    };
    let first = all(Vec::new()).await;
    flip(&scene.in_store("model.safetensors"));
    first.iter().for_each(|pid| kill(*pid));
    all(first).await;
    let page = metrics::page(&worker).await;
    let faults = |code: &str| {
        let start = format!("tether_worker_model_faults_total{{reason=\"{code}\"}} ");
        let mut lines = page.lines().filter_map(|line| line.strip_prefix(&start));
        lines.next().map(str::to_owned)
    };
    assert_eq!(faults("corrupt-file").as_deref(), Some("1"), "{page}");
    assert_eq!(faults("missing-manifest"), None, "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_good_source_the_fault_stays_and_passes_when_the_source_is_mended() {
    let (mesh, scene) = (TestMesh::new(), Scene::new());
    let orchestrator = mesh.orchestrator().await;
    scene.was_served(&mesh).await;
    flip(&scene.in_store("model.safetensors"));
    flip(&scene.at_source("model.safetensors"));
    let worker = scene.worker(&mesh).await;
    let (code, reason) = fault(&worker).await;
    let shelf = scene.shelf.path().display().to_string();
    assert_eq!(code, "source-damaged");
    assert!(
        reason.contains("copy in the store was damaged") && reason.contains(&shelf),
        "{reason}"
    );
    flip(&scene.at_source("model.safetensors"));
    serving(&worker).await;
    scene.answers(&orchestrator, &worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_one_source_is_damaged_the_next_is_asked() {
    let (mesh, scene) = (TestMesh::new(), Scene::new());
    let orchestrator = mesh.orchestrator().await;
    let other = tempfile::tempdir().expect("tempdir");
    let copy = other.path().join("echo");
    copy_to(&copy, &scene.at_source("."));
    flip(&scene.at_source("model.safetensors"));
    let sources = [scene.shelf.path(), other.path()];
    let worker = scene
        .worker_of(&mesh, sources.map(Path::to_owned).to_vec())
        .await;
    serving(&worker).await;
    scene.answers(&orchestrator, &worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_of_the_providers_that_is_damaged_is_refused_and_left_as_it_is() {
    let (mesh, scene) = (TestMesh::new(), Scene::new());
    let folder = tempfile::tempdir().expect("tempdir");
    copy_to(folder.path(), &scene.at_source("."));
    flip(&folder.path().join("model.safetensors"));
    let damaged = fs::read(folder.path().join("model.safetensors")).expect("read");
    let sources = vec![scene.shelf.path().to_owned()];
    let worker = mesh
        .worker(&[folder.path()], |config| config.sources = sources)
        .await;
    let (code, _) = fault(&worker.worker).await;
    assert_eq!(code, "corrupt-file");
    let now = fs::read(folder.path().join("model.safetensors")).expect("read");
    assert_eq!(now, damaged);
}
