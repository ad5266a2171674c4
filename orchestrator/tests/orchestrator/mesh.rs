//! A mesh for tests: a real DHT on loopback, a real orchestrator, a gateway's node, and workers
//! whose answers are scripted.

use crate::script::{Script, Scripted};
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;
pub use tether_net::testing::PATIENCE;
use tether_net::testing::{LocalMesh, loopback, now_ms, region};
use tether_net::{BoxFuture, Call, Incoming, Link, Node, NodeConfig, Service};
use tether_orchestrator::job::Job;
use tether_orchestrator::orchestrator::STORE_FILE;
use tether_orchestrator::store::sqlite::SqliteStore;
use tether_orchestrator::store::{MetadataStore, Opening};
use tether_orchestrator::{Orchestrator, OrchestratorConfig, start_with_store};
use tether_telemetry::metrics::{OrchestratorMetrics, Registry};
use tether_wire::beat::NodeState;
use tether_wire::card::{ModelOffer, WorkerCard};
use tether_wire::codec;
use tether_wire::grant::Access;
use tether_wire::infer::{AnswerEvent, InferRequest, Input, MAX_EVENT_BYTES, Prefix, Sampling};
use tether_wire::rpc::{Code, RpcError, method};
use tether_wire::spread::Push;
use tether_wire::{
    Beat, Card, CorrelationId, Digest, MeshId, NodeId, NodeKey, Region, Role, Signed, TenantId,
    Tier,
};

pub const DIGEST: Digest = Digest([7; 32]);

pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("waited in vain: {what}"))
}

/// A worker's key, the same for the same number in one mesh.
pub fn key(local: &LocalMesh, n: u8) -> NodeKey {
    let mut seed = local.mesh.id.0;
    seed[0] = n;
    NodeKey::from_seed(seed)
}

struct NoService;

impl Service for NoService {
    fn serve(&self, _: Incoming) -> BoxFuture<'static, Result<(), RpcError>> {
        Box::pin(async { Err(RpcError::new(Code::Unimplemented, "nothing here")) })
    }
}

/// For nodes that only call.
pub fn no_service() -> Arc<dyn Service> {
    Arc::new(NoService)
}

pub struct Mesh {
    pub local: LocalMesh,
    pub data: TempDir,
    pub registry: Registry,
    pub orchestrator: Orchestrator,
    pub gateway: Node,
}

impl Mesh {
    pub async fn start() -> Self {
        Self::with(|_| ()).await
    }

    pub async fn with(change: impl FnOnce(&mut OrchestratorConfig)) -> Self {
        Self::with_store(change, |store| store).await
    }

    /// With something between the orchestrator and its store.
    pub async fn with_store(
        change: impl FnOnce(&mut OrchestratorConfig),
        wrap: impl FnOnce(Arc<dyn MetadataStore>) -> Arc<dyn MetadataStore>,
    ) -> Self {
        let data = tempfile::tempdir().expect("a folder");
        Self::in_folder(data, change, wrap).await
    }

    /// With a policy, in `policy.json` of its data folder.
    pub async fn with_policy(policy: &str, change: impl FnOnce(&mut OrchestratorConfig)) -> Self {
        let data = tempfile::tempdir().expect("a folder");
        std::fs::write(data.path().join("policy.json"), policy).expect("written");
        let change = |config: &mut OrchestratorConfig| {
            config.policy.file = Some("policy.json".into());
            change(config);
        };
        Self::in_folder(data, change, |store| store).await
    }

    async fn in_folder(
        data: TempDir,
        change: impl FnOnce(&mut OrchestratorConfig),
        wrap: impl FnOnce(Arc<dyn MetadataStore>) -> Arc<dyn MetadataStore>,
    ) -> Self {
        let local = LocalMesh::new(Access::Invite);
        std::fs::write(data.path().join("tenants.toml"), "").expect("written");
        let registry = Registry::new();
        let mut config = config();
        change(&mut config);
        let (node, _) = local.config(key(&local, 2), Role::Orchestrator);
        let orchestrator = boot(config, data.path(), node, &registry, wrap).await;
        let (gateway, _) = local.config(key(&local, 3), Role::Gateway);
        let gateway = Node::start(gateway, Arc::new(NoService))
            .await
            .expect("a gateway");
        Self {
            local,
            data,
            registry,
            orchestrator,
            gateway,
        }
    }

    pub async fn restart(self, change: impl FnOnce(&mut OrchestratorConfig)) -> Self {
        self.orchestrator.shutdown().await.expect("stops");
        let mut config = config();
        change(&mut config);
        let (node, _) = (self.local).config(key(&self.local, 2), Role::Orchestrator);
        let registry = Registry::new();
        let orchestrator = boot(config, self.data.path(), node, &registry, |store| store).await;
        Self {
            orchestrator,
            registry,
            ..self
        }
    }

    /// A worker that is there and routable, and answers by its script. `n` from 10.
    pub async fn worker(&self, n: u8, script: Script) -> Worker {
        self.worker_with(n, script, |_| ()).await
    }

    /// A worker that is chosen first while others are as `worker_with(.., |b| cold)`.
    pub async fn worker_with(
        &self,
        n: u8,
        script: Script,
        change: impl FnOnce(&mut Says),
    ) -> Worker {
        let mut worker = self.silent_worker(n, script).await;
        let mut says = worker.says(1);
        change(&mut says);
        worker.send(&says).await;
        let id = worker.id();
        self.fleet("the worker is there", move |fleet| {
            fleet.worker(&id).is_some()
        })
        .await;
        worker
    }

    /// A worker with a link and a presence call, of which nothing was heard yet.
    pub async fn silent_worker(&self, n: u8, script: Script) -> Worker {
        self.silent_worker_of(n, script, Tier::Trusted).await
    }

    /// The same with a grant of this tier.
    pub async fn silent_worker_of(&self, n: u8, script: Script, tier: Tier) -> Worker {
        self.silent_worker_in(n, script, region(), tier).await
    }

    /// The same of this region.
    pub async fn silent_worker_in(
        &self,
        n: u8,
        script: Script,
        region: Region,
        tier: Tier,
    ) -> Worker {
        let key = key(&self.local, n);
        let scripted = Arc::new(Scripted::new(key.id(), script));
        let (mut config, _) = self.local.config(key.clone(), Role::Worker);
        config.region = region.clone();
        let grant = (self.local).grant(key.id(), Role::Worker, |grant| {
            grant.tier = tier;
            grant.region = Some(region);
        });
        config.grant = Some(grant.clone());
        let node = Node::start(config, scripted.clone())
            .await
            .expect("a worker");
        let link = within(
            "a link",
            node.link(self.orchestrator.id(), Role::Orchestrator),
        )
        .await
        .expect("linked");
        let presence = link
            .call(method::PRESENCE, None, &[])
            .await
            .expect("called");
        Worker {
            mesh: self.local.mesh.id,
            key,
            grant: Some(grant),
            node,
            scripted,
            presence,
        }
    }

    pub async fn fleet(
        &self,
        what: &str,
        ready: impl Fn(&tether_orchestrator::fleet::Snapshot) -> bool,
    ) {
        let mut changes = self.orchestrator.fleet().changes();
        within(what, async {
            while !ready(&self.orchestrator.fleet_snapshot()) {
                changes.changed().await.expect("the keeper runs");
            }
        })
        .await;
    }

    pub async fn link(&self) -> Link {
        let id = self.orchestrator.id();
        within("a link", self.gateway.link(id, Role::Orchestrator))
            .await
            .expect("linked")
    }

    pub async fn submit(&self, request: &InferRequest) -> Answer {
        let mut answer = submitted(&self.link().await, request).await;
        answer.rest().await;
        answer
    }

    pub async fn job(&self, request: &InferRequest) -> Job {
        let found = self.orchestrator.store().job(request.correlation).await;
        found.expect("the store works").expect("the job is there")
    }

    /// Waits until some model is remembered, also without anybody who serves it.
    pub async fn remembers(&self) {
        within("a model is on the disk", async {
            while self
                .orchestrator
                .store()
                .known_models()
                .await
                .expect("works")
                .is_empty()
            {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    /// The count of a metric with this start of a line.
    pub fn metric(&self, line: &str) -> u64 {
        let text = self.registry.encode();
        let found = text.lines().find(|l| l.starts_with(line));
        found
            .and_then(|l| l.rsplit(' ').next())
            .map_or(0, |value| value.parse().expect("a number"))
    }

    pub async fn in_flight(&self, worker: &Worker) -> u32 {
        let fleet = self.orchestrator.fleet_snapshot();
        fleet
            .worker(&worker.id())
            .map_or(0, |view| view.in_flight())
    }
}

/// As it is by default, but for a store that fails: no test waits long for one.
fn config() -> OrchestratorConfig {
    OrchestratorConfig {
        admin: loopback(),
        store_timeout_ms: 200,
        ..OrchestratorConfig::default()
    }
}

pub async fn boot(
    config: OrchestratorConfig,
    data: &Path,
    node: NodeConfig,
    registry: &Registry,
    wrap: impl FnOnce(Arc<dyn MetadataStore>) -> Arc<dyn MetadataStore>,
) -> Orchestrator {
    let metrics = OrchestratorMetrics::register(registry);
    let path = data.join(STORE_FILE);
    let store = SqliteStore::open(&path, Opening::in_folder(data, now_ms())).expect("a store");
    let store = wrap(Arc::new(store));
    start_with_store(config, data, node, store, metrics, registry.clone())
        .await
        .expect("an orchestrator")
}

/// What a worker says of itself.
#[derive(Clone)]
pub struct Says {
    pub card: Card,
    pub beat: Beat,
}

impl Says {
    /// What it offers.
    pub fn models(&mut self) -> &mut Vec<ModelOffer> {
        &mut self.card.worker.as_mut().expect("a worker").models
    }
}

pub struct Worker {
    pub mesh: MeshId,
    pub key: NodeKey,
    pub grant: Option<Vec<u8>>,
    pub node: Node,
    pub scripted: Arc<Scripted>,
    pub presence: Call,
}

impl Worker {
    pub fn id(&self) -> NodeId {
        self.key.id()
    }

    /// That it serves and has nothing to do, in its beat of this number.
    pub fn says(&self, seq: u64) -> Says {
        let card = Card {
            role: Role::Worker,
            epoch: 1,
            revision: 1,
            issued_ms: now_ms(),
            region: region(),
            grant: self.grant.clone(),
            agent: String::new(),
            minor: 0,
            addresses: Vec::new(),
            worker: Some(WorkerCard {
                gpu_class: "cpu".into(),
                vram_gb: 0,
                accelerators: 0,
                capacity: 4,
                models: vec![ModelOffer {
                    model: "tiny@1.0".parse().expect("valid"),
                    digest: DIGEST,
                    warm: true,
                    context_tokens: 2_048,
                    adapters: Vec::new(),
                    numerics_class: String::new(),
                }],
                faults: Vec::new(),
                price_per_1k_micro: 0,
                tier: Tier::Trusted,
                engine: "scripted".into(),
            }),
        };
        let beat = Beat {
            epoch: 1,
            seq,
            nonce: [0; 16],
            issued_ms: now_ms(),
            state: NodeState::Serving,
            card: Digest([0; 32]),
            queue_depth: 0,
            in_flight: 0,
            tokens_per_s: 0.0,
            first_token_ms: 0,
            vitals: None,
        };
        Says { card, beat }
    }

    /// Its goodbye.
    pub fn goodbye(&self, seq: u64) -> Says {
        let mut says = self.says(seq);
        says.beat.state = NodeState::Leaving;
        says
    }

    /// Card and beat, sealed.
    pub fn seal(&self, says: &Says) -> Push {
        let card = Signed::seal(&self.key, &self.mesh, &says.card).expect("inside limits");
        let mut beat = says.beat.clone();
        beat.card = Digest::of(card.as_bytes());
        let beat = Signed::seal(&self.key, &self.mesh, &beat).expect("inside limits");
        Push {
            beat: beat.as_bytes().to_vec(),
            card: Some(card.as_bytes().to_vec()),
        }
    }

    pub async fn send(&mut self, says: &Says) {
        let push = self.seal(says);
        self.push(&push).await;
    }

    pub async fn push(&mut self, push: &Push) {
        let sent = self.presence.send(&codec::encode(push)).await;
        sent.expect("sent");
    }
}

/// Makes a worker score worse than others by more than what counts as equal.
pub fn cold(says: &mut Says) {
    says.models()[0].warm = false;
}

/// Which run of a job this is, from 1: its fence begins at the time at which it was new.
pub fn run_of(job: &Job) -> u64 {
    job.fence - job.created_ms + 1
}

pub fn request(token: &str) -> InferRequest {
    request_of("acme", token)
}

pub fn request_of(tenant: &str, token: &str) -> InferRequest {
    let tenant = TenantId::new(tenant).expect("valid");
    InferRequest {
        correlation: CorrelationId::derive(&tenant, token),
        tenant,
        retry_token: token.to_owned(),
        model: "tiny@1.0".into(),
        input: Input::Text("hello".into()),
        sampling: Sampling::default(),
        output: Default::default(),
        keyed: false,
        answers: 1,
        prefix: Prefix::default(),
        resume: None,
    }
}

/// Submits a request, and takes nothing of its answer yet.
pub async fn submitted(link: &Link, request: &InferRequest) -> Answer {
    let body = codec::encode(request);
    let call = link.call(method::SUBMIT, Some(PATIENCE), &body).await;
    Answer::new(call.expect("called"))
}

/// What came back for a request.
pub struct Answer {
    pub call: Call,
    pub events: Vec<AnswerEvent>,
    pub error: Option<RpcError>,
}

impl Answer {
    pub fn new(call: Call) -> Self {
        Self {
            call,
            events: Vec::new(),
            error: None,
        }
    }

    /// The next event, or nothing at the end.
    pub async fn next(&mut self) -> Option<AnswerEvent> {
        match within("the next event", self.call.next()).await {
            Ok(Some(item)) => {
                let event: AnswerEvent =
                    codec::decode("answer", &item, MAX_EVENT_BYTES).expect("an event");
                self.events.push(event.clone());
                Some(event)
            }
            Ok(None) => None,
            Err(error) => {
                self.error = Some(error);
                None
            }
        }
    }

    pub async fn rest(&mut self) {
        while self.next().await.is_some() {}
    }

    pub fn worker(&self) -> Option<NodeId> {
        self.events.iter().find_map(|event| match event {
            AnswerEvent::Accepted(it) => Some(it.worker),
            _ => None,
        })
    }

    pub fn text(&self) -> String {
        let chunks = self.events.iter().filter_map(|event| match event {
            AnswerEvent::Chunk(chunk) => Some(chunk.text.as_str()),
            _ => None,
        });
        chunks.collect()
    }

    pub fn is_whole(&self) -> bool {
        self.error.is_none() && matches!(self.events.last(), Some(AnswerEvent::Done(_)))
    }

    pub fn failed(&self) -> &RpcError {
        self.error.as_ref().expect("an error")
    }
}
