//! Grammars that mean much work, and how little of it is done.

use super::{compile, grammars};
use crate::text::grammar::Grammars;
use crate::text::tokenizer::TextTokenizer;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tether_wire::infer::{Format, MAX_FORMAT_BYTES, MAX_TOOLS_BYTES};

/// Tokens of a large model's vocabulary.
const LARGE_VOCABULARY: usize = 128_000;

/// A tokenizer as large as those of models in use, most of whose tokens are pieces of words.
fn large() -> (tempfile::TempDir, Arc<TextTokenizer>) {
    let folder = tempfile::tempdir().expect("folder");
    for file in tether_tiny_model::files() {
        std::fs::write(folder.path().join(file.name), file.bytes).expect("write");
    }
    let path = folder.path().join("tokenizer.json");
    let text = std::fs::read(&path).expect("read");
    let mut tokenizer: Value = serde_json::from_slice(&text).expect("JSON");
    let vocab = &mut tokenizer["model"]["vocab"];
    let vocab = vocab.as_object_mut().expect("a vocabulary");
    let (mut id, mut number) = (vocab.len() as u64 + 1_000, 0_u64);
    while vocab.len() < LARGE_VOCABULARY {
        number += 1;
        // Letters of a number: short ones first, as in vocabularies.
        let (mut rest, mut word) = (number, String::new());
        while rest > 0 {
            word.push(char::from(b'a' + (rest % 26) as u8));
            rest /= 26;
        }
        for word in [
            format!("\u{120}{word}"),
            word.to_uppercase(),
            format!("\"{word}\":"),
            word,
        ] {
            if !vocab.contains_key(&word) {
                vocab.insert(word, id.into());
                id += 1;
            }
        }
    }
    std::fs::write(&path, tokenizer.to_string()).expect("written");
    let tokenizer = TextTokenizer::load(folder.path(), "tokenizer.json").expect("loads");
    (folder, Arc::new(tokenizer))
}

/// How long one step of the library's may take. A guard, not a measure: the machine may be busy, and
/// part of this is built without optimisation. What is beyond the bounds took minutes.
const COMPILED_WITHIN: Duration = Duration::from_secs(20);
const STEP_WITHIN: Duration = Duration::from_secs(5);

#[test]
fn a_hostile_grammar_costs_little_to_compile_and_little_for_each_token() {
    let (_folder, tokenizer) = large();
    let grammars = Grammars::new(tokenizer.clone(), BTreeMap::new());
    compile(&grammars, &Format::Regex("a".into())).expect("reads the vocabulary");
    let (mut compiled, mut followed) = (0, 0);
    for (name, format) in hostile() {
        let began = Instant::now();
        let grammar = compile(&grammars, &format);
        let took = began.elapsed();
        assert!(took < COMPILED_WITHIN, "{name}: compiled in {took:?}");
        let Ok(mut grammar) = grammar else { continue };
        compiled += 1;
        for _ in 0..40 {
            let began = Instant::now();
            let Ok(mask) = grammar.mask() else { break };
            let token = (5..LARGE_VOCABULARY as u32).find(|id| mask.allows(*id));
            let taken = token.map(|token| grammar.take(token));
            let took = began.elapsed();
            assert!(took < STEP_WITHIN, "{name}: a step in {took:?}");
            if !matches!(taken, Some(Ok(()))) || grammar.is_over() {
                break;
            }
            followed += 1;
        }
    }
    assert!(compiled > 8 && followed > 200, "{compiled}, {followed}");
}

#[test]
fn what_tenants_ask_for_is_within_the_bounds() {
    let (_folder, tokenizer) = large();
    let grammars = Grammars::new(tokenizer.clone(), BTreeMap::new());
    let properties = |count: usize| {
        let names: Vec<String> = (0..count).map(|n| format!("field_{n}")).collect();
        let kinds = [
            json!({"type": "string", "maxLength": 2_000}),
            json!({"type": "integer", "minimum": -5, "maximum": 100_000}),
            json!({"type": "array", "items": {"type": "number"}, "maxItems": 50}),
            json!({"enum": ["one", "two", "größer"]}),
            json!({"type": "string", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}$"}),
        ];
        let fields = names.iter().zip(kinds.iter().cycle());
        let fields: serde_json::Map<String, Value> = fields
            .map(|(name, kind)| (name.clone(), kind.clone()))
            .collect();
        json!({"type": "object", "properties": fields, "required": names, "additionalProperties": false})
    };
    for format in [
        Format::JsonSchema(properties(100).to_string()),
        Format::JsonSchema(json!({"type": "array", "items": properties(20)}).to_string()),
        Format::Regex("[^@ ]{1,64}@([a-z0-9-]{1,63}\\.){1,8}[a-z]{2,24}".into()),
        Format::Choice((0..256).map(|n| format!("{n}").repeat(80)).collect()),
        Format::Lark("start: line+\nline: /[A-Z]{3}-[0-9]+/ \": \" /[^\\n]{1,200}/ \"\\n\"".into()),
    ] {
        let shown: String = format!("{format:?}").chars().take(60).collect();
        let mut grammar = compile(&grammars, &format).expect(&shown);
        for _ in 0..10 {
            let mask = grammar.mask().expect(&shown);
            let token = (5..LARGE_VOCABULARY as u32).find(|id| mask.allows(*id));
            grammar.take(token.expect("some token")).expect(&shown);
            if grammar.is_over() {
                break;
            }
        }
    }
}

/// Small texts that mean much work.
fn hostile() -> Vec<(&'static str, Format)> {
    let object = |count: usize, required: bool| {
        let names: Vec<String> = (0..count).map(|n| format!("{n:x}")).collect();
        let fields = names.iter().map(|name| (name.clone(), json!({})));
        let fields: serde_json::Map<String, Value> = fields.collect();
        let required = if required { names } else { Vec::new() };
        let object = json!({"type": "object", "properties": fields, "required": required});
        Format::JsonSchema(object.to_string())
    };
    // As many terminals as fit, of which each may come.
    let terminals = |make: &dyn Fn(usize) -> String| {
        let (mut names, mut text) = (Vec::new(), String::new());
        while text.len() + names.len() * 7 < 60_000 {
            let n = names.len();
            text += &format!("A{n}: /{}/\n", make(n));
            names.push(format!("A{n}"));
        }
        Format::Lark(format!("start: {}\n{text}", names.join(" | ")))
    };
    let of = |what: &str, make: fn(usize) -> Value| {
        let all: Vec<Value> = (0..1_500).map(make).collect();
        Format::JsonSchema(json!({what: all}).to_string())
    };
    let nested = |name: &str| format!("{name} ").repeat(60);
    vec![
        (
            "a count within a count",
            Format::Regex("(.{1,500}){1,500}".into()),
        ),
        (
            "three counts",
            Format::Regex("(((a?){0,60}){0,60}){0,60}".into()),
        ),
        (
            "many ways",
            Format::Regex("(a|b)*a(a|b){0,200}(a|b){0,200}".into()),
        ),
        ("squares", Format::Regex("(.*a){40}".into())),
        ("states", Format::Regex("(.*a.{20})*".into())),
        ("may all be missing", Format::Regex("a?".repeat(3_000))),
        ("nearly too many", Format::Regex("a?".repeat(4_900))),
        ("too many", Format::Regex("a?".repeat(30_000))),
        ("different ones", Format::Regex("a?b?c?".repeat(10_000))),
        (
            "short, and long when written out",
            Format::Lark(format!(
                "start: A\nA: {}\nB: {}\nC: {}\nD: \"a\"?",
                nested("B"),
                nested("C"),
                nested("D")
            )),
        ),
        (
            "ambiguous",
            Format::Lark("start: start start | \"a\"".into()),
        ),
        (
            "blanks and words",
            Format::Lark(
                "start: x*\nx: y y | y y y\ny: /[a-z]/ | /[a-z]+/ | z\nz: /[a-z ]*/".into(),
            ),
        ),
        (
            "both",
            Format::Lark("start: A\nA: /(.*a){20}/ & /(.*b){20}/ & /(.*c){20}/".into()),
        ),
        (
            "neither",
            Format::Lark("start: A\nA: ~/(.*a.{10}){5}/".into()),
        ),
        (
            "long terminals",
            terminals(&|n| format!(".{{1,{}}}", 1_500 + n)),
        ),
        (
            "long words",
            terminals(&|n| format!("[a-z]{{1,{}}}x{n}", 1_500 + n)),
        ),
        ("any text before", terminals(&|n| format!(".*{n}"))),
        (
            "missing ones",
            terminals(&|n| format!("{}x{n}", "a?".repeat(400))),
        ),
        ("names", object(5_000, false)),
        ("required names", object(3_000, true)),
        (
            "long strings",
            Format::JsonSchema(json!({"type": "string", "maxLength": 1_000_000_000}).to_string()),
        ),
        (
            "a pattern",
            Format::JsonSchema(
                json!({"type": "string", "pattern": "a?".repeat(20_000)}).to_string(),
            ),
        ),
        (
            "any of",
            of("anyOf", |n| json!({"type": "array", "minItems": n})),
        ),
        (
            "all of",
            of("allOf", |n| json!({"pattern": format!("a.*{n}")})),
        ),
    ]
}

/// Texts of so many bytes that are nested as deeply as they can be, each in another way.
fn deep(bytes: usize) -> Vec<(&'static str, Format)> {
    let chain = |line: &dyn Fn(usize) -> String, last: &dyn Fn(usize) -> String| {
        let (mut text, mut n) = (String::new(), 0);
        while text.len() + line(n).len() + 40 <= bytes {
            text += &line(n);
            n += 1;
        }
        text + &last(n)
    };
    let lark = |name: &str| {
        let rule = |n: usize| match n {
            0 => format!("start:{name}1\n"),
            _ => format!("{name}{n}:{name}{}\n", n + 1),
        };
        Format::Lark(chain(&rule, &|n| format!("{name}{n}:\"x\"")))
    };
    let schema = |of: &dyn Fn(&str) -> String| {
        let refer = |n: usize| format!(r##"{{"$ref":"#/$defs/{n}"}}"##);
        let one = |n: usize| format!(r#""{n}":{},"#, of(&refer(n + 1)));
        let defs = chain(&one, &|n| format!(r#""{n}":{{"type":"null"}}"#));
        Format::JsonSchema(format!(r##"{{"$ref":"#/$defs/0","$defs":{{{defs}}}}}"##))
    };
    let repeated = |begin: &str, middle: &str, end: &str| {
        let times = (bytes - 40) / (begin.len() + end.len());
        format!("{}{middle}{}", begin.repeat(times), end.repeat(times))
    };
    let not = repeated("not(", "true", ")");
    vec![
        ("rules", lark("a")),
        ("terminals", lark("A")),
        (
            "conditions",
            Format::Lark(format!("start: a::0\na::_: \"x\" %if {not}")),
        ),
        (
            "brackets",
            Format::Lark(format!("start: {}", repeated("(", "\"a\"", ")"))),
        ),
        ("groups", Format::Regex(repeated("(", "a", ")"))),
        (
            "groups that may be missing",
            Format::Regex(repeated("(a", "a", ")?")),
        ),
        ("references", schema(&|it| it.to_owned())),
        (
            "arrays",
            schema(&|it| format!(r#"{{"type":"array","items":{it}}}"#)),
        ),
        ("all of", schema(&|it| format!(r#"{{"allOf":[{it}]}}"#))),
        (
            "any of",
            schema(&|it| format!(r#"{{"anyOf":[{it},{{"type":"null"}}]}}"#)),
        ),
        (
            "objects",
            schema(&|it| format!(r#"{{"properties":{{"a":{it}}},"required":["a"]}}"#)),
        ),
    ]
}

#[test]
fn the_deepest_nesting_of_the_longest_text_ends_no_process() {
    let (_, grammars) = grammars();
    let mut compiled = 0;
    // Tools may have more text than a form.
    for bytes in [MAX_FORMAT_BYTES, MAX_TOOLS_BYTES] {
        for (name, format) in deep(bytes) {
            // Whether or not: a stack that overflows is no error but the end of this test's process.
            let Ok(mut grammar) = compile(&grammars, &format) else {
                continue;
            };
            compiled += 1;
            if let Ok(mask) = grammar.mask() {
                let token = (0..512).find(|id| mask.allows(*id)).expect(name);
                // It may be too much for a step, and that is said.
                let _ = grammar.take(token);
            }
        }
    }
    assert!(compiled > 6, "{compiled}: too little was nested");
}

#[test]
fn a_grammar_that_costs_more_with_each_token_ends_its_answer() {
    let (tokenizer, grammars) = grammars();
    let ambiguous = Format::Lark("start: s\ns: \"a\" | s s | s s s".into());
    let mut grammar = compile(&grammars, &ambiguous).expect("compiles");
    let a = tokenizer.encode("a", false).expect("encodes")[0];
    let mut given = 0;
    let why = loop {
        match grammar.mask().and_then(|_| grammar.take(a)) {
            Ok(()) => given += 1,
            Err(error) => break error.to_string(),
        }
        assert!(given < 2_000, "it goes on");
    };
    assert!(given > 20, "{given}: {why}");
    assert!(
        why.contains("less ambiguous") || why.contains("items"),
        "{why}"
    );
}

#[test]
fn patterns_that_would_take_minutes_are_refused() {
    let (_, grammars) = grammars();
    let pattern = |n: u8| {
        let c = char::from(b'a' + n);
        json!({"pattern": format!("((.|\\n)*{c}(.|\\n){{0,60}}|[a-f]*{c}{{1,60}}|.*{c}.*b.*{c}.*)")})
    };
    let schema = json!({"type": "string", "allOf": (0..16).map(pattern).collect::<Vec<_>>()});
    for format in [
        Format::JsonSchema(schema.to_string()),
        Format::Lark(format!("start: %json {schema}")),
    ] {
        let error = compile(&grammars, &format).expect_err("refused");
        assert!(error.to_string().contains("8 patterns"), "{error}");
    }
    let error = compile(
        &grammars,
        &Format::Lark("start: A\nA: /a+/ & /b?a+/".into()),
    );
    assert!(error.expect_err("refused").to_string().contains('&'));
}
