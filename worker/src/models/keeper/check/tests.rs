use super::*;
use crate::config::WorkerConfig;
use crate::models::entry::Entry;
use crate::models::{ModelState, ModelStatus};
use futures_util::FutureExt;
use std::fs;
use std::time::Duration;
use tether_artifact_store::{PackOptions, pack};
use tether_telemetry::metrics::Registry;
use tether_wire::NodeKey;
use tokio::sync::watch;

/// A model of the provider's, and its check.
struct Scene {
    folder: tempfile::TempDir,
    _views: tempfile::TempDir,
    digest: Digest,
    status: Arc<watch::Sender<Vec<ModelStatus>>>,
    check: Check,
}

impl Scene {
    fn new() -> Self {
        let tempdir = || tempfile::tempdir().expect("tempdir");
        let (folder, views) = (tempdir(), tempdir());
        for (name, content) in [
            ("config.json", r#"{"max_position_embeddings": 2048}"#),
            ("model.safetensors", "weights"),
            ("tokenizer.json", "{}"),
        ] {
            fs::write(folder.path().join(name), content).expect("written");
        }
        let publisher = NodeKey::from_seed([5; 32]);
        let options = PackOptions::new("m@1.0".parse().expect("valid"));
        let packed = pack(folder.path(), options, &publisher, &mut |_| ()).expect("packed");
        let model = ModelConfig::at(folder.path());
        let config = WorkerConfig {
            models: vec![model.clone()],
            trusted_publishers: vec![publisher.id()],
            ..WorkerConfig::default()
        };
        let status = Arc::new(watch::Sender::new(vec![ModelStatus::new("m".to_owned())]));
        let metrics = WorkerMetrics::register(&Registry::new());
        let entry = Entry::new(0, status.clone(), metrics.clone());
        let over = CancellationToken::new();
        let check = Check {
            trust: Trust::in_publishers([publisher.id()]),
            model,
            metrics,
            locator: Locator::new(&config, views.path()),
            turns: Arc::new(Semaphore::new(1)),
            view: views.path().join("0"),
            fetched: Arc::new(Shown::new(entry.clone(), true, over.clone())),
            progress: Arc::new(Shown::new(entry, false, over.clone())),
            over,
        };
        Self {
            folder,
            _views: views,
            digest: packed.digest,
            status,
            check,
        }
    }

    fn stay(&self) -> Prepare {
        let over = &self.check.over;
        self.check.before_each_start(self.digest, None, over)
    }

    /// Waits until its files are so old that whoever touches them is noticed.
    async fn aged(&self) {
        let aged = async {
            while !self.check.run().await.expect("sound").is_untouched() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        patiently(aged).await;
    }
}

async fn patiently<T>(future: impl Future<Output = T>) -> T {
    let patience = Duration::from_secs(30);
    tokio::time::timeout(patience, future)
        .await
        .expect("it takes too long")
}

#[tokio::test]
async fn processes_that_start_with_their_model_share_one_check_and_later_starts_have_their_own() {
    let scene = Scene::new();
    scene.aged().await;
    let prepare = scene.stay();
    let first = patiently(prepare.ask(0)).await.expect("sound");
    // From now on nobody can check anything.
    let turn = scene.check.turns.acquire().await.expect("open");
    let second = patiently(prepare.ask(1)).await.expect("shared");
    assert_ne!(first, second, "each has a folder of its own");
    assert!(second.join("model.safetensors").exists());
    let (again, other_stay) = (prepare.ask(1), scene.stay().ask(0));
    let (mut again, mut other_stay) = (again.boxed(), other_stay.boxed());
    for later in [&mut again, &mut other_stay] {
        let waits = tokio::time::timeout(Duration::from_millis(100), later).await;
        assert!(waits.is_err(), "it waits for a check of its own");
    }
    // The same bytes: a file that was touched is not believed to be what it was.
    fs::write(scene.folder.path().join("model.safetensors"), "weights").expect("written");
    let mut third = prepare.ask(2).boxed();
    let waits = tokio::time::timeout(Duration::from_millis(100), &mut third).await;
    assert!(waits.is_err(), "it waits for a check of its own");
    drop(turn);
    patiently(again).await.expect("sound");
    patiently(other_stay).await.expect("sound");
    patiently(third).await.expect("sound");
    fs::write(scene.folder.path().join("model.safetensors"), "damaged").expect("written");
    assert_eq!(
        patiently(prepare.ask(3)).await.expect_err("damaged").code,
        "corrupt-file"
    );
}

#[tokio::test(start_paused = true)]
async fn a_check_ends_with_its_stay_and_is_not_shown_any_more() {
    let scene = Scene::new();
    let stay = scene.check.over.child_token();
    let check = |over: &CancellationToken| Check {
        progress: Arc::new(scene.check.progress.again(over.clone())),
        over: over.clone(),
        ..scene.check.clone()
    };
    let shown = || scene.status.borrow()[0].state.as_str();
    let unload = || {
        scene
            .status
            .send_modify(|all| all[0].state = ModelState::Cold)
    };
    unload();
    let staying = check(&stay);
    // What is over within a moment is not shown.
    tokio::time::advance(Duration::from_secs(1)).await;
    staying.run().await.map(drop).expect("sound");
    assert_eq!(shown(), "verifying", "while it stays it is shown");
    stay.cancel();
    unload();
    tokio::time::advance(Duration::from_secs(1)).await;
    let ended = staying.run().await;
    assert_eq!(ended.map(drop).expect_err("given up").code, "cancelled");
    assert_eq!(shown(), "cold");
}
