//! A policy as it is written.

use super::{MAX_TENANTS, bounded, schema};
use crate::queue::{MAX_WEIGHT, Priority};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;
use tether_wire::directory::{MAX_SELECTORS, ModelRule, ModelSelector};
use tether_wire::id::IdError;
use tether_wire::{ModelName, ModelRef, ModelVersion, Region, TenantId};

/// Most regions in a list.
pub const MAX_REGIONS: usize = 64;
/// Most models that one section degrades.
pub const MAX_DEGRADES: usize = 64;
/// Most tokens that a limit may name.
pub const MAX_OUTPUT_TOKENS: u32 = 16_777_216;
/// Most bytes that a limit may name: no request has more.
pub const MAX_PROMPT_BYTES: u64 = tether_wire::infer::MAX_REQUEST_BYTES as u64;
/// Least and most milliseconds after which a second worker is asked.
pub const HEDGE_AFTER_MS: RangeInclusive<u32> = 20..=60_000;
/// Longest address of a schema.
const MAX_SCHEMA_BYTES: usize = 1_024;

/// What tenants of a mesh may ask an orchestrator for, where it may go, and what is done for them when
/// there is no room. Of what is forbidden the strictest rule wins, of what is preferred the most
/// specific one. See docs/policy.md.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "TetherPolicy")]
pub struct PolicyText {
    /// Where this schema is, for editors.
    #[serde(rename = "$schema", deserialize_with = "schema_address")]
    #[schemars(schema_with = "schema::address")]
    pub schema: (),
    /// For every tenant.
    pub global: Rules,
    /// For every tenant that has no section of its own, beside what is global.
    pub others: Rules,
    /// For these tenants, beside what is global.
    #[serde(deserialize_with = "bounded::map::<_, _, _, MAX_TENANTS>")]
    #[schemars(schema_with = "schema::tenants")]
    pub tenants: BTreeMap<TenantId, Rules>,
}

/// One section.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Rules {
    /// Which models may be used. A model must be permitted by each section that speaks about the
    /// tenant; others are not shown to it, and refused with 403.
    #[serde(deserialize_with = "models")]
    #[schemars(with = "Models")]
    pub models: ModelRule,
    /// Regions that a request never leaves: the orchestrator that takes it and the worker that
    /// answers it are in one of them. Without it, all.
    #[serde(deserialize_with = "regions")]
    #[schemars(schema_with = "schema::regions")]
    pub regions: Option<Vec<Region>>,
    /// Most tokens of an answer. A request that asks for more is refused with 400; one that sets no
    /// limit gets this one.
    #[serde(deserialize_with = "output_tokens")]
    #[schemars(schema_with = "schema::output_tokens")]
    pub max_output_tokens: Option<u32>,
    /// Most bytes of all messages, tools and schemas of a request together; more is refused with 400.
    /// A text has no more tokens than bytes, so that this bounds its part of the context.
    #[serde(deserialize_with = "prompt_bytes")]
    #[schemars(schema_with = "schema::prompt_bytes")]
    pub max_prompt_bytes: Option<u64>,
    /// What goes first where requests wait for a worker.
    #[schemars(schema_with = "schema::priority")]
    #[serde(deserialize_with = "some")]
    pub priority: Option<Priority>,
    /// The tenant's share among those that wait in one priority. Without it, 1.
    #[serde(deserialize_with = "weight")]
    #[schemars(schema_with = "schema::weight")]
    pub weight: Option<u32>,
    /// Smaller models that answer in the place of others when these have no room. The answer says
    /// so. `null`: none, whatever the global section says.
    #[serde(deserialize_with = "bounded::map::<_, _, _, MAX_DEGRADES>")]
    #[schemars(schema_with = "schema::degrade")]
    pub degrade: BTreeMap<NamedModel, Option<NamedModel>>,
    /// A second worker is asked beside the first one that has given nothing of the answer for so many
    /// milliseconds; whoever gives something first answers. `null`: never, whatever the global section
    /// says. Without it, never.
    #[serde(deserialize_with = "hedge_after")]
    #[schemars(schema_with = "schema::hedge_after")]
    pub hedge_after_ms: Option<HedgeAfter>,
}

/// When a second worker is asked beside the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HedgeAfter {
    /// Never.
    Never,
    /// After so many milliseconds.
    Ms(u32),
}

impl HedgeAfter {
    /// The milliseconds, where there are some.
    #[must_use]
    pub fn ms(self) -> Option<u32> {
        match self {
            Self::Never => None,
            Self::Ms(ms) => Some(ms),
        }
    }
}

/// Which models may be used: those that are allowed and not denied, each by `NAME@MAJOR.MINOR`, `NAME`
/// for all its versions, `BEGINNING*` or `*`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Models {
    /// All that may be used. Without it, every model.
    #[serde(deserialize_with = "bounded::some_list::<_, _, MAX_SELECTORS>")]
    #[schemars(schema_with = "schema::selectors")]
    allow: Option<Vec<ModelSelector>>,
    /// What may not be used, whatever is allowed.
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_SELECTORS>")]
    #[schemars(schema_with = "schema::selectors")]
    deny: Vec<ModelSelector>,
}

/// A model by `NAME` or `NAME@MAJOR.MINOR`, as tenants name it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NamedModel {
    /// Its name.
    pub name: ModelName,
    /// Its version, where one is meant.
    pub version: Option<ModelVersion>,
}

impl NamedModel {
    /// The one version that is meant, if one is.
    #[must_use]
    pub fn reference(&self) -> Option<ModelRef> {
        Some(ModelRef {
            name: self.name.clone(),
            version: self.version.clone()?,
        })
    }
}

impl From<&ModelRef> for NamedModel {
    fn from(model: &ModelRef) -> Self {
        Self {
            name: model.name.clone(),
            version: Some(model.version.clone()),
        }
    }
}

impl fmt::Display for NamedModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.version {
            Some(version) => write!(f, "{}@{version}", self.name),
            None => write!(f, "{}", self.name),
        }
    }
}

impl FromStr for NamedModel {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        if text.contains('@') {
            let model: ModelRef = text.parse()?;
            return Ok(Self {
                name: model.name,
                version: Some(model.version),
            });
        }
        Ok(Self {
            name: ModelName::new(text)?,
            version: None,
        })
    }
}

impl Serialize for NamedModel {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for NamedModel {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        text.parse().map_err(de::Error::custom)
    }
}

fn schema_address<'de, D: Deserializer<'de>>(d: D) -> Result<(), D::Error> {
    let address = String::deserialize(d)?;
    if address.len() > MAX_SCHEMA_BYTES {
        let why = format!("the address is longer than {MAX_SCHEMA_BYTES} bytes");
        return Err(de::Error::custom(why));
    }
    Ok(())
}

fn models<'de, D: Deserializer<'de>>(d: D) -> Result<ModelRule, D::Error> {
    let Models { allow, deny } = Models::deserialize(d)?;
    Ok(ModelRule { allow, deny })
}

fn regions<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Vec<Region>>, D::Error> {
    let regions = bounded::list::<_, Region, MAX_REGIONS>(d)?;
    if regions.is_empty() {
        let why = "no region is named, so that nothing could run: name one, or leave `regions` out";
        return Err(de::Error::custom(why));
    }
    Ok(Some(regions))
}

fn some<'de, D: Deserializer<'de>, T: Deserialize<'de>>(d: D) -> Result<Option<T>, D::Error> {
    T::deserialize(d).map(Some)
}

fn output_tokens<'de, D: Deserializer<'de>>(d: D) -> Result<Option<u32>, D::Error> {
    bounded::within(d, 1..=MAX_OUTPUT_TOKENS)
}

fn prompt_bytes<'de, D: Deserializer<'de>>(d: D) -> Result<Option<u64>, D::Error> {
    bounded::within(d, 1..=MAX_PROMPT_BYTES)
}

fn hedge_after<'de, D: Deserializer<'de>>(d: D) -> Result<Option<HedgeAfter>, D::Error> {
    let Some(ms) = Option::<u32>::deserialize(d)? else {
        return Ok(Some(HedgeAfter::Never));
    };
    let ms = de::value::U32Deserializer::<D::Error>::new(ms);
    let ms = bounded::within(ms, HEDGE_AFTER_MS)?;
    Ok(ms.map(HedgeAfter::Ms))
}

fn weight<'de, D: Deserializer<'de>>(d: D) -> Result<Option<u32>, D::Error> {
    bounded::within(d, 1..=MAX_WEIGHT)
}
