//! Is a DHT node there? (NET-5)

use super::client::{config, require_ipv4, spawn};
use crate::error::NetError;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

/// What a probe found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeReport {
    /// From question to answer.
    pub rtt: Duration,
}

/// Asks one DHT node whether it is there, from a socket of its own.
///
/// # Errors
/// When it does not answer in time.
pub async fn probe(address: SocketAddr, timeout: Duration) -> Result<ProbeReport, NetError> {
    require_ipv4(&[address])?;
    let from: IpAddr = if address.ip().is_loopback() {
        Ipv4Addr::LOCALHOST.into()
    } else {
        Ipv4Addr::UNSPECIFIED.into()
    };
    let listen = SocketAddr::new(from, 0);
    let mut config = config(listen, &[]);
    config.dht.ephemeral = Some(true);
    let handle = spawn(listen, config).await?;
    let ip = address.ip().to_string();
    let answer = tokio::time::timeout(timeout, handle.dht().ping(&ip, address.port())).await;
    // Nothing of ours is on the DHT: a client that does not stop at once does no harm.
    let _ = tokio::time::timeout(Duration::from_millis(200), handle.destroy()).await;
    match answer {
        Ok(Ok(pong)) => Ok(ProbeReport { rtt: pong.rtt }),
        Ok(Err(_)) | Err(_) => Err(NetError::NoAnswer { address, timeout }),
    }
}
