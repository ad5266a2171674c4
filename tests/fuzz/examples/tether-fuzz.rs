//! The fuzzer: libFuzzer's `main`, on the target that `TETHER_FUZZ_TARGET` names. `ops/fuzz/run`
//! builds it with instrumentation and starts it.
#![no_main]
#![forbid(unsafe_code)]

use libfuzzer_sys::{Corpus, fuzz_target};
use std::sync::OnceLock;
use tether_fuzz::{Target, target};

static TARGET: OnceLock<&'static Target> = OnceLock::new();

/// The target that was asked for.
fn chosen() -> &'static Target {
    let name = std::env::var("TETHER_FUZZ_TARGET").unwrap_or_default();
    match target(&name) {
        Some(target) => target,
        None => panic!("TETHER_FUZZ_TARGET={name:?} is not a target: start ops/fuzz/run instead"),
    }
}

fuzz_target!(init: { TARGET.get_or_init(chosen); }, |bytes: &[u8]| -> Corpus {
    (TARGET.get_or_init(chosen).run)(bytes);
    // What is refused is kept too, where it covers something new.
    Corpus::Keep
});
