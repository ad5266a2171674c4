//! What a publisher's files are: format of the weights, tokenizer, context.

pub(crate) mod config;
pub(crate) mod gguf;

use crate::adapter::{self, ADAPTER_CONFIG, ADAPTER_WEIGHTS, Adapter};
use crate::error::ArtifactError;
use crate::regular;
use std::path::Path;
use tether_wire::manifest::Format;

/// What was found.
#[derive(Debug)]
pub(crate) struct Detected {
    pub(crate) format: Format,
    pub(crate) weights: String,
    pub(crate) tokenizer: Option<String>,
    pub(crate) context_tokens: Option<u32>,
    pub(crate) licence: Option<String>,
    pub(crate) cache_width: Option<u32>,
    /// Of an adapter: what it changes in its base.
    pub(crate) adapter: Option<Adapter>,
}

const TOKENIZER: &str = "tokenizer.json";
const CONFIG: &str = "config.json";

/// Detects what the files are. `weights` says which file is meant where several could be.
pub(crate) fn detect(
    dir: &Path,
    paths: &[String],
    weights: Option<&str>,
) -> Result<Detected, ArtifactError> {
    let has = |name: &str| paths.iter().any(|path| path == name);
    if weights.is_none() && has(ADAPTER_CONFIG) && has(ADAPTER_WEIGHTS) {
        return adapter(dir);
    }
    let weights = choose_weights(paths, weights).map_err(ArtifactError::UnsupportedFormat)?;
    let config = if has(CONFIG) {
        config::read(regular::open(dir, CONFIG)?.0).map_err(|why| unreadable(CONFIG, &why))?
    } else {
        config::Config::default()
    };
    let tokenizer = has(TOKENIZER).then(|| TOKENIZER.to_owned());
    if has_extension(&weights, "gguf") {
        let header = gguf::read(regular::open(dir, &weights)?.0)
            .map_err(|why| unreadable(&weights, &why))?;
        if tokenizer.is_none() && !header.has_tokenizer {
            return Err(ArtifactError::UnsupportedFormat(format!(
                "{weights} holds no tokenizer, and there is no {TOKENIZER} beside it"
            )));
        }
        return Ok(Detected {
            format: Format::Gguf,
            weights,
            tokenizer,
            context_tokens: header.context_tokens.or(config.context_tokens),
            licence: header.licence,
            cache_width: header.cache_width.or(config.cache_width),
            adapter: None,
        });
    }
    for needed in [CONFIG, TOKENIZER] {
        if !has(needed) {
            return Err(ArtifactError::UnsupportedFormat(format!(
                "safetensors need {needed} beside them"
            )));
        }
    }
    Ok(Detected {
        format: Format::Safetensors,
        weights,
        tokenizer,
        context_tokens: config.context_tokens,
        licence: None,
        cache_width: config.cache_width,
        adapter: None,
    })
}

/// Tokenizer and context are those of its base.
fn adapter(dir: &Path) -> Result<Detected, ArtifactError> {
    let (config, _) = regular::open(dir, ADAPTER_CONFIG)?;
    let (weights, _) = regular::open(dir, ADAPTER_WEIGHTS)?;
    let found = adapter::check(config, weights).map_err(ArtifactError::UnsupportedFormat)?;
    Ok(Detected {
        format: Format::Safetensors,
        weights: ADAPTER_WEIGHTS.to_owned(),
        tokenizer: None,
        context_tokens: None,
        licence: None,
        cache_width: None,
        adapter: Some(found),
    })
}

fn unreadable(path: &str, why: &dyn std::fmt::Display) -> ArtifactError {
    ArtifactError::UnsupportedFormat(format!("{path} is not what its name says: {why}"))
}

fn has_extension(path: &str, extension: &str) -> bool {
    Path::new(path)
        .extension()
        .is_some_and(|found| found.eq_ignore_ascii_case(extension))
}

/// The file of the weights: the one that was named, else the only GGUF, else the first of the
/// safetensors.
fn choose_weights(paths: &[String], named: Option<&str>) -> Result<String, String> {
    if let Some(named) = named {
        let listed = paths.iter().any(|path| path == named);
        let known = has_extension(named, "gguf") || has_extension(named, "safetensors");
        return match (listed, known) {
            (true, true) => Ok(named.to_owned()),
            (false, _) => Err(format!("there is no file {named}")),
            (_, false) => Err(format!("{named} is neither GGUF nor safetensors")),
        };
    }
    let with = |extension: &'static str| {
        paths
            .iter()
            .filter(move |path| has_extension(path, extension))
    };
    let mut gguf = with("gguf");
    match (gguf.next(), gguf.next()) {
        (Some(only), None) => Ok(only.clone()),
        (Some(one), Some(another)) => Err(format!(
            "there are several GGUF files, such as {one} and {another}: name one with --weights"
        )),
        (None, _) => with("safetensors").next().cloned().ok_or_else(|| {
            "there is neither a GGUF file nor safetensors: is this the folder of a model?"
                .to_owned()
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(paths: &[&str], named: Option<&str>) -> Result<String, String> {
        let paths: Vec<String> = paths.iter().map(|path| (*path).to_owned()).collect();
        choose_weights(&paths, named)
    }

    #[test]
    fn the_weights_are_found_or_the_publisher_is_asked() {
        assert_eq!(choose(&["a.gguf", "b.json"], None), Ok("a.gguf".into()));
        let shards = ["m-00001-of-2.safetensors", "m-00002-of-2.safetensors"];
        assert_eq!(choose(&shards, None), Ok(shards[0].into()));
        let both = ["a.gguf", "model.safetensors"];
        assert_eq!(choose(&both, None), Ok("a.gguf".into()));
        assert_eq!(choose(&both, Some(both[1])), Ok(both[1].into()));
        let two = choose(&["a.gguf", "b.gguf"], None).expect_err("ambiguous");
        assert!(two.contains("--weights"), "{two}");
        assert!(choose(&["a.gguf"], Some("b.gguf")).is_err());
        assert!(choose(&["a.txt"], Some("a.txt")).is_err());
        assert!(choose(&["a.txt"], None).is_err());
    }
}
