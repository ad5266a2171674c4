//! What a worker tells its provider: what it is doing, what it earned, and why it gets no work when
//! it gets none. (WRK-7)
//!
//! * [`Report`] – everything, as `tether worker status` shows it
//! * [`reasons`] – why no orchestrator sends work here, each with what to do about it

pub mod reasons;

use crate::models::{ModelReport, ModelStatus};
use crate::worker::Worker;
use reasons::{Facts, Reason};
use serde::Serialize;
use std::collections::BTreeMap;
use tether_net::UplinkView;
use tether_wire::rpc::Code;
use tether_wire::{MeshId, NodeId, Region, Signed, Tier};

/// Name of the socket in the worker's data folder on which it answers its provider.
pub const SOCKET: &str = "status.sock";

/// Everything that a worker tells its provider.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Its key.
    pub id: NodeId,
    /// Its process.
    pub pid: u32,
    /// Version of the software.
    pub version: &'static str,
    /// The mesh that it is in.
    pub mesh: MeshId,
    /// Where it stands.
    pub region: Region,
    /// What it is doing, as its beats say.
    pub state: &'static str,
    /// Seconds since its start.
    pub up_s: u64,
    /// Its place in the mesh; nothing where it has no grant that holds.
    pub grant: Option<GrantReport>,
    /// Whether orchestrators can send it work, as far as it can know itself.
    pub is_routable: bool,
    /// Why not.
    pub reasons: Vec<Reason>,
    /// Orchestrators that it knows of.
    pub orchestrators: Vec<OrchestratorReport>,
    /// How many of them hear it.
    pub hearing: usize,
    /// Its models.
    pub models: Vec<ModelReport>,
    /// Requests.
    pub load: LoadReport,
    /// What it did since its start.
    pub served: ServedReport,
}

/// A grant.
#[derive(Clone, Debug, Serialize)]
pub struct GrantReport {
    /// How far it is believed.
    pub tier: Tier,
    /// Unix milliseconds from which it no longer holds.
    pub expires_ms: u64,
}

/// An orchestrator that the worker knows of.
#[derive(Clone, Debug, Serialize)]
pub struct OrchestratorReport {
    /// Its key.
    pub id: NodeId,
    /// `in-use`, `spare`, `quiet`, `dialling`, or `not-linked`.
    pub state: &'static str,
    /// Where it is known from.
    pub source: &'static str,
    /// Why there is no link with it.
    pub last_failure: Option<String>,
}

/// How busy it is.
#[derive(Clone, Debug, Serialize)]
pub struct LoadReport {
    /// Requests that run.
    pub running: u32,
    /// Requests that wait.
    pub waiting: u32,
    /// Most requests that run at once.
    pub slots: u32,
    /// Most requests that wait.
    pub queue_limit: u32,
    /// Of late, over all requests.
    pub tokens_per_s: f32,
    /// Of late, median.
    pub first_token_ms: u64,
}

/// What it did since its start.
#[derive(Clone, Debug, Serialize)]
pub struct ServedReport {
    /// Orders that were answered in full.
    pub answered: u64,
    /// Orders that were wrong, or that this worker was not to take, by reason: nothing failed.
    pub refused: BTreeMap<&'static str, u64>,
    /// Orders whose callers went before their end.
    pub cancelled: u64,
    /// Orders that ended otherwise, by reason.
    pub failed: BTreeMap<&'static str, u64>,
    /// Orders that were not taken for want of room or readiness, or by a limit of the tenant, by
    /// reason. They are among those above.
    pub shed: BTreeMap<&'static str, u64>,
    /// Tokens of prompts that were answered.
    pub prompt_tokens: u64,
    /// Tokens of their answers.
    pub completion_tokens: u64,
    /// What these come to at its price, by its own count: nobody has paid it.
    pub earned_micro: u64,
    /// Its price in micro-credits for a thousand tokens.
    pub price_per_1k_micro: u64,
    /// Starts of engines after the first, by the reason of the end.
    pub engine_restarts: BTreeMap<&'static str, u64>,
}

/// What tokens come to at a price for a thousand, rounded down.
#[must_use]
pub fn earned_micro(tokens: u64, price_per_1k_micro: u64) -> u64 {
    let whole = u128::from(tokens) * u128::from(price_per_1k_micro) / 1_000;
    u64::try_from(whole).unwrap_or(u64::MAX)
}

impl Worker {
    /// Everything that its provider may want to know.
    pub async fn report(&self) -> Report {
        let uplinks = self.known_orchestrators().await;
        let (node, status) = (self.node(), self.status());
        let now_ms = crate::clock::now_ms();
        let members = node.members().current();
        let grant = self.grant().map(|sealed| {
            let sealed = Signed::from_bytes(sealed);
            (members.verify_grant(&sealed, now_ms)).map_err(|error| error.to_string())
        });
        let models: Vec<ModelReport> = status.models.iter().map(ModelStatus::report).collect();
        let terms = self.terms();
        let totals = self.totals();
        let tokens = totals.input_tokens.saturating_add(totals.output_tokens);
        let (tokens_per_s, first_token_ms) = self.pace_of_late();
        let barred = members.check_key(&self.id()).err();
        let reasons = reasons::reasons(&Facts {
            state: status.state,
            barred: barred.map(|refusal| refusal.message),
            grant: grant.as_ref().and_then(|it| it.as_ref().err()).cloned(),
            hearing: status.orchestrators,
            uplinks: &uplinks,
            models: &models,
            load: status.load,
            queue_limit: terms.queue_limit,
            strain: status.strain.clone(),
        });
        let Ends {
            answered,
            refused,
            cancelled,
            failed,
        } = ends(totals.requests);
        Report {
            id: self.id(),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION"),
            mesh: node.mesh().id,
            region: node.region().clone(),
            state: status.state.as_str(),
            up_s: terms.started.elapsed().as_secs(),
            grant: grant.and_then(Result::ok).map(|grant| GrantReport {
                tier: grant.tier,
                expires_ms: grant.expires_ms,
            }),
            is_routable: reasons.is_empty(),
            reasons,
            orchestrators: uplinks.into_iter().map(orchestrator).collect(),
            hearing: status.orchestrators,
            models,
            load: LoadReport {
                running: status.load.running,
                waiting: status.load.waiting,
                slots: terms.slots,
                queue_limit: terms.queue_limit,
                tokens_per_s,
                first_token_ms,
            },
            served: ServedReport {
                answered,
                refused,
                cancelled,
                failed,
                shed: totals.shed,
                prompt_tokens: totals.input_tokens,
                completion_tokens: totals.output_tokens,
                earned_micro: earned_micro(tokens, terms.price_per_1k_micro),
                price_per_1k_micro: terms.price_per_1k_micro,
                engine_restarts: totals.engine_restarts,
            },
        }
    }
}

/// How orders ended.
#[derive(Debug, PartialEq, Eq)]
struct Ends {
    answered: u64,
    refused: BTreeMap<&'static str, u64>,
    cancelled: u64,
    failed: BTreeMap<&'static str, u64>,
}

/// What a tenant asked wrongly, or took back, is no failure of the worker's.
fn ends(mut requests: BTreeMap<&'static str, u64>) -> Ends {
    let answered = requests.remove("ok").unwrap_or(0);
    let cancelled = requests.remove(Code::Cancelled.as_str()).unwrap_or(0);
    let refusals = Code::REFUSALS.into_iter().map(Code::as_str);
    let refused = refusals
        .filter_map(|code| Some((code, requests.remove(code)?)))
        .collect();
    Ends {
        answered,
        refused,
        cancelled,
        failed: requests,
    }
}

fn orchestrator(view: UplinkView) -> OrchestratorReport {
    OrchestratorReport {
        id: view.id,
        state: view.state,
        source: view.source,
        last_failure: view.last_failure.map(|failure| failure.why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tenants_asked_wrongly_or_took_back_has_not_failed() {
        let counted = [
            ("ok", 5),
            ("invalid", 3),
            ("rate-limited", 2),
            ("cancelled", 4),
            ("overloaded", 1),
            ("internal", 1),
        ];
        assert_eq!(
            ends(BTreeMap::from(counted)),
            Ends {
                answered: 5,
                refused: BTreeMap::from([("invalid", 3), ("rate-limited", 2)]),
                cancelled: 4,
                failed: BTreeMap::from([("internal", 1), ("overloaded", 1)]),
            }
        );
    }

    #[test]
    fn what_was_earned_is_rounded_down_and_never_overflows() {
        assert_eq!(earned_micro(999, 1), 0);
        assert_eq!(earned_micro(1_500, 250), 375);
        assert_eq!(earned_micro(u64::MAX, u64::MAX), u64::MAX);
    }
}
