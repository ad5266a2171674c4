//! Jobs that each store persists in a second, beside what SQLite alone commits.
//!
//! `ops/bench/run jobs` prints a table, and as the last line JSON. Each job is four operations, each on
//! the disk before the next: reserved, dispatched, streaming, done with its answer of some 4 KB, sealed.
//! Several are under way at once, as in an orchestrator, and share commits. `cargo test` runs
//! everything once, for a moment.
#![allow(missing_docs, reason = "a benchmark is no library")]

#[path = "support/machine.rs"]
mod machine;
#[path = "../../tests/support/postgres.rs"]
mod postgres_server;

use futures_util::future::join_all;
use machine::machine;
use postgres_server::Server;
use rusqlite::Connection;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tether_orchestrator::job::{Answer, NewJob, Step};
use tether_orchestrator::store::postgres::{Place, PostgresStore};
use tether_orchestrator::store::sqlite::SqliteStore;
use tether_orchestrator::store::{Holder, MetadataStore, Opening, Reserved};
use tether_wire::infer::{Finish, Usage};
use tether_wire::{CorrelationId, Digest, NodeId, TenantId};

/// Jobs that are under way at once.
const AT_ONCE: [usize; 4] = [1, 16, 64, 256];
/// Rows of one commit, where they are grouped.
const GROUP: usize = 256;

/// A line of the table.
struct Line {
    what: String,
    at_once: usize,
    per_second: f64,
    commits_per_second: f64,
}

fn new_job(n: usize, tenant: &TenantId) -> NewJob {
    let token = format!("{n}");
    NewJob {
        correlation: CorrelationId::derive(tenant, &token),
        tenant: tenant.clone(),
        retry_token: token,
        keyed: true,
        request_hash: Digest([1; 32]),
        model: "tiny@1.0".parse().expect("valid"),
        seed: 7,
        owner: NodeId([5; 32]),
        lease_until_ms: u64::MAX >> 1,
        deadline_ms: u64::MAX >> 1,
        max_tokens: Some(64),
        now_ms: 1,
    }
}

/// One job from its reservation to its end.
async fn whole_job(store: &dyn MetadataStore, n: usize, tenant: &TenantId, answer: &Arc<Answer>) {
    let job = new_job(n, tenant);
    let mut holder = Holder {
        job: job.correlation,
        owner: job.owner,
        fence: 0,
    };
    let reserved = store.reserve(job).await.expect("reserved");
    let Reserved::New { fence, .. } = reserved else {
        panic!("{reserved:?}")
    };
    holder.fence = fence;
    let usage = Usage {
        prompt_tokens: 9,
        completion_tokens: 64,
    };
    for step in [
        Step::Dispatched {
            worker: NodeId([3; 32]),
            digest: Digest([7; 32]),
            attempt: 1,
            numerics_class: "x86-64-v3".to_owned(),
        },
        Step::Streaming,
        Step::Done {
            finish: Finish::Stop,
            usage,
            answer: Some(answer.clone()),
        },
    ] {
        store.step(holder, step, 2).await.expect("taken");
    }
}

/// Runs jobs, so many at once, for a while.
async fn measure(
    what: &str,
    store: &dyn MetadataStore,
    commits: &AtomicUsize,
    next: &AtomicUsize,
    at_once: usize,
    time: Duration,
) -> Line {
    let tenant = TenantId::new("acme").expect("valid");
    let event = vec![7; 64];
    let answer = Answer::of(tenant.clone(), std::iter::repeat_n(event.as_slice(), 64));
    let answer = Arc::new(answer.expect("short"));
    let (before, began) = (commits.load(Ordering::Relaxed), Instant::now());
    let one = async || {
        let mut done = 0_usize;
        while began.elapsed() < time {
            let n = next.fetch_add(1, Ordering::Relaxed);
            whole_job(store, n, &tenant, &answer).await;
            done += 1;
        }
        done
    };
    let done: usize = join_all((0..at_once).map(|_| one())).await.iter().sum();
    let seconds = began.elapsed().as_secs_f64();
    let commits = commits.load(Ordering::Relaxed) - before;
    Line {
        what: what.to_owned(),
        at_once,
        per_second: done as f64 / seconds,
        commits_per_second: commits as f64 / seconds,
    }
}

fn opening(folder: &Path, commits: &Arc<AtomicUsize>) -> Opening {
    let counted = commits.clone();
    Opening {
        on_commit: Box::new(move |_, _| {
            counted.fetch_add(1, Ordering::Relaxed);
        }),
        ..Opening::in_folder(folder, 1)
    }
}

/// SQLite alone, with the settings of the store: rows of the size of a job's, so many in one commit.
fn raw_sqlite(folder: &Path, rows: usize, time: Duration) -> Line {
    let conn = Connection::open(folder.join(format!("raw-{rows}.sqlite"))).expect("opens");
    conn.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
         CREATE TABLE raw (id INTEGER PRIMARY KEY, bytes BLOB NOT NULL) STRICT;",
    )
    .expect("made");
    let mut insert = (conn.prepare("INSERT INTO raw (bytes) VALUES (?1)")).expect("valid");
    let bytes = vec![7; 400];
    let (mut commits, began) = (0_usize, Instant::now());
    while began.elapsed() < time {
        conn.execute_batch("BEGIN IMMEDIATE").expect("begun");
        for _ in 0..rows {
            insert.execute([&bytes]).expect("inserted");
        }
        conn.execute_batch("COMMIT").expect("committed");
        commits += 1;
    }
    let seconds = began.elapsed().as_secs_f64();
    Line {
        what: "SQLite alone, rows".to_owned(),
        at_once: rows,
        per_second: (commits * rows) as f64 / seconds,
        commits_per_second: commits as f64 / seconds,
    }
}

fn main() {
    // Cargo says so when it measures, and not when it tests.
    let is_measured = std::env::args().any(|it| it == "--bench");
    let time = Duration::from_millis(if is_measured { 3_000 } else { 20 });
    let folder = tempfile::tempdir().expect("a folder");
    let mut table: Vec<Line> = [1, GROUP]
        .map(|rows| raw_sqlite(folder.path(), rows, time))
        .into();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let (commits, next) = (Arc::new(AtomicUsize::new(0)), AtomicUsize::new(0));
    runtime.block_on(async {
        let path = folder.path().join("store.sqlite");
        let store = SqliteStore::open(&path, opening(folder.path(), &commits)).expect("opens");
        for at_once in AT_ONCE {
            let what = "SQLite store, whole jobs";
            table.push(measure(what, &store, &commits, &next, at_once, time).await);
        }
        store.close().await.expect("closes");
    });
    match Server::start() {
        Err(missing) => eprintln!("PostgreSQL is left out: {missing}"),
        Ok(server) => runtime.block_on(async {
            let own = tempfile::tempdir().expect("a folder");
            let place = Place::new(&server.database("bench")).expect("valid");
            let opening = opening(own.path(), &commits);
            let store = PostgresStore::connect(place, opening).await.expect("opens");
            for at_once in AT_ONCE {
                let what = "PostgreSQL store, whole jobs";
                table.push(measure(what, &store, &commits, &next, at_once, time).await);
            }
            store.close().await.expect("closes");
        }),
    }
    print(&table);
}

fn print(table: &[Line]) {
    println!("{}.\n", machine());
    println!("| | at once | per second | commits per second |\n|---|---|---|---|");
    let mut json = Vec::new();
    for line in table {
        let Line { what, at_once, .. } = line;
        let (per_second, commits) = (line.per_second, line.commits_per_second);
        println!("| {what} | {at_once} | {per_second:.0} | {commits:.0} |");
        json.push(format!(
            "{{\"what\":\"{what}\",\"at_once\":{at_once},\"per_second\":{per_second:.1},\
             \"commits_per_second\":{commits:.1}}}"
        ));
    }
    println!("[{}]", json.join(","));
}
