//! The connection that writes, and the task that owns it; operations that wait share a commit.

use super::link::{Failed, Link};
use super::{Place, disk};
use crate::store::database::{Rows, Statement};
use crate::store::{MAX_GROUP, MAX_PENDING, OnCommit, StoreError};
use rand::Rng;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// Bytes that share one commit at most, but for one operation that has more: they are sent at once.
const MAX_GROUP_BYTES: usize = 32 * 1024 * 1024;
/// First pause before a connection is tried again; it doubles while none can be made.
const RETRY_MIN: Duration = Duration::from_millis(100);
/// Longest such pause.
const RETRY_MAX: Duration = Duration::from_secs(5);

/// What the caller of an operation is told.
type Answer = Result<Vec<Rows>, StoreError>;

struct Op {
    statements: Vec<Statement>,
    answer: oneshot::Sender<Answer>,
}

impl Op {
    fn bytes(&self) -> usize {
        self.statements.iter().map(Statement::bytes).sum()
    }
}

enum Order {
    Run(Op),
    Close(oneshot::Sender<()>),
}

/// The sending side.
pub(super) struct Writer {
    orders: mpsc::Sender<Order>,
}

impl Writer {
    /// Starts the task.
    pub(super) fn start(place: Place, link: Link, on_commit: OnCommit) -> Self {
        let (orders, inbox) = mpsc::channel(MAX_PENDING);
        let serving = Serving {
            place,
            link: Some(link),
            backoff: Backoff::default(),
            on_commit,
        };
        tokio::spawn(serving.run(inbox));
        Self { orders }
    }

    /// Runs statements in a transaction; resolves after the commit.
    pub(super) async fn run(&self, statements: Vec<Statement>) -> Answer {
        let (answer, wait) = oneshot::channel();
        let order = Order::Run(Op { statements, answer });
        let sent = self.orders.send(order).await;
        sent.map_err(|_| StoreError::Closed)?;
        wait.await.map_err(|_| StoreError::Closed)?
    }

    /// Finishes what waits and ends the connection.
    pub(super) async fn close(&self) {
        let (answer, wait) = oneshot::channel();
        if self.orders.send(Order::Close(answer)).await.is_ok() {
            let _ = wait.await;
        }
    }
}

struct Serving {
    place: Place,
    link: Option<Link>,
    backoff: Backoff,
    on_commit: OnCommit,
}

impl Serving {
    async fn run(mut self, mut inbox: mpsc::Receiver<Order>) {
        // What did not fit into the group before.
        let mut left = None;
        loop {
            let next = match left.take() {
                Some(order) => Some(order),
                None => inbox.recv().await,
            };
            let (mut group, mut bytes) = (Vec::new(), 0);
            let mut closing = None;
            let mut next = match next {
                Some(order) => Some(order),
                None => return,
            };
            while let Some(order) = next.take() {
                match order {
                    Order::Close(answer) => closing = Some(answer),
                    Order::Run(op) => {
                        bytes += op.bytes();
                        if bytes > MAX_GROUP_BYTES && !group.is_empty() {
                            left = Some(Order::Run(op));
                            break;
                        }
                        group.push(op);
                    }
                }
                if closing.is_none() && group.len() < MAX_GROUP {
                    next = inbox.try_recv().ok();
                }
            }
            if !group.is_empty() {
                self.commit(group).await;
            }
            if let Some(answer) = closing {
                inbox.close();
                self.link = None;
                let _ = answer.send(());
                return;
            }
        }
    }

    /// Runs a group and tells each caller. Where a statement fails the whole transaction does: then
    /// each operation runs alone, so that the one fails to which it belongs.
    async fn commit(&mut self, group: Vec<Op>) {
        let began = Instant::now();
        let statements: Vec<&Statement> = group.iter().flat_map(|it| &it.statements).collect();
        match self.transaction(&statements).await {
            Ok(rows) => {
                (self.on_commit)(group.len(), began.elapsed());
                let mut rows = rows.into_iter();
                for op in group {
                    let own = rows.by_ref().take(op.statements.len()).collect();
                    let _ = op.answer.send(Ok(own));
                }
            }
            Err(Undone::AsAWhole(_)) if group.len() > 1 => {
                for op in group {
                    let began = Instant::now();
                    let statements: Vec<&Statement> = op.statements.iter().collect();
                    let answer = self.transaction(&statements).await;
                    if answer.is_ok() {
                        (self.on_commit)(1, began.elapsed());
                    }
                    let _ = op.answer.send(answer.map_err(Undone::into_error));
                }
            }
            Err(undone) => {
                let error = undone.into_error();
                for op in group {
                    let _ = op.answer.send(Err(error.clone()));
                }
            }
        }
    }

    /// Runs one transaction, over a new connection where the last one is lost.
    async fn transaction(&mut self, statements: &[&Statement]) -> Result<Vec<Rows>, Undone> {
        let link = match self.link.take().filter(|link| !link.is_lost()) {
            Some(link) => link,
            None => {
                self.backoff.check().map_err(Undone::NotReached)?;
                let opened = Link::open(&self.place).await;
                self.backoff.note(opened).map_err(Undone::NotReached)?
            }
        };
        let ran = tokio::time::timeout(self.place.patience, link.transaction(statements)).await;
        match ran {
            Ok(Ok(rows)) => {
                self.link = Some(link);
                Ok(rows)
            }
            Ok(Err(Failed::Refused(error))) => {
                self.link = Some(link);
                Err(Undone::AsAWhole(disk(&error)))
            }
            Ok(Err(Failed::Lost(error))) => Err(Undone::Unknown(disk(&error).to_string())),
            Err(_) => Err(Undone::Unknown("PostgreSQL does not answer".to_owned())),
        }
    }
}

/// Why a transaction is not known to count.
enum Undone {
    /// A statement failed; nothing of the transaction is kept.
    AsAWhole(StoreError),
    /// There was no connection to send it over.
    NotReached(StoreError),
    /// The connection was lost while it was under way.
    Unknown(String),
}

impl Undone {
    fn into_error(self) -> StoreError {
        match self {
            Self::AsAWhole(error) | Self::NotReached(error) => error,
            Self::Unknown(why) => {
                StoreError::Disk(format!("it is not known what was recorded: {why}"))
            }
        }
    }
}

/// When a connection is tried again.
#[derive(Default)]
pub(super) struct Backoff {
    failed: Option<(Instant, Duration, StoreError)>,
}

impl Backoff {
    /// Fails at once, with the words of the last try, while it is too early for the next.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        match &self.failed {
            Some((at, pause, error)) if at.elapsed() < *pause => Err(error.clone()),
            _ => Ok(()),
        }
    }

    /// Notes what came of a try.
    pub(super) fn note<T>(&mut self, tried: Result<T, StoreError>) -> Result<T, StoreError> {
        self.failed = match &tried {
            Ok(_) => None,
            Err(error) => {
                let before = self.failed.take().map(|(_, pause, _)| pause);
                let longest = before.map_or(RETRY_MIN, |pause| (2 * pause).min(RETRY_MAX));
                // Orchestrators that lost the same server do not all come back at once.
                let share = rand::rng().random_range(0.5..=1.0);
                tracing::warn!(%error, "the store cannot be reached");
                Some((Instant::now(), longest.mul_f64(share), error.clone()))
            }
        };
        tried
    }
}
