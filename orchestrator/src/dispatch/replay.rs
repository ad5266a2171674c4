//! The request of a dead letter, run again under its own key. (RSV-3)
//!
//! Nobody waits for the answer: it is kept, and whoever comes with the key is given it. As with any
//! key that comes again, a run that is under way is joined, and what was answered does not run.

use super::Dispatcher;
use super::intake::Asked;
use std::sync::Arc;
use std::time::Instant;
use tether_wire::infer::InferRequest;
use tether_wire::rpc::RpcError;

impl Dispatcher {
    /// Runs a request to its end, also when the caller goes away meanwhile.
    ///
    /// # Errors
    /// As a gateway would be told.
    pub(crate) async fn replay(self: &Arc<Self>, request: InferRequest) -> Result<(), RpcError> {
        request.check().map_err(|error| RpcError::invalid(&error))?;
        let dispatcher = self.clone();
        let run = self.open.spawn(async move {
            let permit = dispatcher.permit()?;
            let most_ms = dispatcher.config.answer_timeout_ms;
            let asked = Asked::new(request, Instant::now(), None, most_ms);
            let (mut reader, _) = dispatcher.enter(asked, &permit, None).await?;
            while reader.next().await?.is_some() {}
            Ok(())
        });
        let ended = run.await;
        ended.unwrap_or_else(|_| Err(super::failed_here()))
    }
}
