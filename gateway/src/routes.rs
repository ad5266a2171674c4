//! Which path does what.

use crate::body::Bodies;
use crate::directory::{Directories, Directory};
use crate::limits::Limits;
use crate::openai::{self, problem_response};
use crate::orchestrators::Orchestrators;
use crate::problem::Problem;
use crate::request_id::{RequestId, X_REQUEST_ID};
use crate::{GatewayConfig, auth, exchange};
use axum::extract::rejection::PathRejection;
use axum::extract::{MatchedPath, Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use tether_telemetry::metrics::{self, GatewayMetrics, Registry};
use tether_wire::{MeshId, TenantId};
use tower_http::catch_panic::CatchPanicLayer;

/// Chat completions.
pub(crate) const CHAT: &str = "/v1/chat/completions";
const MODELS: &str = "/v1/models";
const MODEL: &str = "/v1/models/{id}";
const HEALTHZ: &str = "/healthz";
const READYZ: &str = "/readyz";
const METRICS: &str = "/metrics";

/// What all requests share.
pub(crate) struct App {
    pub(crate) config: GatewayConfig,
    /// Its mesh, in which receipts count.
    pub(crate) mesh: MeshId,
    pub(crate) directories: Arc<Directories>,
    pub(crate) orchestrators: Arc<Orchestrators>,
    pub(crate) limits: Limits,
    pub(crate) bodies: Bodies,
    pub(crate) metrics: Arc<GatewayMetrics>,
    pub(crate) registry: Registry,
    pub(crate) draining: AtomicBool,
}

impl App {
    /// Why requests cannot be answered now; nothing when they can.
    pub(crate) fn not_ready(&self) -> Option<&'static str> {
        if self.draining.load(Ordering::Relaxed) {
            Some("draining")
        } else if self.directories.current().is_none() {
            Some("no directory of tenants and models yet")
        } else if self.orchestrators.any().is_none() {
            Some("no link to an orchestrator")
        } else {
            None
        }
    }

    /// The directory in use, or that there is none yet.
    pub(crate) fn directory(&self) -> Result<Arc<Directory>, Problem> {
        self.directories.current().ok_or_else(|| {
            Problem::unavailable("This gateway has not met an orchestrator of its region yet.")
        })
    }
}

/// The routes; problems of routing are in the API's shape too.
pub(crate) fn router(app: Arc<App>) -> Router {
    Router::new()
        .route(CHAT, post(exchange::chat_completions))
        .route(MODELS, get(list_models))
        .route(MODEL, get(show_model))
        .route(HEALTHZ, get(async || "ok\n"))
        .route(READYZ, get(ready))
        .route(METRICS, get(show_metrics))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(CatchPanicLayer::custom(|_| {
            let code = StatusCode::INTERNAL_SERVER_ERROR;
            problem_response(&Problem::new(
                code,
                "internal_error",
                "Something broke here.",
            ))
        }))
        .layer(middleware::from_fn_with_state(app.clone(), observe))
        .with_state(app)
}

/// Gives each request its id and counts its answer.
async fn observe(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = RequestId::of(request.headers());
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .and_then(|path| {
            [CHAT, MODELS, MODEL, HEALTHZ, READYZ, METRICS]
                .into_iter()
                .find(|route| *route == path.as_str())
        })
        .unwrap_or("other");
    request.extensions_mut().insert(id.clone());
    let mut response = next.run(request).await;
    app.metrics.http_request(route, response.status().as_u16());
    let headers = response.headers_mut();
    headers.insert(X_REQUEST_ID, id.header());
    let took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    headers.insert("openai-processing-ms", HeaderValue::from(took_ms));
    response
}

async fn not_found(uri: Uri) -> Response {
    let path: String = uri.path().chars().take(128).collect();
    let message = format!("There is nothing at {path}.");
    problem_response(&Problem::new(StatusCode::NOT_FOUND, "not_found", message))
}

async fn method_not_allowed(method: Method) -> Response {
    problem_response(&Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        format!("{method} is not allowed here."),
    ))
}

async fn ready(State(app): State<Arc<App>>) -> Response {
    match app.not_ready() {
        None => "ready\n".into_response(),
        Some(why) => (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("not ready: {why}\n"),
        )
            .into_response(),
    }
}

async fn show_metrics(State(app): State<Arc<App>>) -> Response {
    (
        [(header::CONTENT_TYPE, metrics::CONTENT_TYPE)],
        app.registry.encode(),
    )
        .into_response()
}

/// The tenant that asks; failures are counted.
fn tenant(app: &App, directory: &Directory, headers: &HeaderMap) -> Result<TenantId, Problem> {
    auth::tenant(directory, headers).inspect_err(|problem| app.metrics.auth_failure(problem.code))
}

async fn list_models(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    let list = || {
        let directory = app.directory()?;
        let tenant = tenant(&app, &directory, &headers)?;
        Ok(Json(openai::models_json(&directory, &tenant)).into_response())
    };
    list().unwrap_or_else(|problem| problem_response(&problem))
}

async fn show_model(
    State(app): State<Arc<App>>,
    id: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Response {
    let show = || {
        let directory = app.directory()?;
        let tenant = tenant(&app, &directory, &headers)?;
        let Path(id) = id.map_err(|_| {
            Problem::invalid("invalid_value", "The model's name is not UTF-8.").at("model")
        })?;
        let entry = directory.model(&tenant, &id).ok_or_else(|| {
            let id: String = id.chars().take(128).collect();
            let message = format!("the model `{id}` does not exist");
            Problem::new(StatusCode::NOT_FOUND, "model_not_found", message).at("model")
        })?;
        Ok(Json(openai::model_json(&id, entry)).into_response())
    };
    show().unwrap_or_else(|problem| problem_response(&problem))
}
