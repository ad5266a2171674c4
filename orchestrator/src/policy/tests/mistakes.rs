//! What is wrong with a policy is told where it stands.

use super::*;

fn mistake(text: &str) -> String {
    Policy::read(text).expect_err(text).to_string()
}

#[test]
fn each_mistake_is_told_with_its_line_its_column_and_what_to_do() {
    for (text, place, words) in [
        (
            "{\n  \"globl\": {}\n}",
            "line 2",
            "unknown field `globl`, expected",
        ),
        (
            "{\"global\": {\n\"max_tokens\": 5}}",
            "line 2",
            "unknown field `max_tokens`",
        ),
        (
            "{\n\"global\": {\"weight\": 0}}",
            "line 2",
            "0 is not between 1 and 1000",
        ),
        ("{\"global\": {\"weight\": -1}}", "line 1", "expected u32"),
        (
            "{\"global\": {\n\"hedge_after_ms\": 19}}",
            "line 2",
            "19 is not between 20 and 60000",
        ),
        (
            "{\"global\": {\"hedge_after_ms\": 60001}}",
            "line 1",
            "60001 is not between 20 and 60000",
        ),
        (
            "{\"global\": {\"priority\": \"urgent\"}}",
            "line 1",
            "expected one of `high`, `normal`, `low`",
        ),
        (
            "{\"global\": {\"regions\": []}}",
            "line 1",
            "no region is named",
        ),
        (
            "{\"global\": {\"regions\": [\"E U\"]}}",
            "line 1",
            "not a valid region",
        ),
        (
            "{\"global\": {\"models\": {\"allow\": [\"Tiny\"]}}}",
            "line 1",
            "not a valid model name",
        ),
        (
            "{\"global\": {\"models\": {\"forbid\": []}}}",
            "line 1",
            "unknown field `forbid`",
        ),
        (
            "{\"tenants\": {\"a\": {},\n\"a\": {}}}",
            "line 2",
            "`a` is there twice",
        ),
        (
            "{\"global\": {},\n\"global\": {}}",
            "line 2",
            "duplicate field `global`",
        ),
        (
            "{\"tenants\": {\"A\": {}}}",
            "line 1",
            "not a valid tenant id",
        ),
        (
            "{\"global\": {\"max_output_tokens\": 0}}",
            "line 1",
            "0 is not between 1",
        ),
        (
            "{\"global\": {\"max_prompt_bytes\": 99999999}}",
            "line 1",
            "is not between 1 and 4194304",
        ),
        (
            "{\"global\": {\"degrade\": {\"qwen-*\": \"tiny\"}}}",
            "line 1",
            "not a valid model name",
        ),
        ("{} {}", "line 1, column 4", "trailing characters"),
        ("", "line 1", "EOF while parsing"),
        ("global:\n  weight: 1", "line 1", "expected value"),
        (
            "{\n\"global\": {\n\"weight\": 0\n\n}\n}",
            "line 3, column 11:",
            "0 is not between",
        ),
        (
            "{\"global\": {\"models\": {\"deny\": [\n\"tiny\",\n\"Tiny\"\n]}}}",
            "line 3, column 6:",
            "not a valid model name",
        ),
        (
            "{\"global\": {\"degrade\": {\n\"a\": \"b\",\n\"c\": 5\n}}}",
            "line 3",
            "expected a string",
        ),
    ] {
        let said = mistake(text);
        assert!(said.starts_with(place), "{text}: {said}");
        assert!(said.contains(words), "{text}: {said}");
        assert!(!said.contains(" at line "), "said once: {said}");
    }
}

#[test]
fn what_is_right_by_itself_and_wrong_together_is_told_where_it_stands() {
    let apart = "{\"global\": {\"regions\": [\"eu\"]},\n \"tenants\": {\n  \"acme\": {\"weight\": 2,\n    \
                 \"regions\": [\"us\"]}}}";
    let said = mistake(apart);
    assert!(
        said.starts_with("line 4, column 16: none of these regions"),
        "{said}"
    );
    let others = "{\"global\": {\"regions\": [\"eu\"]},\n\"others\": {\"regions\": [\"us\"]}}";
    assert!(
        mistake(others).starts_with("line 2, column 23"),
        "{}",
        mistake(others)
    );
    for (degrade, words) in [
        (r#"{"big": "big"}"#, "would become itself"),
        (
            r#"{"a": "b", "b": "c", "c@1.0": "d", "c": "a"}"#,
            "would become itself",
        ),
        (r#"{"a@1.0": "b", "b@1.0": "a"}"#, "would become itself"),
        (
            r#"{"big": "secret"}"#,
            "`big` would become `secret`, which may not be used",
        ),
    ] {
        let text = format!(
            "{{\"global\": {{\"models\": {{\"deny\": [\"secret\"]}},\n\"degrade\": {degrade}}}}}"
        );
        let said = mistake(&text);
        assert!(said.starts_with("line 2, column 12"), "{said}");
        assert!(said.contains(words), "{said}");
    }
    let across = r#"{"global": {"degrade": {"big": "tiny"}},
        "tenants": {"acme": {"degrade": {"tiny": "big"}}}}"#;
    assert!(
        mistake(across).contains("would become itself"),
        "{}",
        mistake(across)
    );
    read(r#"{"global": {"degrade": {"big": "mid", "mid": "tiny", "vast": "mid"}}}"#);
}

#[test]
fn more_than_fits_is_refused() {
    let names = |count: usize, entry: fn(usize) -> String| {
        (0..count).map(entry).collect::<Vec<_>>().join(",")
    };
    let quoted: fn(usize) -> String = |n| format!("\"m{n}\"");
    let section: fn(usize) -> String = |n| format!("\"m{n}\": {{}}");
    let tiny: fn(usize) -> String = |n| format!("\"m{n}\": \"tiny\"");
    for (most, entry, around) in [
        (
            256,
            quoted,
            ["{\"global\": {\"models\": {\"allow\": [", "]}}}"],
        ),
        (
            256,
            quoted,
            ["{\"global\": {\"models\": {\"deny\": [", "]}}}"],
        ),
        (
            rules::MAX_REGIONS,
            quoted,
            ["{\"global\": {\"regions\": [", "]}}"],
        ),
        (
            rules::MAX_DEGRADES,
            tiny,
            ["{\"global\": {\"degrade\": {", "}}}"],
        ),
        (MAX_TENANTS, section, ["{\"tenants\": {", "}}"]),
    ] {
        let of = |count| format!("{}{}{}", around[0], names(count, entry), around[1]);
        assert!(Policy::read(&of(most)).is_ok(), "{}", around[0]);
        let said = mistake(&of(most + 1));
        assert!(said.contains(&format!("more than {most}")), "{said}");
    }
    let long = format!("{{\"$schema\": \"{}\"}}", "x".repeat(2_000));
    assert!(mistake(&long).contains("longer than 1024"));
}
