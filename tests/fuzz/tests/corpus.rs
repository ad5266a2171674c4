//! The committed corpus through every target: valid seeds are accepted, and what was found once
//! stays mended. Runs without a fuzzer, so in every run of the tests.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Once;
use tether_fuzz::seeds::{self, folder};
use tether_fuzz::{TARGETS, Verdict, targets};

/// Most bytes of a seed, and most files of a target: the corpus is read in every run of the tests.
const MAX_SEED_BYTES: usize = 64 * 1024;
const MAX_FILES: usize = 100;
/// What `TETHER_BLESS=1` leaves alone begins so: inputs that brought something down once.
const FOUND: &str = "found-";

/// The committed files of a target: name, bytes. `TETHER_BLESS=1` writes the seeds first.
fn committed(target: &str) -> Vec<(String, Vec<u8>)> {
    static BLESSED: Once = Once::new();
    if std::env::var_os("TETHER_BLESS").is_some_and(|value| value == "1") {
        BLESSED.call_once(bless);
    }
    files(target)
}

fn files(target: &str) -> Vec<(String, Vec<u8>)> {
    let files = fs::read_dir(folder(target)).into_iter().flatten().flatten();
    let mut files: Vec<_> = files
        .map(|file| {
            let bytes = fs::read(file.path()).expect("a file of the corpus");
            (file.file_name().to_string_lossy().into_owned(), bytes)
        })
        .collect();
    files.sort();
    files
}

fn bless() {
    for target in TARGETS {
        let folder = folder(target.name);
        fs::create_dir_all(&folder).expect("a folder");
        for (name, _) in files(target.name) {
            if !name.starts_with(FOUND) {
                fs::remove_file(folder.join(name)).expect("removed");
            }
        }
        for seed in (target.seeds)() {
            fs::write(folder.join(seed.name), seed.bytes).expect("written");
        }
    }
}

#[test]
fn every_input_of_the_corpus_keeps_the_promises_of_its_target() {
    for target in TARGETS {
        let files = committed(target.name);
        let names: BTreeSet<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
        for seed in (target.seeds)() {
            assert!(
                names.contains(seed.name.as_str()),
                "{} has no seed {}: TETHER_BLESS=1 cargo test -p tether-fuzz writes them",
                target.name,
                seed.name
            );
        }
        assert!(files.len() <= MAX_FILES, "{} has too many", target.name);
        let mut accepted = 0;
        for (name, bytes) in &files {
            assert!(bytes.len() <= MAX_SEED_BYTES, "{}/{name}", target.name);
            // Named before it is run, so that a panic has its name above it.
            println!("{}/{name}", target.name);
            accepted += usize::from((target.run)(bytes) == Verdict::Accepted);
        }
        assert!(
            accepted > 0,
            "{} accepts none of its seeds, so they lead nowhere: TETHER_BLESS=1 cargo test -p \
             tether-fuzz writes them anew",
            target.name
        );
    }
}

#[test]
fn seeds_that_are_damaged_a_little_bring_nothing_down() {
    for target in TARGETS {
        for (name, bytes) in committed(target.name) {
            println!("{}/{name}, damaged", target.name);
            for step in 0..24 {
                let at = bytes.len() * step / 24;
                (target.run)(&bytes[..at]);
                let mut flipped = bytes.clone();
                if let Some(byte) = flipped.get_mut(at) {
                    *byte ^= 1 << (step % 8);
                }
                (target.run)(&flipped);
            }
        }
    }
}

#[test]
fn the_folders_of_the_corpus_are_the_targets() {
    let names: BTreeSet<String> = TARGETS.iter().map(|it| it.name.to_owned()).collect();
    let _ = committed(TARGETS[0].name);
    assert_eq!(names.len(), TARGETS.len(), "each name once");
    let corpus = fs::read_dir(seeds::root().join("tests/fuzz/corpus")).expect("the corpus");
    let folders: BTreeSet<String> = (corpus.flatten())
        .map(|folder| folder.file_name().to_string_lossy().into_owned())
        .collect();
    assert_eq!(folders, names);
    assert!(targets::target("nothing").is_none());
}
