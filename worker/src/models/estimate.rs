//! How much memory one process of a model will take. Pure. (WRK-5)
//!
//! ```text
//! weights × factor + cache + BASE
//! cache = cache_width × 4 bytes × min(context, CACHE_TOKENS)
//! ```
//!
//! * *factor* is 1.1 for GGUF, which stays as it is in the file, and 2.1 for safetensors, which are
//!   mostly of 16 bits and computed with in 32.
//! * `cache_width` is said by the manifest, since the worker reads no model's files; where it is not, the
//!   cache counts as a quarter of the weights.
//! * An adapter's files count as weights of its base.
//! * One sequence, since the engine gives one answer at a time, of at most [`CACHE_TOKENS`]: the
//!   cache grows as it is used, and few prompts fill a context of 128k.
//!
//! On an accelerator the weights are computed with as wide as they are in the file, so that the factor is
//! 1.1 for all; weights, cache and [`ACCELERATOR_BASE_BYTES`] are taken of its memory, and BASE of the
//! machine's.
//!
//! From the first load on, what was seen takes the place of the guess: the resident size after the
//! load in that of weights, factor and base. Of an accelerator's memory nothing is seen for a process
//! alone: there the guess stays.
//!
//! The most that was seen, and a twentieth, is certain only since the model was loaded. What was seen
//! before may have been one request that made the engine grow to its limit, and would otherwise keep
//! the model from being loaded for ever. So it is remembered as what the model may come to, the pool
//! counts it as far as there is room ([`Room::most`]), and each load takes half of what it was above
//! the resident size then: a peak that belongs to the model is seen again, one that does not is gone
//! after a few loads.

use crate::models::pool::{Amount, Mib, Room};
use serde::{Deserialize, Serialize};
use tether_wire::Manifest;
use tether_wire::manifest::Format;

/// An engine without a model, and room for what it computes with.
const BASE_BYTES: u64 = 96 * 1024 * 1024;
/// What a process takes of an accelerator before it has a model: its context and its kernels.
const ACCELERATOR_BASE_BYTES: u64 = 768 * 1024 * 1024;
/// Tokens of a cache that are counted on.
pub(crate) const CACHE_TOKENS: u64 = 8_192;
/// Caches are kept in 32 bits.
const CACHE_VALUE_BYTES: u64 = 4;

/// What was seen of a process of a model's engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Seen {
    /// Resident size when the model was loaded.
    pub(crate) loaded_bytes: u64,
    /// The most since then, and over all runs what is left of it.
    pub(crate) peak_bytes: u64,
}

/// Where a model is to be loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Into the machine's memory.
    Machine {
        /// Computed by its processors, in 32 bits.
        is_cpu: bool,
    },
    /// Into that of an accelerator, as the pool counts devices.
    Accelerator(usize),
}

/// Bytes of an artifact's files.
pub(crate) fn bytes_of(manifest: &Manifest) -> u64 {
    let sizes = manifest.files.iter().map(|file| file.size_bytes);
    sizes.fold(0, u64::saturating_add)
}

/// What is known of a model before it is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    weights_bytes: u64,
    factor_tenths: u64,
    cache_bytes: u64,
    /// The accelerator that it is on, as the pool counts devices.
    accelerator: Option<usize>,
}

impl Size {
    /// By the manifest, and where it is to be loaded.
    pub(crate) fn of(manifest: &Manifest, place: Place) -> Self {
        let weights_bytes = bytes_of(manifest);
        let tokens = u64::from(manifest.context_tokens).min(CACHE_TOKENS);
        let cache_bytes = manifest.cache_width.map_or(weights_bytes / 4, |width| {
            u64::from(width) * CACHE_VALUE_BYTES * tokens
        });
        Self {
            weights_bytes,
            factor_tenths: match (manifest.format, place) {
                (Format::Safetensors | Format::Unknown, Place::Machine { is_cpu: true }) => 21,
                _ => 11,
            },
            cache_bytes,
            accelerator: match place {
                Place::Machine { .. } => None,
                Place::Accelerator(device) => Some(device),
            },
        }
    }

    /// The same with an adapter, which is there in full until it is added to its base.
    pub(crate) fn with(mut self, adapter: Option<&Manifest>) -> Self {
        let bytes = adapter.map_or(0, bytes_of);
        self.weights_bytes = self.weights_bytes.saturating_add(bytes);
        self
    }

    /// The estimate, and how it came about. `peak_bytes` is the most that was seen since the model was
    /// loaded.
    pub(crate) fn memory(&self, seen: Option<Seen>, peak_bytes: u64) -> (Room, String) {
        let Some(device) = self.accelerator else {
            let (bytes, how) = self.bytes(seen);
            return (room(bytes, seen, peak_bytes, Amount::from), how);
        };
        let base = ACCELERATOR_BASE_BYTES;
        let bytes = self.loaded_bytes().saturating_add(self.cache_bytes);
        let machine = seen.map_or(BASE_BYTES, |seen| seen.loaded_bytes);
        let how = format!(
            "{} of weights as loaded, {} of cache, {} for the engine",
            Mib(self.loaded_bytes()),
            Mib(self.cache_bytes),
            Mib(base)
        );
        let of = |machine| Amount::from(machine).with(device, bytes.saturating_add(base));
        (room(machine, seen, peak_bytes, of), how)
    }

    fn loaded_bytes(&self) -> u64 {
        self.weights_bytes.saturating_mul(self.factor_tenths) / 10
    }

    fn bytes(&self, seen: Option<Seen>) -> (u64, String) {
        let cache = self.cache_bytes;
        match seen {
            Some(seen) => {
                let how = format!(
                    "{} seen when it was loaded and {} of cache",
                    Mib(seen.loaded_bytes),
                    Mib(cache),
                );
                (seen.loaded_bytes.saturating_add(cache), how)
            }
            None => {
                let weights = self.loaded_bytes();
                let bytes = weights.saturating_add(cache).saturating_add(BASE_BYTES);
                let how = format!(
                    "{} of weights as loaded, {} of cache, {} for the engine",
                    Mib(weights),
                    Mib(cache),
                    Mib(BASE_BYTES)
                );
                (bytes, how)
            }
        }
    }
}

/// What is certain, where loading takes so much of the machine, and what it may come to.
fn room(load: u64, seen: Option<Seen>, peak_bytes: u64, of: impl Fn(u64) -> Amount) -> Room {
    let least = load.max(with_spare(peak_bytes));
    let once = seen.map_or(0, |seen| with_spare(seen.peak_bytes));
    Room {
        least: of(least),
        most: of(least.max(once)),
    }
}

fn with_spare(peak: u64) -> u64 {
    peak.saturating_add(peak / 20)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tether_wire::Digest;
    use tether_wire::manifest::FileEntry;

    const MIB: u64 = 1024 * 1024;

    #[test]
    fn what_was_seen_takes_the_place_of_the_guess() {
        let size = Size {
            weights_bytes: 1_000 * MIB,
            factor_tenths: 11,
            cache_bytes: 100 * MIB,
            accelerator: None,
        };
        let (bytes, how) = size.bytes(None);
        assert_eq!(bytes, (1_100 + 100 + 96) * MIB);
        assert!(how.contains("1100 MiB of weights"), "{how}");
        let seen = |loaded, peak| Seen {
            loaded_bytes: loaded * MIB,
            peak_bytes: peak * MIB,
        };
        let room = |peak, now: u64| {
            let room = size.memory(Some(seen(900, peak)), now * MIB).0;
            (room.least.total() / MIB, room.most.total() / MIB)
        };
        assert_eq!(room(950, 0), (1_000, 1_000));
        assert_eq!(room(2_000, 0), (1_000, 2_100), "it was once");
        assert_eq!(room(2_000, 1_800), (1_890, 2_100), "it is now");
        assert_eq!(room(2_000, 2_000), (2_100, 2_100));
    }

    #[test]
    fn a_model_on_an_accelerator_takes_of_both_and_only_the_machines_part_is_seen() {
        let size = Size {
            weights_bytes: 1_000 * MIB,
            factor_tenths: 11,
            cache_bytes: 100 * MIB,
            accelerator: Some(2),
        };
        let expected = |machine| Amount::from(machine * MIB).with(2, (1_100 + 100 + 768) * MIB);
        assert_eq!(size.memory(None, 0).0, expected(96).into());
        let seen = Seen {
            loaded_bytes: 300 * MIB,
            peak_bytes: 400 * MIB,
        };
        let room = size.memory(Some(seen), 0).0;
        assert_eq!((room.least, room.most), (expected(300), expected(420)));
    }

    #[test]
    fn an_adapter_counts_as_weights_of_its_base() {
        let manifest = |bytes, cache_width| Manifest {
            model: "m@1.0".parse().expect("valid"),
            format: Format::Safetensors,
            weights: "w".to_owned(),
            tokenizer: None,
            files: vec![FileEntry {
                path: "w".to_owned(),
                size_bytes: bytes,
                digest: Digest([1; 32]),
            }],
            context_tokens: 1_024,
            licence: None,
            base_model: None,
            base_digest: None,
            cache_width,
            adapters: Vec::new(),
            created_ms: 0,
        };
        let (base, adapter) = (manifest(100 * MIB, Some(1_024)), manifest(10 * MIB, None));
        let place = Place::Machine { is_cpu: true };
        let of = |adapter| {
            let size = Size::of(&base, place).with(adapter);
            size.memory(None, 0).0.most.total()
        };
        let (alone, both) = (of(None), of(Some(&adapter)));
        assert_eq!(both - alone, 21 * MIB, "and no cache of its own");
    }
}
