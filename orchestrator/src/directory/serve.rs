//! Holds the current state of the directory, follows the tenants' file, and serves gateways.

use super::{State, updates};
use crate::policy::Policy;
use crate::shares::Shares;
use crate::tenants::{Tenants, TenantsFile};
use arc_swap::ArcSwap;
use std::sync::Arc;
use std::time::Duration;
use tether_net::Incoming;
use tether_telemetry::metrics::OrchestratorMetrics;
use tether_wire::Role;
use tether_wire::codec;
use tether_wire::directory::ModelEntry;
use tether_wire::rpc::{Code, RpcError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How often the tenants' file is looked at.
pub(crate) const TENANTS_POLL: Duration = Duration::from_secs(1);
/// Time for a gateway to take an update, after which it may come again for everything.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);

/// The directory. One state, any number of followers.
pub(crate) struct Directory {
    state: watch::Sender<State>,
    /// Which models are shown to whom.
    policy: Arc<ArcSwap<Policy>>,
    /// Tenants' files that were refused.
    refused: watch::Sender<u64>,
    metrics: Arc<OrchestratorMetrics>,
    stop: CancellationToken,
}

impl Directory {
    /// Starts with these tenants. Versions start at the time, so that they grow over restarts.
    pub(crate) fn new(
        tenants: Tenants,
        policy: Arc<ArcSwap<Policy>>,
        metrics: Arc<OrchestratorMetrics>,
        now_ms: u64,
        stop: CancellationToken,
    ) -> Self {
        let now = policy.load();
        let state = State {
            version: now_ms,
            tenants: Arc::new(ruled(tenants, &now)),
            models: Arc::default(),
            rules: now.model_rules().clone(),
        };
        drop(now);
        Self {
            policy,
            state: watch::channel(state).0,
            refused: watch::channel(0).0,
            metrics,
            stop,
        }
    }

    /// How many times the tenants' file was refused, to be waited on.
    pub(crate) fn refused(&self) -> watch::Receiver<u64> {
        self.refused.subscribe()
    }

    /// Replaces the tenants.
    pub(crate) fn set_tenants(&self, tenants: Tenants) {
        self.state.send_if_modified(|state| {
            // Looked at in here, so that the last one counts whoever comes first.
            let tenants = ruled(tenants, &self.policy.load());
            let changed = *state.tenants != tenants;
            if changed {
                state.tenants = Arc::new(tenants);
                state.version += 1;
            }
            changed
        });
    }

    /// Shows to each tenant what it may use by the policy as it is now.
    pub(crate) fn policy_changed(&self) {
        self.state.send_if_modified(|state| {
            let policy = self.policy.load();
            let tenants = ruled((*state.tenants).clone(), &policy);
            let changed = *state.tenants != tenants || state.rules != *policy.model_rules();
            if changed {
                state.tenants = Arc::new(tenants);
                state.rules = policy.model_rules().clone();
                state.version += 1;
            }
            changed
        });
    }

    /// Replaces the models.
    pub(crate) fn set_models(&self, models: Vec<ModelEntry>) {
        self.state.send_if_modified(|state| {
            let changed = *state.models != models;
            if changed {
                state.models = Arc::new(models);
                state.version += 1;
            }
            changed
        });
    }

    /// Serves a `directory` call: everything, then what changes, until the gateway goes.
    pub(crate) async fn serve(&self, mut call: Incoming) -> Result<(), RpcError> {
        if call.peer().role != Role::Gateway {
            return Err(RpcError::new(
                Code::Forbidden,
                format!("a {} may not read the directory", call.peer().role),
            ));
        }
        self.metrics.subscribers().inc();
        let result = self.follow(&mut call).await;
        self.metrics.subscribers().dec();
        result
    }

    async fn follow(&self, call: &mut Incoming) -> Result<(), RpcError> {
        let mut changes = self.state.subscribe();
        let mut gone = Box::pin(call.cancelled());
        let mut have: Option<State> = None;
        loop {
            let current = changes.borrow_and_update().clone();
            if have.as_ref().is_none_or(|h| h.version != current.version) {
                for update in updates(have.as_ref(), &current) {
                    tokio::time::timeout(SEND_TIMEOUT, call.send(&codec::encode(&update)))
                        .await
                        .map_err(|_| {
                            RpcError::new(Code::Deadline, "an update was not taken in time")
                        })??;
                }
                have = Some(current);
            }
            tokio::select! {
                () = &mut gone => return Ok(()),
                () = self.stop.cancelled() => {
                    return Err(RpcError::new(Code::Unavailable, "the orchestrator is stopping"));
                }
                changed = changes.changed() => if changed.is_err() { return Ok(()) },
            }
        }
    }

    /// Follows the tenants' file until the end. A file with a mistake changes nothing.
    pub(crate) async fn follow_tenants(
        self: Arc<Self>,
        mut file: TenantsFile,
        shares: Arc<ArcSwap<Shares>>,
    ) {
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(TENANTS_POLL) => {}
            }
            let polled = tokio::task::spawn_blocking(move || {
                let result = file.poll();
                (file, result)
            });
            let Ok((back, result)) = polled.await else {
                return;
            };
            file = back;
            match result {
                Ok(None) => {}
                Ok(Some(read)) => {
                    tracing::info!(tenants = read.tenants.len(), "tenants read again");
                    self.set_tenants(read.tenants);
                    shares.store(Arc::new(read.shares));
                }
                Err(error) => {
                    tracing::error!(%error, "tenants kept as they were");
                    self.refused.send_modify(|count| *count += 1);
                }
            }
        }
    }
}

/// Tenants with the rules that say which models they are shown.
fn ruled(mut tenants: Tenants, policy: &Policy) -> Tenants {
    for (id, entry) in &mut tenants {
        entry.rule = policy.model_rule(id);
    }
    tenants
}
