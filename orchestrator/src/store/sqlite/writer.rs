//! One thread owns the connection; operations that wait share a commit.
//!
//! A commit costs a flush of the disk, whatever it holds. While one flush runs the next operations
//! gather, so that the store keeps up with any load at the price of one flush of delay.

use super::file::Lock;
use super::{counts, disk};
use crate::job::JobState;
use crate::store::{MAX_GROUP, MAX_PENDING, OnCommit, StoreError};
use rusqlite::Connection;
use std::time::Instant;
use tokio::sync::{mpsc, oneshot, watch};

/// Tells the caller of an operation; it is given the fate of the commit.
type Reply = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// An operation: given the connection inside a transaction, or why there is none.
type Work = Box<dyn FnOnce(Result<&Connection, StoreError>) -> Worked + Send>;

/// What an operation says when it is through.
struct Worked {
    /// Whether what it did is to be kept.
    keep: bool,
    /// Whether it is of those whose changes go to the disk.
    is_durable: bool,
    /// How to reply once the commit is through.
    reply: Reply,
}

/// How many jobs are in each state, by the last commit.
pub(super) type Counts = Result<Vec<(JobState, usize)>, StoreError>;

enum Op {
    Work(Work),
    Close(oneshot::Sender<Result<(), StoreError>>),
}

/// The sending side.
#[derive(Clone)]
pub(super) struct Writer {
    ops: mpsc::Sender<Op>,
    counts: watch::Receiver<Counts>,
}

impl Writer {
    /// Starts the thread. It holds the lock of the file as long as it has it open.
    pub(super) fn start(
        conn: Connection,
        lock: Lock,
        on_commit: OnCommit,
    ) -> std::io::Result<Self> {
        let (ops, inbox) = mpsc::channel(MAX_PENDING);
        let (publish, counts) = watch::channel(counts::read(&conn));
        std::thread::Builder::new()
            .name("tether-store".to_owned())
            .spawn(move || serve(conn, lock, inbox, &publish, &on_commit))?;
        Ok(Self { ops, counts })
    }

    /// As the last commit left them; waits for nobody.
    pub(super) fn counts(&self) -> Counts {
        if self.ops.is_closed() {
            return Err(StoreError::Closed);
        }
        self.counts.borrow().clone()
    }

    /// Runs an operation in a transaction; resolves after the commit.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        operation: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.work(true, operation).await
    }

    /// The same of one that changes temporary tables only, for which nothing is flushed.
    pub(super) async fn run_volatile<T: Send + 'static>(
        &self,
        operation: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.work(false, operation).await
    }

    async fn work<T: Send + 'static>(
        &self,
        is_durable: bool,
        operation: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, wait) = oneshot::channel();
        let work: Work = Box::new(move |conn| {
            let result = conn.and_then(operation);
            let keep = result.is_ok();
            // An operation that failed by itself says so, whatever becomes of the others.
            let reply: Reply = Box::new(move |commit| {
                let _ = answer.send(result.and_then(|value| commit.map(|()| value)));
            });
            Worked {
                keep,
                is_durable,
                reply,
            }
        });
        let sent = self.ops.send(Op::Work(work)).await;
        sent.map_err(|_| StoreError::Closed)?;
        wait.await.map_err(|_| StoreError::Closed)?
    }

    /// Finishes what waits, writes the log back into the database and closes it.
    pub(super) async fn close(&self) -> Result<(), StoreError> {
        let (answer, wait) = oneshot::channel();
        if self.ops.send(Op::Close(answer)).await.is_err() {
            return Ok(());
        }
        wait.await.map_err(|_| StoreError::Closed)?
    }
}

fn serve(
    conn: Connection,
    lock: Lock,
    mut inbox: mpsc::Receiver<Op>,
    publish: &watch::Sender<Counts>,
    on_commit: &OnCommit,
) {
    while let Some(first) = inbox.blocking_recv() {
        let mut group = Vec::new();
        let mut closing = None;
        let mut next = Some(first);
        while let Some(op) = next.take() {
            match op {
                Op::Work(work) => group.push(work),
                Op::Close(answer) => closing = Some(answer),
            }
            if closing.is_none() && group.len() < MAX_GROUP {
                next = inbox.try_recv().ok();
            }
        }
        if !group.is_empty() {
            let (size, began) = (group.len(), Instant::now());
            let done = commit(&conn, group);
            if done.has_changed {
                on_commit(size, began.elapsed());
                // Before the replies: who hears of a step finds it counted.
                let _before = publish.send_replace(counts::read(&conn));
            }
            done.reply();
        }
        if let Some(answer) = closing {
            inbox.close();
            // The log is written back so that the file alone is whole; failing that, the next
            // start does it.
            let _ = conn.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)");
            let closed = conn.close().map_err(|(_, error)| disk(error));
            // Before the answer: who hears of the end may open the file again.
            drop(lock);
            let _ = answer.send(closed);
            return;
        }
    }
}

/// What became of a group; nobody was told yet.
struct Committed {
    fate: Result<(), StoreError>,
    /// Whether any operation changed something that was to be kept.
    has_changed: bool,
    replies: Vec<Reply>,
}

impl Committed {
    fn reply(self) {
        for reply in self.replies {
            reply(self.fate.clone());
        }
    }
}

/// Runs a group in one transaction. An operation that fails is undone alone; when the transaction
/// itself fails, nothing of the group is kept and each caller is to be told.
fn commit(conn: &Connection, group: Vec<Work>) -> Committed {
    let mut fate = conn.execute_batch("BEGIN IMMEDIATE").map_err(disk);
    let mut has_changed = false;
    let mut replies = Vec::with_capacity(group.len());
    for work in group {
        if fate.is_ok() {
            fate = conn.execute_batch("SAVEPOINT op").map_err(disk);
        }
        let before = conn.total_changes();
        let worked = work(fate.clone().map(|()| conn));
        has_changed |= worked.keep && worked.is_durable && conn.total_changes() != before;
        replies.push(worked.reply);
        if fate.is_ok() {
            let end = if worked.keep {
                "RELEASE op"
            } else {
                "ROLLBACK TO op; RELEASE op"
            };
            // A full disk ends the whole transaction by itself; this then fails.
            fate = conn.execute_batch(end).map_err(disk);
        }
    }
    if fate.is_ok() {
        fate = conn.execute_batch("COMMIT").map_err(disk);
    }
    if fate.is_err() && !conn.is_autocommit() {
        let _ = conn.execute_batch("ROLLBACK");
    }
    Committed {
        fate,
        has_changed,
        replies,
    }
}
