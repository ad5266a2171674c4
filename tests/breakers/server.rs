//! A server of the provider's that speaks as much of OpenAI's API as a worker asks of it, and fails as
//! the test tells it to.

use crate::support::runtime;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use tokio::net::TcpListener;

/// What the server calls its model.
pub(crate) const MODEL: &str = "tiny";

/// How it answers.
#[derive(Clone, Copy)]
pub(crate) enum Mood {
    /// Whole.
    Well,
    /// Every second time, the first time among them, by an error of its own.
    FailsHalf,
    /// That the request is wrong.
    Refuses,
}

/// A server, until the test ends.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    mood: AtomicU8,
    asked: AtomicUsize,
}

impl Server {
    pub(crate) fn start(mood: Mood) -> Self {
        let shared = Arc::new(Shared {
            mood: AtomicU8::new(mood as u8),
            asked: AtomicUsize::new(0),
        });
        let models = || async {
            let list = format!(r#"{{"object":"list","data":[{{"id":"{MODEL}"}}]}}"#);
            json(StatusCode::OK, list)
        };
        let app = axum::Router::new()
            .route("/v1/models", get(models))
            .route("/v1/chat/completions", post(answer))
            .with_state(shared.clone());
        let address = runtime().block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            let address = listener.local_addr().expect("bound");
            tokio::spawn(async move { axum::serve(listener, app).await });
            address
        });
        Self { address, shared }
    }

    pub(crate) fn turns(&self, mood: Mood) {
        self.shared.mood.store(mood as u8, Ordering::SeqCst);
    }

    /// Requests that it was asked for so far.
    pub(crate) fn asked(&self) -> usize {
        self.shared.asked.load(Ordering::SeqCst)
    }
}

async fn answer(State(shared): State<Arc<Shared>>) -> Response {
    let nth = shared.asked.fetch_add(1, Ordering::SeqCst);
    let mood = shared.mood.load(Ordering::SeqCst);
    let error = |status| json(status, r#"{"error":{"message":"no"}}"#.to_owned());
    if mood == Mood::Refuses as u8 {
        return error(StatusCode::BAD_REQUEST);
    }
    if mood == Mood::FailsHalf as u8 && nth.is_multiple_of(2) {
        return error(StatusCode::INTERNAL_SERVER_ERROR);
    }
    let events = [
        r#"{"model":"tiny","choices":[{"index":0,"delta":{"content":"Paris."}}]}"#,
        r#"{"model":"tiny","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#,
        r#"{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}"#,
        "[DONE]",
    ];
    let events = events.map(|event| format!("data: {event}\n\n")).concat();
    ([(header::CONTENT_TYPE, "text/event-stream")], events).into_response()
}

fn json(status: StatusCode, body: String) -> Response {
    let head = [(header::CONTENT_TYPE, "application/json")];
    (status, head, body).into_response()
}
