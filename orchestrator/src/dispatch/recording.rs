//! The commit that an answer has begun, beside the answer: a slow disk holds back no piece of it,
//! and its end waits until the commit is done.

use super::outcome::End;
use crate::store::StoreFuture;
use tether_wire::rpc::{Code, RpcError};

/// A commit under way, or none.
#[derive(Default)]
pub(super) struct Recording<'a>(Option<StoreFuture<'a, ()>>);

impl<'a> Recording<'a> {
    /// Follows a commit. It is on its way once [`Recording::done`] was polled.
    pub(super) fn begin(&mut self, commit: StoreFuture<'a, ()>) {
        self.0 = Some(commit);
    }

    /// Ends with the commit; where there is none under way, never. Losing interest in the future and
    /// asking anew loses nothing.
    pub(super) async fn done(&mut self) -> Result<(), End> {
        let Some(commit) = &mut self.0 else {
            return std::future::pending().await;
        };
        let recorded = commit.await;
        self.0 = None;
        recorded.map_err(|error| {
            tracing::error!(%error, "the begin of an answer could not be recorded");
            let why = "the answer could not be recorded";
            End::Final(RpcError::new(Code::Internal, why))
        })
    }

    /// Waits for the commit, where there is one under way.
    pub(super) async fn settled(&mut self) -> Result<(), End> {
        if self.0.is_some() {
            return self.done().await;
        }
        Ok(())
    }
}
