//! A connection for statements that stand alone and may be asked twice. They are sent as they come,
//! behind each other, and wait for no commit of others. One such connection reads; another one says who
//! lives, before which nothing is ever to wait.

use super::Place;
use super::disk;
use super::link::{Failed, Link};
use super::writer::Backoff;
use crate::store::StoreError;
use crate::store::database::{Rows, Statement};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Asking again harms nobody: so often, when the connection is lost meanwhile.
const TRIES: usize = 2;

/// A connection that is being made, for all who want it.
type Opening = BoxFuture<'static, Result<Arc<Link>, StoreError>>;

pub(super) struct Pipeline {
    place: Place,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    link: Option<Arc<Link>>,
    /// While there is none. It is given up with the last who waits for it.
    opening: Option<WeakShared<Opening>>,
    backoff: Backoff,
    is_closed: bool,
}

impl Pipeline {
    pub(super) fn new(place: Place) -> Self {
        Self {
            place,
            state: Arc::default(),
        }
    }

    pub(super) async fn ask(&self, statement: Statement) -> Result<Rows, StoreError> {
        let mut lost = StoreError::Closed;
        for _ in 0..TRIES {
            let link = self.link().await?;
            lost = match tokio::time::timeout(self.place.patience, link.ask(&statement)).await {
                Ok(Ok(rows)) => return Ok(rows),
                Ok(Err(Failed::Refused(error))) => return Err(disk(&error)),
                Ok(Err(Failed::Lost(error))) => disk(&error),
                Err(_) => StoreError::Disk("PostgreSQL does not answer".to_owned()),
            };
            self.drop_link(&link);
        }
        Err(lost)
    }

    /// The connection, or a new one, which all who want one meanwhile wait for.
    async fn link(&self) -> Result<Arc<Link>, StoreError> {
        let opening = {
            let mut state = locked(&self.state);
            if state.is_closed {
                return Err(StoreError::Closed);
            }
            if let Some(link) = state.link.as_ref().filter(|link| !link.is_lost()) {
                return Ok(link.clone());
            }
            match state.opening.as_ref().and_then(WeakShared::upgrade) {
                Some(under_way) => under_way,
                None => {
                    state.backoff.check()?;
                    let opening: Shared<Opening> = open(self.place.clone(), self.state.clone())
                        .boxed()
                        .shared();
                    state.opening = opening.downgrade();
                    opening
                }
            }
        };
        opening.await
    }

    fn drop_link(&self, lost: &Arc<Link>) {
        let mut state = locked(&self.state);
        if (state.link.as_ref()).is_some_and(|link| Arc::ptr_eq(link, lost)) {
            state.link = None;
        }
    }

    pub(super) fn close(&self) {
        let mut state = locked(&self.state);
        state.is_closed = true;
        state.link = None;
    }
}

/// Makes a new connection and leaves it to all.
async fn open(place: Place, state: Arc<Mutex<State>>) -> Result<Arc<Link>, StoreError> {
    let opened = Link::open(&place).await;
    let mut state = locked(&state);
    state.opening = None;
    let link = Arc::new(state.backoff.note(opened)?);
    if state.is_closed {
        return Err(StoreError::Closed);
    }
    state.link = Some(link.clone());
    Ok(link)
}

/// Each change is one step, so that a panic elsewhere leaves nothing half done.
fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::UnixListener;

    #[tokio::test]
    async fn a_connection_that_is_being_made_is_one_for_all_and_outlives_who_wanted_it_first() {
        let folder = tempfile::tempdir().expect("a folder");
        // It takes connections, and says nothing.
        let mute = UnixListener::bind(folder.path().join(".s.PGSQL.5432")).expect("bound");
        let url = format!("host={} user=tether dbname=x", folder.path().display());
        let pipeline = Arc::new(Pipeline::new(Place::new(&url).expect("valid")));
        let ask = || {
            let pipeline = pipeline.clone();
            tokio::spawn(async move { pipeline.ask(Statement::new("SELECT 1", [])).await })
        };
        let first = ask();
        let (connection, _) = mute.accept().await.expect("a connection");
        let second = ask();
        tokio::task::yield_now().await;
        first.abort();
        assert!(first.await.expect_err("gone").is_cancelled());
        drop(connection);
        let told = second.await.expect("no panic");
        assert!(matches!(told, Err(StoreError::Connect { .. })), "{told:?}");
        assert!(mute.accept().now_or_never().is_none(), "no second one");
        pipeline.close();
        assert_eq!(ask().await.expect("no panic"), Err(StoreError::Closed));
    }
}
