//! A gateway and orchestrators in a mesh of their own, over DHT nodes that all tests share.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use tether_gateway::{Gateway, GatewayConfig};
pub(crate) use tether_net::testing::within;
use tether_net::testing::{self, LocalMesh, Starvable, key, loopback};
use tether_net::{BoxFuture, Incoming, Node, Service};
use tether_telemetry::metrics::{GatewayMetrics, Registry};
use tether_wire::directory::{
    Availability, DirectoryUpdate, ModelEntry, ModelRule, TenantEntry, api_key_hash,
};
use tether_wire::grant::Access;
use tether_wire::infer::{
    Accepted, AnswerEvent, CallDelta, Chunk, Done, Finish, InferRequest, MAX_REQUEST_BYTES,
    TokenLogprob, TopLogprob, Usage,
};
use tether_wire::rpc::{Code, RpcError, method};
use tether_wire::spread::{MAX_PUSH_BYTES, Push};
use tether_wire::{Digest, NodeId, Role, Topic, codec};
use tokio::sync::mpsc;

pub(crate) const KEY: &str = "tk-acme";
pub(crate) const OTHER_KEY: &str = "tk-other";
pub(crate) const WORKER: NodeId = NodeId([7; 32]);

/// A request as it reached an orchestrator.
pub(crate) struct Seen {
    pub(crate) request: InferRequest,
    pub(crate) orchestrator: usize,
    pub(crate) traceparent: Option<String>,
}

/// What orchestrators report.
pub(crate) struct Reports {
    pub(crate) seen: mpsc::UnboundedReceiver<Seen>,
    /// Correlation ids of requests that were cancelled.
    pub(crate) cancelled: mpsc::UnboundedReceiver<String>,
    /// What the gateway says of itself.
    pub(crate) pushed: mpsc::UnboundedReceiver<Push>,
}

#[derive(Clone)]
struct Reporter {
    /// Who the orchestrators are.
    ids: Arc<Mutex<Vec<NodeId>>>,
    seen: mpsc::UnboundedSender<Seen>,
    cancelled: mpsc::UnboundedSender<String>,
    pushed: mpsc::UnboundedSender<Push>,
}

pub(crate) struct World {
    pub(crate) gateway: Gateway,
    pub(crate) registry: Registry,
    pub(crate) reports: Reports,
    pub(crate) nodes: Vec<Node>,
    /// What each of them runs on.
    pub(crate) machines: Vec<Starvable>,
    pub(crate) http: reqwest::Client,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(1, |_| ()).await
    }

    pub(crate) async fn with(orchestrators: usize, change: fn(&mut GatewayConfig)) -> Self {
        let mesh = LocalMesh::new(Access::Invite);
        let (seen_tx, seen) = mpsc::unbounded_channel();
        let (cancelled_tx, cancelled) = mpsc::unbounded_channel();
        let (pushed_tx, pushed) = mpsc::unbounded_channel();
        let ids = Arc::new(Mutex::new(Vec::new()));
        let reporter = Reporter {
            ids: ids.clone(),
            seen: seen_tx,
            cancelled: cancelled_tx,
            pushed: pushed_tx,
        };
        let (mut nodes, mut machines) = (Vec::new(), Vec::new());
        for index in 0..orchestrators {
            let (config, _) = mesh.config(key(), Role::Orchestrator);
            let reporter = reporter.clone();
            let service = Arc::new(Script { index, reporter });
            let machine = Starvable::new();
            let node = machine.run(Node::start(config, service)).await;
            let node = node.expect("it starts");
            machines.push(machine);
            let topic = Topic::Control(node.region().clone());
            node.announce(&topic).await.expect("announced");
            ids.lock().expect("not poisoned").push(node.id());
            nodes.push(node);
        }
        let mut config = GatewayConfig {
            listen: loopback(),
            ..GatewayConfig::default()
        };
        change(&mut config);
        let (node, registry) = mesh.config(key(), Role::Gateway);
        let gateway = tether_gateway::start(
            config,
            None,
            node,
            GatewayMetrics::register(&registry),
            registry.clone(),
        )
        .await
        .expect("the gateway starts");
        let world = Self {
            gateway,
            registry,
            reports: Reports {
                seen,
                cancelled,
                pushed,
            },
            nodes,
            machines,
            http: reqwest::Client::new(),
        };
        if orchestrators > 0 {
            within(world.gateway.until_ready()).await;
            let all = format!("tether_gateway_orchestrators {orchestrators}");
            world.metric(&all).await;
        }
        world
    }

    pub(crate) fn gateway_mesh(&self) -> String {
        self.nodes[0].mesh().id.to_hex()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.gateway.addr())
    }

    pub(crate) async fn get(&self, path: &str) -> reqwest::Response {
        let request = self.http.get(self.url(path)).bearer_auth(KEY);
        within(request.send()).await.expect("an answer")
    }

    /// A chat request; nothing is sent yet.
    pub(crate) fn chat(&self, model: &str, stream: bool) -> reqwest::RequestBuilder {
        self.post(&serde_json::json!({
            "model": model,
            "messages": [{"role": "user", "content": "What is the capital of France?"}],
            "stream": stream,
        }))
    }

    pub(crate) fn post(&self, body: &serde_json::Value) -> reqwest::RequestBuilder {
        self.http
            .post(self.url("/v1/chat/completions"))
            .bearer_auth(KEY)
            .json(body)
    }

    /// Waits until a line is in the metrics.
    pub(crate) async fn metric(&self, line: &str) {
        testing::metric(&self.registry, line).await;
    }
}

/// Sends a request; status, headers and JSON.
pub(crate) async fn send(
    request: reqwest::RequestBuilder,
) -> (u16, reqwest::header::HeaderMap, serde_json::Value) {
    let response = within(request.send()).await.expect("an answer");
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let body = within(response.text()).await.expect("a body");
    let json = serde_json::from_str(&body).unwrap_or_else(|_| panic!("no JSON: {body}"));
    (status, headers, json)
}

/// Events of a stream: what stands after `data: `, up to the end of the body.
pub(crate) async fn events(response: reqwest::Response) -> Vec<String> {
    let text = within(response.text()).await.expect("a whole body");
    text.split_terminator("\n\n")
        .map(|event| {
            event
                .strip_prefix("data: ")
                .expect("a data event")
                .to_owned()
        })
        .collect()
}

/// An orchestrator whose answers are told by the name of the model.
struct Script {
    index: usize,
    reporter: Reporter,
}

impl Service for Script {
    fn serve(&self, call: Incoming) -> BoxFuture<'static, Result<(), RpcError>> {
        let (index, reporter) = (self.index, self.reporter.clone());
        Box::pin(async move {
            match call.method() {
                method::DIRECTORY => directory(call).await,
                method::SUBMIT => submit(index, reporter, call).await,
                method::PRESENCE => presence(reporter, call).await,
                other => Err(RpcError::new(Code::Unimplemented, other)),
            }
        })
    }
}

async fn presence(reporter: Reporter, mut call: Incoming) -> Result<(), RpcError> {
    while let Some(item) = call.recv(MAX_PUSH_BYTES).await? {
        let push = Push::decode(&item).expect("a push");
        let _ = reporter.pushed.send(push);
    }
    Ok(())
}

async fn directory(mut call: Incoming) -> Result<(), RpcError> {
    let tenant = |id: &str, key: &str, rule| TenantEntry {
        id: id.parse().expect("valid"),
        key_hashes: vec![api_key_hash(key)],
        rule,
    };
    let model = |text: &str, availability| ModelEntry {
        model: text.parse().expect("valid"),
        created_ms: 1_700_000_000_123,
        availability,
    };
    let update = DirectoryUpdate {
        version: 1,
        whole: true,
        tenants: vec![tenant("acme", KEY, 0), tenant("other", OTHER_KEY, 1)],
        models: Some(vec![
            model("tiny@1.0", Availability::Available),
            model("down@1.0", Availability::Unavailable),
        ]),
        rules: Some(vec![
            ModelRule::default(),
            ModelRule {
                allow: None,
                deny: vec!["tiny".parse().expect("valid")],
            },
        ]),
        ..DirectoryUpdate::default()
    };
    call.send(&codec::encode(&update)).await?;
    call.cancelled().await;
    Ok(())
}

async fn say(call: &mut Incoming, event: AnswerEvent) -> Result<(), RpcError> {
    call.send(&codec::encode(&event)).await
}

/// One token and its text, and how likely it was, where that was asked for.
fn likely_chunk(position: u32, text: &str, likely: Option<u8>) -> AnswerEvent {
    let top = |top| TopLogprob {
        token: u32::from(top),
        logprob: -1.0,
        bytes: vec![b'a' + top],
    };
    let logprobs = likely.map(|most| TokenLogprob {
        token: position,
        logprob: -0.5,
        bytes: text.into(),
        top: (0..most).map(top).collect(),
    });
    AnswerEvent::Chunk(Chunk {
        logprobs: logprobs.into_iter().collect(),
        ..Chunk::new(position, vec![position], text)
    })
}

/// Two calls of tools, piece by piece.
async fn calls(call: &mut Incoming) -> Result<(), RpcError> {
    let begin = |index, id: &str, name: &str| CallDelta {
        index,
        id: Some(id.to_owned()),
        name: Some(name.to_owned()),
        ..CallDelta::default()
    };
    let more = |index, arguments: &str| CallDelta {
        index,
        arguments: arguments.to_owned(),
        ..CallDelta::default()
    };
    let deltas = [
        vec![begin(0, "call00001", "weather"), more(0, "{\"city\":")],
        vec![more(0, "\"Paris\"}")],
        vec![begin(1, "call00002", "clock"), more(1, "{}")],
    ];
    for (position, calls) in (0..).zip(deltas) {
        let chunk = Chunk {
            calls,
            ..Chunk::new(position, vec![position], "")
        };
        say(call, AnswerEvent::Chunk(chunk)).await?;
    }
    let usage = Usage {
        prompt_tokens: 40,
        completion_tokens: 3,
    };
    let done = Done {
        finish: Finish::ToolCalls,
        usage,
        receipt: None,
    };
    say(call, AnswerEvent::Done(done)).await
}

async fn submit(index: usize, reporter: Reporter, mut call: Incoming) -> Result<(), RpcError> {
    let bytes = call.recv(MAX_REQUEST_BYTES).await?.unwrap_or_default();
    let request: InferRequest = codec::decode("request", &bytes, MAX_REQUEST_BYTES)
        .map_err(|error| RpcError::new(Code::Invalid, error.to_string()))?;
    request.check().expect("gateways send what is valid");
    let model = request.model.clone();
    // Which of several answers to one request it is.
    let later = request.retry_token.contains(' ');
    let likely = request.sampling.top_logprobs;
    let seed = request.sampling.seed.unwrap_or(5);
    let correlation = request.correlation.to_string();
    let resume = request.resume.clone();
    let seen = Seen {
        request,
        orchestrator: index,
        traceparent: call.head().traceparent.clone(),
    };
    let _ = reporter.seen.send(seen);
    let accepted = AnswerEvent::Accepted(Accepted {
        worker: WORKER,
        model: "tiny@1.0".parse().expect("valid"),
        digest: Digest([0xab; 32]),
        seed,
        numerics_class: "class-1".into(),
        created_ms: 1_700_000_000_123,
        degraded_from: (model == "large").then(|| "large@2.0".parse().expect("valid")),
        max_tokens: (model == "large").then_some(64),
    });
    let done = AnswerEvent::Done(Done {
        finish: Finish::Stop,
        usage: Usage {
            prompt_tokens: 11,
            completion_tokens: 3,
        },
        receipt: Some(b"a receipt".to_vec()),
    });
    match model.as_str() {
        "missing" => {
            return Err(RpcError::new(Code::NotFound, "no model `missing` is known"));
        }
        "secret" => {
            let why = "the tenant `acme` may not use the model `secret`";
            return Err(RpcError::new(Code::Forbidden, why).with_param("model"));
        }
        "down" => {
            let error = RpcError::new(Code::Unavailable, "no worker serves `down` now");
            return Err(error.with_retry_after_ms(2_500));
        }
        "limited" => {
            let why = "too many tokens in the last minutes for the workers of this model";
            let error = RpcError::new(Code::RateLimited, why).with_param("tokens");
            return Err(error.with_retry_after_ms(40_100));
        }
        "too-long" => {
            let why = "context_length_exceeded: 12 tokens do not fit into the context of 8";
            return Err(RpcError::new(Code::Invalid, why).with_param("messages"));
        }
        "kills" => {
            call.link().close("killed by the script");
            return Ok(());
        }
        "first-dies" if asked_first(&correlation) => {
            call.link().close("killed by the script");
            return Ok(());
        }
        "first-stops" if asked_first(&correlation) => {
            let why = "the orchestrator is starting or stopping";
            return Err(RpcError::new(Code::Unavailable, why));
        }
        "fails-once" if asked_first(&correlation) => {
            let why = "the workers that were tried are gone";
            return Err(RpcError::new(Code::Unavailable, why));
        }
        "fails-once" => {
            return Err(RpcError::new(Code::Conflict, "this request was taken"));
        }
        "first-hangs" if asked_first(&correlation) => {
            call.cancelled().await;
            return Ok(());
        }
        "elsewhere" if resume.is_none() => {
            let why = "another orchestrator has this request";
            let owner = NodeId([9; 32]).to_hex();
            return Err(RpcError::new(Code::Elsewhere, why).with_param(owner));
        }
        "each-other" | "each-other-always" => {
            let other = reporter.ids.lock().expect("not poisoned")[1 - index];
            let is_lost = (resume.as_ref()).is_some_and(|resume| resume.lost.contains(&other));
            if model == "each-other-always" || !is_lost {
                let why = "another orchestrator has this request";
                return Err(RpcError::new(Code::Elsewhere, why).with_param(other.to_hex()));
            }
        }
        "first-leaves" if asked_first(&correlation) => {
            let why = "the orchestrator is stopping";
            return Err(RpcError::new(Code::Elsewhere, why));
        }
        "second-cannot" if place(&correlation, index) == 1 => {
            let why = "no worker can serve the model `second-cannot` just now";
            return Err(RpcError::new(Code::Unavailable, why).with_retry_after_ms(5_000));
        }
        "others-know-nobody" if place(&correlation, index) == 0 => {
            let why = "no worker can serve this model now";
            return Err(RpcError::new(Code::Unavailable, why).with_retry_after_ms(5_000));
        }
        "third-knows" if place(&correlation, index) == 2 => {}
        "third-knows" | "others-know-nobody" | "nobody-knows" => {
            let why = format!("no worker can serve the model `{model}` just now");
            let error = RpcError::new(Code::Unavailable, why).with_retry_after_ms(1_000);
            return Err(error.untried());
        }
        "no-such-form" => {
            let why = "response_format cannot be followed: invalid regex";
            return Err(RpcError::new(Code::Invalid, why).with_param("response_format"));
        }
        "others-fail" if later => {
            return Err(RpcError::new(
                Code::NotFound,
                "no model `others-fail` is known",
            ));
        }
        "others-wait" if !later => {}
        "never-begins" | "others-fail" | "others-wait" => {
            call.cancelled().await;
            let _ = reporter.cancelled.send(correlation);
            return Ok(());
        }
        _ => {}
    }
    if model == "calls" {
        say(&mut call, accepted).await?;
        return calls(&mut call).await;
    }
    let chunk = |position, text: &str| likely_chunk(position, text, likely);
    let goes_on = resume.is_some();
    let beginning = if model == "goes-on-otherwise" && goes_on {
        "Lon"
    } else {
        "Par"
    };
    for event in [accepted, chunk(0, beginning)] {
        if let Err(error) = say(&mut call, event).await {
            // The client left before anything was said.
            let _ = reporter.cancelled.send(correlation);
            return Err(error);
        }
    }
    match model.as_str() {
        "others-break" if later => {
            return Err(RpcError::new(Code::Unavailable, "the worker is gone"));
        }
        "slow" | "others-break" => {
            call.cancelled().await;
            let _ = reporter.cancelled.send(correlation);
            return Ok(());
        }
        "breaks" => {
            return Err(RpcError::new(Code::Unavailable, "the worker is gone"));
        }
        "link-breaks" => {
            // What was sent reaches the gateway before the link goes down.
            tokio::time::sleep(Duration::from_millis(200)).await;
            call.link().close("killed by the script");
            return Ok(());
        }
        "goes-on" | "goes-on-otherwise" | "second-cannot" if !goes_on => {
            tokio::time::sleep(Duration::from_millis(200)).await;
            call.link().close("killed by the script");
            return Ok(());
        }
        "leaves" if !goes_on => {
            let why = "the answer was cut off: its orchestrator is stopping";
            return Err(RpcError::new(Code::Elsewhere, why));
        }
        "goes-silent" if !goes_on => {
            call.cancelled().await;
            return Ok(());
        }
        "stops-short" => return Ok(()),
        "floods" => {
            let text = "x".repeat(1_000);
            for position in 1.. {
                if say(&mut call, chunk(position, &text)).await.is_err() {
                    break;
                }
            }
            let _ = reporter.cancelled.send(correlation);
            return Ok(());
        }
        _ => {}
    }
    say(&mut call, chunk(1, "")).await?;
    say(&mut call, chunk(2, "is")).await?;
    say(&mut call, done).await
}

/// How many others were asked for this request before this one was for the first time.
fn place(correlation: &str, orchestrator: usize) -> usize {
    static PLACES: OnceLock<Mutex<HashMap<String, Vec<usize>>>> = OnceLock::new();
    let places = PLACES.get_or_init(Mutex::default).lock();
    let mut places = places.expect("not poisoned");
    let asked = places.entry(correlation.to_owned()).or_default();
    if !asked.contains(&orchestrator) {
        asked.push(orchestrator);
    }
    let place = asked.iter().position(|it| *it == orchestrator);
    place.expect("it was put there")
}

/// Whether nobody was asked for this request before.
fn asked_first(correlation: &str) -> bool {
    static ASKED: OnceLock<Mutex<HashSet<String>>> = OnceLock::new();
    let mut asked = ASKED
        .get_or_init(Mutex::default)
        .lock()
        .expect("not poisoned");
    asked.insert(correlation.to_owned())
}
