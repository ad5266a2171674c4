//! HTTP with a server that the provider runs. The one place that knows `reqwest`.
//!
//! Each answer has a connection of its own, so that dropping it is what the server sees as a cancel.
//! Redirects are not followed and no proxy is asked: the server is the one that is configured. What
//! is read is bounded: headers by the HTTP library, bodies here.

use super::reply::{plain, words};
use super::request::Body;
use crate::config::{ServerConfig, ServerKind};
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{RequestBuilder, Response, StatusCode, Url};
use serde::Deserialize;
use std::time::Duration;
use tether_wire::rpc::{Code, RpcError};

/// How long a connection may take to be there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Most bytes of a body that is no stream: a list of models, an error.
const MAX_BODY_BYTES: usize = 1024 * 1024;
/// Longest time to come again that is passed on.
const MAX_RETRY_AFTER_MS: u64 = 3_600_000;

/// Why a server does not serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    /// A stable code.
    pub(super) code: &'static str,
    /// For people.
    pub(super) reason: String,
}

impl Trouble {
    fn down(reason: impl Into<String>) -> Self {
        Self {
            code: "server-down",
            reason: reason.into(),
        }
    }

    fn model(reason: impl Into<String>) -> Self {
        Self {
            code: "server-model",
            reason: reason.into(),
        }
    }
}

/// Why there is no answer, and what that says about the server.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) error: RpcError,
    pub(super) sign: Sign,
}

/// What an answer that failed says about the server.
#[derive(Debug)]
pub(super) enum Sign {
    /// Nothing.
    None,
    /// It may not serve at all; or this request made it answer so. Only the server's health tells.
    Doubt,
    /// It does not serve: this is not of the request's making.
    Down(Trouble),
}

impl From<RpcError> for Failed {
    fn from(error: RpcError) -> Self {
        Self {
            error,
            sign: Sign::None,
        }
    }
}

/// A server, and how it is spoken to.
#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    url: String,
    kind: ServerKind,
    model: String,
    key: Option<HeaderValue>,
}

/// What `/models` answers.
#[derive(Deserialize)]
pub(super) struct Listing {
    data: Vec<Listed>,
}

impl Listing {
    pub(super) fn parse(body: &[u8]) -> Result<Self, Trouble> {
        serde_json::from_slice(body).map_err(|error| {
            // It repeats what it found, however long that is.
            let error = plain(&error.to_string());
            Trouble::down(format!("its list of models cannot be read: {error}"))
        })
    }
}

#[derive(Deserialize)]
struct Listed {
    id: String,
    #[serde(default)]
    aliases: Vec<String>,
    /// vLLM's word for its context.
    #[serde(default)]
    max_model_len: Option<u32>,
    /// llama.cpp's place for it.
    #[serde(default)]
    meta: Option<Meta>,
}

#[derive(Deserialize)]
struct Meta {
    #[serde(default)]
    n_ctx: Option<u32>,
}

impl Client {
    /// Opens nothing yet.
    pub(super) fn new(config: &ServerConfig, key: Option<&str>) -> Result<Self, String> {
        let url = config.url.trim_end_matches('/').to_owned();
        Url::parse(&url).map_err(|error| format!("the url {url} cannot be: {error}"))?;
        let key = key
            .map(|key| HeaderValue::from_str(&format!("Bearer {}", key.trim())))
            .transpose()
            .map_err(|_| "the key holds what no header may".to_owned())?
            .map(|mut key| {
                key.set_sensitive(true);
                key
            });
        let http = reqwest::Client::builder()
            .user_agent(concat!("tether/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_max_idle_per_host(0)
            .redirect(Policy::none())
            .no_proxy()
            .http1_only()
            .build()
            .map_err(|error| format!("no HTTP client: {error}"))?;
        Ok(Self {
            http,
            url,
            kind: config.kind,
            model: config.model.clone(),
            key,
        })
    }

    /// Whether the server is well and has the model. Gives the context that it says it has.
    pub(super) async fn probe(&self, timeout: Duration) -> Result<Option<u32>, Trouble> {
        let looked = tokio::time::timeout(timeout, async {
            if matches!(self.kind, ServerKind::LlamaCpp | ServerKind::Vllm) {
                // Above the API: both answer there whether the model is loaded.
                let root = self.url.strip_suffix("/v1").unwrap_or(&self.url);
                self.get(format!("{root}/health")).await?;
            }
            let body = self.get(format!("{}/models", self.url)).await?;
            self.find(&Listing::parse(&body)?)
        });
        looked.await.unwrap_or_else(|_| {
            let ms = timeout.as_millis();
            Err(Trouble::down(format!(
                "the server gave no sign of life for {ms} ms"
            )))
        })
    }

    fn find(&self, listing: &Listing) -> Result<Option<u32>, Trouble> {
        let is_it = |it: &&Listed| it.id == self.model || it.aliases.contains(&self.model);
        if let Some(found) = listing.data.iter().find(is_it) {
            let n_ctx = found.meta.as_ref().and_then(|meta| meta.n_ctx);
            return Ok(found.max_model_len.or(n_ctx).filter(|tokens| *tokens > 0));
        }
        let ids = listing.data.iter().take(5).map(|it| plain(&it.id));
        let ids: Vec<String> = ids.collect();
        Err(Trouble::model(format!(
            "the server has no model {:?}; it has {ids:?}",
            self.model
        )))
    }

    async fn get(&self, url: String) -> Result<Vec<u8>, Trouble> {
        let request = self.with_key(self.http.get(&url));
        let response = request.send().await;
        let mut response = response.map_err(|error| unreachable(&error))?;
        let status = response.status();
        let body = read(&mut response).await.map_err(Trouble::down)?;
        if status.is_success() {
            return Ok(body);
        }
        let said = said(&body);
        Err(trouble_of(status, &said).unwrap_or_else(|| {
            Trouble::down(format!("the server answers {status} for {url}: {said}"))
        }))
    }

    /// Asks for an answer; gives the stream of it.
    pub(super) async fn ask(&self, body: &Body) -> Result<Response, Failed> {
        let url = format!("{}/{}", self.url, body.path);
        let request = self.with_key(self.http.post(url));
        let request = request.header(ACCEPT, "text/event-stream").json(&body.json);
        let mut response = request.send().await.map_err(|error| {
            let trouble = unreachable(&error);
            Failed {
                error: RpcError::new(Code::Unavailable, trouble.reason),
                sign: Sign::Doubt,
            }
        })?;
        let status = response.status();
        if !status.is_success() {
            let retry_after_ms = retry_after_ms(&response);
            let body = read(&mut response).await.unwrap_or_default();
            return Err(refused(status, retry_after_ms, &body));
        }
        let kind = response.headers().get(CONTENT_TYPE);
        let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if !kind.starts_with("text/event-stream") {
            let kind = plain(kind);
            let why = format!("the server of this model answers with {kind:?} and not a stream");
            return Err(RpcError::new(Code::Unavailable, why).into());
        }
        Ok(response)
    }

    fn with_key(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.key {
            Some(key) => request.header(AUTHORIZATION, key.clone()),
            None => request,
        }
    }
}

fn unreachable(error: &reqwest::Error) -> Trouble {
    let mut why = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        why = inner.to_string();
        source = inner.source();
    }
    Trouble::down(format!("the server cannot be reached: {}", plain(&why)))
}

/// A body, whole, within its bound.
async fn read(response: &mut Response) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(bytes)) if body.len() + bytes.len() > MAX_BODY_BYTES => {
                return Err(format!("it answers with more than {MAX_BODY_BYTES} bytes"));
            }
            Ok(Some(bytes)) => body.extend_from_slice(&bytes),
            Ok(None) => return Ok(body),
            Err(error) => return Err(unreachable(&error).reason),
        }
    }
}

/// What a body says, if it is an error in a usual shape.
pub(super) fn said(body: &[u8]) -> String {
    match serde_json::from_slice::<serde_json::Value>(body) {
        Ok(value) => words(value.get("error").unwrap_or(&value)),
        Err(_) => plain(&String::from_utf8_lossy(&body[..body.len().min(400)])),
    }
}

/// What a status says about the server and not about the request.
fn trouble_of(status: StatusCode, said: &str) -> Option<Trouble> {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Some(Trouble {
            code: "server-refuses-key",
            reason: format!("the server refuses the worker's key ({status}): {said}"),
        }),
        StatusCode::NOT_FOUND => Some(Trouble::model(format!(
            "the server has not what its url and model name: {said}"
        ))),
        StatusCode::SERVICE_UNAVAILABLE => {
            Some(Trouble::down(format!("the server is not ready: {said}")))
        }
        status if status.is_redirection() => Some(Trouble::down(format!(
            "the server points elsewhere ({status}), which is not followed: write its own url"
        ))),
        _ => None,
    }
}

/// A status that is no answer, as an error of the order.
fn refused(status: StatusCode, retry_after_ms: Option<u64>, body: &[u8]) -> Failed {
    let said = said(body);
    let trouble = trouble_of(status, &said);
    let (code, why) = match status {
        StatusCode::TOO_MANY_REQUESTS => (
            Code::Overloaded,
            format!("the server of this model has too much to do: {said}"),
        ),
        StatusCode::BAD_REQUEST
        | StatusCode::PAYLOAD_TOO_LARGE
        | StatusCode::UNPROCESSABLE_ENTITY => (
            Code::Invalid,
            format!("the server of this model refuses the request: {said}"),
        ),
        _ => (
            Code::Unavailable,
            match &trouble {
                Some(trouble) => trouble.reason.clone(),
                None => format!("the server of this model answers {status}: {said}"),
            },
        ),
    };
    let mut error = RpcError::new(code, why);
    error.retry_after_ms = retry_after_ms;
    let sign = match trouble {
        // The key is the worker's and no part of a request; and some servers answer without one
        // whether they are well, so that their health would not tell.
        Some(trouble) if status == StatusCode::UNAUTHORIZED => Sign::Down(trouble),
        Some(_) => Sign::Doubt,
        None => Sign::None,
    };
    Failed { error, sign }
}

/// Seconds, as all of these servers write them; a date is not read.
fn retry_after_ms(response: &Response) -> Option<u64> {
    let value = response.headers().get(RETRY_AFTER)?.to_str().ok()?;
    let seconds: u64 = value.trim().parse().ok()?;
    Some(seconds.saturating_mul(1_000).min(MAX_RETRY_AFTER_MS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_list_that_is_none_only_a_part_is_repeated() {
        let body = format!(r#"{{"data":"{}"}}"#, "x".repeat(128 * 1024));
        let trouble = Listing::parse(body.as_bytes()).err().expect("no list");
        assert!(trouble.reason.contains("xxx") && trouble.reason.len() < 600);
    }
}
