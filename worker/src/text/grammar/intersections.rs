//! What a tenant's grammar intersects: `A & B` in Lark's language, an extension of the library's, and
//! patterns of a JSON schema that hold for one value. Pure.
//!
//! What the product of regular expressions costs is not bounded by anything that the library counts: a
//! few dozen bytes keep it busy for minutes. So the operator is refused, and of patterns a few may
//! meet. To know the operator from an `&` in a string, a text is read as the library's lexer does; where
//! that would refuse, an `&` counts wherever it stands.

use serde_json::Value;
use std::collections::BTreeMap;

/// Most patterns that may hold for one value. Twice as many are too much for the library.
pub(super) const MAX_PATTERNS: usize = 8;

/// Whether too many patterns may hold for one value of a schema. Calls itself along references.
pub(super) fn too_many_patterns(schema: &Value) -> bool {
    let all = count(schema);
    let mut seen = BTreeMap::new();
    all > MAX_PATTERNS && together(schema, schema, all, &mut seen) > MAX_PATTERNS
}

/// The schemas within a text in Lark's language.
pub(super) fn schemas(lark: &str) -> impl Iterator<Item = Value> {
    let behind = lark.split("%json").skip(1);
    behind.filter_map(|text| {
        let mut values = serde_json::Deserializer::from_str(text).into_iter();
        values.next()?.ok()
    })
}

/// The patterns that one schema says by itself.
fn own(schema: &serde_json::Map<String, Value>) -> usize {
    let has = |key: &str| usize::from(schema.contains_key(key));
    let named = schema.get("patternProperties").and_then(Value::as_object);
    has("pattern") + has("format") + named.map_or(0, serde_json::Map::len)
}

/// All patterns of a schema.
fn count(schema: &Value) -> usize {
    match schema {
        Value::Object(fields) => own(fields) + fields.values().map(count).sum::<usize>(),
        Value::Array(all) => all.iter().map(count).sum(),
        _ => 0,
    }
}

/// The most patterns of `all` that may hold for one value in a schema, or somewhat more.
fn together(schema: &Value, root: &Value, all: usize, seen: &mut BTreeMap<String, usize>) -> usize {
    let Some(fields) = schema.as_object() else {
        return 0;
    };
    let mut here = own(fields);
    let mut within = 0;
    for (key, value) in fields {
        let mut each = |value: &Value| together(value, root, all, seen);
        match (key.as_str(), value) {
            ("allOf", Value::Array(parts)) => {
                here = parts.iter().map(each).fold(here, usize::saturating_add);
            }
            ("$ref" | "$dynamicRef", Value::String(to)) => {
                here = here.saturating_add(referred(to, root, all, seen));
            }
            ("$defs" | "definitions" | "const" | "enum" | "default" | "examples", _) => {}
            (_, Value::Array(parts)) => within = parts.iter().map(each).fold(within, usize::max),
            ("properties" | "patternProperties", Value::Object(parts)) => {
                within = parts.values().map(each).fold(within, usize::max);
            }
            (_, value) => within = within.max(each(value)),
        }
    }
    here.saturating_add(within)
}

/// Those of a schema that is referred to: of one that leads back to itself what is not counted yet, of
/// one that is found in another way than by its place all that there are.
fn referred(to: &str, root: &Value, all: usize, seen: &mut BTreeMap<String, usize>) -> usize {
    if let Some(known) = seen.get(to) {
        return *known;
    }
    let Some(target) = to.strip_prefix('#').and_then(|place| root.pointer(place)) else {
        return all;
    };
    seen.insert(to.to_owned(), 0);
    let found = together(target, root, all, seen);
    seen.insert(to.to_owned(), found);
    found
}

/// Whether a text in Lark's language has the operator.
pub(super) fn operator(lark: &str) -> bool {
    let mut rest = lark.as_bytes();
    while let Some(first) = rest.first() {
        let length = match first {
            b'&' => return true,
            b'#' => line(rest),
            b'/' if rest.get(1) == Some(&b'/') => line(rest),
            b'"' => quoted(rest, b'"', |byte| byte < 0x20 || byte == 0x7f),
            b'/' => quoted(rest, b'/', |_| false),
            b'<' => special(rest),
            _ => Some(1),
        };
        match length {
            Some(length) => rest = &rest[length..],
            None => return rest.contains(&b'&'),
        }
    }
    false
}

/// The bytes of a comment, which ends with its line.
fn line(text: &[u8]) -> Option<usize> {
    let end = text.iter().position(|byte| *byte == b'\n');
    Some(end.unwrap_or(text.len()))
}

/// The bytes of a string or a regular expression; nothing where it has no end.
fn quoted(text: &[u8], end: u8, is_wrong: impl Fn(u8) -> bool) -> Option<usize> {
    let mut at = 1;
    loop {
        match *text.get(at)? {
            byte if byte == end => return Some(at + 1),
            b'\\' if *text.get(at + 1)? == b'\n' => return None,
            b'\\' => at += 2,
            byte if is_wrong(byte) => return None,
            _ => at += 1,
        }
    }
}

/// The bytes of a special token, `<name>`; of the sign alone where it is none.
fn special(text: &[u8]) -> Option<usize> {
    let is_over = |byte: &u8| matches!(byte, b'<' | b'>') || byte.is_ascii_whitespace();
    let length = text[1..]
        .iter()
        .position(is_over)
        .filter(|length| *length > 0);
    match length {
        Some(length) if text[length + 1] == b'>' => Some(length + 2),
        _ => Some(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_the_operator_is_one() {
        for text in [
            "start: A\nA: /a+/ & /b+/",
            "start: \"a\" // it's \"\nA: /x/ & B",
            "start: \"a\" # \"\nA: B & C",
            "start: <a\"b> & \"c\"",
            "start: /\"/ & /\"/",
            r#"start: "\"" & "\"""#,
            r#"start: "\\" & "a""#,
            r"start: /\// & /a/",
            "start: %json {\"a\": \"b\"} & A",
            "start: < \"a\" & \"b\"",
            "start: \"a & b",
            "start: /a & b",
            "start: \"a\nb\" & \"c\"",
            "&",
        ] {
            assert!(operator(text), "{text:?}");
        }
        for text in [
            "",
            "start: \"a & b\" /c & d/ // e & f",
            "start: \"\\\"&\" # & \"\nA: /\\/&/ <&>",
            "start: %json {\"pattern\": \"a&b\", \"enum\": [\"/&\"]}",
            "start: A~3 | ~B",
        ] {
            assert!(!operator(text), "{text:?}");
        }
    }

    #[test]
    fn patterns_that_meet_are_counted_and_those_side_by_side_are_not() {
        let pattern = |n: usize| json!({"type": "string", "pattern": format!("a{n}")});
        let many = |count| (0..count).map(pattern).collect::<Vec<_>>();
        let named: serde_json::Map<String, Value> =
            (0..99).map(|n| (n.to_string(), pattern(n))).collect();
        for schema in [
            json!({"properties": named}),
            json!({"anyOf": many(99)}),
            json!({"allOf": many(MAX_PATTERNS), "$defs": named}),
            json!({"allOf": [{"properties": named}, {"properties": named}]}),
        ] {
            assert!(!too_many_patterns(&schema), "{schema}");
        }
        let chain = |n: usize| {
            (
                n.to_string(),
                json!({"pattern": "a", "$ref": format!("#/$defs/{}", n + 1)}),
            )
        };
        let chained: serde_json::Map<String, Value> = (0..99).map(chain).collect();
        for schema in [
            json!({"allOf": many(MAX_PATTERNS + 1)}),
            json!({"items": {"allOf": [{"allOf": many(5)}, {"allOf": many(5)}]}}),
            json!({"$ref": "#/$defs/0", "$defs": chained}),
            json!({"allOf": (0..9).map(|n| json!({"properties": {"a": pattern(n)}})).collect::<Vec<_>>()}),
            json!({"$ref": "#there", "$defs": {"a": {"$anchor": "there", "allOf": many(9)}}}),
        ] {
            assert!(too_many_patterns(&schema), "{schema}");
        }
        let back = json!({"$ref": "#/$defs/a", "$defs": {"a": {"pattern": "a", "$ref": "#/$defs/a", "anyOf": many(9)}}});
        assert!(!too_many_patterns(&back), "it ends");
        let lark = format!("start: %json {} A\nA: \"%json\"", json!({"allOf": many(9)}));
        assert_eq!(schemas(&lark).filter(too_many_patterns).count(), 1);
    }
}
