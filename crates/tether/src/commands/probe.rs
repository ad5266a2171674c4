//! `tether probe`: does it answer? (NET-5)

use super::http;
use crate::exit::NotReady;
use crate::stdout;
use clap::Args;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// See [`crate::cli`].
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  tether probe 192.0.2.7:49737          a bootstrap node: one DHT ping over UDP
  tether probe http://127.0.0.1:8080    a gateway or orchestrator: /healthz and /readyz

Exit code 0 if it answers (and is ready), 4 if not.")]
pub(crate) struct ProbeArgs {
    /// HOST:PORT of a DHT node, or an http:// URL
    #[arg(value_name = "ADDR", value_parser = parse_target)]
    target: String,
    /// How long to wait, in milliseconds
    #[arg(long, default_value_t = 5_000, value_name = "MS")]
    timeout_ms: u64,
}

impl ProbeArgs {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let timeout = Duration::from_millis(self.timeout_ms);
        super::runtime()?.block_on(async {
            if self.target.starts_with("http://") || self.target.starts_with("https://") {
                probe_http(self.target.trim_end_matches('/'), timeout).await
            } else {
                probe_dht(&self.target, timeout).await
            }
        })
    }
}

fn parse_target(text: &str) -> Result<String, String> {
    if text.contains("://") {
        return http::parse_url(text);
    }
    match text.rsplit_once(':') {
        Some((host, port))
            if !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0) =>
        {
            Ok(text.to_owned())
        }
        _ => Err("it is no address: use HOST:PORT or an http:// URL".to_owned()),
    }
}

async fn probe_dht(target: &str, timeout: Duration) -> anyhow::Result<()> {
    let addr = resolve(target).await?;
    let report = tether_net::probe(addr, timeout)
        .await
        .map_err(|error| NotReady(format!("{addr} does not answer as a DHT node: {error}")))?;
    let ms = report.rtt.as_secs_f64() * 1e3;
    let said = format!("{addr} answers as a DHT node after {ms:.1} ms");
    Ok(stdout::line(said)?)
}

async fn resolve(target: &str) -> anyhow::Result<SocketAddr> {
    let found = tokio::net::lookup_host(target)
        .await
        .map_err(|error| NotReady(format!("`{target}` cannot be resolved: {error}")))?;
    // The DHT speaks IPv4 mostly; an IPv6 address is the second choice.
    let mut found: Vec<SocketAddr> = found.collect();
    found.sort_by_key(SocketAddr::is_ipv6);
    found
        .first()
        .copied()
        .ok_or_else(|| NotReady(format!("`{target}` has no address")).into())
}

async fn probe_http(base: &str, timeout: Duration) -> anyhow::Result<()> {
    let client = http::client()?;
    for path in ["/healthz", "/readyz"] {
        let url = format!("{base}{path}");
        let begin = Instant::now();
        let response = client
            .get(&url)
            .timeout(timeout)
            .send()
            .await
            .map_err(|error| http::unreachable(&url, &error))?;
        let status = response.status();
        let ms = begin.elapsed().as_secs_f64() * 1e3;
        if !status.is_success() {
            let body = response.text().await.unwrap_or_default();
            let body: String = body.chars().take(500).collect();
            return Err(NotReady(format!("{url} answers {status}: {}", body.trim())).into());
        }
        stdout::line(format_args!("{url} answers {status} after {ms:.1} ms"))?;
    }
    Ok(())
}
