//! Who imports whom.

use crate::repository::{invariant, packages, read, root, text};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Imports of our crates among themselves, tests included. [I-1]
const ALLOWED: &[(&str, &[&str])] = &[
    ("tether-wire", &[]),
    ("tether-telemetry", &[]),
    ("tether-tiny-model", &[]),
    ("tether-presence", &["tether-wire"]),
    ("tether-sim", &["tether-wire", "tether-presence"]),
    (
        "tether-net",
        &["tether-wire", "tether-presence", "tether-telemetry"],
    ),
    ("tether-artifact-store", &["tether-wire"]),
    (
        "tether-worker",
        &[
            "tether-wire",
            "tether-net",
            "tether-telemetry",
            "tether-artifact-store",
        ],
    ),
    (
        "tether-orchestrator",
        &[
            "tether-wire",
            "tether-presence",
            "tether-net",
            "tether-telemetry",
            "tether-artifact-store",
        ],
    ),
    (
        "tether-gateway",
        &["tether-wire", "tether-net", "tether-telemetry"],
    ),
    (
        "tether-drill",
        &["tether-wire", "tether-net", "tether-telemetry"],
    ),
    (
        FUZZ,
        &[
            "tether-wire",
            "tether-presence",
            "tether-net",
            "tether-artifact-store",
            "tether-gateway",
            "tether-orchestrator",
            "tether-worker",
        ],
    ),
];
/// Gives every decoder bytes; it ships with nothing.
const FUZZ: &str = "tether-fuzz";
const ROLES: [&str; 3] = ["tether-gateway", "tether-orchestrator", "tether-worker"];
/// A crate's tests may also use the committed model.
const FOR_TESTS: &str = "tether-tiny-model";

/// Each of our crates, and those of ours that it imports: (name, whether for its tests only).
fn imports() -> BTreeMap<String, BTreeSet<(String, bool)>> {
    packages()
        .iter()
        .map(|package| {
            let imports = package["dependencies"]
                .as_array()
                .into_iter()
                .flatten()
                .filter(|dependency| text(dependency, "name").starts_with("tether"))
                .map(|dependency| {
                    let for_tests = text(dependency, "kind") == "dev";
                    (text(dependency, "name").to_owned(), for_tests)
                })
                .collect();
            (text(package, "name").to_owned(), imports)
        })
        .collect()
}

#[test]
fn imports_go_one_way() {
    let allowed: BTreeMap<_, _> = ALLOWED.iter().copied().collect();
    for (package, imports) in imports() {
        if package == "tether" {
            continue;
        }
        let allowed = allowed
            .get(package.as_str())
            .unwrap_or_else(|| panic!("{package} has no place in ARCHITECTURE.md yet"));
        for (import, for_tests) in imports {
            let fine = allowed.contains(&import.as_str())
                || import == package
                || (for_tests && import == FOR_TESTS);
            assert!(fine, "{package} imports {import}. {}", invariant(1));
        }
    }
}

#[test]
fn roles_meet_on_the_wire_only() {
    for (package, imports) in imports() {
        for (import, _) in imports {
            let sees_all = ["tether", FUZZ].contains(&package.as_str());
            let fine = sees_all || package == import || !ROLES.contains(&import.as_str());
            assert!(fine, "{package} imports {import}. {}", invariant(2));
        }
    }
}

#[test]
fn the_wire_has_no_runtime() {
    let packages = packages();
    let wire = packages
        .iter()
        .find(|package| text(package, "name") == "tether-wire")
        .expect("the wire");
    for dependency in wire["dependencies"].as_array().into_iter().flatten() {
        let name = text(dependency, "name");
        let runtime = [
            "tokio",
            "futures",
            "async",
            "iroh",
            "quinn",
            "rand",
            "getrandom",
        ];
        assert!(
            !runtime.iter().any(|start| name.starts_with(start)),
            "wire imports {name}. {}",
            invariant(3)
        );
    }
}

#[test]
fn lints_of_the_workspace_hold_in_every_crate_and_unsafe_is_forbidden() {
    assert!(read("Cargo.toml").contains("unsafe_code = \"forbid\""));
    for package in packages() {
        let manifest = text(&package, "manifest_path");
        let own = std::fs::read_to_string(manifest).expect("its manifest");
        assert!(
            own.contains("[lints]\nworkspace = true"),
            "{manifest}: {}",
            invariant(8)
        );
        for target in package["targets"].as_array().into_iter().flatten() {
            let path = Path::new(text(target, "src_path"));
            let from_root = path.strip_prefix(root()).unwrap_or(path);
            let ships = target["kind"]
                .as_array()
                .into_iter()
                .flatten()
                .any(|kind| matches!(kind.as_str(), Some("lib" | "bin")));
            if ships {
                assert!(
                    read(from_root).contains("#![forbid(unsafe_code)]"),
                    "{}: {}",
                    from_root.display(),
                    invariant(8)
                );
            }
        }
    }
}
