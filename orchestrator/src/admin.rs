//! HTTP for the operator of this machine: metrics, health, the fleet. Loopback only.

mod control;
mod token;

pub use token::{TOKEN_FILE, TokenError, load_or_create};

use crate::catalogue::Catalogue;
use crate::clock;
use crate::fleet::keeper::Fleet;
use crate::fleet::{Snapshot, UNAVAILABLE, WorkerView};
use crate::store::MetadataStore;
use arc_swap::ArcSwap;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tether_net::Members;
use tether_telemetry::metrics::{CONTENT_TYPE, OrchestratorMetrics, Registry};
use tether_wire::card::ModelOffer;
use tether_wire::{Digest, NodeId, Region, Tier};
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
    pub(crate) ready: AtomicBool,
    /// Hash of the token: comparing hashes tells nothing about the token by its time.
    pub(crate) token: Digest,
}

/// One worker, as `tether fleet --json` shows it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FleetRow {
    /// Its key.
    pub id: NodeId,
    /// `starting`, `serving`, `unavailable` (it has no model that is asked for), `draining`,
    /// `suspect` or `unknown`.
    pub state: &'static str,
    /// Where it stands.
    pub region: Region,
    /// What it serves, `NAME@MAJOR.MINOR`.
    pub models: Vec<String>,
    /// Requests that this orchestrator has running there, now.
    pub in_flight: u32,
    /// Requests that waited there when it was last heard.
    pub queue_depth: u32,
    /// Milliseconds since it was last heard.
    pub heartbeat_age_ms: u64,
    /// Requests that it runs at once.
    pub slots: u32,
    /// How far it is believed.
    pub tier: Tier,
    /// Engine and its version.
    pub engine: String,
    /// Why nothing is given to it; null when it is routable.
    pub reason: Option<String>,
    /// What it should serve and does not, or offers and is not asked for.
    pub faults: Vec<FaultRow>,
}

/// A model that a worker should serve and does not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FaultRow {
    /// As configured at the worker.
    pub model: String,
    /// Why it does not.
    pub reason: String,
}

/// The fleet as rows, by id.
#[must_use]
pub fn rows(fleet: &Snapshot, catalogue: &Catalogue, now_mono_ms: u64) -> Vec<FleetRow> {
    let mut rows: Vec<FleetRow> = fleet
        .workers()
        .map(|worker| {
            let card = worker.card();
            let refused = refused(worker, fleet, catalogue);
            let nothing_left = !refused.is_empty() && refused.len() == card.models.len();
            let state = match worker.state_name() {
                "serving" if nothing_left => UNAVAILABLE,
                state => state,
            };
            FleetRow {
                id: worker.id(),
                state,
                region: worker.region().clone(),
                models: card.models.iter().map(|it| it.model.to_string()).collect(),
                in_flight: worker.in_flight(),
                queue_depth: worker.queue_depth(),
                heartbeat_age_ms: now_mono_ms.saturating_sub(worker.heard_mono_ms()),
                slots: card.capacity,
                tier: worker.tier,
                engine: card.engine.clone(),
                reason: worker.unroutable().or_else(|| {
                    let first = refused.first().filter(|_| nothing_left)?;
                    Some(format!("{}: {}", first.model, first.reason))
                }),
                faults: (card.faults.iter())
                    .map(|fault| FaultRow {
                        model: fault.model.clone(),
                        reason: fault.reason.clone(),
                    })
                    .chain(refused)
                    .collect(),
            }
        })
        .collect();
    rows.sort_by_key(|row| row.id);
    rows
}

/// What a worker offers of which nothing is asked for: the name is bound to something else, or more
/// is offered than is kept.
fn refused(worker: &WorkerView, fleet: &Snapshot, catalogue: &Catalogue) -> Vec<FaultRow> {
    let fault = |offer: &ModelOffer| {
        let beyond = || {
            let why = "more different artifacts are offered than this orchestrator keeps";
            (!fleet.finds(worker, offer)).then(|| why.to_owned())
        };
        let reason = catalogue.refuses(offer).or_else(beyond)?;
        let model = offer.model.to_string();
        Some(FaultRow { model, reason })
    };
    worker.card().models.iter().filter_map(fault).collect()
}

impl Admin {
    /// Serves until `stop`.
    pub(crate) async fn serve(
        self: Arc<Self>,
        listener: TcpListener,
        stop: CancellationToken,
    ) -> std::io::Result<()> {
        let router = Router::new()
            .route("/metrics", get(metrics))
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(ready))
            .route("/fleet", get(fleet))
            .route("/control", control::route())
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

    fn allows(&self, headers: &HeaderMap) -> bool {
        headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("Bearer "))
            .is_some_and(|token| Digest::of(token.as_bytes()) == self.token)
    }
}

async fn metrics(State(admin): State<Arc<Admin>>) -> Response {
    admin.count_jobs().await;
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

fn unauthorised() -> Response {
    (
        StatusCode::UNAUTHORIZED,
        [(header::WWW_AUTHENTICATE, "Bearer")],
        "the admin token is needed: it is in the data folder, in admin.token\n",
    )
        .into_response()
}

async fn fleet(State(admin): State<Arc<Admin>>, headers: HeaderMap) -> Response {
    if !admin.allows(&headers) {
        return unauthorised();
    }
    let rows = rows(
        &admin.fleet.snapshot(),
        &admin.catalogue.load(),
        clock::now().mono_ms,
    );
    axum::Json(rows).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::Release;
    use crate::fleet::Roster;
    use crate::testing::{id, offer, there};
    use tether_presence::Effect;

    #[test]
    fn a_row_has_exactly_the_fields_that_are_promised() {
        let mut roster = Roster::default();
        there(&mut roster, 1, |it| {
            it.beat.queue_depth = 2;
            it.heard_mono_ms = 1_000;
        });
        roster.apply(Effect::Suspect(id(1)));
        let fleet = roster.snapshot();
        let _busy = fleet.worker(&id(1)).expect("there").occupy();
        let json = serde_json::to_value(rows(&fleet, &Catalogue::default(), 1_250)).expect("JSON");
        let reason = json[0]["reason"].as_str().expect("a reason").to_owned();
        assert!(reason.starts_with("suspect"));
        assert_eq!(
            json,
            serde_json::json!([{
                "id": id(1).to_hex(), "state": "suspect", "region": "local",
                "models": ["tiny@1.0"], "in_flight": 1, "queue_depth": 2,
                "heartbeat_age_ms": 250, "slots": 4, "tier": "trusted", "engine": "echo",
                "reason": reason, "faults": []
            }])
        );
    }

    #[test]
    fn a_worker_that_offers_no_model_is_not_said_to_serve() {
        let mut roster = Roster::default();
        there(&mut roster, 1, |it| it.worker.models.clear());
        let fleet = roster.snapshot();
        let row = rows(&fleet, &Catalogue::default(), 0).remove(0);
        assert_eq!(row.state, "unavailable");
        assert_eq!(row.reason.as_deref(), Some("it offers no model"));
        let counts = roster.counts();
        assert!(counts.contains(&("unavailable", 1)) && counts.contains(&("serving", 0)));
        roster.apply(Effect::Suspect(id(1)));
        assert!(roster.counts().contains(&("suspect", 1)));
    }

    #[test]
    fn a_worker_with_another_artifact_than_its_name_is_bound_to_is_told_so() {
        let mut roster = Roster::default();
        for (n, digest) in [(1, 7), (2, 8)] {
            there(&mut roster, n, |it| {
                it.worker.models = vec![offer("tiny@1.0", digest)];
            });
        }
        let fleet = roster.snapshot();
        let release = Release {
            model: "tiny@1.0".parse().expect("valid"),
            digest: Digest([7; 32]),
            created_ms: 1,
        };
        let rows = rows(&fleet, &Catalogue::new(&[release], &[]), 0);
        let row = |n| rows.iter().find(|row| row.id == id(n)).expect("there");
        assert_eq!((&row(1).reason, row(1).faults.len()), (&None, 0));
        assert_eq!((row(1).state, row(2).state), ("serving", "unavailable"));
        let reason = row(2).reason.as_deref().expect("a reason");
        assert!(reason.starts_with("tiny@1.0: ") && reason.contains("released"));
        assert_eq!(row(2).faults[0].model, "tiny@1.0");
    }
}
