//! Start, accept, drain.

use crate::body::Bodies;
use crate::config::{ConfigError, GatewayConfig};
use crate::directory::{self, Directories};
use crate::hangup::{self, Hangup, Socket};
use crate::limits::Limits;
use crate::orchestrators::Orchestrators;
use crate::presence::{self, Presence};
use crate::routes::{self, App};
use crate::stall::Stalling;
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tether_net::{BoxFuture, Incoming, NetError, Node, NodeConfig, Service};
use tether_telemetry::metrics::{GatewayMetrics, Registry};
use tether_wire::NodeId;
use tether_wire::rpc::{Code, RpcError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

/// Most bytes of the head of a request.
const MAX_HEAD_BYTES: usize = 64 * 1024;
/// Most headers of a request.
const MAX_HEADERS: usize = 128;
/// Pause when the system has no sockets left, so that accepting does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// What a connection too many is told, in the API's shape.
const BUSY: &str = r#"{"error":{"message":"This gateway has as many connections as it can.","type":"service_unavailable_error","param":null,"code":"busy"}}"#;
/// How long such a connection may take to hear it, and how much of its request is read meanwhile:
/// closing with unread bytes would cut the answer off.
const BUSY_PATIENCE: Duration = Duration::from_millis(500);
const BUSY_READ_BYTES: u64 = 64 * 1024;

/// Why a gateway cannot start.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// A setting is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The address for tenants cannot be bound.
    #[error("cannot listen on {address} for tenants: {why}")]
    Listen {
        /// The address as configured.
        address: SocketAddr,
        /// The system's words.
        why: std::io::Error,
    },
    /// The data folder cannot be used.
    #[error("the data folder {}: {error}", .path.display())]
    DataDir {
        /// The folder.
        path: PathBuf,
        /// The system's words.
        error: std::io::Error,
    },
    /// The node cannot start.
    #[error(transparent)]
    Net(#[from] NetError),
}

/// A running gateway.
pub struct Gateway {
    node: Node,
    addr: SocketAddr,
    app: Arc<App>,
    stop: watch::Sender<bool>,
    serving: JoinHandle<()>,
    background: Vec<JoinHandle<()>>,
    presence: Presence,
}

/// Starts a gateway: binds, joins the mesh, looks for orchestrators, serves.
///
/// It serves at once; until it has met an orchestrator it answers 503, and `/readyz` says why. In
/// `data_dir` it keeps the number of its runs; without one that is the time.
///
/// # Errors
/// When a setting is wrong or an address cannot be bound.
pub async fn start(
    config: GatewayConfig,
    data_dir: Option<&Path>,
    node: NodeConfig,
    metrics: Arc<GatewayMetrics>,
    registry: Registry,
) -> Result<Gateway, GatewayError> {
    config.check()?;
    let listen_error = |why| GatewayError::Listen {
        address: config.listen,
        why,
    };
    let listener = TcpListener::bind(config.listen)
        .await
        .map_err(listen_error)?;
    let addr = listener.local_addr().map_err(listen_error)?;
    let epoch = presence::epoch(data_dir).map_err(|error| GatewayError::DataDir {
        path: data_dir.unwrap_or(Path::new("")).to_owned(),
        error,
    })?;
    let node = Node::start(node, Arc::new(NoService)).await?;
    let orchestrators = Orchestrators::new(&node, metrics.clone());
    let directories = Arc::new(Directories::default());
    let app = Arc::new(App {
        limits: Limits::new(&config, metrics.clone()),
        bodies: Bodies::new(&config, metrics.clone()),
        directories: directories.clone(),
        orchestrators: orchestrators.clone(),
        metrics: metrics.clone(),
        registry,
        draining: AtomicBool::new(false),
        mesh: node.mesh().id,
        config,
    });
    let presence = Presence::start(&node, epoch, &app);
    let background = vec![
        tokio::spawn(orchestrators.clone().keep()),
        tokio::spawn(directory::follow(orchestrators, directories, metrics)),
    ];
    let (stop, stopped) = watch::channel(false);
    let serving = tokio::spawn(serve(listener, app.clone(), stopped));
    tracing::debug!(%addr, id = %node.id(), "the gateway listens");
    Ok(Gateway {
        node,
        addr,
        app,
        stop,
        serving,
        background,
        presence,
    })
}

impl Gateway {
    /// Its node's id.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.node.id()
    }

    /// Where tenants reach it.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Whether it is linked to an orchestrator and has a directory.
    #[must_use]
    pub fn ready(&self) -> bool {
        self.app.not_ready().is_none()
    }

    /// Waits until it is ready.
    pub async fn until_ready(&self) {
        let mut changes = self.app.orchestrators.watch();
        while !self.ready() {
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Stops: accepts no more, lets answers end within the drain timeout, says goodbye,
    /// leaves the mesh.
    pub async fn shutdown(self) {
        self.app.draining.store(true, Ordering::Relaxed);
        self.presence.draining();
        self.stop.send_replace(true);
        if let Err(error) = self.serving.await {
            tracing::error!(%error, "serving ended badly");
        }
        self.presence.goodbye().await;
        for task in self.background {
            task.abort();
        }
        self.node.shutdown().await;
    }
}

/// A gateway calls; nobody calls it.
struct NoService;

impl Service for NoService {
    fn serve(&self, call: Incoming) -> BoxFuture<'static, Result<(), RpcError>> {
        let error = RpcError::new(
            Code::Unimplemented,
            format!("a gateway has no method `{}`", call.method()),
        );
        Box::pin(async move { Err(error) })
    }
}

async fn serve(listener: TcpListener, app: Arc<App>, mut stopped: watch::Receiver<bool>) {
    let router = routes::router(app.clone());
    let places = Arc::new(Semaphore::new(app.config.max_connections));
    let graceful = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopped.wait_for(|stop| *stop) => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection cannot be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            app.metrics.limited("connections");
            refuse(stream);
            continue;
        };
        let (connection, hangup) = connection(&app, stream, router.clone());
        let connection = graceful.watch(connection);
        let metrics = app.metrics.clone();
        tokio::spawn(async move {
            metrics.connections().inc();
            // What is dropped with the connection is cancelled, all the way to the engine.
            tokio::select! {
                biased;
                ended = connection => if let Err(error) = ended {
                    tracing::debug!(%error, "a connection ended early");
                },
                () = hangup.heard() => tracing::debug!("a client hung up"),
            }
            metrics.connections().dec();
            drop(place);
        });
    }
    drop(listener);
    let drain = Duration::from_millis(app.config.drain_timeout_ms);
    if tokio::time::timeout(drain, graceful.shutdown())
        .await
        .is_err()
    {
        tracing::warn!("answers that did not end within the drain timeout are cut");
    }
}

type Connection = http1::Connection<TokioIo<Stalling<Socket>>, TowerToHyperService<Router>>;

fn connection(app: &App, stream: TcpStream, router: Router) -> (Connection, Hangup) {
    // Without it a small event waits some 40 ms for an acknowledgement.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY cannot be set");
    }
    let write_timeout = Duration::from_millis(app.config.write_timeout_ms);
    let (socket, hangup) = hangup::watched(stream);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(app.config.header_timeout_ms))
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(
            TokioIo::new(Stalling::new(socket, write_timeout)),
            TowerToHyperService::new(router),
        );
    (connection, hangup)
}

/// Tells a client that it is one too many.
fn refuse(mut stream: TcpStream) {
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{BUSY}",
        BUSY.len()
    );
    tokio::spawn(async move {
        let tell = async {
            stream.write_all(answer.as_bytes()).await?;
            stream.shutdown().await?;
            tokio::io::copy(&mut stream.take(BUSY_READ_BYTES), &mut tokio::io::sink()).await
        };
        // Whoever does not listen has lost nothing.
        let _ = tokio::time::timeout(BUSY_PATIENCE, tell).await;
    });
}
