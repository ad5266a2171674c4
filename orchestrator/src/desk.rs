//! Gives each call to who serves it.

use crate::directory::serve::Directory;
use crate::discovery::{Intake, Joins, Spreading};
use crate::dispatch::Dispatcher;
use std::sync::Arc;
use tether_net::{BoxFuture, Incoming, Service};
use tether_wire::rpc::{Code, RpcError, method};

/// Who serves calls.
pub(crate) struct Desk {
    pub(crate) intake: Arc<Intake>,
    pub(crate) spreading: Arc<Spreading>,
    pub(crate) directory: Arc<Directory>,
    pub(crate) dispatcher: Arc<Dispatcher>,
    pub(crate) joins: Arc<Joins>,
}

impl Service for Desk {
    fn serve(&self, call: Incoming) -> BoxFuture<'static, Result<(), RpcError>> {
        match call.method() {
            method::SUBMIT => Box::pin(self.dispatcher.clone().serve(call)),
            method::PRESENCE => {
                let intake = self.intake.clone();
                Box::pin(async move { intake.serve(call).await })
            }
            method::SPREAD => {
                let spreading = self.spreading.clone();
                Box::pin(spreading.serve(call))
            }
            method::DIRECTORY => {
                let directory = self.directory.clone();
                Box::pin(async move { directory.serve(call).await })
            }
            method::JOIN => {
                let joins = self.joins.clone();
                Box::pin(async move { joins.serve(call).await })
            }
            other => {
                let shown: String = other.chars().take(64).collect();
                let error = RpcError::new(
                    Code::Unimplemented,
                    format!("an orchestrator has no method `{shown}`"),
                );
                Box::pin(std::future::ready(Err(error)))
            }
        }
    }
}
