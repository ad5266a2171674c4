//! What we depend on: each direct dependency has its reason, each package a licence that we accept.

use crate::repository::{metadata, packages, read, text};
use std::collections::{BTreeMap, BTreeSet};

/// Names of all that our packages import, ours and others'.
fn imported() -> BTreeSet<String> {
    packages()
        .iter()
        .flat_map(|package| {
            package["dependencies"]
                .as_array()
                .cloned()
                .unwrap_or_default()
        })
        .map(|dependency| text(&dependency, "name").to_owned())
        .collect()
}

#[test]
fn each_direct_dependency_has_a_line_that_says_why() {
    let document = read("docs/dependencies.md");
    let lines: BTreeSet<&str> = document
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .collect();
    let mut used = imported();
    used.retain(|name| !name.starts_with("tether"));
    let missing: Vec<_> = used
        .iter()
        .filter(|name| !lines.contains(name.as_str()))
        .collect();
    assert!(
        missing.is_empty(),
        "docs/dependencies.md has no line for {missing:?}"
    );
    let gone: Vec<_> = lines.iter().filter(|name| !used.contains(**name)).collect();
    assert!(
        gone.is_empty(),
        "docs/dependencies.md has lines for {gone:?}, which nothing uses"
    );
}

#[test]
fn each_dependency_of_the_workspace_is_used_by_a_package() {
    let manifest: toml::Value = toml::from_str(&read("Cargo.toml")).expect("TOML");
    let named = manifest["workspace"]["dependencies"]
        .as_table()
        .expect("a table");
    let used = imported();
    let unused: Vec<_> = named.keys().filter(|name| !used.contains(*name)).collect();
    assert!(
        unused.is_empty(),
        "Cargo.toml names {unused:?}, which no package uses"
    );
}

#[test]
fn every_package_has_a_licence_and_a_source_that_deny_toml_allows() {
    let host = format!("--filter-platform={}", host_triple());
    let metadata = match metadata(&[&host]) {
        Ok(metadata) => metadata,
        Err(why) => {
            // A machine that has built everything has it all; `cargo fetch` brings the rest.
            assert!(
                std::env::var("TETHER_TEST_REQUIRE").as_deref() != Ok("all"),
                "the list of packages is incomplete: run `cargo fetch` first. {why}"
            );
            println!("skipped: the list of packages is incomplete, run `cargo fetch` first");
            return;
        }
    };
    let policy: toml::Value = toml::from_str(&read("deny.toml")).expect("deny.toml is TOML");
    let strings = |table: &str, list: &str| -> BTreeSet<String> {
        let list = policy[table][list].as_array().expect("a list");
        list.iter()
            .filter_map(|v| v.as_str().map(str::to_owned))
            .collect()
    };
    let allowed = strings("licenses", "allow");
    let sources = strings("sources", "allow-registry");
    let resolved: BTreeSet<&str> = metadata["resolve"]["nodes"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|node| text(node, "id"))
        .collect();
    let mut refused = BTreeMap::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        if !resolved.contains(text(package, "id")) {
            continue;
        }
        let name = format!("{} {}", text(package, "name"), text(package, "version"));
        let licence = text(package, "license");
        if !allows(licence, &allowed) {
            refused.insert(name.clone(), format!("licence {licence:?}"));
        }
        // Our own packages have no source.
        if let Some(source) = package["source"].as_str() {
            let known = source
                .strip_prefix("registry+")
                .is_some_and(|registry| sources.contains(registry));
            if !known {
                refused.insert(name, format!("source {source:?}"));
            }
        }
    }
    assert!(refused.is_empty(), "deny.toml does not allow {refused:#?}");
}

fn host_triple() -> String {
    let output = std::process::Command::new("rustc").arg("-vV").output();
    let output = output.expect("the toolchain that built this test");
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .find_map(|line| line.strip_prefix("host: ").map(str::to_owned))
        .expect("rustc names its host")
}

/// Whether an SPDX expression can be met with the allowed licences. The old `/` means OR.
fn allows(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let spaced = expression
        .replace('/', " OR ")
        .replace('(', " ( ")
        .replace(')', " ) ");
    let tokens: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = 0;
    !tokens.is_empty() && any(&tokens, &mut at, allowed) && at == tokens.len()
}

fn any(tokens: &[&str], at: &mut usize, allowed: &BTreeSet<String>) -> bool {
    let mut met = all(tokens, at, allowed);
    while tokens.get(*at) == Some(&"OR") {
        *at += 1;
        met |= all(tokens, at, allowed);
    }
    met
}

fn all(tokens: &[&str], at: &mut usize, allowed: &BTreeSet<String>) -> bool {
    let mut met = one(tokens, at, allowed);
    while tokens.get(*at) == Some(&"AND") {
        *at += 1;
        met &= one(tokens, at, allowed);
    }
    met
}

fn one(tokens: &[&str], at: &mut usize, allowed: &BTreeSet<String>) -> bool {
    let Some(token) = tokens.get(*at) else {
        return false;
    };
    *at += 1;
    if *token == "(" {
        let met = any(tokens, at, allowed);
        *at += 1;
        return met;
    }
    if tokens.get(*at) == Some(&"WITH") {
        *at += 2;
        let exception = tokens.get(*at - 1).copied().unwrap_or_default();
        return allowed.contains(&format!("{token} WITH {exception}"));
    }
    allowed.contains(*token)
}

#[test]
fn licence_expressions_are_read_as_spdx_means_them() {
    let allowed = BTreeSet::from(["MIT".to_owned(), "ISC".to_owned()]);
    for (expression, met) in [
        ("MIT", true),
        ("GPL-3.0", false),
        ("MIT OR GPL-3.0", true),
        ("MIT/GPL-3.0", true),
        ("MIT AND GPL-3.0", false),
        ("(MIT OR GPL-3.0) AND ISC", true),
        ("(MIT OR ISC) AND GPL-3.0", false),
        ("MIT AND ISC OR GPL-3.0", true),
        ("MIT WITH LLVM-exception", false),
        ("", false),
        ("MIT)", false),
    ] {
        assert_eq!(allows(expression, &allowed), met, "{expression:?}");
    }
}
