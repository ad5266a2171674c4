//! The connection that reads. Requests are sent as they come, behind each other, and wait for no
//! commit.

use super::Place;
use super::disk;
use super::link::{Failed, Link};
use super::writer::Backoff;
use crate::store::StoreError;
use crate::store::database::{Rows, Statement};
use std::sync::Arc;
use tokio::sync::Mutex;

/// Reading again harms nobody: so often, when the connection is lost meanwhile.
const TRIES: usize = 2;

pub(super) struct Reader {
    place: Place,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    link: Option<Arc<Link>>,
    backoff: Backoff,
    is_closed: bool,
}

impl Reader {
    pub(super) fn new(place: Place) -> Self {
        Self {
            place,
            state: Mutex::default(),
        }
    }

    pub(super) async fn read(&self, statement: Statement) -> Result<Rows, StoreError> {
        let mut lost = StoreError::Closed;
        for _ in 0..TRIES {
            let link = self.link().await?;
            lost = match tokio::time::timeout(self.place.patience, link.ask(&statement)).await {
                Ok(Ok(rows)) => return Ok(rows),
                Ok(Err(Failed::Refused(error))) => return Err(disk(&error)),
                Ok(Err(Failed::Lost(error))) => disk(&error),
                Err(_) => StoreError::Disk("PostgreSQL does not answer".to_owned()),
            };
            self.drop_link(&link).await;
        }
        Err(lost)
    }

    /// The connection, or a new one. Others who want one wait meanwhile.
    async fn link(&self) -> Result<Arc<Link>, StoreError> {
        let mut state = self.state.lock().await;
        if state.is_closed {
            return Err(StoreError::Closed);
        }
        if let Some(link) = state.link.as_ref().filter(|link| !link.is_lost()) {
            return Ok(link.clone());
        }
        state.backoff.check()?;
        let opened = Link::open(&self.place).await;
        let link = Arc::new(state.backoff.note(opened)?);
        state.link = Some(link.clone());
        Ok(link)
    }

    async fn drop_link(&self, lost: &Arc<Link>) {
        let mut state = self.state.lock().await;
        if (state.link.as_ref()).is_some_and(|link| Arc::ptr_eq(link, lost)) {
            state.link = None;
        }
    }

    pub(super) async fn close(&self) {
        let mut state = self.state.lock().await;
        state.is_closed = true;
        state.link = None;
    }
}
