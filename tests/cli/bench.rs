//! What `ops/bench/run` starts can be run: each once, for its parts and never for its figures.

use crate::support::Tether;
use serde_json::Value;

/// The table, and the samples in the line of JSON behind it.
#[track_caller]
fn bench(name: &str) -> (String, Value) {
    let said = Tether::ok(&["bench", name, "--runs", "1"]);
    let (table, json) = said.rsplit_once('\n').expect("a table and a line");
    let json: Value = serde_json::from_str(json).expect("JSON");
    assert_eq!(
        (&json["benchmark"], &json["runs"]),
        (&name.into(), &1.into())
    );
    (table.to_owned(), json["samples"].clone())
}

#[test]
fn the_engine_alone_is_measured_beside_the_mesh() {
    let (table, samples) = bench("overhead");
    assert!(table.contains("| short answer, "), "{table}");
    assert!(samples.to_string().len() > 20, "{samples}");
}

#[test]
fn the_first_token_of_a_mesh_is_measured() {
    let (table, _) = bench("first-token");
    assert!(table.contains("first token of the first answer"), "{table}");
}

#[test]
fn answers_are_taken_up_again_and_compared() {
    let (table, _) = bench("continuation");
    assert!(
        table.contains("| GGUF, Q8_0 | replay | 120 | 0 | 0 |"),
        "{table}"
    );
}
