//! The repository as these tests see it: its files, its documents, its packages.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Root of the repository.
pub(crate) fn root() -> PathBuf {
    // At run time, so that a checkout that was moved after the build still finds itself.
    let package = std::env::var("CARGO_MANIFEST_DIR")
        .unwrap_or_else(|_| env!("CARGO_MANIFEST_DIR").to_owned());
    Path::new(&package)
        .ancestors()
        .find(|dir| dir.join("topics.md").is_file())
        .expect("the package lies inside the repository")
        .to_owned()
}

/// A file's text, by its path from the root.
pub(crate) fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Paths from the root, with `/`, of all files under `dir` that have one of these extensions;
/// what builds and hidden folders leave behind is no part of the repository.
pub(crate) fn files(dir: &str, extensions: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    walk(&root().join(dir), extensions, &mut found);
    found.sort();
    found
}

fn walk(dir: &Path, extensions: &[&str], found: &mut Vec<String>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if path.is_dir() {
            if !name.starts_with('.') && name != "target" && name != "node_modules" {
                walk(&path, extensions, found);
            }
        } else if extensions
            .iter()
            .any(|extension| name.ends_with(&format!(".{extension}")))
        {
            let from_root = path.strip_prefix(root()).expect("it lies under the root");
            found.push(from_root.to_string_lossy().replace('\\', "/"));
        }
    }
}

/// Sources of our crates, without their tests: what ships.
pub(crate) fn shipped_sources() -> Vec<(String, String)> {
    files("", &["rs"])
        .into_iter()
        .filter(|path| !path.starts_with("tests/") && !path.contains("/tests/"))
        .map(|path| {
            let text = without_tests_and_comments(&read(&path));
            (path, text)
        })
        .collect()
}

/// Cuts unit tests, which stand last in a file, and comments.
fn without_tests_and_comments(text: &str) -> String {
    let code = text.split("\n#[cfg(test)]\nmod ").next().unwrap_or(text);
    code.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// The words of an invariant, to fail with.
pub(crate) fn invariant(number: u32) -> String {
    let mark = format!("- **[I-{number}]** ");
    read("ARCHITECTURE.md")
        .lines()
        .find_map(|line| line.strip_prefix(&mark).map(str::to_owned))
        .unwrap_or_else(|| panic!("ARCHITECTURE.md has no invariant [I-{number}]"))
}

/// What cargo says of the packages here; nothing where it cannot without the network.
pub(crate) fn metadata(arguments: &[&str]) -> Result<Value, String> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--offline"])
        .args(arguments)
        .current_dir(root())
        .output()
        .map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())
}

/// Our packages.
pub(crate) fn packages() -> Vec<Value> {
    let metadata = metadata(&["--no-deps"]).expect("cargo knows the packages of the workspace");
    metadata["packages"].as_array().expect("a list").clone()
}

/// A text field.
pub(crate) fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}
