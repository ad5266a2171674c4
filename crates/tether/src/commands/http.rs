//! The few HTTP requests that commands make.

use crate::exit::NotReady;
use anyhow::Context;
use std::time::Duration;

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A client that uses no proxy: it speaks to this machine or to an address that the user gave.
pub(crate) fn client() -> anyhow::Result<reqwest::Client> {
    reqwest::Client::builder()
        .no_proxy()
        .connect_timeout(CONNECT_TIMEOUT)
        .build()
        .context("cannot make an HTTP client")
}

/// The error of a request that got no answer.
pub(crate) fn unreachable(url: &str, error: &reqwest::Error) -> NotReady {
    let mut text = format!("{url} does not answer: {error}");
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    NotReady(text)
}
