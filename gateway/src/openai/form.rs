//! The form of an answer's text: OpenAI's `response_format`, and `structured_outputs`, by which
//! vLLM takes what the former has no words for.
//!
//! Source: OpenAI API reference, structured outputs; vLLM's documentation of the same name, 2026.

use super::fields::{Object, invalid, wrong_type};
use super::lists::bounded_list;
use crate::problem::Problem;
use serde_json::value::RawValue;
use tether_wire::infer::{Format, MAX_CHOICES, MAX_FORMAT_BYTES, is_tool_name};

/// OpenAI's parameter.
pub(super) const RESPONSE_FORMAT: &str = "response_format";
/// vLLM's parameter.
const STRUCTURED_OUTPUTS: &str = "structured_outputs";

/// vLLM's older parameters, which it takes no more.
const GUIDED: &[&str] = &[
    "guided_json",
    "guided_regex",
    "guided_choice",
    "guided_grammar",
];

/// Reads the form of the text, and under which name it was asked for.
pub(super) fn parse(fields: &mut Object<'_>) -> Result<(Format, &'static str), Problem> {
    let plain = match fields.raw(RESPONSE_FORMAT) {
        Some(value) => response_format(value)?,
        None => Format::Text,
    };
    for field in GUIDED {
        fields.refuse_for(field, &[], STRUCTURED_OUTPUTS)?;
    }
    let Some(value) = fields.raw(STRUCTURED_OUTPUTS) else {
        return Ok((plain, RESPONSE_FORMAT));
    };
    if plain != Format::Text {
        return Err(invalid(
            STRUCTURED_OUTPUTS,
            "cannot be combined with 'response_format'",
        ));
    }
    Ok((structured_outputs(value)?, STRUCTURED_OUTPUTS))
}

fn response_format(value: &RawValue) -> Result<Format, Problem> {
    let mut fields = Object::of_value(RESPONSE_FORMAT.to_owned(), value)?;
    let kind: String = fields.need("type", "a string")?;
    let format = match kind.as_str() {
        "text" => Format::Text,
        "json_object" => Format::JsonObject,
        "json_schema" => {
            let path = fields.name("json_schema");
            json_schema(Object::of_value(
                path,
                fields.need("json_schema", "an object")?,
            )?)?
        }
        _ => {
            let known = ["\"text\"", "\"json_object\"", "\"json_schema\""];
            return Err(fields.unsupported("type", &known));
        }
    };
    fields.finish()?;
    Ok(format)
}

fn json_schema(mut fields: Object<'_>) -> Result<Format, Problem> {
    // Name and description are for models that are told of the schema; ours follow it anyway, as
    // `strict` asks.
    let name: String = fields.need("name", "a string")?;
    if !is_tool_name(&name) {
        let why = "must have 1 to 64 letters, digits, '_' or '-'";
        return Err(invalid(&fields.name("name"), why));
    }
    let _: Option<String> = fields.take("description", "a string")?;
    let _: Option<bool> = fields.take("strict", "a boolean")?;
    let schema = fields.json_object("schema", MAX_FORMAT_BYTES)?;
    let path = fields.name("schema");
    fields.finish()?;
    schema.map(Format::JsonSchema).ok_or_else(|| {
        let why = format!("Missing required parameter: '{path}'.");
        Problem::invalid("missing_required_parameter", why).at(path)
    })
}

fn structured_outputs(value: &RawValue) -> Result<Format, Problem> {
    let mut fields = Object::of_value(STRUCTURED_OUTPUTS.to_owned(), value)?;
    let mut formats = Vec::new();
    // A schema may come as an object or as the text of one.
    if let Some(value) = fields.raw("json") {
        formats.push(Format::JsonSchema(schema(&fields.name("json"), value)?));
    }
    if fields.take("json_object", "a boolean")? == Some(true) {
        formats.push(Format::JsonObject);
    }
    let text = |fields: &mut Object<'_>, field: &str| -> Result<Option<String>, Problem> {
        let text: Option<String> = fields.take(field, "a string")?;
        let fits = |text: &String| (1..=MAX_FORMAT_BYTES).contains(&text.len());
        if text.as_ref().is_some_and(|text| !fits(text)) {
            let why = format!("must have 1 to {MAX_FORMAT_BYTES} bytes");
            return Err(invalid(&fields.name(field), &why));
        }
        Ok(text)
    };
    formats.extend(text(&mut fields, "regex")?.map(Format::Regex));
    formats.extend(text(&mut fields, "grammar")?.map(Format::Lark));
    if let Some(list) = fields.raw("choice") {
        formats.push(Format::Choice(choice(&fields.name("choice"), list)?));
    }
    for field in [
        "structural_tag",
        "whitespace_pattern",
        "disable_any_whitespace",
        "disable_additional_properties",
        "disable_fallback",
    ] {
        fields.refuse_unless(field, &["false"])?;
    }
    fields.finish()?;
    let only = formats.pop().filter(|_| formats.is_empty());
    only.ok_or_else(|| {
        let why = "must have one of 'json', 'json_object', 'regex', 'choice' and 'grammar'";
        invalid(STRUCTURED_OUTPUTS, why)
    })
}

fn schema(name: &str, value: &RawValue) -> Result<String, Problem> {
    let expected = || wrong_type(name, "a JSON schema: an object, or a string that holds one");
    let text = match value.get().starts_with('"') {
        true => serde_json::from_str(value.get()).map_err(|_| expected())?,
        false => value.get().to_owned(),
    };
    if text.len() > MAX_FORMAT_BYTES {
        return Err(invalid(
            name,
            &format!("has more than {MAX_FORMAT_BYTES} bytes"),
        ));
    }
    match serde_json::from_str(&text) {
        Ok(serde_json::Value::Object(_)) => Ok(text),
        _ => Err(expected()),
    }
}

fn choice(name: &str, list: &RawValue) -> Result<Vec<String>, Problem> {
    const EXPECTED: &str = "a list of strings";
    let texts = bounded_list(list, MAX_CHOICES, name, EXPECTED)?
        .into_iter()
        .map(|text| serde_json::from_str(text.get()))
        .collect::<Result<Vec<String>, _>>()
        .map_err(|_| wrong_type(name, EXPECTED))?;
    let bytes: usize = texts.iter().map(String::len).sum();
    if texts.is_empty() || texts.iter().any(String::is_empty) || bytes > MAX_FORMAT_BYTES {
        let why = format!(
            "must have 1 to {MAX_CHOICES} texts, none of them empty, of {MAX_FORMAT_BYTES} bytes together"
        );
        return Err(invalid(name, &why));
    }
    Ok(texts)
}
