//! One connection, and the statements that are prepared on it.

use super::{Place, disk, row};
use crate::store::StoreError;
use crate::store::database::{Rows, Statement};
use futures_util::TryStreamExt;
use futures_util::future::{MaybeDone, maybe_done};
use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_postgres::error::Severity;
use tokio_postgres::{Client, Error, NoTls};

/// Time for a new connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// What a session is told when it begins: a commit is on the disk when it returns, whatever the
/// server's default is, and nothing waits for ever. A row that somebody else holds fails who wants it
/// soon, to be tried again: all that is to be written waits behind it. A transaction of ours is sent at
/// once, so that one which idles was cut off, and holds its rows for nothing.
const SESSION: &str = "SET synchronous_commit = on;
    SET default_transaction_isolation = 'read committed';
    SET statement_timeout = '8s'; SET lock_timeout = '500ms';
    SET idle_in_transaction_session_timeout = '2s'";

/// A connection. It ends when this is dropped.
pub(super) struct Link {
    client: Client,
    driver: JoinHandle<()>,
    prepared: Mutex<HashMap<&'static str, tokio_postgres::Statement>>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Why a transaction is not known to count.
#[derive(Debug)]
pub(super) enum Failed {
    /// A statement was refused: nothing of it counts.
    Refused(Error),
    /// The connection is lost, and with it the fate of what was under way.
    Lost(Error),
}

impl Failed {
    fn of(error: Error) -> Self {
        let is_refusal = error
            .as_db_error()
            .is_some_and(|it| it.parsed_severity() == Some(Severity::Error));
        if is_refusal {
            Self::Refused(error)
        } else {
            Self::Lost(error)
        }
    }
}

impl Link {
    /// Makes a new connection.
    pub(super) async fn open(place: &Place) -> Result<Self, StoreError> {
        let words = |error: Error| match disk(&error) {
            StoreError::Disk(why) => place.unreachable(why),
            other => other,
        };
        let connect = async {
            let (client, connection) = place.config.connect(NoTls).await.map_err(words)?;
            let driver = tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(error = %disk(&error), "a connection to the store ended");
                }
            });
            let link = Self {
                client,
                driver,
                prepared: Mutex::default(),
            };
            link.client.batch_execute(SESSION).await.map_err(words)?;
            Ok(link)
        };
        match tokio::time::timeout(CONNECT_TIMEOUT, connect).await {
            Ok(link) => link,
            Err(_) => {
                let seconds = CONNECT_TIMEOUT.as_secs();
                Err(place.unreachable(format!("no connection within {seconds} s")))
            }
        }
    }

    /// Whether it is known to be lost.
    pub(super) fn is_lost(&self) -> bool {
        self.client.is_closed()
    }

    pub(super) fn client(&mut self) -> &mut Client {
        &mut self.client
    }

    async fn prepare(&self, statement: &Statement) -> Result<tokio_postgres::Statement, Error> {
        let known = |sql| {
            let prepared = self.prepared.lock().unwrap_or_else(PoisonError::into_inner);
            prepared.get(sql).cloned()
        };
        if let Some(prepared) = known(statement.sql) {
            return Ok(prepared);
        }
        let types: Vec<_> = statement.params.iter().map(|it| it.sql_type()).collect();
        let prepared = self.client.prepare_typed(statement.sql, &types).await?;
        let mut all = self.prepared.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(statement.sql, prepared.clone());
        Ok(prepared)
    }

    async fn query(
        &self,
        prepared: &tokio_postgres::Statement,
        statement: &Statement,
    ) -> Result<Vec<tokio_postgres::Row>, Error> {
        let params = statement.params.iter().map(|it| it.as_sql());
        let rows = self.client.query_raw(prepared, params).await?;
        rows.try_collect().await
    }

    /// Runs one statement by itself.
    pub(super) async fn ask(&self, statement: &Statement) -> Result<Rows, Failed> {
        let prepared = self.prepare(statement).await.map_err(Failed::of)?;
        let rows = self.query(&prepared, statement).await.map_err(Failed::of)?;
        Ok(rows.iter().map(row).collect())
    }

    /// The same, where the difference does not matter.
    pub(super) async fn rows(&self, statement: &Statement) -> Result<Rows, StoreError> {
        self.ask(statement).await.map_err(|failed| match failed {
            Failed::Refused(error) | Failed::Lost(error) => disk(&error),
        })
    }

    /// Runs statements as one transaction: all are sent at once, and the answers read behind each
    /// other.
    pub(super) async fn transaction(&self, statements: &[&Statement]) -> Result<Vec<Rows>, Failed> {
        let mut prepared = Vec::with_capacity(statements.len());
        for statement in statements {
            prepared.push(self.prepare(statement).await.map_err(Failed::of)?);
        }
        let mut begin = Box::pin(maybe_done(self.client.batch_execute("BEGIN")));
        send(&mut begin).await;
        let mut answers = Vec::with_capacity(statements.len());
        let mut is_sent = true;
        for (statement, prepared) in statements.iter().zip(&prepared) {
            let mut answer = Box::pin(maybe_done(self.query(prepared, statement)));
            send(&mut answer).await;
            is_sent &= !matches!(&*answer, MaybeDone::Done(Err(_)));
            answers.push(answer);
        }
        // What is known here to have failed, as for want of a connection, commits nothing.
        let end = if is_sent { "COMMIT" } else { "ROLLBACK" };
        let mut end = Box::pin(maybe_done(self.client.batch_execute(end)));
        send(&mut end).await;
        let mut failed = taken(begin).await.err();
        let mut all = Vec::with_capacity(answers.len());
        for answer in answers {
            match taken(answer).await {
                Ok(rows) => all.push(rows.iter().map(row).collect()),
                // The first is why; the others fail since the transaction did.
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        let end = taken(end).await;
        match (failed, end) {
            (None, Ok(())) => Ok(all),
            (_, Err(error)) if self.is_lost() => Err(Failed::Lost(error)),
            (Some(error), _) | (None, Err(error)) => Err(Failed::of(error)),
        }
    }
}

/// Sends a request: the client does so when it is asked for the answer for the first time. What is
/// asked first is sent first.
async fn send<F: Future>(request: &mut Pin<Box<MaybeDone<F>>>) {
    poll_fn(|context| {
        let _ = request.as_mut().poll(context);
        Poll::Ready(())
    })
    .await;
}

/// The answer to a request that was sent.
async fn taken<F: Future>(mut request: Pin<Box<MaybeDone<F>>>) -> F::Output {
    request.as_mut().await;
    (request.as_mut().take_output()).expect("it is done, and nobody took its answer")
}
