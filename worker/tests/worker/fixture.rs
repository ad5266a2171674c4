//! A mesh of its own for each test: DHT nodes that all tests of this binary share, an orchestrator
//! that writes down what it is told, and a worker.

use crate::engines::command;
use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};
use tempfile::TempDir;
use tether_artifact_store::{PackOptions, pack};
use tether_net::{
    BoxFuture, Call, Incoming, Link, LinkLimits, Node, NodeConfig, Service, bootstrap,
};
use tether_telemetry::metrics::{NetMetrics, Registry, WorkerMetrics};
use tether_wire::card::WorkerCard;
use tether_wire::grant::{Access, Mesh};
use tether_wire::infer::{AnswerEvent, Input, MAX_EVENT_BYTES, Sampling, WorkOrder};
use tether_wire::rpc::{Code, RpcError, method};
use tether_wire::spread::{MAX_PUSH_BYTES, Push};
use tether_wire::{
    Beat, Card, CorrelationId, Digest, Grant, MeshId, NodeKey, Region, Role, Signed, TenantId,
    Tier, Topic, Verified, codec,
};
use tether_worker::engine::protocol::EngineKind;
use tether_worker::{EngineCommand, ModelConfig, ModelState, Worker, WorkerConfig};
use tokio::sync::{mpsc, watch};

/// A hang guard; nothing is expected to take this long.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits, but not for ever.
pub(crate) async fn patiently<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, Box::pin(future))
        .await
        .expect("it takes too long")
}

/// Waits until a watched value is what is looked for.
pub(crate) async fn until<T, U>(
    mut receiver: watch::Receiver<T>,
    look: impl Fn(&T) -> Option<U>,
) -> U {
    loop {
        if let Some(found) = look(&receiver.borrow_and_update()) {
            return found;
        }
        receiver.changed().await.expect("the sender lives");
    }
}

pub(crate) fn sampling() -> Sampling {
    Sampling {
        seed: Some(7),
        ..Sampling::default()
    }
}

fn key() -> NodeKey {
    NodeKey::from_seed(rand::random())
}

pub(crate) fn publisher() -> NodeKey {
    NodeKey::from_seed([5; 32])
}

fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().expect("an address")
}

/// DHT nodes for the whole binary, on a runtime of their own: each test's runtime ends with it.
fn dht() -> Vec<SocketAddr> {
    static NODES: OnceLock<Vec<SocketAddr>> = OnceLock::new();
    NODES
        .get_or_init(|| {
            let (tx, rx) = std::sync::mpsc::channel();
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Runtime::new().expect("a runtime");
                runtime.block_on(async move {
                    let nodes = bootstrap::run(vec![loopback(); 10], vec![]).await;
                    let nodes = nodes.expect("DHT nodes on loopback");
                    tx.send(nodes.addresses().to_vec()).expect("somebody waits");
                    std::future::pending::<()>().await;
                });
            });
            rx.recv_timeout(PATIENCE).expect("the DHT nodes start")
        })
        .clone()
}

/// An artifact that the echo engine does not look at.
pub(crate) fn artifact() -> (TempDir, Digest) {
    artifact_of("echo@1.0")
}

pub(crate) fn artifact_of(model: &str) -> (TempDir, Digest) {
    artifact_with(model, r#"{"max_position_embeddings": 2048}"#)
}

/// One whose cache is reckoned to take 400 MiB.
pub(crate) fn big_artifact_of(model: &str) -> (TempDir, Digest) {
    let config = r#"{"max_position_embeddings": 2048, "num_hidden_layers": 100,
        "num_attention_heads": 4, "head_dim": 64}"#;
    artifact_with(model, config)
}

fn artifact_with(model: &str, config: &str) -> (TempDir, Digest) {
    let dir = tempfile::tempdir().expect("tempdir");
    for (name, content) in [
        ("config.json", config),
        ("model.safetensors", "weights"),
        ("tokenizer.json", "{}"),
    ] {
        std::fs::write(dir.path().join(name), content).expect("write");
    }
    let options = PackOptions::new(model.parse().expect("valid"));
    let packed = pack(dir.path(), options, &publisher(), &mut |_| ()).expect("pack");
    (dir, packed.digest)
}

/// A mesh: its operator's key.
pub(crate) struct TestMesh {
    operator: NodeKey,
    pub(crate) mesh: Mesh,
    /// Every test has a region of its own, so that nobody else is found there.
    pub(crate) region: Region,
}

impl TestMesh {
    pub(crate) fn new() -> Self {
        let operator = key();
        let id = MeshId(operator.id().0);
        Self {
            operator,
            mesh: Mesh {
                id,
                recovery: None,
                access: Access::Invite,
            },
            region: Region::new("test").expect("valid"),
        }
    }

    pub(crate) fn node_config(&self, key: NodeKey, role: Role) -> NodeConfig {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now_ms = u64::try_from(now.expect("after 1970").as_millis()).expect("fits");
        let grant = Grant {
            subject: key.id(),
            role,
            region: Some(self.region.clone()),
            tier: Tier::Trusted,
            not_before_ms: now_ms - 1_000,
            expires_ms: now_ms + 3_600_000,
            serial: 1,
            issuer: None,
            consent: None,
            invite: None,
        };
        let sealed = Signed::seal(&self.operator, &self.mesh.id, &grant).expect("inside limits");
        NodeConfig {
            grant: Some(sealed.as_bytes().to_vec()),
            key,
            members: tether_net::Members::new(self.mesh),
            invite: None,
            role,
            region: self.region.clone(),
            accept: vec![Role::Gateway, Role::Orchestrator, Role::Worker],
            listen: loopback(),
            advertise: vec![],
            dht_listen: loopback(),
            bootstrap: dht()[..3].to_vec(),
            relays: vec![],
            uplinks: tether_net::UplinkConfig::default(),
            limits: LinkLimits::default(),
            metrics: NetMetrics::register(&Registry::new()),
        }
    }

    /// An orchestrator, announced where workers look for it.
    pub(crate) async fn orchestrator(&self) -> TestOrchestrator {
        let (seen, pushes) = mpsc::unbounded_channel();
        let service = Arc::new(Ears { seen });
        let config = self.node_config(key(), Role::Orchestrator);
        let node = Node::start(config, service).await.expect("a node");
        let control = Topic::Control(self.region.clone());
        node.announce(&control).await.expect("announced");
        TestOrchestrator {
            node,
            pushes,
            mesh: self.mesh.id,
            card: None,
        }
    }

    /// A worker with models in these folders.
    pub(crate) async fn worker(
        &self,
        folders: &[&Path],
        change: impl FnOnce(&mut WorkerConfig),
    ) -> TestWorker {
        self.worker_running("echo", folders, change).await
    }

    /// A worker whose engines are one of `engines.rs`.
    pub(crate) async fn worker_running(
        &self,
        engine: &str,
        folders: &[&Path],
        change: impl FnOnce(&mut WorkerConfig),
    ) -> TestWorker {
        let data_dir = tempfile::tempdir().expect("tempdir");
        let worker = self.worker_of(command(engine), data_dir.path(), key(), folders, change);
        TestWorker {
            worker: worker.await,
            _data_dir: data_dir,
        }
    }

    pub(crate) async fn worker_in(
        &self,
        data_dir: &Path,
        key: NodeKey,
        folders: &[&Path],
        change: impl FnOnce(&mut WorkerConfig),
    ) -> Worker {
        let worker = self.worker_of(command("echo"), data_dir, key, folders, change);
        worker.await
    }

    pub(crate) async fn worker_of(
        &self,
        engine: EngineCommand,
        data_dir: &Path,
        key: NodeKey,
        folders: &[&Path],
        change: impl FnOnce(&mut WorkerConfig),
    ) -> Worker {
        let mut config = WorkerConfig {
            models: folders
                .iter()
                .map(|folder| ModelConfig::at(*folder))
                .collect(),
            trusted_publishers: vec![publisher().id()],
            ..WorkerConfig::default()
        };
        config.engine.kind = EngineKind::Echo;
        change(&mut config);
        let node = self.node_config(key, Role::Worker);
        let registry = Registry::new();
        let metrics = WorkerMetrics::register(&registry);
        tether_worker::start(config, data_dir, node, engine, metrics, registry)
            .await
            .expect("the worker starts")
    }
}

/// A worker, and its data while it lives.
pub(crate) struct TestWorker {
    pub(crate) worker: Worker,
    _data_dir: TempDir,
}

impl TestWorker {
    /// Waits until its models are as wished.
    pub(crate) async fn models(&self, wish: impl Fn(&[ModelState]) -> bool) {
        let models = until(self.worker.models(), |models| {
            let states: Vec<ModelState> = models.iter().map(|model| model.state.clone()).collect();
            wish(&states).then_some(())
        });
        patiently(models).await;
    }

    /// Waits until every model is served.
    pub(crate) async fn serving(&self) {
        self.models(|models| {
            models
                .iter()
                .all(|model| matches!(model, ModelState::Serving(_)))
        })
        .await;
    }
}

/// A node in the role of an orchestrator.
pub(crate) struct TestOrchestrator {
    pub(crate) node: Node,
    pushes: mpsc::UnboundedReceiver<Push>,
    mesh: MeshId,
    /// The last card that was pushed.
    card: Option<(Digest, Verified<Card>)>,
}

/// What a worker said: a beat, and the card that it names.
pub(crate) struct Said {
    pub(crate) beat: Verified<Beat>,
    pub(crate) card: Verified<Card>,
    pub(crate) worker: WorkerCard,
}

impl TestOrchestrator {
    /// What is said next, verified.
    pub(crate) async fn said(&mut self) -> Said {
        let push = patiently(self.pushes.recv()).await.expect("it lives");
        let beat = Signed::<Beat>::from_bytes(push.beat).verify(&self.mesh);
        let beat = beat.expect("rightly signed");
        if let Some(card) = push.card {
            let digest = Digest::of(&card);
            let card = Signed::<Card>::from_bytes(card).verify(&self.mesh);
            self.card = Some((digest, card.expect("rightly signed")));
        }
        let (digest, card) = self.card.clone().expect("the first push brings it");
        assert_eq!(beat.card, digest, "a beat names the card that was pushed");
        assert_eq!(beat.signer(), card.signer());
        Said {
            worker: card.worker.clone().expect("a worker's card"),
            beat,
            card,
        }
    }

    /// What is said next that is as wished.
    pub(crate) async fn said_where(&mut self, wish: impl Fn(&Said) -> bool) -> Said {
        let found = async {
            loop {
                let said = self.said().await;
                if wish(&said) {
                    return said;
                }
            }
        };
        patiently(found).await
    }

    pub(crate) async fn link(&self, worker: &Worker) -> Link {
        let link = patiently(self.node.link(worker.id(), Role::Worker));
        link.await.expect("linked")
    }

    /// Gives an order.
    pub(crate) async fn order(&self, worker: &Worker, order: &WorkOrder) -> TestCall {
        let link = self.link(worker).await;
        let body = codec::encode(order);
        let call = patiently(link.call(method::INFER, None, &body)).await;
        TestCall(call.expect("called"))
    }
}

/// An order that was given.
pub(crate) struct TestCall(pub(crate) Call);

impl TestCall {
    pub(crate) async fn event(&mut self) -> Result<Option<AnswerEvent>, RpcError> {
        let item = patiently(self.0.next()).await?;
        Ok(item.map(|item| codec::decode("event", &item, MAX_EVENT_BYTES).expect("an event")))
    }

    /// Every event to the end.
    pub(crate) async fn events(mut self) -> Result<Vec<AnswerEvent>, RpcError> {
        let mut events = Vec::new();
        while let Some(event) = self.event().await? {
            events.push(event);
        }
        Ok(events)
    }

    pub(crate) async fn accepted(&mut self) {
        let event = self.event().await.expect("taken");
        assert!(matches!(event, Some(AnswerEvent::Accepted(_))), "{event:?}");
    }

    /// It was taken, and its turn came.
    pub(crate) async fn begun(&mut self) -> u32 {
        match self.event().await.expect("its turn comes") {
            Some(AnswerEvent::Begun(begun)) => begun.prompt_tokens,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn refused(mut self) -> RpcError {
        self.event().await.expect_err("refused")
    }
}

pub(crate) fn order(n: u8, digest: Digest, text: &str) -> WorkOrder {
    WorkOrder {
        correlation: CorrelationId([n; 16]),
        attempt: 1,
        fence: 1,
        tenant: TenantId::new("tenant").expect("valid"),
        model: "echo@1.0".parse().expect("valid"),
        digest,
        input: Input::Text(text.to_owned()),
        sampling: sampling(),
        output: Default::default(),
        transcript: Vec::new(),
    }
}

/// Writes down what is pushed.
struct Ears {
    seen: mpsc::UnboundedSender<Push>,
}

impl Service for Ears {
    fn serve(&self, mut call: Incoming) -> BoxFuture<'static, Result<(), RpcError>> {
        let seen = self.seen.clone();
        Box::pin(async move {
            if call.method() != method::PRESENCE {
                return Err(RpcError::new(Code::Unimplemented, "ears only"));
            }
            while let Some(item) = call.recv(MAX_PUSH_BYTES).await? {
                let push = Push::decode(&item)
                    .map_err(|error| RpcError::new(Code::Invalid, error.to_string()))?;
                if seen.send(push).is_err() {
                    break;
                }
            }
            Ok(())
        })
    }
}
