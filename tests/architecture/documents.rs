//! Links between documents lead somewhere.

use crate::repository::{files, read, root};
use std::path::Path;

#[test]
fn links_between_documents_lead_somewhere() {
    let mut dead = Vec::new();
    for document in files("", &["md"]) {
        let dir = Path::new(&document).parent().unwrap_or(Path::new(""));
        for link in links(&read(&document)) {
            let target = link.split('#').next().unwrap_or_default();
            let outside = link.contains("://") || link.starts_with("mailto:");
            if !target.is_empty() && !outside && !root().join(dir).join(target).exists() {
                dead.push(format!("{document} → {link}"));
            }
        }
    }
    assert!(dead.is_empty(), "links that lead nowhere: {dead:#?}");
}

/// Targets of `[text](target)`, outside of code blocks.
fn links(markdown: &str) -> Vec<String> {
    let mut in_code = false;
    let mut found = Vec::new();
    for line in markdown.lines() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        if in_code {
            continue;
        }
        let mut rest = line;
        while let Some(at) = rest.find("](") {
            rest = &rest[at + 2..];
            if let Some(end) = rest.find(')') {
                found.push(rest[..end].to_owned());
            }
        }
    }
    found
}
