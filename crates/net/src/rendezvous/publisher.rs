//! A node's addresses in its mutable record: published, renewed, published again when they change.
//! [T-REC-1] to [T-REC-3]

use super::client::Client;
use super::schedule::Schedule;
use crate::clock::now_ms;
use futures_util::future::BoxFuture;
use std::sync::Arc;
use std::time::Duration;
use tether_wire::record::Record;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long a start waits for the first publication. Without bootstrap nodes it goes on without.
const FIRST_TIMEOUT: Duration = Duration::from_secs(3);

/// Where the addresses come from.
pub(crate) trait AddressSource: Send + 'static {
    /// The addresses, and the relay, now.
    fn record(&self) -> Record;
    /// Waits until they may have changed.
    fn changed(&self) -> BoxFuture<'static, ()>;
}

/// Publishes until stopped; waits for the first time, a little.
pub(super) async fn start(
    client: Arc<Client>,
    source: impl AddressSource,
    tasks: &TaskTracker,
    stop: CancellationToken,
) {
    let (first_tx, first_rx) = oneshot::channel();
    tasks.spawn(async move {
        stop.run_until_cancelled(keep_published(client, source, first_tx))
            .await;
    });
    if tokio::time::timeout(FIRST_TIMEOUT, first_rx).await.is_err() {
        tracing::warn!("this node's addresses are not on the DHT yet; publishing goes on");
    }
}

async fn keep_published(
    client: Arc<Client>,
    source: impl AddressSource,
    first: oneshot::Sender<()>,
) {
    let mut first = Some(first);
    let mut schedule = Schedule::default();
    let mut last_seq = None;
    loop {
        let record = source.record();
        let seq = next_seq(&client, last_seq).await;
        let outcome = client.put_record(&record.encode(), seq).await;
        match &outcome {
            Ok(()) => {
                let (addresses, relay) = (&record.addresses, &record.relay);
                tracing::debug!(?addresses, relay, seq, "published this node's addresses");
                last_seq = Some(seq);
                if let Some(first) = first.take() {
                    // The start may have gone on without.
                    let _ = first.send(());
                }
            }
            Err(error) => tracing::warn!(%error, "publishing failed; it is tried again"),
        }
        let renew = tokio::time::sleep(schedule.next(outcome.is_ok(), &mut rand::rng()));
        tokio::pin!(renew);
        // It may have changed while it was published, which nobody was told then.
        while outcome.is_err() || source.record() == record {
            tokio::select! {
                () = &mut renew => break,
                () = source.changed() => if source.record() != record { break },
            }
        }
    }
}

/// Unix milliseconds, and always more than any record of ours that the DHT still holds, also after
/// the clock was set back.
async fn next_seq(client: &Client, last: Option<u64>) -> u64 {
    let last = match last {
        Some(seq) => Some(seq),
        None => {
            let stored = client.get_record(client.own(), 0).await;
            stored.ok().flatten().map(|(seq, _)| seq)
        }
    };
    let now_ms = now_ms();
    last.map_or(now_ms, |seq| now_ms.max(seq.saturating_add(1)))
}
