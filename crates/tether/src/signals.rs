//! SIGINT and SIGTERM: the first asks for a drain, the second ends at once.

use std::future::Future;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

/// The signals that end a process.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Starts to listen; from here on the signals no longer kill the process.
    pub(crate) fn listen() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// The next signal's name.
    pub(crate) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }

    /// Drains; a second signal cuts it short.
    pub(crate) async fn drain(&mut self, signal: &str, drain: impl Future<Output = ()>) {
        info!("{signal}: draining; a second signal stops at once");
        tokio::select! {
            () = drain => {}
            again = self.next() => warn!("{again} while draining: stopping at once"),
        }
    }
}
