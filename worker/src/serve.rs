//! Orders of orchestrators, answered. (WRK-1) [T-INF-6] to [T-INF-8]
//!
//! * `answer` – one order, from its call to its end

mod answer;

use crate::admission::{Place, Slots};
use crate::clock::now_ms;
use crate::engine::Hold;
use crate::fences::{Fences, Turn};
use crate::fit;
use crate::health::{Health, LOOK_INTERVAL};
use crate::models::leases::Lease;
use crate::models::{self, Found, ModelState, ModelStatus, Models, Served};
use crate::pace::Pace;
use crate::quota::{Claim, Rates, retry_after_ms};
use crate::receipts::Signer;
use crate::under_way::UnderWay;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tether_net::{BoxFuture, Incoming, Service};
use tether_telemetry::metrics::WorkerMetrics;
use tether_telemetry::trace;
use tether_wire::infer::{MAX_CONTINUED_BYTES, WorkOrder};
use tether_wire::rpc::{Code, RpcError, method};
use tether_wire::{Digest, NodeId, Role, codec};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

/// What calls and heartbeats share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) id: NodeId,
    signer: Signer,
    /// Most requests at once, whatever the engines could do.
    pub(crate) max_slots: u32,
    queue_timeout: Duration,
    pub(crate) slots: Slots,
    pub(crate) models: OnceLock<Models>,
    pub(crate) metrics: Arc<WorkerMetrics>,
    /// Calls that are being answered.
    pub(crate) calls: TaskTracker,
    /// Cancelled when nothing new is taken any more.
    pub(crate) draining: CancellationToken,
    /// Cancelled when what still runs is given up.
    pub(crate) stopping: CancellationToken,
    pub(crate) health: Health,
    rates: Mutex<Rates>,
    pace: Mutex<Pace>,
    fences: Mutex<Fences>,
    /// Answers that are made, or were a moment ago.
    under_way: Arc<UnderWay>,
}

impl Shared {
    pub(crate) fn new(
        signer: Signer,
        max_slots: u32,
        queue_timeout: Duration,
        slots: Slots,
        rates: Rates,
        health: Health,
        metrics: Arc<WorkerMetrics>,
    ) -> Self {
        Self {
            id: signer.key.id(),
            signer,
            max_slots,
            queue_timeout,
            slots,
            models: OnceLock::new(),
            metrics,
            calls: TaskTracker::new(),
            draining: CancellationToken::new(),
            stopping: CancellationToken::new(),
            health,
            rates: Mutex::new(rates),
            pace: Mutex::default(),
            fences: Mutex::default(),
            under_way: Arc::default(),
        }
    }

    pub(crate) fn grant(&self) -> Option<&[u8]> {
        self.signer.grant.as_deref()
    }

    pub(crate) fn pace(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rates(&self) -> MutexGuard<'_, Rates> {
        self.rates.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fences(&self) -> MutexGuard<'_, Fences> {
        self.fences.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn retry_after_ms(&self) -> u64 {
        let waiting = self.slots.load().waiting;
        let capacity = self.models.get().map_or(1, |models| {
            models::capacity(&models.watch().borrow(), self.max_slots)
        });
        retry_after_ms(self.pace().answer_ms(), waiting, capacity)
    }

    /// Decides about an order. Nothing of it is awaited, so that who was admitted is told at once.
    fn admit(&self, order: &WorkOrder) -> Result<(Model, Place), RpcError> {
        if self.draining.is_cancelled() {
            self.metrics.shed("draining");
            let why = "this worker is draining and takes nothing new";
            return Err(RpcError::new(Code::Unavailable, why));
        }
        check(order)?;
        let unknown = || {
            let (model, digest) = (&order.model, &order.digest);
            let why = format!("this worker does not serve {model} with the digest {digest}");
            RpcError::new(Code::NotFound, why)
        };
        let models = self.models.get().ok_or_else(unknown)?;
        let found = models.find(&order.digest);
        let (offer, most) = match &found {
            Found::Served(served) => (&served.offer, served.max_token_bytes),
            Found::Held(_, known) => (&known.offer, known.max_token_bytes),
            Found::NotNow(reason) => return Err(self.model_down(reason.clone())),
            Found::Unknown => return Err(unknown()),
        };
        if offer.model != order.model {
            return Err(unknown());
        }
        if let Some(most) = most {
            fit::check_input(&order.input, offer.context_tokens, most)?;
        }
        if let Some(strain) = &*self.health.strain().borrow() {
            self.metrics.shed(strain.code);
            let until_next_look = u64::try_from(LOOK_INTERVAL.as_millis()).unwrap_or(u64::MAX);
            return Err(RpcError::new(
                Code::Overloaded,
                format!("this machine has too much to do: {}", strain.reason),
            )
            .with_retry_after_ms(self.retry_after_ms().max(until_next_look)));
        }
        let mut rates = self.rates();
        // Somebody reads an answer that goes on: what is left of it was let in elsewhere.
        let limit = if order.transcript.is_empty() {
            rates.check(&order.tenant, now_ms())
        } else {
            Ok(())
        };
        if let Err(over) = limit {
            self.metrics.shed(over.what);
            return Err(RpcError::new(
                Code::RateLimited,
                format!(
                    "the tenant asked for too many {} of this worker of late",
                    over.what
                ),
            )
            .with_param(over.what)
            .with_retry_after_ms(over.retry_after_ms));
        }
        // Held until the order is taken or not, so that of two alike one is.
        let mut fences = self.fences();
        let turn = Turn::of(order);
        if let Err(seen) = fences.check(order.correlation, turn) {
            return Err(came_before(turn, seen));
        }
        let model = match found {
            Found::Held(index, known) => {
                let lease = models.hold(index).map_err(|why| self.model_down(why))?;
                Model::Held(index, known.sequences, lease)
            }
            Found::Served(served) => Model::Served(Box::new(served)),
            Found::NotNow(_) | Found::Unknown => return Err(unknown()),
        };
        let claim = Claim {
            tenant: order.tenant.clone(),
            model: order.digest,
            model_slots: match &model {
                Model::Served(served) => served.sequences,
                // Who waits for a model to be loaded waits in the queue, and holds no slot.
                Model::Held(_, sequences, lease) if lease.is_ready() => *sequences,
                Model::Held(..) => 0,
            },
            goes_on: !order.transcript.is_empty(),
        };
        let Some(place) = self.slots.admit(&claim) else {
            self.metrics.shed("queue-full");
            return Err(RpcError::new(
                Code::Overloaded,
                "all slots are taken and the queue is full",
            )
            .with_retry_after_ms(self.retry_after_ms()));
        };
        fences.taken(order.correlation, turn);
        rates.taken(&order.tenant, now_ms());
        Ok((model, place))
    }

    fn model_down(&self, why: String) -> RpcError {
        self.metrics.shed("model-down");
        RpcError::new(Code::Unavailable, why).with_retry_after_ms(self.retry_after_ms())
    }

    /// Waits until the model is loaded, and the request's turn has come.
    async fn turn(
        &self,
        digest: &Digest,
        model: Model,
        mut place: Place,
    ) -> Result<(Served, Held), RpcError> {
        let (served, lease) = match model {
            Model::Served(served) => (*served, None),
            Model::Held(index, _, mut lease) => {
                let ready = lease.ready().await;
                ready.map_err(|why| self.model_down(why))?;
                let served = self.models.get().and_then(|models| models.served(index));
                let gone = || self.model_down("the engine is started again".to_owned());
                (served.ok_or_else(gone)?, Some(lease))
            }
        };
        self.slots.open(digest, served.sequences);
        place.turn().await;
        let held = Held {
            place,
            _lease: lease,
        };
        Ok((served, held))
    }
}

/// Tells those who wait how many answers each model gives at once, as its processes fall and return.
pub(crate) async fn follow(shared: Arc<Shared>, mut models: watch::Receiver<Vec<ModelStatus>>) {
    loop {
        let serving: Vec<(Digest, u32)> = (models.borrow_and_update().iter())
            .filter_map(|model| match &model.state {
                ModelState::Serving(served) => Some((served.offer.digest, served.sequences)),
                _ => None,
            })
            .collect();
        for (digest, sequences) in serving {
            shared.slots.open(&digest, sequences);
        }
        if models.changed().await.is_err() {
            return;
        }
    }
}

/// What an order is given to.
enum Model {
    /// A server, which is always there.
    Served(Box<Served>),
    /// A model of the pool, by number: loaded, or about to be. With how many answers it gives at once.
    Held(usize, u32, Lease),
}

/// What a request occupies while the engine has it: its slot, and its model.
#[derive(Debug)]
struct Held {
    place: Place,
    _lease: Option<Lease>,
}

impl Hold for Held {
    fn leaving(&mut self) {
        self.place.leaving();
    }
}

/// An order that is not the next of its job. [T-INF-6]
fn came_before(turn: Turn, seen: Turn) -> RpcError {
    let Turn { fence, attempt } = turn;
    RpcError::new(
        Code::Conflict,
        format!(
            "the order has fence {fence} and attempt {attempt}, but one with {} and {} came before",
            seen.fence, seen.attempt
        ),
    )
}

/// Orchestrators check requests of tenants; a worker checks again what could hurt its engine.
fn check(order: &WorkOrder) -> Result<(), RpcError> {
    order.check().map_err(|error| RpcError::invalid(&error))
}

/// The service of a worker's node.
pub(crate) struct WorkerService {
    pub(crate) shared: Arc<Shared>,
}

impl Service for WorkerService {
    fn serve(&self, call: Incoming) -> BoxFuture<'static, Result<(), RpcError>> {
        let shared = self.shared.clone();
        let token = shared.calls.token();
        Box::pin(async move {
            let _token = token;
            if call.method() != method::INFER {
                let why = format!("a worker has no method {:?}", call.method());
                return Err(RpcError::new(Code::Unimplemented, why));
            }
            if call.peer().role != Role::Orchestrator {
                let why = format!("a {} gives no orders to a worker", call.peer().role);
                return Err(RpcError::new(Code::Forbidden, why));
            }
            let result = infer(&shared, call).await;
            shared.metrics.request(match &result {
                Ok(()) => "ok",
                Err(error) => error.code.as_str(),
            });
            result
        })
    }
}

async fn infer(shared: &Arc<Shared>, mut call: Incoming) -> Result<(), RpcError> {
    let Some(bytes) = call.recv(MAX_CONTINUED_BYTES).await? else {
        return Err(RpcError::new(Code::Invalid, "the call holds no order"));
    };
    let order: WorkOrder = codec::decode("order", &bytes, MAX_CONTINUED_BYTES)
        .map_err(|error| RpcError::new(Code::Invalid, error.to_string()))?;
    let span = tracing::info_span!(
        "worker.infer",
        tether.role = "worker",
        tether.correlation_id = %order.correlation,
        tether.attempt = order.attempt,
        gen_ai.request.model = %order.model,
        gen_ai.usage.input_tokens = tracing::field::Empty,
        gen_ai.usage.output_tokens = tracing::field::Empty,
        error.type = tracing::field::Empty,
    );
    trace::set_parent(&span, call.head().traceparent.as_deref());
    let timeout_ms = call.head().timeout_ms;
    let began = Instant::now();
    let cancelled = call.cancelled();
    let work = async {
        // Whatever ends first: dropping the rest cancels the engine, which gives the slot back when it
        // has let go.
        tokio::select! {
            result = Box::pin(answer::answer(shared, &mut call, order)) => result,
            () = cancelled => Err(gave_up(timeout_ms, began.elapsed())),
        }
    };
    let result = work.instrument(span.clone()).await;
    if let Err(error) = &result {
        span.record("error.type", error.code.as_str());
    }
    result
}

/// The caller went, or its time is over.
fn gave_up(timeout_ms: Option<u64>, after: Duration) -> RpcError {
    match timeout_ms.map(Duration::from_millis) {
        Some(timeout) if after >= timeout => {
            RpcError::new(Code::Deadline, "the caller's time is over")
        }
        _ => RpcError::new(Code::Cancelled, "the caller is gone"),
    }
}
