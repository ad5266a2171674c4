//! HTTP for the operator of this machine: metrics, health, the fleet, requests, topics, dead letters.
//! Loopback only.
//!
//! # Layout
//!
//! * `filter` – which workers are asked for
//! * `rows` – the fleet as rows, and why a worker gets no work
//! * `explain` – everything that is known of one node
//! * `letters` – dead letters: shown, run again, dropped
//! * `requests` – why requests went where they went
//! * `topics` – what this node announces and sees on the DHT
//! * `token` – the secret that all of these but metrics and health need

mod control;
mod explain;
mod filter;
mod letters;
mod requests;
mod rows;
mod token;
mod topics;

pub use explain::{Explained, MAX_NAMED, Prefix};
pub use filter::{DEFAULT_LIMIT, Filter, MAX_LIMIT, MAX_QUERY_BYTES, MAX_VALUES, states};
pub use letters::{AttemptRow, LetterPage, LetterRow, MAX_LETTERS, Replayed};
pub use requests::RequestPrefix;
pub use rows::{FaultRow, FleetRow, Page};
pub use token::{TOKEN_FILE, TokenError, load_or_create};
pub use topics::Topics;

use crate::catalogue::Catalogue;
use crate::clock;
use crate::dispatch::Dispatcher;
use crate::dispatch::breaking::Breaking;
use crate::explained::Explanations;
use crate::fleet::Snapshot;
use crate::fleet::keeper::Fleet;
use crate::placement::InForce;
use crate::store::MetadataStore;
use arc_swap::ArcSwap;
use axum::Router;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, RawQuery, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use explain::{Answer, Explaining};
use rows::{MAX_UNCARDED, Outside, REFUSAL_SHOWN_MS, Sight, UNCARDED};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tether_net::{Members, Node, UplinkLook};
use tether_telemetry::metrics::{CONTENT_TYPE, OrchestratorMetrics, Registry};
use tether_wire::{Digest, NodeId, Role};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// How long a scrape waits for the store.
const COUNT_PATIENCE: Duration = Duration::from_millis(500);

/// What the pages are made of.
pub(crate) struct Admin {
    pub(crate) registry: Registry,
    pub(crate) metrics: Arc<OrchestratorMetrics>,
    pub(crate) store: Arc<dyn MetadataStore>,
    pub(crate) fleet: Fleet,
    pub(crate) catalogue: Arc<ArcSwap<Catalogue>>,
    pub(crate) members: Members,
    pub(crate) node: Node,
    pub(crate) uplinks: UplinkLook,
    /// How requests are placed.
    pub(crate) placement: InForce,
    /// Why some went where they went.
    pub(crate) explanations: Arc<Explanations>,
    /// Runs dead letters again, and knows who is left alone and who waits.
    pub(crate) dispatcher: Arc<Dispatcher>,
    pub(crate) ready: AtomicBool,
    /// Hash of the token: comparing hashes tells nothing about the token by its time.
    pub(crate) token: Digest,
}

impl Admin {
    /// Serves until `stop`.
    pub(crate) async fn serve(
        self: Arc<Self>,
        listener: TcpListener,
        stop: CancellationToken,
    ) -> std::io::Result<()> {
        let secret = Router::new()
            .route("/fleet", get(fleet))
            .route("/fleet/{worker}", get(explain))
            .route("/requests/{id}", get(requests::explain))
            .route("/topics", get(topics))
            .merge(letters::routes())
            .route("/control", control::route())
            .route_layer(middleware::from_fn_with_state(self.clone(), guard));
        let router = Router::new()
            .route("/metrics", get(metrics))
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(ready))
            .merge(secret)
            .with_state(self);
        axum::serve(listener, router)
            .with_graceful_shutdown(stop.cancelled_owned())
            .await
    }

    /// Takes the counts of jobs over. A store that fails or hangs keeps nobody from the other
    /// metrics, which say so; the counts are then those of before.
    async fn count_jobs(&self) {
        let counts = tokio::time::timeout(COUNT_PATIENCE, self.store.counts()).await;
        let Ok(Ok(counts)) = counts else {
            tracing::warn!("jobs could not be counted for the metrics");
            return;
        };
        let counts: Vec<_> = (counts.iter())
            .map(|(state, count)| (state.as_str(), *count))
            .collect();
        self.metrics.set_jobs(&counts);
    }

    /// Nodes that speak and are not in the fleet: their card has not come, or what they say is
    /// refused.
    async fn outside(&self) -> Vec<Outside> {
        let uncarded = self.fleet.look(|spread, roster, now| {
            let one = |id: &NodeId| {
                let seen = spread.presence().get(id)?;
                Some(Outside {
                    id: *id,
                    age_ms: now.mono_ms.saturating_sub(seen.heard_mono_ms()),
                    reason: UNCARDED.to_owned(),
                })
            };
            let uncarded = roster.uncarded().filter_map(one);
            uncarded.take(MAX_UNCARDED).collect::<Vec<_>>()
        });
        let mut outside = uncarded.await.unwrap_or_default();
        let (fleet, now_ms) = (self.fleet.snapshot(), clock::now().mono_ms);
        for refusal in self.fleet.refusals() {
            let age_ms = now_ms.saturating_sub(refusal.mono_ms);
            let is_known = fleet.worker(&refusal.node).is_some()
                || outside.iter().any(|it| it.id == refusal.node);
            let is_worker = (self.node.linked(&refusal.node))
                .is_some_and(|link| link.peer().role == Role::Worker);
            if !is_known && is_worker && age_ms < REFUSAL_SHOWN_MS {
                outside.push(Outside {
                    id: refusal.node,
                    age_ms,
                    reason: format!("refused ({}): {}", refusal.reason.as_str(), refusal.means()),
                });
            }
        }
        outside.sort_unstable_by_key(|it| it.id);
        outside
    }

    fn is_linked(&self, id: &NodeId) -> bool {
        self.node.linked(id).is_some()
    }

    /// How the link with a node stands.
    fn link(&self, id: &NodeId) -> &'static str {
        match self.node.linked(id) {
            None => "none",
            Some(link) if link.is_quiet() => "quiet",
            Some(link) if link.is_relayed() => "relayed",
            Some(_) => "direct",
        }
    }

    fn allows(&self, request: &axum::extract::Request) -> bool {
        (request.headers())
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("Bearer "))
            .is_some_and(|token| Digest::of(token.as_bytes()) == self.token)
    }
}

async fn metrics(State(admin): State<Arc<Admin>>) -> Response {
    admin.count_jobs().await;
    admin.dispatcher.breaking.count();
    admin.dispatcher.waiting.count();
    let text = admin.registry.encode();
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response()
}

async fn ready(State(admin): State<Arc<Admin>>) -> Response {
    if admin.ready.load(Ordering::Acquire) {
        "ready\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "starting or stopping\n").into_response()
    }
}

/// Lets nobody by without the token.
async fn guard(
    State(admin): State<Arc<Admin>>,
    request: axum::extract::Request,
    next: Next,
) -> Response {
    if admin.allows(&request) {
        return next.run(request).await;
    }
    (
        StatusCode::UNAUTHORIZED,
        [(header::WWW_AUTHENTICATE, "Bearer")],
        "the admin token is needed: it is in the data folder, in admin.token\n",
    )
        .into_response()
}

type Parameters = Result<Query<Vec<(String, String)>>, QueryRejection>;

/// The parameters of a bounded query, or what is wrong with it.
fn parameters(raw: Option<&str>, query: Parameters) -> Result<Vec<(String, String)>, String> {
    if raw.is_some_and(|it| it.len() > MAX_QUERY_BYTES) {
        return Err(format!("the query is longer than {MAX_QUERY_BYTES} bytes"));
    }
    query.map(|it| it.0).map_err(|error| error.body_text())
}

fn bad(why: &str) -> Response {
    (StatusCode::BAD_REQUEST, format!("{why}\n")).into_response()
}

async fn fleet(
    State(admin): State<Arc<Admin>>,
    RawQuery(raw): RawQuery,
    query: Parameters,
) -> Response {
    let filter = match parameters(raw.as_deref(), query).and_then(|it| Filter::parse(&it)) {
        Ok(filter) => filter,
        Err(why) => return bad(&why),
    };
    let outside = admin.outside().await;
    // A look at a hundred thousand workers is no work for threads that wait for links.
    let page = tokio::task::spawn_blocking(move || {
        let (fleet, catalogue) = (admin.fleet.snapshot(), admin.catalogue.load_full());
        let is_linked = |id: &NodeId| admin.is_linked(id);
        let sight = sight(&fleet, &catalogue, &admin.dispatcher.breaking, &is_linked);
        (sight.page(&filter, &outside), filter.counts)
    });
    match page.await {
        Ok((page, true)) => axum::Json(page).into_response(),
        Ok((page, false)) => {
            let left_out = [("tether-fleet-left-out", page.left_out.to_string())];
            (left_out, axum::Json(page.workers)).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

fn sight<'a>(
    fleet: &'a Snapshot,
    catalogue: &'a Catalogue,
    breaking: &'a Breaking,
    is_linked: &'a dyn Fn(&NodeId) -> bool,
) -> Sight<'a> {
    Sight {
        fleet,
        catalogue,
        breaking,
        is_linked,
        now_mono_ms: clock::now().mono_ms,
    }
}

async fn explain(State(admin): State<Arc<Admin>>, Path(worker): Path<String>) -> Response {
    let prefix = match Prefix::parse(&worker) {
        Ok(prefix) => prefix,
        Err(why) => return bad(&why),
    };
    let asked = prefix.clone();
    let answer = (admin.fleet)
        .look(move |spread, _, now| explain::find(&asked, spread, now))
        .await;
    let fleet = admin.fleet.snapshot();
    let now_ms = clock::now().mono_ms;
    let refusals = admin.fleet.refusals();
    match answer {
        None => (StatusCode::SERVICE_UNAVAILABLE, "stopping\n").into_response(),
        Some(Answer::Many(ids)) => {
            let error = format!("more than one node begins with {worker}: give more digits");
            let body = json!({"error": error, "near": ids});
            (StatusCode::CONFLICT, axum::Json(body)).into_response()
        }
        Some(Answer::None { revoked }) => {
            let (error, near) = explain::unknown(&prefix, revoked, &refusals, &fleet);
            let body = json!({"error": error, "near": near, "workers": fleet.len()});
            (StatusCode::NOT_FOUND, axum::Json(body)).into_response()
        }
        Some(Answer::One(known)) => {
            let catalogue = admin.catalogue.load_full();
            let is_linked = |id: &NodeId| admin.is_linked(id);
            let explaining = Explaining {
                sight: sight(&fleet, &catalogue, &admin.dispatcher.breaking, &is_linked),
                mesh: admin.node.mesh().id,
                region: admin.node.region(),
                placement: &admin.placement.load(),
                link: admin.link(&known.id),
                refused: (refusals.iter().find(|it| it.node == known.id))
                    .map(|it| explain::Refused::of(it, now_ms)),
            };
            axum::Json(explaining.explain(*known, &mut rand::rng())).into_response()
        }
    }
}

async fn topics(
    State(admin): State<Arc<Admin>>,
    RawQuery(raw): RawQuery,
    query: Parameters,
) -> Response {
    let query = match parameters(raw.as_deref(), query) {
        Ok(query) => query,
        Err(why) => return bad(&why),
    };
    let mut look_up = false;
    for (key, value) in &query {
        match (key.as_str(), value.as_str()) {
            ("lookup", "true") => look_up = true,
            ("lookup", "false") => look_up = false,
            _ => return bad("there is only `lookup` here, which is `true` or `false`"),
        }
    }
    axum::Json(topics::page(&admin.node, &admin.uplinks, look_up).await).into_response()
}
