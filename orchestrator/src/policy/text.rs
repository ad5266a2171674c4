//! From the text of a policy to its rules, or to the line of what is wrong with it.

use super::Policy;
use super::effective::{Effective, Section};
use super::rules::{NamedModel, PolicyText, Rules};
use serde_json::value::RawValue;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What is wrong with a text, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {why}")]
pub struct Mistake {
    /// From 1.
    pub line: usize,
    /// From 1.
    pub column: usize,
    /// What is wrong, and what to do.
    pub why: String,
}

impl Policy {
    /// Reads a policy.
    ///
    /// # Errors
    /// The first mistake.
    pub fn read(text: &str) -> Result<Self, Mistake> {
        let read: PolicyText = serde_json::from_str(text).map_err(|error| of_json(text, &error))?;
        check(&read).map_err(|(path, why)| {
            let (line, column) = locate(text, &path);
            Mistake { line, column, why }
        })?;
        Ok(Self::new(read.global, read.others, read.tenants))
    }
}

fn of_json(text: &str, error: &serde_json::Error) -> Mistake {
    let (line, column) = (error.line(), error.column());
    let said = error.to_string();
    let place = format!(" at line {line} column {column}");
    let lines = text.split_inclusive('\n').take(line.saturating_sub(1));
    let offset = lines.map(str::len).sum::<usize>() + column;
    let mut before = text.get(..offset).unwrap_or(text);
    // What is not syntax is told when the reader looked behind it, which may be lines further on.
    if error.is_data() {
        let value = before.strip_suffix(['}', ']', ',']).unwrap_or(before);
        before = value.trim_end();
    }
    let (line, column) = end_of(before);
    Mistake {
        line,
        column: column.max(1),
        why: said.strip_suffix(&place).unwrap_or(&said).to_owned(),
    }
}

/// Line, and column of the last character.
fn end_of(text: &str) -> (usize, usize) {
    let line = text.matches('\n').count() + 1;
    let last = text.rsplit('\n').next().unwrap_or_default();
    (line, last.chars().count())
}

/// Where a mistake is, and what it is.
type Found<'a> = (Vec<&'a str>, String);

/// What can be right by itself and wrong together.
fn check(read: &PolicyText) -> Result<(), Found<'_>> {
    let global = Arc::new(read.global.clone());
    let all = |section, rules: &Rules| Effective::new(global.clone(), section, rules.clone());
    let nothing = Rules::default();
    check_section(&["global"], &read.global, &all(Section::Others, &nothing))?;
    check_section(
        &["others"],
        &read.others,
        &all(Section::Others, &read.others),
    )?;
    for (id, rules) in &read.tenants {
        let path = ["tenants", id.as_str()];
        check_section(&path, rules, &all(Section::Tenant, rules))?;
    }
    Ok(())
}

fn check_section<'a>(path: &[&'a str], own: &Rules, all: &Effective) -> Result<(), Found<'a>> {
    let at = |field| {
        let mut path = path.to_vec();
        path.push(field);
        path
    };
    if own.regions.is_some() && all.regions().is_some_and(BTreeSet::is_empty) {
        let why = "none of these regions is among those of `global`, so that nothing could run: name \
                   one of those, or add this one there";
        return Err((at("regions"), why.to_owned()));
    }
    for (from, to) in &own.degrade {
        let Some(to) = to else { continue };
        if all.forbids(from).is_none() && all.forbids(to).is_some() {
            let why = format!(
                "`{from}` would become `{to}`, which may not be used here: allow it, or \
                               name another"
            );
            return Err((at("degrade"), why));
        }
        if leads_back(from, all) {
            let why = format!(
                "`{from}` would become itself again by way of `{to}`: each model has \
                               to become a smaller one"
            );
            return Err((at("degrade"), why));
        }
    }
    Ok(())
}

/// Whether a model becomes itself, by any number of steps and whatever their versions.
fn leads_back(from: &NamedModel, all: &Effective) -> bool {
    let steps = all.degrades();
    let mut reached = BTreeSet::new();
    let mut next = vec![&from.name];
    while let Some(name) = next.pop() {
        for (_, to) in steps.iter().filter(|(from, _)| from.name == *name) {
            if reached.insert(&to.name) {
                next.push(&to.name);
            }
        }
    }
    reached.contains(&from.name)
}

/// Line and column at which the value under a path begins; of one that is not there, those of what it
/// would be in.
fn locate(text: &str, path: &[&str]) -> (usize, usize) {
    let mut at = text;
    for key in path {
        let fields: BTreeMap<String, &RawValue> = match serde_json::from_str(at) {
            Ok(fields) => fields,
            Err(_) => break,
        };
        match fields.get(*key) {
            Some(value) => at = value.get(),
            None => break,
        }
    }
    let offset = at.as_ptr().addr().saturating_sub(text.as_ptr().addr());
    let (line, column) = end_of(&text[..offset.min(text.len())]);
    (line, column + 1)
}
