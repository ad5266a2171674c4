//! topics.md and the code: every clause is cited, every citation is of a clause.

use crate::repository::{files, read};
use std::collections::{BTreeMap, BTreeSet};

/// A clause's id: `(PRE, 4)`.
type Id = (String, u32);

/// Reads `T-ABC-12]` at the start of a text.
fn id_at(text: &str) -> Option<(Id, &str)> {
    let rest = text.strip_prefix("T-")?;
    let (area, rest) = rest.split_once('-')?;
    if area.len() != 3 || !area.bytes().all(|b| b.is_ascii_uppercase()) {
        return None;
    }
    let (number, rest) = rest.split_once(']')?;
    Some(((area.to_owned(), number.parse().ok()?), rest))
}

/// All citations of a text; `[…] to […]` cites all between.
fn citations(text: &str) -> Vec<Id> {
    let mut cited = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("[T-") {
        rest = &rest[at + 1..];
        let Some((first, after)) = id_at(rest) else {
            continue;
        };
        rest = after;
        let last = after
            .strip_prefix(" to [")
            .and_then(id_at)
            .filter(|((area, number), _)| *area == first.0 && *number >= first.1);
        let until = match last {
            Some(((_, number), after)) => {
                rest = after;
                number
            }
            None => first.1,
        };
        cited.extend((first.1..=until).map(|number| (first.0.clone(), number)));
    }
    cited
}

/// The clauses of topics.md, in their order.
fn clauses() -> Vec<Id> {
    read("topics.md")
        .lines()
        .filter_map(|line| id_at(line.strip_prefix("- **[")?).map(|(id, _)| id))
        .collect()
}

fn citing_files() -> Vec<String> {
    files("", &["rs", "mjs", "py", "toml"])
}

#[test]
fn clauses_are_numbered_once_and_without_gaps() {
    let mut last: BTreeMap<String, u32> = BTreeMap::new();
    for (area, number) in clauses() {
        let before = last.insert(area.clone(), number).unwrap_or(0);
        assert_eq!(
            number,
            before + 1,
            "[T-{area}-{number}] follows [T-{area}-{before}]"
        );
    }
    assert!(last.len() > 10, "topics.md has its areas: {last:?}");
}

#[test]
fn every_clause_is_cited_by_code_or_tests() {
    let cited: BTreeSet<Id> = citing_files()
        .iter()
        .flat_map(|path| citations(&read(path)))
        .collect();
    let silent: Vec<String> = clauses()
        .into_iter()
        .filter(|clause| !cited.contains(clause))
        .map(|(area, number)| format!("[T-{area}-{number}]"))
        .collect();
    assert!(
        silent.is_empty(),
        "topics.md promises what no code and no test cites: {}",
        silent.join(" ")
    );
}

#[test]
fn every_citation_is_of_a_clause() {
    let clauses: BTreeSet<Id> = clauses().into_iter().collect();
    let documents = files("", &["md"]);
    for path in citing_files().iter().chain(&documents) {
        for (area, number) in citations(&read(path)) {
            let known = clauses.contains(&(area.clone(), number));
            assert!(
                known,
                "{path} cites [T-{area}-{number}], which topics.md does not have"
            );
        }
    }
}

#[test]
fn ranges_cite_all_between() {
    let open = "[T-";
    let text = format!("a {open}ABC-2] to {open}ABC-4], b {open}XYZ-1] {open}N].");
    let ids: Vec<_> = citations(&text);
    let of = |area: &str, number| (area.to_owned(), number);
    assert_eq!(
        ids,
        [of("ABC", 2), of("ABC", 3), of("ABC", 4), of("XYZ", 1)]
    );
}
