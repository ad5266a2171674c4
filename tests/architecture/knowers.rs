//! Who knows what: one place for each thing from outside.

use crate::repository::{invariant, read, shipped_sources};

/// Words that give somebody away, and the places where they may stand.
struct Knower {
    invariant: u32,
    words: &'static [&'static str],
    places: &'static [&'static str],
}

const KNOWERS: &[Knower] = &[
    Knower {
        invariant: 4,
        words: &["iroh::", "iroh_", "peeroxide_dht::", "libudx::"],
        places: &["crates/net/src/"],
    },
    Knower {
        invariant: 5,
        words: &["\"chat.completion", "invalid_request_error"],
        places: &["gateway/src/openai"],
    },
    Knower {
        invariant: 6,
        words: &[
            "mistralrs::",
            "mistralrs_core",
            "mistralrs_quant",
            "candle_core",
            "candle_nn",
        ],
        // The generator of the small model trains with candle; it knows no engine.
        places: &["worker/src/engine/mistralrs", "crates/tiny-model/src/"],
    },
    Knower {
        invariant: 7,
        words: &["rusqlite"],
        // The benchmark measures SQLite alone, too.
        places: &["orchestrator/src/store/sqlite", "orchestrator/benches/"],
    },
    Knower {
        invariant: 7,
        words: &["INSERT INTO", "CREATE TABLE"],
        places: &["orchestrator/src/store/", "orchestrator/benches/"],
    },
    Knower {
        invariant: 13,
        words: &["tokio_postgres"],
        places: &["orchestrator/src/store/postgres"],
    },
    Knower {
        invariant: 9,
        words: &["opentelemetry", "prometheus_client"],
        places: &["crates/telemetry/src/"],
    },
    Knower {
        invariant: 10,
        words: &["env::var", "Env::prefixed"],
        places: &["crates/tether/src/", "worker/src/engine/process.rs"],
    },
    Knower {
        invariant: 11,
        words: &["unbounded_channel", "unbounded()", "mpsc::channel()"],
        places: &["worker/src/engine/handle.rs"],
    },
    Knower {
        invariant: 12,
        words: &["tokenizers::", "minijinja"],
        places: &[
            "worker/src/text",
            "worker/src/engine/",
            "crates/tiny-model/src/",
        ],
    },
];

#[test]
fn what_comes_from_outside_has_one_knower() {
    let mut broken = Vec::new();
    for (path, code) in shipped_sources() {
        for knower in KNOWERS {
            let at_home = knower.places.iter().any(|place| path.starts_with(place));
            for word in knower.words.iter().filter(|_| !at_home) {
                if let Some(line) = code.lines().find(|line| mentions(line, word)) {
                    let text = invariant(knower.invariant);
                    broken.push(format!(
                        "[I-{}] {text}\n    {path}: {}",
                        knower.invariant,
                        line.trim()
                    ));
                }
            }
        }
    }
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
}

/// Whether a line names a thing from outside; a module of ours may have the same name.
fn mentions(line: &str, word: &str) -> bool {
    line.match_indices(word)
        .any(|(at, _)| !line[..at].ends_with("engine::"))
}

#[test]
fn the_wire_touches_neither_clock_nor_world() {
    let banned = [
        "std::fs",
        "std::process",
        "std::thread",
        "std::time",
        "SystemTime",
        "Instant::now",
        "TcpStream",
        "UdpSocket",
        "std::env",
        "std::io",
    ];
    for (path, code) in shipped_sources() {
        if path.starts_with("crates/wire/src/") {
            for word in banned {
                assert!(!code.contains(word), "{path} uses {word}. {}", invariant(3));
            }
        }
    }
}

#[test]
fn each_invariant_is_kept_by_a_test() {
    let sources = [
        read("tests/architecture/graph.rs"),
        read("tests/architecture/knowers.rs"),
    ]
    .concat();
    let mut number = 0;
    for line in read("ARCHITECTURE.md").lines() {
        let Some(rest) = line.strip_prefix("- **[I-") else {
            continue;
        };
        number += 1;
        assert!(
            rest.starts_with(&format!("{number}]")),
            "invariants are numbered without gaps: {line}"
        );
        let kept = [
            format!("invariant({number})"),
            format!("invariant: {number},"),
        ];
        assert!(
            kept.iter().any(|call| sources.contains(call)),
            "no test keeps [I-{number}]"
        );
    }
    assert!(number > 0, "ARCHITECTURE.md has invariants");
}
