//! Several orchestrators with one store: a job has one owner at a time, and another one when that is
//! lost. (FED-1) [T-INF-13]

use crate::mesh::{Answer, Mesh, Says, Worker, key, request, run_of, submitted, within};
use crate::script::{Script, letter};
use std::sync::Arc;
use tempfile::TempDir;
use tether_net::Link;
use tether_net::testing::loopback;
use tether_orchestrator::config::StoreConfig;
use tether_orchestrator::job::{Job, JobState, NewJob, Step};
use tether_orchestrator::store::{Holder, MetadataStore};
use tether_orchestrator::{Orchestrator, OrchestratorConfig, start, start_with_store};
use tether_telemetry::metrics::{OrchestratorMetrics, Registry};
use tether_wire::infer::{InferRequest, Resume};
use tether_wire::rpc::{Code, method};
use tether_wire::{Digest, NodeId, Role, codec};

/// Another orchestrator beside that of a mesh, which knows its worker.
pub struct Second {
    pub orchestrator: Orchestrator,
    pub link: Link,
    _data: TempDir,
}

impl Second {
    /// With the store of the mesh's.
    async fn start(mesh: &Mesh, worker: &Worker) -> Self {
        let second = Self::without_workers(mesh).await;
        second.meet(worker).await;
        second
    }

    /// The same, of a second that was just started: it knows no worker.
    async fn without_workers(mesh: &Mesh) -> Self {
        let shared = Some(mesh.orchestrator.store().clone());
        Self::with(mesh, StoreConfig::default(), shared).await
    }

    /// With a store that is configured.
    pub async fn configured(mesh: &Mesh, worker: &Worker, store: StoreConfig) -> Self {
        let second = Self::with(mesh, store, None).await;
        second.meet(worker).await;
        second
    }

    async fn with(mesh: &Mesh, store: StoreConfig, shared: Option<Arc<dyn MetadataStore>>) -> Self {
        let data = tempfile::tempdir().expect("a folder");
        std::fs::write(data.path().join("tenants.toml"), "").expect("written");
        let config = OrchestratorConfig {
            admin: loopback(),
            store,
            ..OrchestratorConfig::default()
        };
        let (node, _) = mesh.local.config(key(&mesh.local, 4), Role::Orchestrator);
        let registry = Registry::new();
        let metrics = OrchestratorMetrics::register(&registry);
        let orchestrator = match shared {
            Some(store) => {
                start_with_store(config, data.path(), node, store, metrics, registry).await
            }
            None => start(config, data.path(), node, metrics, registry).await,
        };
        let orchestrator = orchestrator.expect("an orchestrator");
        let to = orchestrator.id();
        let link = within("a link", mesh.gateway.link(to, Role::Orchestrator)).await;
        Self {
            orchestrator,
            link: link.expect("linked"),
            _data: data,
        }
    }

    /// Hears of a worker.
    async fn meet(&self, worker: &Worker) {
        let orchestrator = &self.orchestrator;
        let to = orchestrator.id();
        let presence = within("a link", worker.node.link(to, Role::Orchestrator)).await;
        let presence = presence.expect("linked");
        let mut presence = (presence.call(method::PRESENCE, None, &[]).await).expect("called");
        let push = worker.seal(&worker.says(9));
        (presence.send(&codec::encode(&push)).await).expect("sent");
        let mut changes = orchestrator.fleet().changes();
        within("the worker is there", async {
            while orchestrator.fleet_snapshot().worker(&worker.id()).is_none() {
                changes.changed().await.expect("the keeper runs");
            }
        })
        .await;
    }

    pub async fn submit(&self, request: &InferRequest) -> Answer {
        let mut answer = submitted(&self.link, request).await;
        answer.rest().await;
        answer
    }
}

async fn until(mesh: &Mesh, what: &str, is_so: impl Fn(&Job) -> bool) {
    within(what, async {
        while !is_so(&mesh.job(&request("a")).await) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

fn lost(orchestrator: NodeId) -> InferRequest {
    InferRequest {
        resume: Some(Resume {
            lost: vec![orchestrator],
            started: None,
        }),
        ..request("a")
    }
}

#[tokio::test]
async fn a_request_that_another_orchestrator_runs_is_sent_there_and_after_its_answer_needs_not() {
    let mesh = Mesh::start().await;
    let worker = mesh.worker(10, Script::Paused(3)).await;
    let second = Second::start(&mesh, &worker).await;
    let mut first = submitted(&mesh.link().await, &request("a")).await;
    first.next().await.expect("accepted");
    first.next().await.expect("a piece");
    let elsewhere = second.submit(&request("a")).await;
    assert_eq!(elsewhere.failed().code, Code::Elsewhere);
    let owner = mesh.orchestrator.id().to_hex();
    assert_eq!(elsewhere.failed().param.as_ref(), Some(&owner));
    worker.scripted.turn.send_replace(true);
    first.rest().await;
    assert!(first.is_whole(), "{:?}", first.error);
    let again = second.submit(&request("a")).await;
    assert_eq!(again.events, first.events, "what is kept is kept for all");
    assert_eq!(worker.scripted.orders(), 1);
}

#[tokio::test]
async fn an_owner_that_a_gateway_lost_loses_the_job_and_what_it_still_gives_does_not_count() {
    let mesh = Mesh::start().await;
    let worker = mesh.worker(10, Script::Paused(3)).await;
    let second = Second::start(&mesh, &worker).await;
    let mut first = submitted(&mesh.link().await, &request("a")).await;
    first.next().await.expect("accepted");
    first.next().await.expect("a piece");
    until(&mesh, "it streams", |job| job.state == JobState::Streaming).await;
    let mut taken = submitted(&second.link, &lost(mesh.orchestrator.id())).await;
    taken.next().await.expect("accepted");
    let job = mesh.job(&request("a")).await;
    let owner = second.orchestrator.id();
    assert_eq!((job.owner, run_of(&job), job.attempts), (owner, 2, 2));
    worker.scripted.turn.send_replace(true);
    first.rest().await;
    assert_eq!(first.failed().code, Code::Elsewhere, "{:?}", first.events);
    taken.rest().await;
    assert!(taken.is_whole(), "{:?}", taken.error);
    let job = mesh.job(&request("a")).await;
    assert_eq!((job.state, job.owner), (JobState::Done, owner));
    assert_eq!(job.usage.completion_tokens, 3, "one bill");
}

#[tokio::test]
async fn a_caller_that_lost_the_owner_is_not_sent_back_to_it_by_one_that_knows_no_worker_yet() {
    let mesh = Mesh::start().await;
    let worker = mesh.worker(10, Script::Paused(3)).await;
    let second = Second::without_workers(&mesh).await;
    let mut first = submitted(&mesh.link().await, &request("a")).await;
    first.next().await.expect("accepted");
    let sent = second.submit(&request("a")).await;
    assert_eq!(sent.failed().code, Code::Elsewhere, "{:?}", sent.error);
    let told = second.submit(&lost(mesh.orchestrator.id())).await;
    assert_ne!(told.failed().code, Code::Elsewhere, "{:?}", told.error);
    worker.scripted.turn.send_replace(true);
    first.rest().await;
    assert!(first.is_whole(), "{:?}", first.error);
}

#[tokio::test]
async fn a_job_whose_orchestrator_lives_no_more_goes_on_at_whoever_is_asked() {
    for is_streaming in [false, true] {
        let mesh = Mesh::start().await;
        let worker = mesh.worker(10, Script::Letters(4)).await;
        let (asked, dead) = (request("a"), NodeId([9; 32]));
        let store = mesh.orchestrator.store();
        let body = (&asked.model, &asked.input, &asked.sampling, &asked.output);
        let left = NewJob {
            correlation: asked.correlation,
            tenant: asked.tenant.clone(),
            retry_token: asked.retry_token.clone(),
            keyed: true,
            request_hash: Digest::of(&codec::encode(&body)),
            model: "tiny@1.0".parse().expect("valid"),
            seed: 77,
            owner: dead,
            lease_until_ms: u64::MAX / 4,
            deadline_ms: 1,
            max_tokens: None,
            now_ms: 5,
        };
        store.reserve(left).await.expect("works");
        let holder = Holder {
            job: asked.correlation,
            owner: dead,
            fence: 5,
        };
        if is_streaming {
            let order = Step::Dispatched {
                worker: NodeId([8; 32]),
                digest: crate::mesh::DIGEST,
                attempt: 1,
                numerics_class: String::new(),
            };
            for step in [order, Step::Streaming] {
                store.step(holder, step, 6).await.expect("taken");
            }
        }
        let answer = mesh.submit(&asked).await;
        assert!(answer.is_whole(), "{:?}", answer.error);
        assert_eq!(answer.text(), (0..4).map(letter).collect::<String>());
        let job = mesh.job(&asked).await;
        assert_eq!((job.state, job.fence), (JobState::Done, 6));
        assert_eq!((job.seed, job.created_ms), (77, 5), "as it began");
        assert_eq!(job.attempts, 1 + u32::from(is_streaming));
        let order = worker.scripted.last.borrow().clone().expect("an order");
        assert_eq!((order.fence, order.sampling.seed), (6, Some(77)));
        let line = "tether_orchestrator_taken_over_total{reason=\"lease-over\"}";
        assert_eq!(mesh.metric(line), 1);
    }
}

#[tokio::test]
async fn a_caller_that_goes_away_from_a_job_that_was_taken_over_ends_it() {
    let mesh = Mesh::start().await;
    let worker = mesh.worker(10, Script::Paused(3)).await;
    let second = Second::start(&mesh, &worker).await;
    let mut first = submitted(&mesh.link().await, &request("a")).await;
    first.next().await.expect("accepted");
    first.next().await.expect("a piece");
    until(&mesh, "it streams", |job| job.state == JobState::Streaming).await;
    let taken = submitted(&second.link, &lost(mesh.orchestrator.id())).await;
    until(&mesh, "it is taken over", |job| job.attempts == 2).await;
    drop(taken);
    until(&mesh, "it is recorded", |job| !job.state.is_open()).await;
    assert_eq!(mesh.job(&request("a")).await.state, JobState::Cancelled);
}

#[tokio::test]
async fn another_caller_who_brings_the_key_first_gets_the_answer_that_was_begun() {
    let mesh = Mesh::start().await;
    let class =
        |name: &'static str| move |says: &mut Says| says.models()[0].numerics_class = name.into();
    let begun = mesh.worker_with(10, Script::Paused(3), class("one")).await;
    let mut first = submitted(&mesh.link().await, &request("a")).await;
    first.next().await.expect("accepted");
    first.next().await.expect("a piece");
    until(&mesh, "it streams", |job| job.state == JobState::Streaming).await;
    let better = mesh.worker_with(11, Script::Answer(3), class("two")).await;
    let second = Second::start(&mesh, &better).await;
    second.meet(&begun).await;
    begun.scripted.turn.send_replace(true);
    let owner = mesh.orchestrator.id();
    let again = second.submit(&lost(owner)).await;
    assert!(again.is_whole(), "{:?}", again.error);
    assert_eq!(again.worker(), Some(begun.id()), "it computes the same");
    assert_eq!(better.scripted.orders(), 0);
}
