//! What an orchestrator is told when it starts; everything is checked before a port is bound.

mod store;

pub use store::{StoreConfig, StoreKind};

use crate::breaker::BreakerSettings;
use crate::placement::Placement;
use crate::queue::QueueSettings;
use crate::retry::RetrySettings;
use crate::store::Retention;
use serde::{Deserialize, Serialize};
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use tether_wire::NodeId;

/// Most releases that may be listed; each is a signed manifest read at start.
pub const MAX_RELEASES: usize = 1_024;
/// Longest of any configured time: a day.
pub const MAX_TIME_MS: u64 = 24 * 3_600_000;

/// Longest time that dead letters are kept.
pub const MAX_LETTER_RETENTION_MS: u64 = 30 * MAX_TIME_MS;

/// The `[orchestrator]` section. Times are milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OrchestratorConfig {
    /// File of tenants and the hashes of their API keys. Read again when it changes; a file with a
    /// mistake is refused and the last good one kept. In a configuration file, relative paths start
    /// at that file.
    pub tenants: PathBuf,
    /// What tenants may ask for.
    pub policy: PolicyConfig,
    /// Models that this mesh releases: sealed manifests, or folders that hold a `tether.manifest`.
    /// A released model is known (503, not 404) before any worker serves it, and only workers with
    /// exactly its digest serve it. Relative paths as above.
    pub releases: Vec<PathBuf>,
    /// Keys whose signature on a release counts.
    pub trusted_publishers: Vec<NodeId>,
    /// HTTP for the operator of this machine: `/metrics`, `/healthz`, `/readyz`, `/fleet`,
    /// `/topics`. Only loopback is allowed; port 0 takes a free one.
    pub admin: SocketAddr,
    /// When and how often a request is tried again at another worker. (SCH-4)
    pub retry: RetrySettings,
    /// When a worker, a model or a region is left alone for a while. (SCH-3)
    pub breakers: BreakerSettings,
    /// Who waits while all workers of a model are busy, and in which order. (SCH-5, SCH-7)
    pub queue: QueueSettings,
    /// Time for a new link to a worker, where there is none.
    pub dial_timeout_ms: u64,
    /// Time in which a worker must say that it took an order. It has only to look at its queue, so
    /// silence means that it is dead or stuck; its link is known to be quiet only after 2 s.
    pub accept_timeout_ms: u64,
    /// Time that a request may wait its turn at a worker that took it. After it the caller is told
    /// to come again; the worker did nothing wrong. The caller's own time may be shorter.
    pub queue_timeout_ms: u64,
    /// Time from the turn of a request to the first piece of its answer: reading the prompt.
    pub first_token_timeout_ms: u64,
    /// Time for which an answer that has begun waits for a worker that goes on with it, where there is
    /// none.
    pub hand_over_timeout_ms: u64,
    /// How long a request waits, once it is a job, for a store that fails.
    pub store_timeout_ms: u64,
    /// Time between two pieces of an answer, and for the gateway to take one.
    pub stall_timeout_ms: u64,
    /// Time for a whole answer. A job's lease lasts as long.
    pub answer_timeout_ms: u64,
    /// Requests under way at once, those that wait their turn among them; the next is told to come
    /// again.
    pub max_open: usize,
    /// Workers in the fleet at once. Some more nodes are remembered after they went.
    pub max_workers: usize,
    /// What callers are told to wait when nothing can serve them: one heartbeat, after which the
    /// fleet may look different.
    pub retry_after_ms: u64,
    /// Where jobs are kept.
    pub store: StoreConfig,
    /// How long ended jobs are remembered, and with them their keys. (RSV-1)
    pub job_retention_ms: u64,
    /// How long the answer to a request is kept whose caller gave an `Idempotency-Key`, for those who
    /// come again with it. No longer than the job. (RSV-5)
    pub result_retention_ms: u64,
    /// How long other answers are kept: only a gateway can come again for them.
    pub unkeyed_retention_ms: u64,
    /// How long the requests of failed jobs are kept for the operator. (RSV-3)
    pub dead_letter_retention_ms: u64,
    /// Time that open answers get to finish when the orchestrator stops.
    pub drain_timeout_ms: u64,
    /// File with what otherwise stands in `[orchestrator.placement]`. Read again when it changes; one
    /// with a mistake is refused and the last good one kept. Relative paths as above.
    pub placement_file: Option<PathBuf>,
    /// How requests are placed. (SCH-1, SCH-2)
    pub placement: Placement,
}

impl Default for OrchestratorConfig {
    fn default() -> Self {
        let kept = Retention::default();
        Self {
            tenants: PathBuf::from("tenants.toml"),
            policy: PolicyConfig::default(),
            releases: Vec::new(),
            trusted_publishers: Vec::new(),
            admin: SocketAddr::from((Ipv4Addr::LOCALHOST, 9464)),
            retry: RetrySettings::default(),
            breakers: BreakerSettings::default(),
            queue: QueueSettings::default(),
            dial_timeout_ms: 1_000,
            accept_timeout_ms: 750,
            queue_timeout_ms: 120_000,
            first_token_timeout_ms: 60_000,
            hand_over_timeout_ms: 15_000,
            store_timeout_ms: 4_000,
            stall_timeout_ms: 30_000,
            answer_timeout_ms: 600_000,
            max_open: 4_096,
            max_workers: 100_000,
            retry_after_ms: tether_wire::beat::BEAT_INTERVAL_MS,
            store: StoreConfig::default(),
            job_retention_ms: kept.job_ms,
            result_retention_ms: kept.answer_ms,
            unkeyed_retention_ms: kept.unkeyed_ms,
            dead_letter_retention_ms: kept.dead_letter_ms,
            drain_timeout_ms: 20_000,
            placement_file: None,
            placement: Placement::default(),
        }
    }
}

/// The `[orchestrator.policy]` section.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PolicyConfig {
    /// File of rules, see docs/policy.md; without one everything is allowed. Read again when it
    /// changes; one with a mistake is refused and the last good one kept. Relative paths as above.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
}

/// A setting outside its limits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("orchestrator.{field} {why}")]
pub struct ConfigError {
    /// The setting, as it is written in the file.
    pub field: &'static str,
    /// What is wrong with it and what is allowed.
    pub why: String,
}

impl ConfigError {
    /// Refuses a number outside its limits.
    ///
    /// # Errors
    /// It is outside.
    pub(crate) fn unless_within(
        field: &'static str,
        value: u64,
        limits: RangeInclusive<u64>,
    ) -> Result<(), Self> {
        if limits.contains(&value) {
            return Ok(());
        }
        let (least, most) = limits.into_inner();
        let why = format!("is {value}, not between {least} and {most}");
        Err(Self { field, why })
    }
}

impl OrchestratorConfig {
    /// Checks every setting, without touching a disk or a port.
    ///
    /// # Errors
    /// The first setting that is outside its limits.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let check = |ok: bool, field: &'static str, why: &dyn Fn() -> String| {
            if ok {
                Ok(())
            } else {
                Err(ConfigError { field, why: why() })
            }
        };
        check(!self.tenants.as_os_str().is_empty(), "tenants", &|| {
            "is empty: name the file that lists the tenants".to_owned()
        })?;
        let policy = self.policy.file.as_ref();
        check(
            policy.is_none_or(|file| !file.as_os_str().is_empty()),
            "policy.file",
            &|| "is empty: name the file of rules, or leave it out".to_owned(),
        )?;
        check(self.releases.len() <= MAX_RELEASES, "releases", &|| {
            format!("has more than {MAX_RELEASES} entries")
        })?;
        check(
            self.releases.is_empty() || !self.trusted_publishers.is_empty(),
            "trusted_publishers",
            &|| "is empty, so that no release could be believed".to_owned(),
        )?;
        check(self.admin.ip().is_loopback(), "admin", &|| {
            format!("is {}, not a loopback address", self.admin)
        })?;
        self.placement.check().map_err(|(field, why)| ConfigError {
            field: "placement",
            why: format!("is refused: `{field}` {why}"),
        })?;
        let has_one_place = self.placement_file.is_none() || self.placement == Placement::default();
        check(has_one_place, "placement", &|| {
            "stands beside orchestrator.placement_file: write it into that file".to_owned()
        })?;
        self.retry.check()?;
        self.breakers.check()?;
        self.queue.check()?;
        for (field, value) in [
            ("dial_timeout_ms", self.dial_timeout_ms),
            ("accept_timeout_ms", self.accept_timeout_ms),
            ("queue_timeout_ms", self.queue_timeout_ms),
            ("first_token_timeout_ms", self.first_token_timeout_ms),
            ("hand_over_timeout_ms", self.hand_over_timeout_ms),
            ("store_timeout_ms", self.store_timeout_ms),
            ("stall_timeout_ms", self.stall_timeout_ms),
            ("answer_timeout_ms", self.answer_timeout_ms),
            ("retry_after_ms", self.retry_after_ms),
            ("job_retention_ms", self.job_retention_ms),
            ("drain_timeout_ms", self.drain_timeout_ms),
        ] {
            check((1..=MAX_TIME_MS).contains(&value), field, &|| {
                format!("is {value}, not between 1 and {MAX_TIME_MS} (a day)")
            })?;
        }
        for (field, value) in [
            ("result_retention_ms", self.result_retention_ms),
            ("unkeyed_retention_ms", self.unkeyed_retention_ms),
        ] {
            let longest = self.job_retention_ms;
            check((1..=longest).contains(&value), field, &|| {
                format!("is {value}, not between 1 and job_retention_ms ({longest})")
            })?;
        }
        self.store.check()?;
        let letters = self.dead_letter_retention_ms;
        check(
            (1..=MAX_LETTER_RETENTION_MS).contains(&letters),
            "dead_letter_retention_ms",
            &|| format!("is {letters}, not between 1 and {MAX_LETTER_RETENTION_MS} (30 days)"),
        )?;
        check(
            (1..=1_000_000).contains(&self.max_open),
            "max_open",
            &|| format!("is {}, not between 1 and 1000000", self.max_open),
        )?;
        check(
            (1..=1_000_000).contains(&self.max_workers),
            "max_workers",
            &|| format!("is {}, not between 1 and 1000000", self.max_workers),
        )
    }

    /// Bounds of presence: room for as many workers as are configured, whoever else is there.
    pub(crate) fn presence(&self) -> tether_presence::Settings {
        let mut settings = tether_presence::Settings::default();
        let others = settings.max_orchestrators + settings.max_gateways;
        settings.max_nodes = self.max_workers + others;
        settings
    }

    /// For how long what the store keeps is kept.
    pub(crate) fn retention(&self) -> Retention {
        Retention {
            job_ms: self.job_retention_ms,
            answer_ms: self.result_retention_ms,
            unkeyed_ms: self.unkeyed_retention_ms,
            dead_letter_ms: self.dead_letter_retention_ms,
        }
    }

    /// A path as it is used: what the configuration's reader left relative starts at the data folder.
    pub(crate) fn resolve(data_dir: &Path, path: &Path) -> PathBuf {
        data_dir.join(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut OrchestratorConfig)) -> String {
        let mut config = OrchestratorConfig::default();
        change(&mut config);
        config.validate().expect_err("refused").to_string()
    }

    #[test]
    fn the_defaults_are_valid_and_survive_toml() {
        let config = OrchestratorConfig::default();
        assert_eq!(config.validate(), Ok(()));
        let text = toml::to_string(&config).expect("written");
        assert_eq!(toml::from_str::<OrchestratorConfig>(&text), Ok(config));
    }

    #[test]
    fn a_misspelt_setting_is_refused_by_name() {
        for text in ["max_opn = 2", "[retry]\natempts = 2"] {
            let error = toml::from_str::<OrchestratorConfig>(text).expect_err("refused");
            assert!(error.to_string().contains("unknown field"), "{error}");
        }
    }

    #[test]
    fn each_setting_outside_its_limits_is_named() {
        assert!(refused(|c| c.retry.attempts = 4).contains("orchestrator.retry.attempts is 4"));
        assert!(refused(|c| c.breakers.probes = 0).contains("breakers.probes"));
        assert!(refused(|c| c.queue.entries = 0).contains("queue.entries"));
        assert!(refused(|c| c.placement.near_equal = f32::NAN).contains("near_equal"));
        assert!(refused(|c| c.placement.prefix_load = 0.9).contains("prefix_load"));
        assert!(refused(|c| c.placement.explained = 1.1).contains("explained"));
        assert!(refused(|c| c.admin = ([0, 0, 0, 0], 1).into()).contains("loopback"));
        assert!(refused(|c| c.accept_timeout_ms = 0).contains("accept_timeout_ms"));
        assert!(refused(|c| c.queue_timeout_ms = 0).contains("queue_timeout_ms"));
        assert!(refused(|c| c.drain_timeout_ms = MAX_TIME_MS + 1).contains("drain_timeout_ms"));
        assert!(refused(|c| c.releases = vec!["x".into()]).contains("trusted_publishers"));
        assert!(refused(|c| c.releases = vec!["x".into(); 1_025]).contains("releases"));
        assert!(refused(|c| c.placement.weights.queue = -1.0).contains("weights"));
        let two_places = refused(|c| {
            c.placement_file = Some("placement.toml".into());
            c.placement.near_equal = 0.1;
        });
        assert!(two_places.contains("placement_file"), "{two_places}");
        assert!(refused(|c| c.policy.file = Some(PathBuf::new())).contains("policy.file"));
        assert!(refused(|c| c.max_open = 0).contains("max_open"));
        assert!(refused(|c| c.job_retention_ms = 0).contains("job_retention_ms"));
        let longer = refused(|c| c.job_retention_ms = 60_000);
        assert!(
            longer.contains("result_retention_ms"),
            "kept without its job"
        );
        assert!(refused(|c| c.unkeyed_retention_ms = 0).contains("unkeyed_retention_ms"));
        let letters = refused(|c| c.dead_letter_retention_ms = u64::MAX);
        assert!(letters.contains("dead_letter_retention_ms"));
        assert!(refused(|c| c.max_workers = 1_000_001).contains("max_workers"));
        assert!(refused(|c| c.tenants = PathBuf::new()).contains("tenants"));
    }
}
