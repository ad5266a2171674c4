mod hostile;

use super::*;
use proptest::prelude::*;

fn grammars() -> (Arc<TextTokenizer>, Grammars) {
    let folder = tempfile::tempdir().expect("folder");
    for file in tether_tiny_model::files() {
        std::fs::write(folder.path().join(file.name), file.bytes).expect("write");
    }
    let tokenizer = TextTokenizer::load(folder.path(), "tokenizer.json").expect("loads");
    let tokenizer = Arc::new(tokenizer);
    (tokenizer.clone(), Grammars::new(tokenizer, BTreeMap::new()))
}

fn compile(grammars: &Grammars, format: &Format) -> Result<Grammar, GrammarError> {
    let source = Source::of(format)?.expect("a form");
    grammars.compile(source)
}

/// Whether a text, token by token, is allowed, and may be the whole.
fn follows(tokenizer: &TextTokenizer, grammar: &mut Grammar, text: &str) -> bool {
    let eos = *tokenizer.eos().first().expect("an end");
    for token in tokenizer.encode(text, false).expect("encodes") {
        if grammar.is_over() || !grammar.mask().expect("a mask").allows(token) {
            return false;
        }
        grammar.take(token).expect("allowed");
    }
    grammar.is_over() || grammar.mask().expect("a mask").allows(eos) && grammar.may_end()
}

#[test]
fn each_form_allows_what_it_says_and_nothing_else() {
    let (tokenizer, grammars) = grammars();
    let schema = r#"{"type":"object","properties":{"a":{"type":"integer"},"b":{"enum":["x","é"]}},
        "required":["a"],"additionalProperties":false}"#;
    for (format, good, bad) in [
        (
            Format::JsonObject,
            vec!["{}", r#"{"a": [1,2]}"#],
            vec!["[]", "{", "{ }", " {}", "{}\n"],
        ),
        (
            Format::JsonSchema(schema.to_owned()),
            vec![r#"{"a":1}"#, r#"{"a": -7, "b": "é"}"#],
            vec![
                r#"{"a":"1"}"#,
                r#"{"b":"x"}"#,
                r#"{"a":1,"c":2}"#,
                r#"{"a":1,"b":"y"}"#,
            ],
        ),
        (
            Format::Regex("[a-c]+é?".to_owned()),
            vec!["abc", "cé"],
            vec!["", "d", "éa"],
        ),
        (
            Format::Lark("start: \"a\" (\"b\" | \"c\")".to_owned()),
            vec!["ab", "ac"],
            vec!["a", "abc"],
        ),
        (
            Format::Choice(vec![
                "yes".into(),
                "no (a.b)*\n".into(),
                "yes please".into(),
            ]),
            vec!["yes", "no (a.b)*\n", "yes please"],
            vec!["no", "yes plea", "no (axb)*\n"],
        ),
    ] {
        for text in good {
            let mut grammar = compile(&grammars, &format).expect("compiles");
            assert!(
                follows(&tokenizer, &mut grammar, text),
                "{format:?} {text:?}"
            );
        }
        for text in bad {
            let mut grammar = compile(&grammars, &format).expect("compiles");
            assert!(
                !follows(&tokenizer, &mut grammar, text),
                "{format:?} {text:?}"
            );
        }
    }
}

#[test]
fn a_grammar_that_can_only_end_is_over_and_one_that_can_go_on_is_not() {
    let (tokenizer, grammars) = grammars();
    let over = |format: &Format, text: &str| {
        let mut grammar = compile(&grammars, format).expect("compiles");
        for token in tokenizer.encode(text, false).expect("encodes") {
            grammar.take(token).expect("allowed");
        }
        (grammar.is_over(), grammar.is_over() || grammar.may_end())
    };
    let choice = Format::Choice(vec!["yes".into(), "yes please".into()]);
    assert_eq!(over(&choice, "yes"), (false, true));
    assert_eq!(over(&choice, "yes please"), (true, true));
    assert_eq!(over(&Format::JsonObject, "{}"), (true, true));
    assert_eq!(over(&Format::JsonObject, "{"), (false, false));
}

#[test]
fn the_librarys_own_words_for_a_dead_end_are_not_told_to_who_asked() {
    let dead_end = GrammarError::new("Parser Error: NoExtensionBias\n<non-verbose/>");
    assert_eq!(dead_end.to_string(), NO_TOKEN);
    let other = GrammarError::new("expected a rule\n<non-verbose/>\n<state>x</state>");
    assert_eq!(other.to_string(), "expected a rule");
}

#[test]
fn what_is_not_a_grammar_is_an_error_in_few_words() {
    let (_, grammars) = grammars();
    for format in [
        Format::JsonSchema("{".into()),
        Format::JsonSchema("true".into()),
        Format::JsonSchema(r#"{"type":"nothing"}"#.into()),
        Format::JsonSchema(r##"{"$ref":"#/missing"}"##.into()),
        Format::JsonSchema(r#"{"$ref":"http://example.com/schema"}"#.into()),
        Format::JsonSchema("[".repeat(60_000)),
        Format::Regex("[".into()),
        Format::Regex("(".repeat(60_000)),
        Format::Lark("start: nothing".into()),
        Format::Lark("(".repeat(60_000)),
        Format::Lark(format!("start: {}", "(".repeat(60_000))),
        Format::Lark(format!("start: %json {}", r#"{"a":"#.repeat(10_000))),
    ] {
        let shown: String = format!("{format:?}").chars().take(60).collect();
        let error = compile(&grammars, &format).expect_err(&shown).to_string();
        assert!(
            !error.is_empty() && error.chars().count() <= MAX_WHY_CHARS,
            "{error}"
        );
        assert!(!error.contains(char::is_control), "{error}");
        assert!(!error.contains("verbose"), "{error}");
    }
}

#[test]
fn a_grammar_that_is_too_much_work_ends_in_an_error_and_soon() {
    let (_, grammars) = grammars();
    let began = std::time::Instant::now();
    let names: Vec<String> = (0..3_000)
        .map(|n| format!(r#""p{n}":{{"type":"string"}}"#))
        .collect();
    let deep = format!(
        "{}{}{}",
        r#"{"type":"object","properties":{"a":"#.repeat(60),
        r#"{"type":"string"}"#,
        "}}".repeat(60)
    );
    for format in [
        Format::Regex("(a|b)*a(a|b){0,200}(a|b){0,200}".into()),
        Format::Regex("(.*a){40}".into()),
        Format::Regex("a?".repeat(10_000)),
        Format::Lark("start: start start | \"a\"".into()),
        Format::JsonSchema(format!(
            r#"{{"type":"object","properties":{{{}}}}}"#,
            names.join(",")
        )),
        Format::JsonSchema(deep),
        Format::JsonSchema(
            r#"{"type":"array","minItems":1000000,"items":{"type":"object"}}"#.into(),
        ),
        Format::JsonSchema(r#"{"type":"string","maxLength":1000000000}"#.into()),
        Format::Choice((0..256).map(|n| format!("{n}").repeat(80)).collect()),
    ] {
        // Either is right: it works within its bounds, or says that it does not.
        let Ok(mut grammar) = compile(&grammars, &format) else {
            continue;
        };
        for _ in 0..50 {
            let Ok(mask) = grammar.mask() else { break };
            let Some(token) = (0..512).find(|id| mask.allows(*id) && *id > 4) else {
                break;
            };
            if grammar.take(token).is_err() || grammar.is_over() {
                break;
            }
        }
    }
    // A guard against hanging, not a measure: this is built without optimisation.
    assert!(began.elapsed().as_secs() < 120, "{:?}", began.elapsed());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_the_compiler_panic_or_hang(text in "[ -~\n]{0,60}|(start: )[a-z(){}|*+?\"/%# ]{0,60}") {
        let (_, grammars) = grammars();
        for format in [Format::Regex(text.clone()), Format::Lark(text.clone()), Format::JsonSchema(text)] {
            if let Ok(mut grammar) = compile(&grammars, &format) {
                let _ = grammar.mask();
            }
        }
    }
}
