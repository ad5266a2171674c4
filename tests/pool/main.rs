//! Ten models on a budget for three, with real engines, asked in the manner of Zipf. (WRK-5)
//!
//! As a test it is short, and asserts what must hold. `ops/bench/run pool` runs it longer and takes
//! the figures: `TETHER_POOL_REPORT` names the file that they are written to, `TETHER_POOL_REQUESTS`
//! says how many requests.

#[allow(dead_code, reason = "the worker's own tests use all of it")]
#[path = "../../worker/tests/worker/fixture.rs"]
mod fixture;

#[path = "../support/engines.rs"]
mod engines;

use fixture::{TestMesh, order, patiently, publisher, until};
use rand::{Rng, SeedableRng};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tether_artifact_store::{PackOptions, pack};
use tether_tiny_model::random_hf::RANDOM_SHAPE;
use tether_tiny_model::shape::Shape;
use tether_tiny_model::write_random_hf_of;
use tether_wire::infer::{AnswerEvent, Input};
use tether_wire::{Digest, NodeKey};
use tether_worker::engine::protocol::EngineKind;
use tether_worker::{ModelConfig, ModelState, ModelStatus, Worker, WorkerConfig};

const MODELS: usize = 10;
const ROOM: usize = 3;
/// Requests of the test; a benchmark says its own number.
const REQUESTS: usize = 12;
const MIB: u64 = 1024 * 1024;

/// 38 MiB of weights, so that a load and what it takes can be seen.
const SHAPE: Shape = Shape {
    hidden: 512,
    layers: 4,
    heads: 8,
    kv_heads: 4,
    head_width: 64,
    feed_forward: 1_024,
    ..RANDOM_SHAPE
};

struct Model {
    dir: PathBuf,
    digest: Digest,
    name: String,
}

fn models(parent: &Path) -> Vec<Model> {
    (0..MODELS)
        .map(|n| {
            let (name, dir) = (format!("m{n}@1.0"), parent.join(n.to_string()));
            write_random_hf_of(&dir, n as u64, &SHAPE).expect("written");
            let options = PackOptions::new(name.parse().expect("valid"));
            let packed = pack(&dir, options, &publisher(), &mut |_| ()).expect("packed");
            Model {
                digest: packed.digest,
                dir,
                name,
            }
        })
        .collect()
}

async fn worker(mesh: &TestMesh, data: &Path, models: &[Model], budget: u64) -> Worker {
    let key = NodeKey::from_seed([78; 32]);
    let change = |config: &mut WorkerConfig| {
        config.models = (models.iter())
            .map(|model| ModelConfig::at(&model.dir))
            .collect();
        config.engine.kind = EngineKind::Mistralrs;
        // Alone a model has as many processes as there are cores, beside nine others one.
        config.engine.threads = 1;
        config.memory_budget_mib = budget.div_ceil(MIB);
    };
    let worker = mesh.worker_in(data, key, &[], change).await;
    let settled = until(worker.models(), |models| {
        let is_settled = |it: &ModelStatus| ["warm", "cold"].contains(&it.state.as_str());
        models.iter().all(is_settled).then_some(())
    });
    let settled = tokio::time::timeout(Duration::from_secs(300), settled);
    settled
        .await
        .expect("all are known, and loaded as far as there is room");
    worker
}

fn engines(worker: &Worker) -> Vec<(usize, u32)> {
    let models = worker.status().models;
    let serving = models
        .iter()
        .enumerate()
        .filter_map(|(n, it)| match &it.state {
            ModelState::Serving(served) => Some((n, *served.pids.first()?)),
            _ => None,
        });
    serving.collect()
}

/// What of a process is in memory and nowhere else.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// Share of requests that find their model, with room for three: by the best that could be done,
/// knowing the future, or by forgetting the least recently used.
fn hits(sequence: &[usize], knows_future: bool) -> f64 {
    let mut kept: Vec<usize> = Vec::new();
    let mut hits = 0;
    for (at, model) in sequence.iter().enumerate() {
        if let Some(place) = kept.iter().position(|it| it == model) {
            hits += 1;
            kept.remove(place);
        } else if kept.len() == ROOM {
            let next = |it: &usize| {
                let rest = &sequence[at..];
                rest.iter()
                    .position(|later| later == it)
                    .unwrap_or(usize::MAX)
            };
            let goes = if knows_future {
                (0..ROOM)
                    .max_by_key(|place| next(&kept[*place]))
                    .unwrap_or(0)
            } else {
                0
            };
            kept.remove(goes);
        }
        kept.push(*model);
    }
    f64::from(hits) / sequence.len() as f64
}

/// The n-th model is asked for in proportion to 1 / n.
fn zipf(requests: usize) -> Vec<usize> {
    let mut chance = rand_chacha::ChaCha8Rng::seed_from_u64(4);
    let weights: Vec<f64> = (1..=MODELS).map(|n| 1.0 / n as f64).collect();
    let sum: f64 = weights.iter().sum();
    let draw = |_| {
        let mut left = chance.random_range(0.0..sum);
        weights
            .iter()
            .position(|weight| {
                left -= weight;
                left < 0.0
            })
            .unwrap_or(MODELS - 1)
    };
    (0..requests).map(draw).collect()
}

fn percentile(sorted: &[u64], percent: usize) -> u64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get(last * percent / 100).copied().unwrap_or(0)
}

#[test]
fn ten_models_are_served_on_a_budget_for_three() {
    let requests = std::env::var("TETHER_POOL_REQUESTS").ok();
    let requests = requests
        .and_then(|text| text.parse().ok())
        .unwrap_or(REQUESTS);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(run(requests));
}

async fn run(requests: usize) {
    let parent = tempfile::tempdir().expect("tempdir");
    let models = models(parent.path());
    let data = parent.path().join("data");
    let mesh = TestMesh::new();
    // What a model takes is seen once, and remembered.
    for model in &models {
        let one = std::slice::from_ref(model);
        let first = worker(&mesh, &data, one, 4_096 * MIB).await;
        first.drain(Duration::from_secs(5)).await;
    }
    let need = {
        let first = worker(&mesh, &data, &models[..1], 4_096 * MIB).await;
        let report = first.status().models[0].report();
        let (_, processes) = report.processes.expect("known");
        let need = report.memory_bytes.expect("seen") / u64::from(processes);
        first.drain(Duration::from_secs(5)).await;
        need
    };
    let budget = need * ROOM as u64 + need / 2;
    let orchestrator = mesh.orchestrator().await;
    let worker = worker(&mesh, &data, &models, budget).await;
    assert_eq!(engines(&worker).len(), ROOM, "as many as there is room for");

    let sequence = zipf(requests);
    let (mut found, mut waits, mut evictions, mut gave_back) = (0, Vec::new(), 0, Vec::new());
    let mut most = 0;
    for (n, model) in sequence.iter().enumerate() {
        let before = engines(&worker);
        let sizes: Vec<(u32, u64)> = before
            .iter()
            .map(|(_, pid)| (*pid, resident(*pid)))
            .collect();
        most = most.max(sizes.iter().map(|(_, bytes)| bytes).sum::<u64>());
        let is_warm = before.iter().any(|(at, _)| at == model);
        found += u32::from(is_warm);
        let mut order = order(0, models[*model].digest, "x");
        order.correlation.0[..8].copy_from_slice(&(n as u64).to_be_bytes());
        order.model = models[*model].name.parse().expect("valid");
        order.input = Input::Text("Count to 3.".to_owned());
        order.sampling.max_tokens = Some(2);
        let began = Instant::now();
        let mut call = orchestrator.order(&worker, &order).await;
        loop {
            match patiently(call.event()).await.expect("answered") {
                Some(AnswerEvent::Done(_)) => break,
                Some(_) => {}
                None => panic!("a stream without an end"),
            }
        }
        let took_ms = u64::try_from(began.elapsed().as_millis()).expect("short");
        if !is_warm {
            waits.push(took_ms);
        }
        let after = engines(&worker);
        assert!(after.len() <= ROOM, "{} are loaded", after.len());
        for (pid, bytes) in sizes {
            if !after.iter().any(|(_, it)| *it == pid) {
                evictions += 1;
                gave_back.push(bytes / MIB);
                assert_eq!(resident(pid), 0, "its memory came back");
            }
        }
    }
    waits.sort_unstable();
    gave_back.sort_unstable();
    let share = f64::from(found) / requests as f64;
    let (best, lru) = (hits(&sequence, true), hits(&sequence, false));
    assert!(
        share <= best + ROOM as f64 / requests as f64,
        "{share} is better than {best}"
    );
    let (p50, p99) = (percentile(&waits, 50), percentile(&waits, 99));
    let back = percentile(&gave_back, 50);
    let row = |name: &str, value: String| format!("| {name} | {value} |\n");
    let mut table = String::from("| ten models, room for three, Zipf | |\n|---|---|\n");
    table += &row("requests, one after the other", requests.to_string());
    table += &row("found loaded", format!("{:.1} %", share * 100.0));
    table += &row(
        "plain LRU of three, from nothing",
        format!("{:.1} %", lru * 100.0),
    );
    table += &row(
        "the best possible, knowing the future",
        format!("{:.1} %", best * 100.0),
    );
    table += &row("models that had to go", evictions.to_string());
    table += &row(
        "answer of a cold model, p50 / p99",
        format!("{p50} / {p99} ms"),
    );
    table += &row(
        "memory given back by each that went, median",
        format!("{back} MiB"),
    );
    table += &row(
        "left of it afterwards",
        "0 MiB: its process is gone".to_owned(),
    );
    let (most, budget) = (most / MIB, budget / MIB);
    table += &row(
        "most in memory at once, of the budget",
        format!("{most} of {budget} MiB"),
    );
    eprintln!("{table}");
    if let Ok(path) = std::env::var("TETHER_POOL_REPORT") {
        let json = serde_json::json!({
            "requests": requests, "found": share, "lru": lru, "best": best,
            "evictions": evictions, "cold_ms": waits, "gave_back_mib": gave_back,
            "most_mib": most, "budget_mib": budget,
        });
        std::fs::write(path, format!("{table}\n{json}\n")).expect("written");
    }
    worker.drain(Duration::from_secs(5)).await;
}
