//! Where seeds come from: the golden vectors of the wire, which are valid bytes of each message, and
//! samples that are made here. `TETHER_BLESS=1 cargo test -p tether-fuzz` writes them.

use std::path::{Path, PathBuf};

/// One file of the corpus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seed {
    /// Its name, without folder.
    pub name: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

impl Seed {
    /// A seed that was made here.
    pub fn new(name: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            name: name.into(),
            bytes: bytes.into(),
        }
    }
}

/// The root of the repository.
#[must_use]
pub fn root() -> PathBuf {
    let package = std::env::var("CARGO_MANIFEST_DIR")
        .unwrap_or_else(|_| env!("CARGO_MANIFEST_DIR").to_owned());
    let root = Path::new(&package).ancestors().nth(2);
    root.expect("the package lies two folders deep").to_owned()
}

/// Folder of a target's committed corpus.
#[must_use]
pub fn folder(target: &str) -> PathBuf {
    root().join("tests/fuzz/corpus").join(target)
}

/// The golden vectors of the wire with these names.
pub(crate) fn golden(names: &[&str]) -> Vec<Seed> {
    let read = |name: &&str| {
        let path = root().join(format!("crates/wire/tests/golden/{name}.hex"));
        let text = std::fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let bytes = hex::decode(text.split_whitespace().collect::<String>());
        Seed::new(*name, bytes.expect("hex"))
    };
    names.iter().map(read).collect()
}

/// Golden envelopes, and their bodies beside them.
pub(crate) fn golden_sealed(names: &[&str]) -> Vec<Seed> {
    let mut seeds = golden(names);
    let bodies: Vec<Seed> = (seeds.iter())
        .map(|seed| {
            let body = &seed.bytes[tether_wire::envelope::HEADER_LEN..];
            Seed::new(format!("{}-body", seed.name), body)
        })
        .collect();
    seeds.extend(bodies);
    seeds
}
