//! From file and environment to a struct. The only module that knows figment and reads the
//! environment.

use super::ConfigError;
use super::variables::{self, ENV_PREFIX, ENV_SEPARATOR, Meaning, Names};
use figment::Figment;
use figment::error::Kind;
use figment::providers::{Env, Format, Toml};
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};

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
            || (section == "relay" && self == Self::Bootstrap)
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

/// Names of all variables. What is no UTF-8 is read as figment reads it.
fn names() -> Names {
    Names::new(std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned()))
}

/// Variables with our prefix that nothing reads, though it is not evident that they should.
pub(super) fn unread() -> Vec<String> {
    let names = names();
    names
        .iter()
        .filter(|name| matches!(variables::meaning(name, &names), Ok(Meaning::Unread)))
        .map(str::to_owned)
        .collect()
}

/// Refuses settings of sections other than these, which a process that takes them in another way
/// would pass over in silence.
pub(super) fn refuse_besides(sections: &[&str], instead: &str) -> Result<(), ConfigError> {
    let names = names();
    for name in names.iter() {
        if let Meaning::Setting(section) = variables::meaning(name, &names)?
            && !sections.contains(&section)
        {
            return Err(ConfigError::Variable {
                name: name.to_owned(),
                why: instead.to_owned(),
            });
        }
    }
    Ok(())
}

/// Reads a file, lets the environment override it, and makes a struct of it.
pub(super) fn load<T: DeserializeOwned>(file: &Path, process: Process) -> Result<T, ConfigError> {
    let text = read(file)?;
    parse(&text, file, process)
}

/// The same of a text that is to become that file.
pub(super) fn parse<T: DeserializeOwned>(
    text: &str,
    file: &Path,
    process: Process,
) -> Result<T, ConfigError> {
    let names = names();
    variables::check(&names)?;
    let _: toml::Table = toml::from_str(text).map_err(|error| syntax(file, &error.to_string()))?;
    Figment::from(Toml::string(text))
        .merge(environment(names, move |section| process.reads(section)))
        .extract()
        .map_err(|error| explain(file, &error))
}

/// The `data_dir` of `[node]` in a file that may be no TOML as a whole: each line is read alone.
pub(super) fn stray_data_dir(file: &Path) -> Option<PathBuf> {
    let name = variable(&["node".to_owned(), "data_dir".to_owned()]);
    if let Some(folder) = name.and_then(std::env::var_os) {
        return Some(folder.into());
    }
    let text = read(file).ok()?;
    let mut lines = text
        .lines()
        .filter_map(|line| line.parse::<toml::Table>().ok());
    lines.find_map(|line| Some(line.get("data_dir")?.as_str()?.into()))
}

/// What the environment alone says of some sections, for a process without a file.
pub(super) fn from_environment<T: DeserializeOwned>(
    sections: &'static [&'static str],
) -> Result<T, ConfigError> {
    let names = names();
    variables::check(&names)?;
    let reads = move |section: &str| sections.contains(&section);
    Figment::from(environment(names, reads))
        .extract()
        .map_err(|error| explain(Path::new("the environment"), &error))
}

/// The settings among the variables, of those sections that are read.
fn environment(names: Names, reads: impl Fn(&str) -> bool + Clone + 'static) -> Env {
    Env::prefixed(ENV_PREFIX)
        .filter(move |key| {
            let name = format!("{ENV_PREFIX}{key}");
            matches!(variables::meaning(&name, &names), Ok(Meaning::Setting(section)) if reads(section))
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

/// The variable that sets a key, as it is spelled, if there is one.
fn variable(path: &[String]) -> Option<String> {
    let wanted = format!("{ENV_PREFIX}{}", path.join(ENV_SEPARATOR));
    let names = names();
    names
        .iter()
        .map(str::trim)
        .find(|name| name.eq_ignore_ascii_case(&wanted))
        .map(str::to_owned)
}
