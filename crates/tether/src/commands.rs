//! One module for each command that runs no node: its arguments and its code.

pub(crate) mod artifact;
pub(crate) mod chat;
pub(crate) mod completions;
pub(crate) mod control;
pub(crate) mod deliver;
pub(crate) mod dlq;
pub(crate) mod doctor;
pub(crate) mod explain;
pub(crate) mod fleet;
pub(crate) mod grant;
pub(crate) mod http;
pub(crate) mod invite;
pub(crate) mod keys;
pub(crate) mod lifetime;
mod listed;
pub(crate) mod mesh;
pub(crate) mod policy;
pub(crate) mod probe;
pub(crate) mod receipt;
pub(crate) mod revoke;
pub(crate) mod run_file;
pub(crate) mod settings;
pub(crate) mod signer;
pub(crate) mod sse;
pub(crate) mod store;
pub(crate) mod tenant;
pub(crate) mod topics;
pub(crate) mod worker_init;
pub(crate) mod worker_status;

/// Runs a server to its end, on a runtime of its own. What still blocks a thread then, as the
/// verification of a large model, is not waited for: the server's own drain was.
pub(crate) fn serve<T>(server: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = runtime()?;
    let ended = runtime.block_on(server);
    runtime.shutdown_background();
    ended
}

/// A runtime for a command that speaks with others.
pub(crate) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    use anyhow::Context;
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")
}
