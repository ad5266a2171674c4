//! The worker's metrics over HTTP, for a collector on the same machine. (OBS-1)
//!
//! One page and nothing else: what a worker does for its provider says `tether worker status`.

use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tether_telemetry::metrics::{self, Registry};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;

/// The page.
const PATH: &str = "/metrics";
/// Most collectors at once; others wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 8;
/// How long one of them may take to say what it wants, and over all.
const ASK_PATIENCE: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(10);
/// After a failure to accept, as when no descriptor is left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The page, served until it is dropped.
#[derive(Debug)]
pub(crate) struct MetricsPage {
    address: SocketAddr,
    _serving: AbortOnDropHandle<()>,
}

impl MetricsPage {
    /// Serves what is registered.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub(crate) async fn open(address: SocketAddr, registry: Registry) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let serving = tokio::spawn(serve(listener, registry));
        Ok(Self {
            address,
            _serving: AbortOnDropHandle::new(serving),
        })
    }

    /// Where it is.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

async fn serve(listener: TcpListener, registry: Registry) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    // The semaphore is never closed.
    while let Ok(place) = places.clone().acquire_owned().await {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a collector of metrics cannot be let in");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let registry = registry.clone();
        tokio::spawn(async move {
            let told = tokio::time::timeout(PATIENCE, tell(stream, &registry)).await;
            if !matches!(told, Ok(Ok(()))) {
                tracing::debug!("a collector of metrics did not read them");
            }
            drop(place);
        });
    }
}

/// One answer; a collector that comes again connects again.
async fn tell(stream: TcpStream, registry: &Registry) -> hyper::Result<()> {
    let page = |request: Request<Incoming>| {
        let response = answer(request.method(), request.uri().path(), registry);
        async move { Ok::<_, Infallible>(response) }
    };
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(ASK_PATIENCE)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service_fn(page))
        .await
}

fn answer(method: &Method, path: &str, registry: &Registry) -> Response<String> {
    let plain = "text/plain; charset=utf-8";
    let (status, form, text) = match (path, method) {
        (PATH, &Method::GET | &Method::HEAD) => {
            (StatusCode::OK, metrics::CONTENT_TYPE, registry.encode())
        }
        (PATH, _) => (
            StatusCode::METHOD_NOT_ALLOWED,
            plain,
            "metrics are read with GET\n".to_owned(),
        ),
        _ => (
            StatusCode::NOT_FOUND,
            plain,
            format!("a worker's metrics are at {PATH}, and nothing else is here\n"),
        ),
    };
    let mut response = Response::new(text);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(form));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    response
}
