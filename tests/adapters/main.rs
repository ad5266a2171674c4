//! A base and adapters over it in one worker, with real engines: what each says is never touched by
//! the others. (WRK-5) [T-ART-6]
//!
//! The references are models whose weights were added in plain loops
//! ([`tether_tiny_model::random_lora::merged`]), and the base alone in a worker of its own.

#[allow(dead_code, reason = "the worker's own tests use all of it")]
#[path = "../../worker/tests/worker/fixture.rs"]
mod fixture;

#[path = "../support/engines.rs"]
mod engines;

use fixture::{TestMesh, TestOrchestrator, TestWorker, order, publisher};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use tether_artifact_store::{Base, PackOptions, pack};
use tether_tiny_model::random_lora::merged;
use tether_tiny_model::{write_random_hf, write_random_lora};
use tether_wire::infer::{AnswerEvent, Input, WorkOrder};
use tether_wire::{CorrelationId, Digest};
use tether_worker::ModelState;
use tether_worker::engine::protocol::EngineKind;

const WEIGHTS: &str = "model.safetensors";
const PROMPTS: [&str; 4] = [
    "Hello",
    "What is the capital of France?",
    "Count to 20.",
    "one, two, three, and what comes then",
];

/// Tokens of an answer, and the bits of what was told of each.
type Said = Vec<(u32, Vec<u32>)>;

struct Model {
    name: String,
    folder: PathBuf,
    digest: Digest,
}

impl Model {
    fn packed(parent: &Path, name: &str, base: Option<&Self>) -> Self {
        let folder = parent.join(name);
        let options = PackOptions {
            base: base.map(|base| Base::read(&base.folder).expect("packed")),
            ..PackOptions::new(format!("{name}@1.0").parse().expect("valid"))
        };
        let packed = pack(&folder, options, &publisher(), &mut |_| ()).expect("packed");
        Self {
            name: name.to_owned(),
            folder,
            digest: packed.digest,
        }
    }

    fn order(&self, prompt: &str) -> WorkOrder {
        let mut order = order(0, self.digest, "");
        order.correlation = CorrelationId(rand::random());
        order.model = format!("{}@1.0", self.name).parse().expect("valid");
        order.input = Input::Text(prompt.to_owned());
        order.sampling.temperature = 0.0;
        order.sampling.top_logprobs = Some(2);
        order.sampling.max_tokens = Some(24);
        order
    }
}

/// A base, two adapters for it, and for each a model with the sum of both.
struct Shelf {
    _dir: TempDir,
    base: Model,
    adapters: [Model; 2],
    sums: [Model; 2],
}

impl Shelf {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("tempdir");
        let at = |name: &str| dir.path().join(name);
        write_random_hf(&at("base"), 7).expect("written");
        let base = Model::packed(dir.path(), "base", None);
        let adapters = [1, 2].map(|seed| {
            let name = format!("lora{seed}");
            write_random_lora(&at(&name), seed).expect("written");
            Model::packed(dir.path(), &name, Some(&base))
        });
        let sums = [0, 1].map(|n: usize| {
            let name = format!("sum{n}");
            write_random_hf(&at(&name), 7).expect("written");
            let read = |path: PathBuf| fs::read(path).expect("read");
            let sum = merged(
                &read(base.folder.join(WEIGHTS)),
                &read(adapters[n].folder.join("adapter_model.safetensors")),
            );
            fs::write(at(&name).join(WEIGHTS), sum.expect("added")).expect("written");
            Model::packed(dir.path(), &name, None)
        });
        Self {
            _dir: dir,
            base,
            adapters,
            sums,
        }
    }
}

async fn worker(mesh: &TestMesh, models: &[&Model], max_warm_adapters: usize) -> TestWorker {
    let folders: Vec<&Path> = models.iter().map(|it| it.folder.as_path()).collect();
    let worker = mesh
        .worker(&folders, |config| {
            config.engine.kind = EngineKind::Mistralrs;
            config.engine.threads = 1;
            config.slots = 16;
            config.memory_budget_mib = 4_096;
            config.max_warm_adapters = max_warm_adapters;
        })
        .await;
    worker
        .models(|states| {
            let is_settled = |it: &ModelState| ["warm", "cold"].contains(&it.as_str());
            states.iter().all(is_settled)
        })
        .await;
    worker
}

/// The answers to all prompts, asked for at once.
async fn answers(
    orchestrator: &TestOrchestrator,
    worker: &TestWorker,
    models: &[&Model],
) -> Vec<Vec<Said>> {
    let mut calls = Vec::new();
    for model in models {
        for prompt in PROMPTS {
            let order = model.order(prompt);
            calls.push(orchestrator.order(&worker.worker, &order).await);
        }
    }
    let mut said = Vec::new();
    for call in calls {
        let events = call.events().await.expect("answered");
        assert!(matches!(events.last(), Some(AnswerEvent::Done(_))));
        let chunks = events.iter().filter_map(|event| match event {
            AnswerEvent::Chunk(chunk) => Some(chunk),
            _ => None,
        });
        let told = chunks.flat_map(|chunk| chunk.tokens.iter().zip(&chunk.logprobs));
        let bits = told.map(|(token, told)| {
            let tops = told.top.iter().map(|top| top.logprob.to_bits());
            (*token, tops.collect())
        });
        said.push(bits.collect());
    }
    said.chunks(PROMPTS.len()).map(<[Said]>::to_vec).collect()
}

fn tokens(said: &[Said]) -> Vec<Vec<u32>> {
    let each = said.iter();
    each.map(|answer| answer.iter().map(|(token, _)| *token).collect())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_base_is_never_touched_by_its_adapters_nor_they_by_one_another() {
    let (mesh, shelf) = (TestMesh::new(), Shelf::new());
    let orchestrator = mesh.orchestrator().await;
    let [first, second] = &shelf.adapters;
    // Alone, where there is no adapter.
    let alone = worker(&mesh, &[&shelf.base, &shelf.sums[0], &shelf.sums[1]], 0).await;
    let [base, sum1, sum2] = [&shelf.base, &shelf.sums[0], &shelf.sums[1]];
    let references = answers(&orchestrator, &alone, &[base, sum1, sum2]).await;
    drop(alone);
    let worker = worker(&mesh, &[base, first, second], 2).await;
    let before = answers(&orchestrator, &worker, &[base]).await;
    assert_eq!(before[0], references[0], "to the last bit");
    // All three at once.
    let said = answers(&orchestrator, &worker, &[base, first, second]).await;
    assert_eq!(said[0], references[0], "to the last bit, while they answer");
    for n in [1, 2] {
        assert_eq!(tokens(&said[n]), tokens(&references[n]), "adapter {n}");
    }
    for (one, other) in [(0, 1), (0, 2), (1, 2)] {
        for (one, other) in tokens(&said[one]).iter().zip(tokens(&said[other])) {
            assert_ne!(*one, other, "they are three models");
        }
    }
    let again = answers(&orchestrator, &worker, &[second, base, first]).await;
    assert_eq!(again, [said[2].clone(), said[0].clone(), said[1].clone()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adapter_that_gave_way_and_came_back_says_the_same() {
    let (mesh, shelf) = (TestMesh::new(), Shelf::new());
    let orchestrator = mesh.orchestrator().await;
    let [first, second] = &shelf.adapters;
    let worker = worker(&mesh, &[&shelf.base, first, second], 1).await;
    let warm = || {
        let models = worker.worker.status().models;
        let warm = models[1..].iter();
        warm.filter(|it| it.report().state == "warm").count()
    };
    let base = answers(&orchestrator, &worker, &[&shelf.base]).await;
    let one = answers(&orchestrator, &worker, &[first]).await;
    let two = answers(&orchestrator, &worker, &[second]).await;
    assert_ne!(one, two);
    for _ in 0..2 {
        for (adapter, said) in [(first, &one), (second, &two)] {
            assert_eq!(answers(&orchestrator, &worker, &[adapter]).await, *said);
            assert!(warm() <= 1, "{} are warm", warm());
        }
    }
    assert_eq!(answers(&orchestrator, &worker, &[&shelf.base]).await, base);
}
