//! JSON objects whose fields are taken one by one, so that what nobody took can be refused by name.
//!
//! Values stay text until they are taken, in the type that they must have: a body costs about its
//! own size in memory, whatever it holds.

use crate::problem::Problem;
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::fmt;

/// Most fields of one object; OpenAI documents some forty.
const MAX_FIELDS: usize = 96;
/// Longest name that is repeated in an error.
const MAX_SHOWN: usize = 64;

/// An object, of which fields are taken.
pub(super) struct Object<'a> {
    path: String,
    fields: BTreeMap<String, &'a RawValue>,
}

impl<'a> Object<'a> {
    /// Reads a whole body. Errors name the position.
    pub(super) fn of_body(body: &'a [u8]) -> Result<Self, Problem> {
        let malformed = |why: String| Problem::invalid("invalid_json", why);
        let text = std::str::from_utf8(body).map_err(|error| {
            malformed(format!(
                "The body is not UTF-8: byte {} is wrong.",
                error.valid_up_to()
            ))
        })?;
        match serde_json::from_str::<Fields<'a>>(text) {
            Ok(fields) => Ok(Self {
                path: String::new(),
                fields: fields.0,
            }),
            Err(error) if error.is_data() => Err(malformed(format!(
                "The body must be a JSON object: {error}."
            ))),
            Err(error) => Err(malformed(format!("The body is not valid JSON: {error}."))),
        }
    }

    /// Reads a value inside a body.
    pub(super) fn of_value(path: String, value: &'a RawValue) -> Result<Self, Problem> {
        match serde_json::from_str::<Fields<'a>>(value.get()) {
            Ok(fields) => Ok(Self {
                path,
                fields: fields.0,
            }),
            Err(error) => Err(Problem::invalid(
                "invalid_type",
                format!("'{path}' must be an object: {error}."),
            )
            .at(path)),
        }
    }

    /// Full name of a field, for errors.
    pub(super) fn name(&self, field: &str) -> String {
        let field: String = field.chars().take(MAX_SHOWN).collect();
        if self.path.is_empty() {
            field
        } else {
            format!("{}.{field}", self.path)
        }
    }

    /// Takes a field as text; `null` is as good as absent.
    pub(super) fn raw(&mut self, field: &str) -> Option<&'a RawValue> {
        self.fields
            .remove(field)
            .filter(|value| value.get() != "null")
    }

    /// Takes a field; `expected` says what it must be.
    pub(super) fn take<T: Deserialize<'a>>(
        &mut self,
        field: &str,
        expected: &str,
    ) -> Result<Option<T>, Problem> {
        let Some(value) = self.raw(field) else {
            return Ok(None);
        };
        match serde_json::from_str(value.get()) {
            Ok(value) => Ok(Some(value)),
            Err(_) => Err(wrong_type(&self.name(field), expected)),
        }
    }

    /// Takes a field that must be there.
    pub(super) fn need<T: Deserialize<'a>>(
        &mut self,
        field: &str,
        expected: &str,
    ) -> Result<T, Problem> {
        self.take(field, expected)?.ok_or_else(|| {
            let name = self.name(field);
            Problem::invalid(
                "missing_required_parameter",
                format!("Missing required parameter: '{name}'."),
            )
            .at(name)
        })
    }

    /// Refuses a field unless it is absent, `null`, or one of `neutral` JSON texts, which ask for
    /// what happens anyway.
    pub(super) fn refuse_unless(&mut self, field: &str, neutral: &[&str]) -> Result<(), Problem> {
        let Some(value) = self.raw(field) else {
            return Ok(());
        };
        let parsed: serde_json::Value = if value.get().len() <= MAX_SHOWN {
            serde_json::from_str(value.get()).unwrap_or_default()
        } else {
            // Longer than any neutral value.
            serde_json::Value::Null
        };
        let is_neutral = neutral
            .iter()
            .any(|text| serde_json::from_str::<serde_json::Value>(text).is_ok_and(|n| n == parsed));
        if is_neutral {
            return Ok(());
        }
        Err(self.unsupported(field, neutral))
    }

    /// Takes a field that must be an object, as the JSON text that it is: its fields keep their
    /// order, which means something in a schema.
    pub(super) fn json_object(
        &mut self,
        field: &str,
        max_bytes: usize,
    ) -> Result<Option<String>, Problem> {
        let Some(value) = self.raw(field) else {
            return Ok(None);
        };
        let name = self.name(field);
        if value.get().len() > max_bytes {
            return Err(invalid(&name, &format!("has more than {max_bytes} bytes")));
        }
        // Whoever reads it later reads it like this: what nests too deep is refused here.
        match serde_json::from_str(value.get()) {
            Ok(serde_json::Value::Object(_)) => Ok(Some(value.get().to_owned())),
            Ok(_) => Err(wrong_type(&name, "an object")),
            Err(_) => Err(invalid(&name, "nests too deep")),
        }
    }

    /// Refuses a parameter in place of which there is another one, unless it is as good as absent.
    pub(super) fn refuse_for(
        &mut self,
        field: &str,
        neutral: &[&str],
        instead: &str,
    ) -> Result<(), Problem> {
        self.refuse_unless(field, neutral).map_err(|mut problem| {
            let name = self.name(field);
            problem.message =
                format!("Unsupported parameter: '{name}' is not supported; use '{instead}'.");
            problem
        })
    }

    /// The refusal of a parameter that exists in OpenAI's API and not here.
    pub(super) fn unsupported(&self, field: &str, allowed: &[&str]) -> Problem {
        let name = self.name(field);
        let hint = match allowed {
            [] => "leave it out".to_owned(),
            _ => format!("leave it out or send {}", allowed.join(" or ")),
        };
        Problem::invalid(
            "unsupported_parameter",
            format!("Unsupported parameter: '{name}' is not supported with this value; {hint}."),
        )
        .at(name)
    }

    /// Refuses what nobody took, by name.
    pub(super) fn finish(self) -> Result<(), Problem> {
        match self.fields.keys().next() {
            None => Ok(()),
            Some(field) => {
                let name = self.name(field);
                Err(
                    Problem::invalid("unknown_parameter", format!("Unknown parameter: '{name}'."))
                        .at(name),
                )
            }
        }
    }
}

/// The refusal of a value of another type.
pub(super) fn wrong_type(name: &str, expected: &str) -> Problem {
    Problem::invalid(
        "invalid_type",
        format!("Invalid type for '{name}': expected {expected}."),
    )
    .at(name)
}

/// The refusal of a value: `why` goes on behind its name.
pub(super) fn invalid(name: &str, why: &str) -> Problem {
    Problem::invalid("invalid_value", format!("'{name}' {why}.")).at(name)
}

/// The fields of an object, bounded, each once.
struct Fields<'a>(BTreeMap<String, &'a RawValue>);

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Fields<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = BTreeMap::new();
                while let Some((name, value)) = map.next_entry::<String, &'de RawValue>()? {
                    if fields.len() >= MAX_FIELDS {
                        return Err(de::Error::custom(format!(
                            "it has more than {MAX_FIELDS} fields"
                        )));
                    }
                    if fields.contains_key(&name) {
                        let name: String = name.chars().take(MAX_SHOWN).collect();
                        return Err(de::Error::custom(format!("the field '{name}' comes twice")));
                    }
                    fields.insert(name, value);
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}
