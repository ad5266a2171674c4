//! From file and environment to a struct. The only module that knows figment and the environment.

use super::ConfigError;
use figment::Figment;
use figment::error::Kind;
use figment::providers::{Env, Format, Toml};
use serde::de::DeserializeOwned;
use std::path::Path;

/// Prefix of variables that override.
pub(crate) const ENV_PREFIX: &str = "TETHER_";
/// Between section and key in a variable's name.
const ENV_SEPARATOR: &str = "__";
/// Most bytes of a configuration file.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// What a process is, by its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Process {
    Bootstrap,
    Gateway,
    Orchestrator,
    Worker,
}

impl Process {
    const ALL: [Self; 4] = [
        Self::Bootstrap,
        Self::Gateway,
        Self::Orchestrator,
        Self::Worker,
    ];

    /// Name of its section.
    fn section(self) -> &'static str {
        match self {
            Self::Bootstrap => "bootstrap",
            Self::Gateway => "gateway",
            Self::Orchestrator => "orchestrator",
            Self::Worker => "worker",
        }
    }

    /// Whether a section may be in its file. Variables for other sections are other processes':
    /// several may share an environment.
    fn reads(self, section: &str) -> bool {
        section == self.section()
            || section == "telemetry"
            || (section == "node" && self != Self::Bootstrap)
    }
}

/// The role that a file has a section for.
pub(super) fn role_of(file: &Path) -> Result<Process, ConfigError> {
    let table: toml::Table =
        toml::from_str(&read(file)?).map_err(|error| syntax(file, &error.to_string()))?;
    let found: Vec<Process> = Process::ALL
        .into_iter()
        .filter(|process| table.contains_key(process.section()))
        .collect();
    match found[..] {
        [process] => Ok(process),
        _ => Err(ConfigError::Role {
            file: file.to_owned(),
            found: match found.len() {
                0 => "no role is configured".to_owned(),
                count => format!("{count} roles are configured"),
            },
        }),
    }
}

/// Variables with our prefix that are no setting: the API key of `tether chat`, what an engine is
/// started with, and what our tests read.
const OTHER_VARIABLES: [&str; 3] = ["TETHER_API_KEY", "TETHER_ENGINE_PROCESS", "TETHER_BLESS"];
/// The same, for a whole family.
const TEST_PREFIX: &str = "TETHER_TEST_";
/// Sections of any process.
const SECTIONS: [&str; 6] = [
    "node",
    "telemetry",
    "bootstrap",
    "gateway",
    "orchestrator",
    "worker",
];

/// Refuses the first variable with our prefix that sets nothing: `TETHER_WORKER_SLOTS` with one
/// line between is no setting, and would be passed over in silence.
fn check_names(names: impl Iterator<Item = String>) -> Result<(), ConfigError> {
    for name in names {
        let upper = name.to_ascii_uppercase();
        let Some(rest) = upper.strip_prefix(ENV_PREFIX) else {
            continue;
        };
        if OTHER_VARIABLES.contains(&upper.as_str()) || upper.starts_with(TEST_PREFIX) {
            continue;
        }
        let section = rest.split_once(ENV_SEPARATOR).map(|(section, _)| section);
        let is_section = |text: &str| SECTIONS.contains(&text.to_ascii_lowercase().as_str());
        if section.is_some_and(is_section) {
            continue;
        }
        let meant = rest
            .split_once('_')
            .filter(|(section, key)| is_section(section) && !key.is_empty());
        let hint = match meant {
            Some((section, key)) => {
                format!("did you mean {ENV_PREFIX}{section}{ENV_SEPARATOR}{key}?")
            }
            None => format!(
                "a setting is {ENV_PREFIX}SECTION{ENV_SEPARATOR}KEY, with one of the sections {}",
                SECTIONS.join(", ")
            ),
        };
        return Err(ConfigError::Variable { name, hint });
    }
    Ok(())
}

/// The same for the environment of this process; a name that is no UTF-8 is none of ours.
fn check_environment() -> Result<(), ConfigError> {
    check_names(std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()))
}

/// Reads a file, lets the environment override it, and makes a struct of it.
pub(super) fn load<T: DeserializeOwned>(file: &Path, process: Process) -> Result<T, ConfigError> {
    check_environment()?;
    let text = read(file)?;
    let _: toml::Table = toml::from_str(&text).map_err(|error| syntax(file, &error.to_string()))?;
    Figment::from(Toml::string(&text))
        .merge(environment(move |section| process.reads(section)))
        .extract()
        .map_err(|error| explain(file, &error))
}

/// What the environment alone says of one section, for a process without a file.
pub(super) fn from_environment<T: DeserializeOwned>(
    wanted: &'static str,
) -> Result<T, ConfigError> {
    check_environment()?;
    Figment::from(environment(move |section| section == wanted))
        .extract()
        .map_err(|error| explain(Path::new("the environment"), &error))
}

fn environment(reads: impl Fn(&str) -> bool + Clone + 'static) -> Env {
    Env::prefixed(ENV_PREFIX)
        .filter(move |key| {
            key.as_str()
                .split_once(ENV_SEPARATOR)
                .is_some_and(|(section, _)| reads(&section.to_ascii_lowercase()))
        })
        .split(ENV_SEPARATOR)
}

fn read(file: &Path) -> Result<String, ConfigError> {
    use std::io::Read;
    let fail = |source| ConfigError::Read {
        file: file.to_owned(),
        source,
    };
    let mut text = String::new();
    std::fs::File::open(file)
        .map_err(fail)?
        .take(MAX_FILE_BYTES + 1)
        .read_to_string(&mut text)
        .map_err(fail)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(syntax(file, "it is larger than 1 MiB"));
    }
    Ok(text)
}

fn syntax(file: &Path, why: &str) -> ConfigError {
    ConfigError::Syntax {
        file: file.to_owned(),
        why: why.trim_end().to_owned(),
    }
}

/// figment's error in words that say where and what to do.
fn explain(file: &Path, error: &figment::Error) -> ConfigError {
    let mut path = error.path.clone();
    let why = match &error.kind {
        Kind::UnknownField(field, known) => {
            // The path ends at the field itself, or at what should hold it.
            if path.last() != Some(field) {
                path.push(field.clone());
            }
            let key = path.join(".");
            return ConfigError::UnknownKey {
                place: place(file, &path),
                known: known.join(", "),
                key,
            };
        }
        Kind::MissingField(field) => {
            path.push(field.to_string());
            "is missing".to_owned()
        }
        kind => format!("is wrong: {kind}"),
    };
    let key = path.join(".");
    match variable(&path) {
        Some(name) => ConfigError::Invalid {
            file: format!("environment variable {name}").into(),
            key,
            why,
        },
        None => ConfigError::Invalid {
            file: file.to_owned(),
            key,
            why,
        },
    }
}

fn place(file: &Path, path: &[String]) -> String {
    variable(path).map_or_else(
        || file.display().to_string(),
        |name| format!("environment variable {name}"),
    )
}

/// The variable that sets a key, if there is one.
fn variable(path: &[String]) -> Option<String> {
    let name = format!("{ENV_PREFIX}{}", path.join(ENV_SEPARATOR)).to_ascii_uppercase();
    std::env::var_os(&name).map(|_| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str) -> Result<(), String> {
        check_names([name.to_owned()].into_iter()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_variable_that_sets_nothing_is_refused_with_what_was_meant() {
        for (name, hint) in [
            ("TETHER_WORKER_SLOTS", "did you mean TETHER_WORKER__SLOTS?"),
            (
                "TETHER_NODE_DHT_LISTEN",
                "did you mean TETHER_NODE__DHT_LISTEN?",
            ),
            ("TETHER_WORKR__SLOTS", "TETHER_SECTION__KEY"),
            ("TETHER_SLOTS", "sections node, telemetry"),
            ("TETHER_WORKER_", "TETHER_SECTION__KEY"),
        ] {
            let error = check(name).expect_err(name);
            assert!(error.contains(name) && error.contains(hint), "{error}");
        }
        for name in [
            "TETHER_WORKER__SLOTS",
            "TETHER_WORKER__ENGINE__KIND",
            "TETHER_GATEWAY__LISTEN",
            "TETHER_API_KEY",
            "TETHER_TEST_REQUIRE",
            "TETHER_ENGINE_PROCESS",
            "TETHER_BLESS",
            "TETHERED",
            "PATH",
        ] {
            check(name).expect("not ours to refuse");
        }
    }
}
