//! `tether store`: check, backup, restore, migrate and forget, of a store that an orchestrator left.

use crate::operator::{FAILURE, NOT_READY, USAGE, fails, text};
use crate::support::Tether;
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;
use tether_orchestrator::job::{Answer, NewJob, Step};
use tether_orchestrator::orchestrator::STORE_FILE;
use tether_orchestrator::store::sqlite::SqliteStore;
use tether_orchestrator::store::{Holder, MetadataStore, Opening};
use tether_wire::infer::{Finish, Usage};
use tether_wire::{CorrelationId, Digest, NodeId, TenantId};

fn open(folder: &Path) -> SqliteStore {
    let opening = Opening::in_folder(folder, 1);
    SqliteStore::open(&folder.join(STORE_FILE), opening).expect("opens")
}

/// Records a job in the store of a data folder, as if an orchestrator had run there.
fn record(data: &Path, token: &str) {
    let folder = data.join("orchestrator");
    std::fs::create_dir_all(&folder).expect("made");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let store = open(&folder);
        let tenant = TenantId::new("acme").expect("valid");
        let job = NewJob {
            correlation: CorrelationId::derive(&tenant, token),
            tenant,
            retry_token: token.to_owned(),
            keyed: true,
            request_hash: Digest([1; 32]),
            model: "tiny@1.0".parse().expect("valid"),
            seed: 7,
            owner: NodeId([5; 32]),
            lease_until_ms: 10,
            deadline_ms: 10,
            max_tokens: None,
            now_ms: 100 + token.len() as u64,
        };
        store.reserve(job).await.expect("recorded");
        store.close().await.expect("closes");
    });
}

fn jobs(data: &str) -> u64 {
    let report = Tether::ok(&["store", "check", "--json", "--data-dir", data]);
    let report: Value = serde_json::from_str(&report).expect("JSON");
    assert_eq!(report["problems"], Value::Array(vec![]));
    report["jobs"].as_u64().expect("a number")
}

#[test]
fn a_store_is_checked_backed_up_and_brought_back() {
    let dir = tempfile::tempdir().expect("a folder");
    let data = text(dir.path());
    record(dir.path(), "a");
    let whole = Tether::ok(&["store", "check", "--data-dir", data]);
    assert!(whole.contains("every record is whole"), "{whole}");
    let backup = dir.path().join("backup.sqlite");
    let made = Tether::ok(&["store", "backup", "--data-dir", data, text(&backup)]);
    assert!(made.contains("store.key"), "the key is elsewhere: {made}");
    record(dir.path(), "later");
    assert_eq!(jobs(data), 2);
    let restore = ["store", "restore", "--data-dir", data, text(&backup)];
    fails(&restore, FAILURE, &["changed after the backup"]);
    let restored = Tether::ok(&[&restore[..], &["--force"]].concat());
    let name = |number| {
        let file = format!("{STORE_FILE}.replaced-{number}");
        text(&dir.path().join("orchestrator").join(file)).to_owned()
    };
    assert!(restored.ends_with(&name(1)), "{restored}");
    assert_eq!(jobs(data), 1);
    // The one before that is still there.
    let again = Tether::ok(&restore);
    assert!(again.ends_with(&name(2)), "{again}");
    assert!(Path::new(&name(1)).exists() && Path::new(&name(2)).exists());
}

/// Records a job that was answered, and whose answer is kept.
fn answer(data: &Path, token: &str) {
    record(data, token);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let store = open(&data.join("orchestrator"));
        let tenant = TenantId::new("acme").expect("valid");
        let job = CorrelationId::derive(&tenant, token);
        let fence = store.job(job).await.expect("works").expect("there").fence;
        let holder = Holder {
            job,
            owner: NodeId([5; 32]),
            fence,
        };
        let dispatched = Step::Dispatched {
            worker: NodeId([6; 32]),
            digest: Digest([7; 32]),
            attempt: 1,
            numerics_class: "test".to_owned(),
        };
        let kept = Answer::of(tenant, [&b"the answer"[..]]).expect("short");
        let done = Step::Done {
            finish: Finish::Stop,
            usage: Usage::default(),
            answer: Some(Arc::new(kept)),
        };
        for step in [dispatched, done] {
            store.step(holder, step, 200).await.expect("taken");
        }
        store.close().await.expect("closes");
    });
}

#[test]
fn a_tenants_key_is_dropped_once_it_is_said_that_this_is_meant() {
    let dir = tempfile::tempdir().expect("a folder");
    let data = text(dir.path());
    answer(dir.path(), "a");
    let report = || {
        let report = Tether::ok(&["store", "check", "--json", "--data-dir", data]);
        let report: Value = serde_json::from_str(&report).expect("JSON");
        ["jobs", "answers", "tenants", "unreadable"].map(|key| report[key].as_u64())
    };
    assert_eq!(report(), [1, 1, 1, 0].map(Some));
    let forget = ["store", "forget", "acme", "--data-dir", data];
    fails(&forget, USAGE, &["give --yes"]);
    assert_eq!(report(), [1, 1, 1, 0].map(Some), "nobody was asked");
    let running = open(&dir.path().join("orchestrator"));
    let meant = [&forget[..], &["--yes"]].concat();
    fails(&meant, FAILURE, &["in use by another process"]);
    drop(running);
    let dropped = Tether::ok(&[&meant[..], &["--json"]].concat());
    let dropped: Value = serde_json::from_str(&dropped).expect("JSON");
    assert_eq!(dropped["tenant"], "acme");
    assert_eq!(report(), [1, 1, 0, 1].map(Some));
    fails(&meant, FAILURE, &["no key of a tenant acme"]);
    fails(&["store", "forget", "a b", "--yes"], USAGE, &["<TENANT>"]);
}

#[test]
fn a_store_that_is_damaged_or_of_this_version_already_is_told_so() {
    let dir = tempfile::tempdir().expect("a folder");
    let data = text(dir.path());
    record(dir.path(), "a");
    let migrate = ["store", "migrate", "--dry-run", "--data-dir", data];
    assert!(Tether::ok(&migrate).contains("the latest"));
    let file = dir.path().join("orchestrator").join(STORE_FILE);
    let mut bytes = std::fs::read(&file).expect("read");
    bytes[100..4_096].fill(0xff);
    std::fs::write(&file, bytes).expect("written");
    let check = ["store", "check", "--data-dir", data];
    fails(&check, FAILURE, &["is damaged"]);
}

#[test]
fn dead_letters_are_asked_of_an_orchestrator_that_runs() {
    let dir = tempfile::tempdir().expect("a folder");
    let up = "start it with `tether up`";
    let ls = ["dlq", "ls", "--data-dir", text(dir.path())];
    fails(&ls, NOT_READY, &[up]);
    fails(&["dlq", "ls", "--limit", "0"], USAGE, &["--limit"]);
    fails(&["dlq", "show", "me"], USAGE, &["<JOB>"]);
    fails(&["dlq", "replay"], USAGE, &["<JOB>"]);
}
