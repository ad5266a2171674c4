//! What is shown of a fleet.

use super::table::{Style, table};
use super::*;
use clap::Parser;

fn page(workers: &str, more: &str) -> Page {
    let text = format!(
        r#"{{"total":300,"matched":3,"routable":1,"states":{{"serving":2,"suspect":1}},
            "left_out":0{more},"workers":{workers}}}"#
    );
    serde_json::from_str(&text).expect("valid")
}

#[test]
fn a_worker_that_gets_no_work_shows_why() {
    let page = page(
        r#"[{"id":"0123456789abcdef","state":"serving","region":"local","models":[],
            "in_flight":1,"queue_depth":0,"heartbeat_age_ms":1500,"slots":4,"tier":"trusted",
            "reason":"serves no model","faults":[{"model":"x@1.0","reason":"bad-signature"}]}]"#,
        "",
    );
    let text = table(&page, Style::default());
    for part in [
        "3 workers: 2 serving, 1 suspect; 1 routable",
        "01234567 ",
        "1/4",
        "1.5 s",
        "trusted",
        "not routable: serves no model",
        "x@1.0 is not served: bad-signature",
    ] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    assert!(
        !text.contains('\u{1b}'),
        "no colour where there is no terminal"
    );
}

#[test]
fn an_empty_fleet_and_filters_that_fit_nobody_are_told_apart() {
    let text = |filtered, total: u64| {
        let page: Page = serde_json::from_value(serde_json::json!({
            "total": total, "matched": 0, "routable": 0, "states": {}, "left_out": 0, "workers": []
        }))
        .expect("valid");
        let colour = false;
        table(&page, Style { colour, filtered })
    };
    assert_eq!(text(false, 0), "no workers\n");
    assert_eq!(text(true, 5), "0 of 5 workers\n");
}

#[test]
fn columns_are_as_wide_as_what_is_in_them_and_what_is_left_out_is_said() {
    let rows = r#"[
        {"id":"0123456789abcdef","state":"serving","region":"eu","models":["a@1.0","b@1.0","c@1.0","d@1.0"],
         "in_flight":10,"queue_depth":0,"heartbeat_age_ms":1500,"slots":128,"tier":"untrusted"},
        {"id":"fedcba98","state":"unavailable","region":"a-region-with-a-long-name","models":[],
         "heartbeat_age_ms":70000},
        {"id":"00000000","state":"unknown","region":null,"reason":"no card"}]"#;
    let page = page(&rows.replace('\n', ""), "");
    let text = table(&page, Style::default());
    let at = |line: &str, what: &str| {
        line.find(what)
            .unwrap_or_else(|| panic!("{what} in {line}"))
    };
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(at(lines[2], "MODELS"), at(lines[3], "a@1.0"), "{text}");
    assert_eq!(at(lines[2], "MODELS"), at(lines[4], "none"), "{text}");
    assert!(
        lines[3].ends_with("a@1.0, b@1.0, c@1.0 and 1 more"),
        "{text}"
    );
    assert!(lines.iter().all(|line| !line.ends_with(' ')));
    let less = Page {
        left_out: 297,
        ..page
    };
    assert!(table(&less, Style::default()).contains("297 more are left out: --limit"));
}

#[test]
fn a_fault_that_is_the_reason_is_shown_once() {
    let page = page(
        r#"[{"id":"0123456789abcdef","state":"serving","region":"local",
            "reason":"it offers no model; x is not served: missing-file: y",
            "faults":[{"model":"x","reason":"missing-file: y"},{"model":"z","reason":"w"}]},
            {"id":"1123456789abcdef","state":"unavailable","region":"local",
            "reason":"tiny@1.0: another artifact","reasons":["tiny@1.0: another artifact"],
            "faults":[{"model":"tiny@1.0","reason":"another artifact"}]}]"#,
        "",
    );
    let text = table(&page, Style::default());
    assert_eq!(text.matches("x is not served").count(), 1, "{text}");
    assert_eq!(text.matches("z is not served").count(), 1, "{text}");
    assert_eq!(text.matches("another artifact").count(), 1, "{text}");
}

#[test]
fn nothing_that_a_stranger_says_reaches_the_terminal_as_a_command() {
    let page = page(
        r#"[{"id":"0123456789abcdef","state":"serving","region":"local","models":["a\u001b[2J@1"],
            "faults":[{"model":"x","reason":"\u001b]0;owned\u0007\u202e"}]}]"#,
        "",
    );
    let text = table(&page, Style::default());
    assert!(!text.contains(['\u{1b}', '\u{7}', '\u{202e}']), "{text:?}");
    let colour = Style {
        colour: true,
        ..Style::default()
    };
    let text = table(&page, colour);
    assert!(
        !text.contains("\u{1b}[2J") && text.contains("\u{1b}[1m"),
        "{text:?}"
    );
}

#[test]
fn spans_of_time_are_short() {
    for (ms, text) in [
        (0, "0.0 s"),
        (1_250, "1.2 s"),
        (59_000, "59 s"),
        (150_000, "2 min"),
        (7_200_000, "2 h"),
        (172_800_000, "2 d"),
    ] {
        assert_eq!(ago(ms), text);
    }
}

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    args: FleetArgs,
}

#[test]
fn what_can_be_asked_for_is_asked_and_the_rest_is_refused_with_what_there_is() {
    let line = "fleet --region eu --model tiny --model big@1.0 --state suspect --state unroutable";
    let line = Line::try_parse_from(line.split(' ')).expect("allowed");
    let query = line.args.list.filter.query();
    let query: Vec<String> = query
        .iter()
        .map(|(key, it)| format!("{key}={it}"))
        .collect();
    let asked = "region=eu model=tiny model=big@1.0 state=suspect state=unroutable limit=1000";
    assert_eq!(query.join(" "), asked);
    for (line, words) in [
        ("fleet --state asleep", "unavailable"),
        ("fleet --region !", "region"),
        ("fleet --model tiny@x", "MAJOR.MINOR"),
        ("fleet --limit 0", "1..=100000"),
        ("fleet explain nobody", "hex digits"),
        ("fleet --watch explain aa", "explain"),
    ] {
        let error = Line::try_parse_from(line.split(' '))
            .expect_err("refused")
            .to_string();
        assert!(error.contains(words), "{line}: {error}");
    }
}
