//! A model that a worker is to serve, as configured.

use crate::device::Device;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;
use tether_wire::{Digest, ModelRef};

/// One model to serve: where it lies, or what it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelConfig {
    /// The artifact's folder, with its `tether.manifest`. It is served where it lies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// Name and version, `NAME@MAJOR.MINOR`, of an artifact that one of `sources` has.
    #[serde(skip_serializing_if = "Option::is_none", with = "text")]
    pub name: Option<ModelRef>,
    /// The digest that it must have; nothing means whatever a trusted publisher signed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// Always loaded, before all others.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub pin: bool,
    /// Where it is computed; nothing means `engine.device`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<Device>,
}

impl ModelConfig {
    /// A model that lies in a folder.
    #[must_use]
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self {
            path: Some(path.into()),
            ..Self::default()
        }
    }

    /// Why it cannot be, if it cannot.
    pub(super) fn fault(&self, has_sources: bool) -> Option<&'static str> {
        match &self.path {
            Some(path) if path.as_os_str().is_empty() => Some("has an entry with an empty path"),
            Some(_) if self.name.is_some() => {
                Some("has an entry with both a path and a name: a path says what it is by itself")
            }
            Some(_) => None,
            None if self.name.is_none() && self.digest.is_none() => {
                Some("has an entry without a path, a name or a digest")
            }
            None if !has_sources => {
                Some("has an entry without a path, and there are no `sources` to fetch it from")
            }
            None => None,
        }
    }
}

impl fmt::Display for ModelConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.path, &self.name, &self.digest) {
            (Some(path), _, _) => path.display().fmt(f),
            (None, Some(name), _) => name.fmt(f),
            (None, None, Some(digest)) => digest.fmt(f),
            (None, None, None) => f.write_str("nothing"),
        }
    }
}

/// Name and version as people write them.
mod text {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};
    use tether_wire::ModelRef;

    pub(super) fn serialize<S: Serializer>(
        model: &Option<ModelRef>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match model {
            Some(model) => serializer.collect_str(model),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<ModelRef>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| text.parse().map_err(D::Error::custom))
            .transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_named_as_everywhere_else() {
        let model: ModelConfig = serde_json::from_str(r#"{"name": "tiny@1.0"}"#).expect("valid");
        assert_eq!(model.name, Some("tiny@1.0".parse().expect("valid")));
        let text = serde_json::to_string(&model).expect("JSON");
        assert_eq!(text, r#"{"name":"tiny@1.0"}"#);
        assert_eq!(
            serde_json::from_str::<ModelConfig>(&text).expect("valid"),
            model
        );
        let wrong = serde_json::from_str::<ModelConfig>(r#"{"name": "tiny"}"#);
        let wrong = wrong.expect_err("no version").to_string();
        assert!(wrong.contains("NAME@MAJOR.MINOR"), "{wrong}");
    }
}
