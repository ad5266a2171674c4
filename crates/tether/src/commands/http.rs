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

/// A URL of the command line, in the form in which it was given.
///
/// # Errors
/// What is wrong with it, for clap.
pub(crate) fn parse_url(text: &str) -> Result<String, String> {
    match reqwest::Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => {
            Ok(text.to_owned())
        }
        _ => Err("it is no URL: use http://HOST:PORT".to_owned()),
    }
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
