//! Which path does what.

use crate::account::Account;
use crate::answer::Piece;
use crate::directory::{Directories, Directory};
use crate::limits::{self, Limits, Permit};
use crate::openai::{self, ChatRequest, ChunkWriter, Head, problem_response};
use crate::orchestrators::Orchestrators;
use crate::problem::Problem;
use crate::request_id::{self, RequestId, X_REQUEST_ID};
use crate::submit::{self, Begun};
use crate::{GatewayConfig, auth, sse};
use axum::body::Body;
use axum::extract::{MatchedPath, Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};
use tether_telemetry::metrics::{self, GatewayMetrics, Registry};
use tether_telemetry::trace;
use tether_wire::infer::{Accepted, InferRequest, Input};
use tether_wire::{CorrelationId, TenantId};
use tower_http::catch_panic::CatchPanicLayer;
use tracing::{Instrument, Span, field};

const CHAT: &str = "/v1/chat/completions";
const MODELS: &str = "/v1/models";
const MODEL: &str = "/v1/models/{id}";
const HEALTHZ: &str = "/healthz";
const READYZ: &str = "/readyz";
const METRICS: &str = "/metrics";

/// What all requests share.
pub(crate) struct App {
    pub(crate) config: GatewayConfig,
    pub(crate) directories: Arc<Directories>,
    pub(crate) orchestrators: Arc<Orchestrators>,
    pub(crate) limits: Arc<Limits>,
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

    fn directory(&self) -> Result<Arc<Directory>, Problem> {
        self.directories.current().ok_or_else(|| {
            Problem::unavailable("This gateway has not met an orchestrator of its region yet.")
        })
    }
}

/// The routes; problems of routing are in the API's shape too.
pub(crate) fn router(app: Arc<App>) -> Router {
    Router::new()
        .route(CHAT, post(chat_completions))
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
        tenant(&app, &directory, &headers)?;
        Ok(Json(openai::models_json(&directory)).into_response())
    };
    list().unwrap_or_else(|problem| problem_response(&problem))
}

async fn show_model(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Response {
    let show = || {
        let directory = app.directory()?;
        tenant(&app, &directory, &headers)?;
        let entry = directory.model(&id).ok_or_else(|| {
            let id: String = id.chars().take(128).collect();
            let message = format!("The model '{id}' does not exist.");
            Problem::new(StatusCode::NOT_FOUND, "model_not_found", message).at("model")
        })?;
        Ok(Json(openai::model_json(&id, entry)).into_response())
    };
    show().unwrap_or_else(|problem| problem_response(&problem))
}

async fn chat_completions(State(app): State<Arc<App>>, request: Request) -> Response {
    let span = tracing::info_span!(
        "gateway.request",
        otel.kind = "server",
        otel.status_code = field::Empty,
        tether.role = "gateway",
        tether.correlation_id = field::Empty,
        tether.tenant = field::Empty,
        tether.worker = field::Empty,
        tether.request_id = field::Empty,
        http.request.method = "POST",
        http.route = CHAT,
        http.response.status_code = field::Empty,
        gen_ai.operation.name = "chat",
        gen_ai.response.model = field::Empty,
        gen_ai.usage.input_tokens = field::Empty,
        gen_ai.usage.output_tokens = field::Empty,
        error.type = field::Empty,
    );
    let parent = request.headers().get("traceparent");
    trace::set_parent(&span, parent.and_then(|value| value.to_str().ok()));
    if let Some(RequestId(id)) = request.extensions().get::<RequestId>() {
        span.record("tether.request_id", id.as_str());
    }
    let mut account = Account::new("chat", app.metrics.clone(), span.clone());
    let exchange = Exchange { app };
    match exchange
        .begin(request, &span)
        .instrument(span.clone())
        .await
    {
        Ok(begun) => exchange.answer(begun, account).instrument(span).await,
        Err(failed) => {
            account.failed(&failed.problem);
            failed.response()
        }
    }
}

/// A problem, and the request that it belongs to once that is known.
struct Failed {
    problem: Problem,
    correlation: Option<CorrelationId>,
}

impl Failed {
    fn response(&self) -> Response {
        let mut response = problem_response(&self.problem);
        if let Some(correlation) = &self.correlation {
            name(&mut response, correlation, None);
        }
        response
    }
}

impl From<Problem> for Failed {
    fn from(problem: Problem) -> Self {
        Self {
            problem,
            correlation: None,
        }
    }
}

/// A request for inference whose answer has begun.
struct Accepting {
    chat: ChatRequest,
    correlation: CorrelationId,
    created_s: u64,
    begun: Begun,
    permit: Permit,
}

struct Exchange {
    app: Arc<App>,
}

impl Exchange {
    /// From the HTTP request to the first piece of the answer. Dropping the future cancels all.
    async fn begin(&self, request: Request, span: &Span) -> Result<Accepting, Failed> {
        let app = &self.app;
        let (parts, body) = request.into_parts();
        let directory = app.directory()?;
        let tenant = auth::tenant(&directory, &parts.headers)?;
        span.record("tether.tenant", tenant.as_str());
        let permit = app.limits.admit(&tenant)?;
        let timeout = Duration::from_millis(app.config.body_timeout_ms);
        let limit = app.config.max_body_bytes;
        let body = limits::json_body(&parts.headers, body, limit, timeout).await?;
        let mut chat = openai::parse_chat(&body)?;
        drop(body);
        let retry_token = request_id::retry_token(&parts.headers)?;
        let correlation = CorrelationId::derive(&tenant, &retry_token);
        span.record("tether.correlation_id", correlation.to_hex());
        let request = InferRequest {
            tenant,
            correlation,
            retry_token,
            model: chat.model.clone(),
            input: Input::Chat(std::mem::take(&mut chat.messages)),
            sampling: chat.sampling.clone(),
        };
        let failed = |problem: Problem| Failed {
            problem,
            correlation: Some(correlation),
        };
        request.check().map_err(|error| failed(error.into()))?;
        let begun = submit::submit(&app.orchestrators, &request, app.config.request_timeout())
            .await
            .map_err(failed)?;
        Ok(Accepting {
            chat,
            correlation,
            created_s: unix_seconds(),
            begun,
            permit,
        })
    }

    /// The response to a request whose answer has begun.
    async fn answer(&self, accepting: Accepting, mut account: Account) -> Response {
        let Accepting {
            chat,
            correlation,
            created_s,
            begun,
            permit,
        } = accepting;
        account.begun(&begun.accepted);
        let head = Head::new(&correlation, &begun.accepted, &chat.model, created_s);
        let accepted = begun.accepted.clone();
        let mut response = if chat.stream {
            let keep_alive = Duration::from_millis(self.app.config.keep_alive_ms);
            let writer = ChunkWriter::new(head, chat.include_usage);
            let body = sse::body(
                writer,
                &begun.first,
                begun.answer,
                account,
                permit,
                keep_alive,
            );
            let mut response = Response::new(body);
            let headers = response.headers_mut();
            headers.insert(
                header::CONTENT_TYPE,
                HeaderValue::from_static(sse::CONTENT_TYPE),
            );
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
            // Proxies in front must not collect what is meant to arrive piece by piece.
            headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
            response
        } else {
            match whole(&head, begun).await {
                Ok((bytes, usage)) => {
                    account.finished(usage);
                    let mut response = Response::new(Body::from(bytes));
                    let json = HeaderValue::from_static("application/json");
                    response.headers_mut().insert(header::CONTENT_TYPE, json);
                    response
                }
                Err(problem) => {
                    account.failed(&problem);
                    problem_response(&problem)
                }
            }
        };
        name(&mut response, &correlation, Some(&accepted));
        response
    }
}

/// Collects an answer that is not streamed. Its length is bounded by
/// [`crate::answer::MAX_ANSWER_BYTES`].
async fn whole(
    head: &Head,
    begun: Begun,
) -> Result<(axum::body::Bytes, tether_wire::infer::Usage), Problem> {
    let Begun {
        first, mut answer, ..
    } = begun;
    let mut text = String::new();
    let mut piece = first;
    loop {
        match piece {
            Piece::Text(more) => text.push_str(&more),
            Piece::Done(done) => return Ok((openai::completion(head, &text, &done), done.usage)),
        }
        piece = answer.next().await?;
    }
}

/// Says which request it was and who answered it.
fn name(response: &mut Response, correlation: &CorrelationId, accepted: Option<&Accepted>) {
    let headers = response.headers_mut();
    let ascii = |text: String| {
        HeaderValue::try_from(text)
            .expect("ids are hex digits, model names a-z, 0-9, '-', '@', '.'")
    };
    headers.insert("x-tether-correlation-id", ascii(correlation.to_hex()));
    if let Some(accepted) = accepted {
        headers.insert("x-tether-worker", ascii(accepted.worker.to_hex()));
        headers.insert("x-tether-model", ascii(accepted.model.to_string()));
    }
}

fn unix_seconds() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
