//! One chat: from the HTTP request to the first piece of its answer, and from there to the response.

use crate::account::Account;
use crate::choices::{self, Choices};
use crate::limits::Permit;
use crate::openai::{self, ChatRequest, ChunkWriter, Head, Whole, problem_response};
use crate::problem::{Problem, RATE_LIMIT_EXCEEDED};
use crate::request_id::{self, RequestId};
use crate::routes::{App, CHAT};
use crate::{auth, sse};
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tether_telemetry::trace;
use tether_wire::CorrelationId;
use tether_wire::infer::{Accepted, InferRequest, Input, Prefix, Usage};
use tracing::{Instrument, Span, field};

/// `POST /v1/chat/completions`.
pub(crate) async fn chat_completions(State(app): State<Arc<App>>, request: Request) -> Response {
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
        .begin(request, &span, &mut account)
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
    accepted: Accepted,
    choices: Choices,
    permit: Permit,
}

struct Exchange {
    app: Arc<App>,
}

impl Exchange {
    /// From the HTTP request to the first piece of the answer. Dropping the future cancels all.
    async fn begin(
        &self,
        request: Request,
        span: &Span,
        account: &mut Account,
    ) -> Result<Accepting, Failed> {
        let app = &self.app;
        let (parts, body) = request.into_parts();
        let directory = app.directory()?;
        // Before a byte of the body is read: strangers take no room and no time.
        let tenant = auth::tenant(&directory, &parts.headers)?;
        span.record("tether.tenant", tenant.as_str());
        let mut permit = app.limits.admit(&tenant)?;
        // What is read of the body stays counted until all answers have ended: it is held as long,
        // in one form or another.
        let read = app.bodies.read_json(&tenant, &parts.headers, body);
        let (body, mut held) = read.await?;
        let mut chat = openai::parse_chat_for(&body, |model| {
            if let Some(known) = directory.model(&tenant, model) {
                account.asked(&known.model);
            }
        })?;
        drop(body);
        app.limits.admit_more(&mut permit, chat.answers - 1)?;
        app.bodies.hold_more(&mut held, chat.answers - 1)?;
        let retry_token = request_id::retry_token(&parts.headers)?;
        let correlation = CorrelationId::derive(&tenant, &retry_token);
        span.record("tether.correlation_id", correlation.to_hex());
        let input = Input::Chat(std::mem::take(&mut chat.messages));
        let output = std::mem::take(&mut chat.output);
        let request = InferRequest {
            prefix: Prefix::of(&tenant, &input, &output),
            tenant,
            correlation,
            retry_token,
            model: chat.model.clone(),
            input,
            sampling: chat.sampling.clone(),
            output,
            keyed: request_id::is_keyed(&parts.headers),
            answers: chat.answers,
            resume: None,
        };
        let failed = |problem: Problem| Failed {
            problem,
            correlation: Some(correlation),
        };
        request.check().map_err(|error| failed(error.into()))?;
        let requests = choices::requests(request).map_err(failed)?;
        let mut choices = Choices::submit(app, requests, held);
        let begun = choices.begin().await;
        let accepted = begun.map_err(|problem| {
            if problem.code == RATE_LIMIT_EXCEEDED {
                app.limits.refused_by_workers();
            }
            failed(chat.problem(problem))
        })?;
        Ok(Accepting {
            chat,
            correlation,
            created_s: created_s(&accepted),
            accepted,
            choices,
            permit,
        })
    }

    /// The response to a request whose answer has begun.
    async fn answer(&self, accepting: Accepting, mut account: Account) -> Response {
        let Accepting {
            chat,
            correlation,
            created_s,
            accepted,
            choices,
            permit,
        } = accepting;
        account.begun(&accepted);
        let head = Head::new(self.app.mesh, &correlation, &accepted, &chat, created_s);
        let mut response = if chat.stream {
            let keep_alive = Duration::from_millis(self.app.config.keep_alive_ms);
            let writer = ChunkWriter::new(head, chat.include_usage);
            let body = sse::body(writer, choices, account, permit, keep_alive);
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
            match whole(Whole::new(head), choices).await {
                Ok((bytes, usage)) => {
                    account.finished(usage);
                    let mut response = Response::new(Body::from(bytes));
                    let json = HeaderValue::from_static("application/json");
                    response.headers_mut().insert(header::CONTENT_TYPE, json);
                    response
                }
                Err(problem) => {
                    let problem = chat.problem(problem);
                    account.failed(&problem);
                    problem_response(&problem)
                }
            }
        };
        name(&mut response, &correlation, Some(&accepted));
        response
    }
}

/// Collects answers that are not streamed. What they hold together is bounded, see
/// [`crate::openai::Whole`].
async fn whole(mut whole: Whole, mut choices: Choices) -> Result<(Bytes, Usage), Problem> {
    while let Some(item) = choices.next().await {
        let (answer, told) = item?;
        whole.take(answer, told)?;
    }
    let usage = choices.usage();
    Ok((whole.finish(usage), usage))
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
        if let Some(from) = &accepted.degraded_from {
            headers.insert("x-tether-degraded-from", ascii(from.to_string()));
        }
    }
}

/// When the request was first taken: an answer that is given again says the same.
fn created_s(accepted: &Accepted) -> u64 {
    if accepted.created_ms > 0 {
        return accepted.created_ms / 1_000;
    }
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
