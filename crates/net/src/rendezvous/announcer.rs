//! Announcements, renewed until withdrawn. [T-TOP-5]

use super::board::Board;
use super::client::Client;
use super::schedule::Schedule;
use crate::error::NetError;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tether_wire::TopicKey;
use tokio::sync::{Mutex, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Longest time for the withdrawal of one announcement; after it the DHT forgets by itself.
const WITHDRAW_TIMEOUT: Duration = Duration::from_secs(3);

/// The announcements of one node.
pub(super) struct Announcer {
    client: Arc<Client>,
    tasks: TaskTracker,
    stop: CancellationToken,
    board: Arc<Board>,
    running: Mutex<HashMap<TopicKey, Running>>,
}

struct Running {
    withdraw: CancellationToken,
    task: JoinHandle<()>,
}

impl Announcer {
    /// How announcements went is written on the board.
    pub(super) fn new(
        client: Arc<Client>,
        tasks: TaskTracker,
        stop: CancellationToken,
        board: Arc<Board>,
    ) -> Self {
        Self {
            client,
            tasks,
            stop,
            board,
            running: Mutex::default(),
        }
    }

    /// Announces and keeps announcing; gives the outcome of the first time.
    pub(super) async fn announce(&self, topic: TopicKey) -> Result<(), NetError> {
        let first = {
            let mut running = self.running.lock().await;
            if self.stop.is_cancelled() {
                return Err(NetError::Shutdown);
            }
            if running.contains_key(&topic) {
                return Ok(());
            }
            let (first_tx, first_rx) = oneshot::channel();
            let withdraw = self.stop.child_token();
            let task = self.tasks.spawn(keep_announced(
                self.client.clone(),
                topic,
                withdraw.clone(),
                self.board.clone(),
                first_tx,
            ));
            running.insert(topic, Running { withdraw, task });
            first_rx
        };
        first.await.unwrap_or(Err(NetError::Shutdown))
    }

    /// Withdraws one topic and waits until the DHT was told.
    pub(super) async fn withdraw(&self, topic: TopicKey) {
        let running = self.running.lock().await.remove(&topic);
        if let Some(Running { withdraw, task }) = running {
            withdraw.cancel();
            // An error would be a panic of the task, which has nothing left to withdraw.
            let _ = task.await;
        }
    }

    /// Withdraws everything, all at once.
    pub(super) async fn withdraw_all(&self) {
        let running: Vec<_> = self.running.lock().await.drain().collect();
        for (_, one) in &running {
            one.withdraw.cancel();
        }
        for (_, one) in running {
            let _ = one.task.await;
        }
    }
}

async fn keep_announced(
    client: Arc<Client>,
    topic: TopicKey,
    withdraw: CancellationToken,
    board: Arc<Board>,
    first: oneshot::Sender<Result<(), NetError>>,
) {
    let mut first = Some(first);
    let mut schedule = Schedule::default();
    loop {
        let outcome = tokio::select! {
            outcome = client.announce(topic) => outcome,
            () = withdraw.cancelled() => break,
        };
        if let Err(error) = &outcome {
            tracing::warn!(topic = topic.to_hex(), %error, "announcing failed; it is tried again");
        }
        let wait = schedule.next(outcome.is_ok(), &mut rand::rng());
        board.announced(topic, outcome.as_ref().err(), wait);
        if let Some(first) = first.take() {
            // Nobody may be waiting any more.
            let _ = first.send(outcome);
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = withdraw.cancelled() => break,
        }
    }
    board.withdrawn(&topic);
    match tokio::time::timeout(WITHDRAW_TIMEOUT, client.unannounce(topic)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(topic = topic.to_hex(), %error, "withdrawing failed"),
        Err(_) => tracing::debug!(topic = topic.to_hex(), "withdrawing took too long"),
    }
}
