//! A server that the provider runs beside the worker. (WRK-4)

use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use tether_wire::Digest;

/// Longest URL of a server, and longest name that it has for a model.
const MAX_TEXT_BYTES: usize = 1_024;
/// Most requests that one server may be given at once.
const MAX_CONCURRENCY: u32 = 4_096;
/// Least time between two looks at a server.
const MIN_PROBE_INTERVAL_MS: u64 = 100;

/// A server with OpenAI's API that serves one model of the mesh.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerConfig {
    /// Where its API is, such as `http://127.0.0.1:8080/v1`.
    pub url: String,
    /// What it is: which parameters it knows, and how its health is asked for.
    #[serde(default)]
    pub kind: ServerKind,
    /// What the server calls the model.
    pub model: String,
    /// The folder with the `tether.manifest` of the artifact that it serves; the artifact's other
    /// files need not be there. A trusted publisher's signature gives the model its name and digest.
    pub artifact: PathBuf,
    /// The digest that the manifest must have; nothing means whatever a trusted publisher signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// A file with the key that the server asks for, read at the start of the worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key_file: Option<PathBuf>,
    /// Requests that it is given at once: as many as it answers at once.
    #[serde(default = "four")]
    pub concurrency: u32,
    /// How often its health is looked at, in milliseconds.
    #[serde(default = "five_seconds")]
    pub probe_interval_ms: u64,
}

fn four() -> u32 {
    4
}

fn five_seconds() -> u64 {
    5_000
}

/// Kinds of servers, as far as they differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ServerKind {
    /// Any other: OpenAI's own parameters and no more.
    #[default]
    Openai,
    /// `llama-server` of llama.cpp.
    #[serde(rename = "llama.cpp")]
    LlamaCpp,
    /// vLLM.
    Vllm,
    /// Ollama.
    Ollama,
    /// LM Studio.
    LmStudio,
}

impl ServerKind {
    /// Every kind.
    pub const ALL: [Self; 5] = [
        Self::Openai,
        Self::LlamaCpp,
        Self::Vllm,
        Self::Ollama,
        Self::LmStudio,
    ];

    /// Its name, as configured.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Openai => "openai",
            Self::LlamaCpp => "llama.cpp",
            Self::Vllm => "vllm",
            Self::Ollama => "ollama",
            Self::LmStudio => "lm-studio",
        }
    }
}

impl ServerConfig {
    /// What is wrong with it, for whoever wrote it.
    pub(super) fn fault(&self) -> Option<String> {
        let has_scheme = self.url.starts_with("http://") || self.url.starts_with("https://");
        let is_plain = !self
            .url
            .contains(|c: char| c.is_whitespace() || c.is_control() || "?#@".contains(c));
        let fits = |text: &str| (1..=MAX_TEXT_BYTES).contains(&text.len());
        let faults = [
            (
                has_scheme && is_plain && fits(&self.url),
                "needs a url such as http://127.0.0.1:8080/v1, without user, query or fragment",
            ),
            (fits(&self.model), "needs model: what the server calls it"),
            (
                !self.artifact.as_os_str().is_empty(),
                "needs artifact: the folder with the tether.manifest of what it serves",
            ),
            (
                (1..=MAX_CONCURRENCY).contains(&self.concurrency),
                "needs a concurrency between 1 and 4096",
            ),
            (
                self.probe_interval_ms >= MIN_PROBE_INTERVAL_MS,
                "needs a probe_interval_ms of at least 100",
            ),
        ];
        let (_, why) = faults.into_iter().find(|(ok, _)| !ok)?;
        Some(why.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(text: &str) -> ServerConfig {
        serde_json::from_str(text).expect("a server")
    }

    #[test]
    fn the_least_that_must_be_said_is_enough() {
        let config = server(r#"{"url":"http://[::1]:8080/v1","model":"m","artifact":"a"}"#);
        assert_eq!(config.fault(), None);
        assert_eq!((config.kind, config.concurrency), (ServerKind::Openai, 4));
    }

    #[test]
    fn each_kind_is_written_as_it_is_named() {
        for kind in ServerKind::ALL {
            let text = serde_json::to_string(&kind).expect("a name");
            assert_eq!(text, format!("{:?}", kind.as_str()));
        }
    }

    #[test]
    fn each_wrong_setting_is_named() {
        let good = server(r#"{"url":"http://h/v1","model":"m","artifact":"a"}"#);
        let wrong = |word: &str, change: fn(&mut ServerConfig)| {
            let mut config = good.clone();
            change(&mut config);
            let fault = config.fault().expect(word);
            assert!(fault.contains(word), "{fault}");
        };
        for url in [
            "h:80",
            "ftp://h",
            "http://u:p@h",
            "http://h/?k=1",
            "http://h a",
            "",
        ] {
            let config = ServerConfig {
                url: url.to_owned(),
                ..good.clone()
            };
            assert!(config.fault().is_some_and(|it| it.contains("url")), "{url}");
        }
        wrong("model", |c| c.model.clear());
        wrong("artifact", |c| c.artifact = PathBuf::new());
        wrong("concurrency", |c| c.concurrency = 0);
        wrong("concurrency", |c| c.concurrency = 4_097);
        wrong("probe_interval_ms", |c| c.probe_interval_ms = 99);
    }
}
