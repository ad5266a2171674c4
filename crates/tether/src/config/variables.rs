//! What a variable means whose name begins with `TETHER_`. Pure: names in, decisions out.
//!
//! The case of its letters makes no difference: the library that reads settings ignores it, and so
//! does everything that asks here. What is evidently meant as a setting and sets nothing is
//! refused; what others put into an environment is not, since Kubernetes alone adds a dozen
//! variables for each service whose name begins with `tether`.

use super::node::NodeSection;
use super::{BootstrapSection, ConfigError, RelaySection};
use serde::de::value::Error;
use serde::de::{Deserialize, Deserializer, Visitor};
use std::collections::{BTreeMap, BTreeSet};
use tether_gateway::GatewayConfig;
use tether_orchestrator::OrchestratorConfig;
use tether_telemetry::TelemetryConfig;
use tether_worker::WorkerConfig;

/// Prefix of variables that override.
pub(super) const ENV_PREFIX: &str = "TETHER_";
/// Between section and key in a variable's name.
pub(super) const ENV_SEPARATOR: &str = "__";
/// Variables with our prefix that are no setting: the API key of `tether chat`, the token of
/// `tether worker --join`, what an engine is started with, and what our tests read.
const OTHER_VARIABLES: [&str; 4] = [
    "TETHER_API_KEY",
    "TETHER_JOIN",
    "TETHER_ENGINE_PROCESS",
    "TETHER_BLESS",
];
/// The same, for a whole family.
const TEST_PREFIX: &str = "TETHER_TEST_";
/// How the name of the variable ends with which Kubernetes tells a service's host.
const SERVICE_HOST: &str = "_SERVICE_HOST";

/// Sections of any process, and their keys.
fn sections() -> [(&'static str, &'static [&'static str]); 7] {
    [
        ("node", keys::<NodeSection>()),
        ("telemetry", keys::<TelemetryConfig>()),
        ("bootstrap", keys::<BootstrapSection>()),
        ("relay", keys::<RelaySection>()),
        ("gateway", keys::<GatewayConfig>()),
        ("orchestrator", keys::<OrchestratorConfig>()),
        ("worker", keys::<WorkerConfig>()),
    ]
}

/// What a variable is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// A setting of this section.
    Setting(&'static str),
    /// It begins as ours do, and nothing reads it.
    Unread,
    /// Not ours, or no setting and known.
    Other,
}

/// The names of all variables, as they are in the environment.
#[derive(Debug, Clone)]
pub(super) struct Names {
    raw: Vec<String>,
    /// The services of which Kubernetes tells the host, by the variable that does.
    hosts: BTreeSet<String>,
}

impl Names {
    pub(super) fn new(raw: impl Iterator<Item = String>) -> Self {
        let raw: Vec<String> = raw.collect();
        let hosts = raw
            .iter()
            .map(|name| normal(name))
            .filter(|name| name.ends_with(SERVICE_HOST))
            .collect();
        Self { raw, hosts }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &str> {
        self.raw.iter().map(String::as_str)
    }

    /// Whether Kubernetes tells the host of a service.
    fn has_service(&self, service: &str) -> bool {
        self.hosts.contains(&format!("{service}{SERVICE_HOST}"))
    }
}

/// A name as it counts: neither case nor blanks around it make a difference to what reads settings.
fn normal(name: &str) -> String {
    name.trim().to_ascii_uppercase()
}

/// Whether a variable is spelled as a setting.
pub(crate) fn is_setting(name: &str) -> bool {
    normal(name)
        .strip_prefix(ENV_PREFIX)
        .is_some_and(|rest| rest.contains(ENV_SEPARATOR))
}

/// What a variable is, by its name among others.
///
/// # Errors
/// When it can only be meant as a setting, and sets nothing.
pub(super) fn meaning(name: &str, names: &Names) -> Result<Meaning, ConfigError> {
    let upper = normal(name);
    let Some(rest) = upper.strip_prefix(ENV_PREFIX) else {
        return Ok(Meaning::Other);
    };
    let refuse = |why: String| {
        Err(ConfigError::Variable {
            name: name.to_owned(),
            why: format!("sets nothing: {why}"),
        })
    };
    let lower = rest.to_ascii_lowercase();
    let sections = sections();
    if let Some((section, key)) = lower.split_once(ENV_SEPARATOR) {
        let first = key.split(ENV_SEPARATOR).next().unwrap_or_default();
        let found = sections.into_iter().find(|(name, _)| *name == section);
        return match found {
            Some((section, known)) if known.contains(&first) => Ok(Meaning::Setting(section)),
            _ if services(&upper).any(|service| names.has_service(service)) => Ok(Meaning::Other),
            Some((section, known)) => refuse(format!(
                "[{section}] has no key `{first}`; known there: {}",
                known.join(", ")
            )),
            None => refuse(match missed_underscore(&lower) {
                Some(meant) => format!("did you mean {meant}?"),
                None => format!(
                    "a setting is {ENV_PREFIX}SECTION{ENV_SEPARATOR}KEY, with one of the sections {}",
                    sections.map(|(name, _)| name).join(", ")
                ),
            }),
        };
    }
    if OTHER_VARIABLES.contains(&upper.as_str())
        || upper.starts_with(TEST_PREFIX)
        || services(&upper).next().is_some()
    {
        return Ok(Meaning::Other);
    }
    match missed_underscore(&lower) {
        Some(meant) => refuse(format!("did you mean {meant}?")),
        None => Ok(Meaning::Unread),
    }
}

/// The setting that is meant where one underscore stands between section and key.
fn missed_underscore(lower: &str) -> Option<String> {
    let (section, key) = sections().into_iter().find_map(|(section, known)| {
        let key = lower.strip_prefix(section)?.strip_prefix('_')?;
        let first = key.split(ENV_SEPARATOR).next().unwrap_or_default();
        known.contains(&first).then_some((section, key))
    })?;
    Some(format!("{ENV_PREFIX}{section}{ENV_SEPARATOR}{key}").to_ascii_uppercase())
}

/// The services for which Kubernetes may have made a variable of this name, in the manner of
/// Docker's links: `{SERVICE}_SERVICE_HOST`, `{SERVICE}_SERVICE_PORT[_NAME]`, `{SERVICE}_PORT`,
/// `{SERVICE}_PORT_{NUMBER}_{PROTOCOL}[_{PROTO,PORT,ADDR}]`.
///
/// A service's name may have `--` in it, and its variables look like settings then. Kubernetes tells
/// the host of each service, so that such a one is known by [`Names::has_service`].
fn services(upper: &str) -> impl Iterator<Item = &str> {
    let ends = [SERVICE_HOST, "_SERVICE_PORT", "_PORT"]
        .into_iter()
        .filter_map(|end| upper.strip_suffix(end));
    let named = upper
        .match_indices("_SERVICE_PORT_")
        .map(|(at, _)| &upper[..at]);
    let numbered = upper
        .match_indices("_PORT_")
        .filter(|(at, mark)| is_port(&upper[at + mark.len()..]))
        .map(|(at, _)| &upper[..at]);
    // The name of a service ends with a letter or a digit.
    ends.chain(named)
        .chain(numbered)
        .filter(|service| !service.is_empty() && !service.ends_with('_'))
}

/// `{NUMBER}_{PROTOCOL}[_{PROTO,PORT,ADDR}]`
fn is_port(text: &str) -> bool {
    let mut parts = text.split('_');
    let (number, protocol) = (parts.next(), parts.next());
    number.is_some_and(|text| text.parse::<u16>().is_ok())
        && matches!(protocol, Some("TCP" | "UDP" | "SCTP"))
        && matches!(parts.next(), None | Some("PROTO" | "PORT" | "ADDR"))
        && parts.next().is_none()
}

/// Refuses the first name that can only be meant as a setting and sets nothing, and a setting that
/// is there twice, of which one would be passed over.
pub(super) fn check(names: &Names) -> Result<(), ConfigError> {
    let mut seen = BTreeMap::new();
    for name in names.iter() {
        let Meaning::Setting(_) = meaning(name, names)? else {
            continue;
        };
        if let Some(other) = seen.insert(normal(name), name) {
            return Err(ConfigError::Variable {
                name: name.to_owned(),
                why: format!(
                    "is there as {other:?} too: keep one, neither case nor blanks around a name make a difference"
                ),
            });
        }
    }
    Ok(())
}

/// The keys of a section, as serde knows them.
fn keys<'de, T: Deserialize<'de>>() -> &'static [&'static str] {
    let mut found: &'static [&'static str] = &[];
    // It fails always: only the question is of interest.
    let _ = T::deserialize(Fields(&mut found));
    found
}

/// Hears which fields are asked for, and has none.
struct Fields<'a>(&'a mut &'static [&'static str]);

impl<'de> Deserializer<'de> for Fields<'_> {
    type Error = Error;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        *self.0 = fields;
        self.deserialize_any(visitor)
    }

    fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Error> {
        Err(serde::de::Error::custom("has no value"))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(raw: &[&str]) -> Names {
        Names::new(raw.iter().map(ToString::to_string))
    }

    /// What a variable is that is there alone.
    fn meaning(name: &str) -> Result<Meaning, ConfigError> {
        super::meaning(name, &names(&[name]))
    }

    #[test]
    fn the_keys_of_every_section_are_known_and_none_looks_like_a_service() {
        for (section, keys) in sections() {
            assert!(keys.len() > 1, "{section}: {keys:?}");
            for key in keys {
                let upper = format!("TETHER_{section}_{key}").to_ascii_uppercase();
                assert_eq!(services(&upper).next(), None, "{upper}");
                let error = meaning(&upper).expect_err(&upper).to_string();
                let meant = format!("TETHER_{section}__{key}").to_ascii_uppercase();
                assert!(error.contains(&format!("did you mean {meant}?")), "{error}");
                assert_eq!(
                    meaning(&meant).expect("a setting"),
                    Meaning::Setting(section)
                );
            }
        }
    }

    #[test]
    fn what_can_only_be_a_setting_and_sets_nothing_is_refused_with_what_was_meant() {
        for (name, hint) in [
            ("TETHER_WORKER_SLOTS", "did you mean TETHER_WORKER__SLOTS?"),
            ("tether_worker_slots", "did you mean TETHER_WORKER__SLOTS?"),
            (
                "TETHER_NODE_DHT_LISTEN",
                "did you mean TETHER_NODE__DHT_LISTEN?",
            ),
            (
                "TETHER_WORKER_ENGINE__KIND",
                "did you mean TETHER_WORKER__ENGINE__KIND?",
            ),
            ("TETHER_WORKR__SLOTS", "TETHER_SECTION__KEY"),
            ("TETHER__WORKER__SLOTS", "TETHER_SECTION__KEY"),
            ("TETHER_WORKER__SLOTZ", "no key `slotz`; known there: "),
            ("tether_worker__slotz", "no key `slotz`; known there: "),
            ("TETHER_WORKER__", "no key ``; known there: "),
            ("TETHER_GATEWAY__PORT", "no key `port`; known there: listen"),
        ] {
            let error = meaning(name).expect_err(name).to_string();
            assert!(error.contains(name) && error.contains(hint), "{error}");
        }
        for name in [
            "TETHER_WORKER__SLOTS",
            "tether_worker__slots",
            "TETHER_WORKER__ENGINE__KIND",
        ] {
            assert_eq!(meaning(name).expect(name), Meaning::Setting("worker"));
            assert!(is_setting(name), "{name}");
        }
    }

    #[test]
    fn what_kubernetes_sets_for_a_service_is_passed_over() {
        for service in [
            "TETHER",
            "TETHER_GATEWAY",
            "TETHER_WORKER_2",
            "TETHER_BOOTSTRAP",
            "tether_node",
        ] {
            for rest in [
                "SERVICE_HOST",
                "SERVICE_PORT",
                "SERVICE_PORT_HTTP",
                "SERVICE_PORT_HTTP_ADMIN",
                "PORT",
                "PORT_8080_TCP",
                "PORT_8080_TCP_PROTO",
                "PORT_8080_TCP_PORT",
                "PORT_8080_TCP_ADDR",
                "PORT_49737_UDP_ADDR",
            ] {
                let name = format!("{service}_{rest}");
                assert_eq!(meaning(&name).expect(&name), Meaning::Other, "{name}");
            }
        }
    }

    #[test]
    fn a_service_with_two_hyphens_is_told_from_a_setting_by_its_host() {
        let all = [
            "TETHER_WORKER__CANARY_SERVICE_HOST",
            "TETHER_WORKER__CANARY_SERVICE_PORT",
            "TETHER_WORKER__CANARY_SERVICE_PORT_HTTP",
            "TETHER_WORKER__CANARY_PORT",
            "TETHER_WORKER__CANARY_PORT_8080_TCP",
            "TETHER_WORKER__CANARY_PORT_8080_TCP_ADDR",
            "TETHER__EDGE_SERVICE_HOST",
            "TETHER__EDGE_PORT",
        ];
        for name in all {
            let meant = super::meaning(name, &names(&all)).expect(name);
            assert_eq!(meant, Meaning::Other, "{name}");
        }
        check(&names(&all)).expect("none is refused");
        // Without such a service it is a mistake, and one that is easily made.
        for name in ["TETHER_GATEWAY__LISTEN_PORT", "TETHER_WORKER__CANARY_PORT"] {
            let error = meaning(name).expect_err(name).to_string();
            assert!(error.contains("has no key"), "{error}");
        }
        // What is a setting stays one, whatever the services are called.
        let error = super::meaning("TETHER_GATEWAY__PORT", &names(&all)).expect_err("no service");
        assert!(error.to_string().contains("no key `port`"), "{error}");
    }

    #[test]
    fn anything_else_with_the_prefix_is_told_and_not_refused() {
        for name in [
            "TETHER_SLOTS",
            "TETHER__SLOTS",
            "TETHER_WORKER_",
            "TETHER_HOME",
            "TETHER_WORKER_IMAGE",
            "TETHER_PORT_8080_TCP_HOST",
            "tether_home",
            "TETHER_",
        ] {
            assert_eq!(meaning(name).expect(name), Meaning::Unread, "{name}");
        }
        for name in [
            "TETHER_API_KEY",
            "TETHER_JOIN",
            "TETHER_TEST_REQUIRE",
            "TETHER_ENGINE_PROCESS",
            "TETHER_BLESS",
            "TETHERED",
            "PATH",
        ] {
            assert_eq!(meaning(name).expect(name), Meaning::Other, "{name}");
            assert!(!is_setting(name), "{name}");
        }
    }

    #[test]
    fn one_setting_in_two_spellings_is_refused() {
        let check = |raw: &[&str]| check(&names(raw));
        check(&["TETHER_WORKER__SLOTS", "tether_node__listen"]).expect("two settings");
        for other in ["Tether_Worker__slots", "TETHER_WORKER__SLOTS "] {
            let error = check(&["TETHER_WORKER__SLOTS", other])
                .expect_err("one setting")
                .to_string();
            for words in [
                "\"TETHER_WORKER__SLOTS\"",
                &format!("\"{other}\""),
                "keep one",
            ] {
                assert!(error.contains(words), "{words} in {error}");
            }
        }
    }
}
