//! Lists of bounded length, whose entries stay text until they are read.

use super::fields::{invalid, wrong_type};
use crate::problem::Problem;
use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;
use tether_wire::infer::MAX_MESSAGES;

/// The entries of a list; `expected` says what it must be.
pub(super) fn bounded_list<'a>(
    value: &'a RawValue,
    limit: usize,
    name: &str,
    expected: &str,
) -> Result<Vec<&'a RawValue>, Problem> {
    if !value.get().starts_with('[') {
        return Err(wrong_type(name, expected));
    }
    debug_assert!(limit <= MAX_MESSAGES);
    let items: Items<'a> =
        serde_json::from_str(value.get()).map_err(|_| wrong_type(name, expected))?;
    if items.0.len() > limit {
        return Err(invalid(name, &format!("has more than {limit} entries")));
    }
    Ok(items.0)
}

/// Entries of a list as text; no more are kept than the longest list of ours may have, and one.
struct Items<'a>(Vec<&'a RawValue>);

impl<'de> Deserialize<'de> for Items<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Items<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut items = Vec::new();
                while items.len() <= MAX_MESSAGES {
                    match list.next_element::<&'de RawValue>()? {
                        Some(item) => items.push(item),
                        None => return Ok(Items(items)),
                    }
                }
                while list.next_element::<de::IgnoredAny>()?.is_some() {}
                Ok(Items(items))
            }
        }
        deserializer.deserialize_seq(Collect)
    }
}
