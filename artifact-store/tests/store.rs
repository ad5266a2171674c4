//! The store on a real disk: what comes is whole or not there, whatever ends in the middle. (WRK-5)

use futures_util::future::BoxFuture;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};
use tempfile::TempDir;
use tether_artifact_store::{
    ArtifactError, DirectorySource, MANIFEST_FILE, Offered, PackOptions, Place, Source, Store,
    Trust, pack, verify,
};
use tether_wire::{Digest, MeshId, NodeKey, Signed};
use tokio_util::sync::CancellationToken;

const WEIGHTS: usize = 4 * 1024 * 1024;
/// Where the process that is killed finds its folders.
const KILLED_ENV: &str = "TETHER_TEST_KILLED_FETCH";

fn publisher() -> NodeKey {
    NodeKey::from_seed([1; 32])
}

fn trust() -> &'static Trust {
    static TRUST: OnceLock<Trust> = OnceLock::new();
    TRUST.get_or_init(|| Trust::in_publishers([publisher().id()]))
}

/// An artifact in a folder of artifacts.
fn artifact(shelf: &Path, name: &str, fill: u8) -> Digest {
    let dir = shelf.join(name);
    fs::create_dir_all(dir.join("sub")).expect("mkdir");
    let config = r#"{"max_position_embeddings": 2048}"#;
    fs::write(dir.join("config.json"), config).expect("write");
    fs::write(dir.join("model.safetensors"), vec![fill; WEIGHTS]).expect("write");
    fs::write(dir.join("tokenizer.json"), "{}").expect("write");
    fs::write(dir.join("sub/extra"), [fill]).expect("write");
    let options = PackOptions::new(format!("{name}@1.0").parse().expect("valid"));
    let packed = pack(&dir, options, &publisher(), &mut |_| ()).expect("pack");
    packed.digest
}

/// A shelf with artifacts, and a store.
struct Scene {
    shelf: TempDir,
    data: TempDir,
}

impl Scene {
    fn new() -> Self {
        let tempdir = || tempfile::tempdir().expect("tempdir");
        Self {
            shelf: tempdir(),
            data: tempdir(),
        }
    }

    fn source(&self) -> DirectorySource {
        DirectorySource::new(self.shelf.path())
    }

    fn store(&self, budget: u64) -> Store {
        Store::open(self.data.path(), budget).expect("open")
    }
}

async fn offered(source: &dyn Source, digest: &Digest) -> Offered {
    let listed = source.list().await.expect("listed");
    let found = listed.into_iter().find(|it| it.digest() == *digest);
    found.expect("it is there")
}

async fn fetch(store: &Store, source: &dyn Source, digest: &Digest) -> Result<(), ArtifactError> {
    let offered = offered(source, digest).await;
    let cancel = CancellationToken::new();
    let got = store.fetch(&offered, trust(), source, |_| false, |_, _| (), cancel);
    let path = got.await?;
    verify(&path, trust(), Some(digest), &mut |_| ()).map(drop)
}

/// A source that does something else after so many bytes.
#[derive(Debug)]
struct Faulty {
    inner: DirectorySource,
    after: u64,
    then: Then,
}

#[derive(Clone, Copy, Debug)]
enum Then {
    Hang,
    DiskFull,
    Lie,
}

impl Source for Faulty {
    fn name(&self) -> String {
        "faulty".to_owned()
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<Offered>, ArtifactError>> {
        self.inner.list()
    }

    fn fetch<'a>(
        &'a self,
        _: &'a Digest,
        place: &'a Place,
    ) -> BoxFuture<'a, Result<(), ArtifactError>> {
        Box::pin(async move {
            for index in 0..place.manifest().files.len() {
                let Some(mut file) = place.begin(index)? else {
                    continue;
                };
                let size = file.entry().size_bytes;
                while file.offset() < size {
                    let at = file.offset();
                    if at >= self.after {
                        match self.then {
                            Then::Hang => {
                                println!("half");
                                std::future::pending::<()>().await;
                            }
                            Then::DiskFull => {
                                return Err(ArtifactError::DiskFull {
                                    path: "here".into(),
                                    needed: size - at,
                                    free: 0,
                                });
                            }
                            Then::Lie => file.write(&[0])?,
                        }
                    }
                    let count = (size - file.offset()).min(64 * 1024);
                    file.write(&vec![7; usize::try_from(count).expect("small")])?;
                }
                file.finish()?;
            }
            Ok(())
        })
    }
}

impl Faulty {
    fn new(scene: &Scene, after: u64, then: Then) -> Self {
        Self {
            inner: scene.source(),
            after,
            then,
        }
    }
}

/// An artifact of which each file is big, so that it is cut in the middle of the first.
fn big(scene: &Scene) -> Digest {
    let dir = scene.shelf.path().join("big");
    fs::create_dir(&dir).expect("mkdir");
    let mut config = br#"{"max_position_embeddings": 2048}"#.to_vec();
    config.resize(WEIGHTS, b' ');
    fs::write(dir.join("config.json"), config).expect("write");
    for name in ["a.bin", "model.safetensors", "tokenizer.json"] {
        fs::write(dir.join(name), vec![7; WEIGHTS]).expect("write");
    }
    let options = PackOptions::new("big@1.0".parse().expect("valid"));
    let packed = pack(&dir, options, &publisher(), &mut |_| ());
    packed.expect("pack").digest
}

#[tokio::test]
async fn an_artifact_is_fetched_listed_and_found_again() {
    let scene = Scene::new();
    let digest = artifact(scene.shelf.path(), "one", 1);
    artifact(scene.shelf.path(), "two", 2);
    let source = scene.source();
    assert_eq!(source.list().await.expect("listed").len(), 2);
    let store = scene.store(0);
    assert_eq!(store.path(&digest), None);
    fetch(&store, &source, &digest).await.expect("fetched");
    let path = store.path(&digest).expect("there");
    assert!(path.starts_with(scene.data.path().canonicalize().expect("there")));
    // Without the source, too: it is here.
    fs::remove_dir_all(scene.shelf.path().join("one/sub")).expect("removed");
    fetch(&store, &source, &digest).await.expect("at hand");
    assert_eq!(store.contents().expect("contents").len(), 1);
}

#[tokio::test]
async fn what_a_source_says_is_compared_with_what_was_signed() {
    let scene = Scene::new();
    let digest = artifact(scene.shelf.path(), "one", 1);
    let store = scene.store(0);
    let path = scene.shelf.path().join("one/model.safetensors");
    let mut bytes = fs::read(&path).expect("read");
    bytes[WEIGHTS / 2] ^= 1;
    fs::write(&path, &bytes).expect("write");
    let error = fetch(&store, &scene.source(), &digest)
        .await
        .expect_err("flipped");
    assert_eq!(error.code(), "corrupt-file");
    assert_eq!(store.path(&digest), None);
    bytes[WEIGHTS / 2] ^= 1;
    fs::write(&path, &bytes[1..]).expect("write");
    let error = fetch(&store, &scene.source(), &digest)
        .await
        .expect_err("short");
    assert_eq!(error.code(), "wrong-size");
    // It is begun anew, and comes.
    fs::write(&path, &bytes).expect("write");
    fetch(&store, &scene.source(), &digest)
        .await
        .expect("fetched");

    let stranger = NodeKey::from_seed([66; 32]);
    artifact(scene.shelf.path(), "two", 2);
    tether_artifact_store::sign(&scene.shelf.path().join("two"), &stranger).expect("signed");
    let sealed = fs::read(scene.shelf.path().join("two").join(MANIFEST_FILE)).expect("read");
    let strange = Digest::of(&sealed);
    let error = fetch(&store, &scene.source(), &strange)
        .await
        .expect_err("stranger");
    assert_eq!(error.code(), "untrusted-publisher");
}

#[tokio::test]
async fn a_source_that_sends_too_much_is_cut_off() {
    let scene = Scene::new();
    let digest = big(&scene);
    // The first file, which is not all sevens, ends the fetch as corrupt; a longer one as too long.
    let source = Faulty::new(&scene, WEIGHTS as u64 - 64 * 1024, Then::Lie);
    let error = fetch(&scene.store(0), &source, &digest)
        .await
        .expect_err("a lie");
    assert!(
        ["corrupt-file", "wrong-size"].contains(&error.code()),
        "{error}"
    );
}

#[tokio::test]
async fn a_full_disk_is_said_and_leaves_nothing() {
    let scene = Scene::new();
    let digest = big(&scene);
    let store = scene.store(0);
    let source = Faulty::new(&scene, 1024 * 1024, Then::DiskFull);
    let error = fetch(&store, &source, &digest).await.expect_err("full");
    assert_eq!(error.code(), "disk-full");
    let left = fs::read_dir(scene.data.path().join("partial")).expect("there");
    assert_eq!(left.count(), 0, "nothing half is left");

    // Known before a byte is written: the file of a manifest that claims more than any disk has.
    let sealed = sealed_giant();
    let offered = Offered::new(sealed);
    let cancel = CancellationToken::new();
    let source = scene.source();
    let refused = store.fetch(&offered, trust(), &source, |_| false, |_, _| (), cancel);
    assert_eq!(refused.await.expect_err("too big").code(), "disk-full");
    let left = fs::read_dir(scene.data.path().join("partial")).expect("there");
    assert_eq!(left.count(), 0, "nothing half is left");
}

fn sealed_giant() -> Vec<u8> {
    let scene = Scene::new();
    artifact(scene.shelf.path(), "giant", 1);
    let path = scene.shelf.path().join("giant");
    let manifest = tether_artifact_store::read_manifest(&path, trust());
    let mut manifest = manifest.expect("there").1.into_inner();
    manifest.files[0].size_bytes = 1 << 60;
    let sealed = Signed::seal(&publisher(), &MeshId([0; 32]), &manifest);
    sealed.expect("inside limits").as_bytes().to_vec()
}

#[tokio::test]
async fn the_disk_budget_is_kept_and_the_least_recently_used_goes() {
    let scene = Scene::new();
    let names = ["a", "b", "c"];
    let digests: Vec<Digest> = (names.iter().zip(1..))
        .map(|(name, fill)| artifact(scene.shelf.path(), name, fill))
        .collect();
    let source = scene.source();
    let store = scene.store(2 * WEIGHTS as u64 + 8_192);
    fetch(&store, &source, &digests[0]).await.expect("fits");
    fetch(&store, &source, &digests[1]).await.expect("fits");
    store.touch(&digests[0]);
    fetch(&store, &source, &digests[2])
        .await
        .expect("makes room");
    let here = |n: usize| store.path(&digests[n]).is_some();
    assert!(here(0) && !here(1) && here(2));
    // What is in use stays, and the next one is refused with the numbers.
    let offered = offered(&source, &digests[1]).await;
    let cancel = CancellationToken::new();
    let refused = store.fetch(&offered, trust(), &source, |_| true, |_, _| (), cancel);
    assert_eq!(refused.await.expect_err("full").code(), "over-disk-budget");
    assert!(here(0) && here(2));
}

#[tokio::test]
async fn a_cancelled_fetch_ends_and_another_goes_on_where_it_was() {
    let scene = Scene::new();
    let digest = artifact(scene.shelf.path(), "one", 1);
    let (store, source) = (scene.store(0), scene.source());
    let part = cut_off(&scene, &store, &digest).await;
    let left = fs::metadata(part.join("model.safetensors.part"))
        .expect("left")
        .len();
    assert!(left > 0 && left < WEIGHTS as u64, "{left}");
    fetch(&store, &source, &digest).await.expect("goes on");
    assert!(!part.exists());
}

/// Fetches a part of an artifact; gives where that lies.
async fn cut_off(scene: &Scene, store: &Store, digest: &Digest) -> PathBuf {
    let source = scene.source();
    let offered = offered(&source, digest).await;
    let cancel = CancellationToken::new();
    let cancelling = cancel.clone();
    let tell = move |done, _| {
        if done > 1024 * 1024 {
            cancelling.cancel();
        }
    };
    let cut = store.fetch(&offered, trust(), &source, |_| false, tell, cancel);
    assert_eq!(cut.await.expect_err("cancelled").code(), "cancelled");
    scene.data.path().join("partial").join(digest.to_string())
}

#[tokio::test]
async fn what_a_cut_off_fetch_left_counts_in_the_budget_and_makes_room() {
    let scene = Scene::new();
    let [one, two] = ["one", "two"].map(|name| artifact(scene.shelf.path(), name, 1));
    let source = scene.source();
    let store = scene.store(WEIGHTS as u64 + 8_192);
    let part = cut_off(&scene, &store, &one).await;
    let stored = store.contents().expect("contents");
    assert!(!stored[0].is_whole && stored[0].bytes > 0 && stored[0].digest == one);
    assert_eq!(store.path(&one), None);
    // Where somebody wants it, it is in the way of others.
    let offer = offered(&source, &two).await;
    let cancel = CancellationToken::new();
    let refused = store.fetch(&offer, trust(), &source, |_| true, |_, _| (), cancel);
    assert_eq!(refused.await.expect_err("full").code(), "over-disk-budget");
    assert!(part.exists());
    fetch(&store, &source, &two).await.expect("makes room");
    assert!(!part.exists());
    assert!(store.path(&two).is_some());
}

#[tokio::test]
async fn what_nobody_goes_on_with_is_removed_when_the_store_is_opened() {
    let scene = Scene::new();
    let digest = artifact(scene.shelf.path(), "one", 1);
    let store = scene.store(0);
    let part = cut_off(&scene, &store, &digest).await;
    drop(store);
    let store = scene.store(0);
    assert!(part.exists(), "it is gone on with");
    drop(store);
    let old = SystemTime::now() - Duration::from_secs(8 * 24 * 60 * 60);
    for entry in fs::read_dir(&part).expect("there") {
        let file = fs::File::open(entry.expect("there").path()).expect("opened");
        file.set_modified(old).expect("set");
    }
    let folder = fs::File::open(&part).expect("opened");
    folder.set_modified(old).expect("set");
    let store = scene.store(0);
    assert!(!part.exists());
    assert!(store.contents().expect("contents").is_empty());
}

#[test]
fn a_second_process_does_not_get_the_store() {
    let scene = Scene::new();
    let store = scene.store(0);
    let error = Store::open(scene.data.path(), 0).expect_err("locked");
    assert_eq!(error.code(), "store-locked");
    drop(store);
    scene.store(0);
}

#[tokio::test]
async fn a_fetch_that_was_killed_goes_on_with_what_it_had() {
    let scene = Scene::new();
    let digest = big(&scene);
    let folders = [scene.shelf.path(), scene.data.path()].map(|path| path.display().to_string());
    let mut child = Command::new(std::env::current_exe().expect("this binary"))
        .args([
            "--exact",
            "the_fetch_that_is_killed",
            "--ignored",
            "--nocapture",
        ])
        .env(
            KILLED_ENV,
            format!("{} {} {digest}", folders[0], folders[1]),
        )
        .stdout(Stdio::piped())
        .spawn()
        .expect("spawned");
    let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let half = lines
        .map_while(Result::ok)
        .any(|line| line.contains("half"));
    assert!(half, "it came half way");
    child.kill().expect("killed");
    child.wait().expect("waited");

    let store = scene.store(0);
    assert_eq!(store.path(&digest), None, "half of it is not there");
    let part = scene.data.path().join("partial").join(digest.to_string());
    let left: u64 = (fs::read_dir(&part).expect("there").flatten())
        .filter(|it| it.path().extension().is_some_and(|it| it == "part"))
        .map(|it| it.metadata().expect("there").len())
        .sum();
    assert!(left >= 1024 * 1024, "{left} bytes are left");
    fetch(&store, &scene.source(), &digest)
        .await
        .expect("goes on");
    assert!(!part.exists());
}

#[test]
#[ignore = "no test: another test starts it as a process of its own, and kills it"]
fn the_fetch_that_is_killed() {
    let Ok(told) = std::env::var(KILLED_ENV) else {
        return;
    };
    let parts: Vec<&str> = told.split(' ').collect();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let store = Store::open(Path::new(parts[1]), 0).expect("open");
        let source = Faulty {
            inner: DirectorySource::new(parts[0]),
            after: 1024 * 1024,
            then: Then::Hang,
        };
        let digest = parts[2].parse().expect("a digest");
        let _ = fetch(&store, &source, &digest).await;
    });
}

#[tokio::test]
async fn a_damaged_copy_is_removed_and_one_that_only_nobody_trusts_stays() {
    let scene = Scene::new();
    let digest = artifact(scene.shelf.path(), "a", 1);
    let (store, source) = (scene.store(0), scene.source());
    fetch(&store, &source, &digest).await.expect("fetched");
    let path = store.path(&digest).expect("there");
    let check = |trust: &Trust| verify(&path, trust, Some(&digest), &mut |_| ()).map(drop);
    let error = check(&Trust::default()).expect_err("nobody is trusted");
    assert!(!store.discard(&digest, &error).expect("looked at"));
    assert!(store.path(&digest).is_some(), "a copy would be refused too");
    for file in ["model.safetensors", MANIFEST_FILE] {
        let mut bytes = fs::read(path.join(file)).expect("read");
        bytes[100] ^= 1;
        fs::write(path.join(file), bytes).expect("written");
        let error = check(trust()).expect_err("damaged");
        assert!(store.discard(&digest, &error).expect("removed"));
        assert_eq!(store.path(&digest), None);
        let error = check(trust()).expect_err("it is gone");
        fetch(&store, &source, &digest).await.expect("fetched anew");
        // Who found nothing there has only to look again.
        assert!(store.discard(&digest, &error).expect("nothing to do"));
        check(trust()).expect("right");
    }
}
