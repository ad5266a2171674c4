//! What is written about policies is so: the published schema, and each example of `docs/policy.md`.

use std::path::PathBuf;
use tether_orchestrator::policy::{Facts, Policy, dry_run, schema};
use tether_wire::{Region, TenantId};

fn document(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .join(name)
}

fn read(name: &str) -> String {
    std::fs::read_to_string(document(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[test]
fn the_published_schema_is_that_of_the_types() {
    let name = "docs/policy.schema.json";
    if std::env::var_os("TETHER_BLESS").is_some_and(|it| it == "1") {
        std::fs::write(document(name), schema::published()).expect("written");
    }
    // The order of fields says nothing, and differs with the features of a build.
    let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).expect("JSON");
    let is_same = json(&read(name)) == json(&schema::published());
    assert!(is_same, "{name} is another: TETHER_BLESS=1 writes it anew");
}

#[test]
fn the_example_is_a_policy() {
    let policy = Policy::read(&read("ops/examples/policy.json")).expect("a policy");
    assert!(!policy.model_rules().is_empty());
}

/// Blocks of code of a kind.
fn blocks<'a>(markdown: &'a str, kind: &str) -> Vec<&'a str> {
    let opening = format!("```{kind}\n");
    (markdown.split(&opening).skip(1))
        .map(|rest| rest.split("```").next().unwrap_or_default())
        .collect()
}

/// Each `json` block is a policy, and each `console` block behind it runs `tether policy test` on that
/// and shows what it says.
#[test]
fn each_example_of_the_document_says_what_it_is_said_to_say() {
    let text = read("docs/policy.md");
    let policies = blocks(&text, "json");
    assert!(policies.len() >= 3);
    for policy in &policies {
        Policy::read(policy).unwrap_or_else(|mistake| panic!("{mistake}\n{policy}"));
    }
    let mut ran = 0;
    for part in text.split("```json\n").skip(1) {
        let policy = Policy::read(part.split("```").next().expect("a block")).expect("a policy");
        for console in blocks(part, "console") {
            let (command, said) = console
                .split_once('\n')
                .expect("a command and what it says");
            assert_eq!(run(&policy, command), said, "{command}");
            ran += 1;
        }
    }
    assert!(ran >= 3, "{ran} were run");
}

/// What the command does with its arguments.
fn run(policy: &Policy, command: &str) -> String {
    let words: Vec<&str> = command.split_whitespace().collect();
    assert_eq!(words[..4], ["$", "tether", "policy", "test"], "{command}");
    let option = |name: &str| {
        let at = words.iter().position(|word| *word == name)?;
        Some(words[at + 1])
    };
    let tenant = TenantId::new(option("--tenant").expect("a tenant")).expect("valid");
    let region = Region::new(option("--region").unwrap_or("local")).expect("valid");
    let facts = Facts {
        tenant: &tenant,
        region: &region,
        model: option("--model").expect("a model"),
        max_tokens: option("--max-tokens").map(|it| it.parse().expect("a number")),
        prompt_bytes: option("--prompt-bytes").map_or(0, |it| it.parse().expect("a number")),
    };
    dry_run(policy, &facts).to_string()
}
