//! Which models a tenant may use, by name. Pure. [T-DIR-5]

use crate::codec::{CodecError, check_len};
use crate::id::{IdError, ModelName, ModelRef};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;
use std::str::FromStr;

/// Most selectors in one list of a rule. [T-DIR-5]
pub const MAX_SELECTORS: usize = 256;
/// Most rules in one directory. [T-DIR-5]
pub const MAX_RULES: usize = 16_384;
/// Longest name, and so the longest beginning of one.
const MAX_NAME_BYTES: usize = 64;

/// Names models: `NAME@MAJOR.MINOR`, `NAME` for all its versions, `BEGINNING*`, or `*` for all.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ModelSelector {
    /// One version.
    Version(ModelRef),
    /// All versions of a name.
    Name(ModelName),
    /// All versions of the names that begin so.
    Beginning(String),
}

impl ModelSelector {
    /// Whether it names this one.
    #[must_use]
    pub fn names(&self, model: &ModelRef) -> bool {
        match self {
            Self::Version(it) => it == model,
            Self::Name(_) | Self::Beginning(_) => self.names_every(&model.name),
        }
    }

    /// Whether it names every version of this name.
    #[must_use]
    pub fn names_every(&self, name: &ModelName) -> bool {
        match self {
            Self::Version(_) => false,
            Self::Name(it) => it == name,
            Self::Beginning(it) => name.as_str().starts_with(it),
        }
    }

    /// Whether it names any version of this name.
    #[must_use]
    pub fn names_any(&self, name: &ModelName) -> bool {
        match self {
            Self::Version(it) => it.name == *name,
            Self::Name(_) | Self::Beginning(_) => self.names_every(name),
        }
    }
}

impl fmt::Display for ModelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(it) => it.fmt(f),
            Self::Name(it) => it.fmt(f),
            Self::Beginning(it) => write!(f, "{it}*"),
        }
    }
}

impl FromStr for ModelSelector {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        if let Some(beginning) = text.strip_suffix('*') {
            let is_name = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
            if beginning.len() <= MAX_NAME_BYTES && beginning.bytes().all(is_name) {
                return Ok(Self::Beginning(beginning.to_owned()));
            }
            let rule = "a beginning is at most 64 of a-z, 0-9 and dashes";
            return Err(IdError::new("selector of models", rule, text));
        }
        if text.contains('@') {
            return text.parse().map(Self::Version);
        }
        ModelName::new(text).map(Self::Name)
    }
}

impl Serialize for ModelSelector {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ModelSelector {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// Which models may be used: what is allowed and not denied.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ModelRule {
    /// All that may be; nothing here for every one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow: Option<Vec<ModelSelector>>,
    /// What may not be, whatever is allowed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<ModelSelector>,
}

impl ModelRule {
    /// Whether a model may be used.
    #[must_use]
    pub fn permits(&self, model: &ModelRef) -> bool {
        let is_allowed = |allow: &Vec<ModelSelector>| allow.iter().any(|it| it.names(model));
        self.allow.as_ref().is_none_or(is_allowed) && !self.deny.iter().any(|it| it.names(model))
    }

    /// Whether some version of a name could be used, whichever versions there are.
    #[must_use]
    pub fn permits_any(&self, name: &ModelName) -> bool {
        let is_allowed = |allow: &Vec<ModelSelector>| allow.iter().any(|it| it.names_any(name));
        self.allow.as_ref().is_none_or(is_allowed)
            && !self.deny.iter().any(|it| it.names_every(name))
    }

    /// Checks limits.
    ///
    /// # Errors
    /// Names the list that is too long.
    pub fn check(&self) -> Result<(), CodecError> {
        let what = "model rule";
        let allowed = self.allow.as_ref().map_or(0, Vec::len);
        check_len(what, "allow", allowed, MAX_SELECTORS)?;
        check_len(what, "deny", self.deny.len(), MAX_SELECTORS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(allow: Option<&[&str]>, deny: &[&str]) -> ModelRule {
        let list = |texts: &[&str]| {
            let selectors = texts.iter().map(|text| text.parse().expect("valid"));
            selectors.collect::<Vec<ModelSelector>>()
        };
        ModelRule {
            allow: allow.map(list),
            deny: list(deny),
        }
    }

    fn model(text: &str) -> ModelRef {
        text.parse().expect("valid")
    }

    /// [T-DIR-5]
    #[test]
    fn what_is_allowed_and_not_denied_may_be_used() {
        let all = rule(None, &[]);
        assert!(all.permits(&model("tiny@1.0")));
        assert!(!rule(Some(&[]), &[]).permits(&model("tiny@1.0")), "none");
        let some = rule(
            Some(&["qwen-*", "tiny", "big@2.0"]),
            &["qwen-72b", "tiny@1.1"],
        );
        for (text, may) in [
            ("qwen-7b@1.0", true),
            ("qwen-72b@1.0", false),
            ("qwen@1.0", false),
            ("tiny@1.0", true),
            ("tiny@1.1", false),
            ("tiny-2@1.0", false),
            ("big@2.0", true),
            ("big@2.1", false),
        ] {
            assert_eq!(some.permits(&model(text)), may, "{text}");
        }
        assert!(!rule(None, &["*"]).permits(&model("tiny@1.0")));
    }

    #[test]
    fn a_bare_name_may_be_asked_for_where_one_of_its_versions_may() {
        let rule = rule(
            Some(&["tiny", "big@2.0", "qwen-*"]),
            &["tiny@1.0", "qwen-72b"],
        );
        for (name, may) in [
            ("tiny", true),
            ("big", true),
            ("qwen-7b", true),
            ("qwen-72b", false),
            ("other", false),
        ] {
            let name = ModelName::new(name).expect("valid");
            assert_eq!(rule.permits_any(&name), may, "{name}");
        }
    }

    #[test]
    fn a_selector_is_read_as_it_is_written_and_others_are_refused_with_the_rule() {
        for text in ["*", "qwen-*", "tiny", "tiny@1.0"] {
            let selector: ModelSelector = text.parse().expect(text);
            assert_eq!(selector.to_string(), text);
        }
        for text in ["", "*tiny", "TINY*", "tiny@*", "tiny@1", "a b", "a**"] {
            let error = text.parse::<ModelSelector>().expect_err(text);
            assert!(error.to_string().contains("not a valid"), "{error}");
        }
        let long = format!("{}*", "x".repeat(MAX_NAME_BYTES + 1));
        assert!(long.parse::<ModelSelector>().is_err());
    }

    #[test]
    fn a_rule_of_too_many_selectors_is_refused() {
        let many = ModelRule {
            deny: vec!["tiny".parse().expect("valid"); MAX_SELECTORS + 1],
            ..ModelRule::default()
        };
        assert!(many.check().is_err());
        assert_eq!(rule(Some(&["tiny"]), &[]).check(), Ok(()));
    }
}
