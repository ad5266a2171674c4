//! What models were seen to take in one process, kept over restarts; and what there is for them.

use crate::config::WorkerConfig;
use crate::device::Device;
use crate::health::{GpuReading, memory_total_mib};
use crate::models::estimate::{Place, Seen};
use crate::models::pool::Amount;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tether_wire::Digest;

const FILE: &str = "models-seen.json";
const VERSION: u32 = 1;
/// Most models that are remembered; who configures more over the years has them measured again.
const MAX_SEEN: usize = 1_024;
/// Most bytes of the file.
const MAX_BYTES: u64 = 1024 * 1024;
const MIB: u64 = 1024 * 1024;

/// Memory for models: as configured, else three quarters of the machine's, or of its container's.
/// The rest is for the worker and whatever else runs there. Where `memory_gib` says how much an
/// accelerator has, all of that is for models.
pub(crate) fn budget_bytes(config: &WorkerConfig) -> u64 {
    match (config.memory_budget_mib, config.memory_gib) {
        (0, 0) => memory_total_mib().max(1_024) * MIB / 4 * 3,
        (0, gib) => u64::from(gib) * 1024 * MIB,
        (mib, _) => mib.saturating_mul(MIB),
    }
}

/// The budgets of the pool: the machine's, and of each of [`WorkerConfig::accelerators`] what is
/// configured, else nine tenths of what its driver says.
pub(crate) fn budgets(config: &WorkerConfig, found: &[GpuReading]) -> Amount {
    let of = |device: &Device| {
        let configured = config.devices.get(device);
        let configured = configured.map_or(0, |it| it.memory_budget_mib);
        let Device::Cuda(ordinal) = *device else {
            return configured.saturating_mul(MIB);
        };
        let gpu = found.get(usize::try_from(ordinal).unwrap_or(usize::MAX));
        match (configured, gpu) {
            (0, Some(gpu)) => gpu.memory_total_mib.saturating_mul(MIB) / 10 * 9,
            (0, None) => {
                tracing::error!(
                    "NVML does not say how much memory {device} has, so nothing is loaded there: \
                     set worker.devices.\"{device}\".memory_budget_mib"
                );
                0
            }
            (mib, _) => mib.saturating_mul(MIB),
        }
    };
    Amount::new(budget_bytes(config), config.accelerators().iter().map(of))
}

/// Where the pool counts a model of this device.
pub(crate) fn place(config: &WorkerConfig, device: Device) -> Place {
    let at = config.accelerators().iter().position(|it| *it == device);
    match at {
        Some(at) => Place::Accelerator(at + 1),
        None => Place::Machine {
            is_cpu: device == Device::Cpu,
        },
    }
}

/// What was seen of models. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Memory(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    seen: Mutex<BTreeMap<Digest, Seen>>,
}

#[derive(Default, Serialize, Deserialize)]
struct Record {
    version: u32,
    models: BTreeMap<String, Seen>,
}

impl Memory {
    /// What was kept in the data folder. What cannot be read is seen again.
    pub(crate) fn open(data_dir: &Path) -> Self {
        let path = data_dir.join(FILE);
        let small = std::fs::metadata(&path).is_ok_and(|it| it.len() <= MAX_BYTES);
        let text = if small {
            std::fs::read(&path).unwrap_or_default()
        } else {
            Vec::new()
        };
        let record: Record = serde_json::from_slice(&text).unwrap_or_default();
        let models = record
            .models
            .into_iter()
            .filter(|_| record.version == VERSION);
        let seen = models.filter_map(|(digest, seen)| Some((digest.parse().ok()?, seen)));
        Self(Arc::new(Inner {
            path,
            seen: Mutex::new(seen.take(MAX_SEEN).collect()),
        }))
    }

    pub(crate) fn seen(&self, digest: &Digest) -> Option<Seen> {
        self.with(|seen| seen.get(digest).copied())
    }

    /// A model was just loaded. See [`crate::models::estimate`] for what becomes of its peak.
    pub(crate) fn loaded(&self, digest: Digest, bytes: u64) {
        self.note(digest, |seen| {
            seen.loaded_bytes = bytes;
            seen.peak_bytes = bytes + seen.peak_bytes.saturating_sub(bytes) / 2;
        });
    }

    /// A model has so much now. Whether that is more than before by what matters.
    pub(crate) fn grew(&self, digest: &Digest, bytes: u64) -> bool {
        let peak = self.seen(digest).map_or(0, |seen| seen.peak_bytes);
        let is_more = is_more(bytes, peak);
        if is_more {
            self.note(*digest, |seen| seen.peak_bytes = bytes);
        }
        is_more
    }

    fn note(&self, digest: Digest, change: impl FnOnce(&mut Seen)) {
        self.with(|all| {
            if all.len() >= MAX_SEEN && !all.contains_key(&digest) {
                all.pop_first();
            }
            change(all.entry(digest).or_default());
            let models = all.iter().map(|(digest, seen)| (digest.to_string(), *seen));
            let record = Record {
                version: VERSION,
                models: models.collect(),
            };
            let text = serde_json::to_vec_pretty(&record).unwrap_or_default();
            // What is lost is seen again.
            if let Err(error) = replace(&self.0.path, &text) {
                let path = self.0.path.display();
                tracing::warn!(%path, %error, "what models take of memory is not kept");
            }
        });
    }

    fn with<T>(&self, look: impl FnOnce(&mut BTreeMap<Digest, Seen>) -> T) -> T {
        look(&mut self.0.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Whether it is more than before by what matters.
pub(crate) fn is_more(bytes: u64, before: u64) -> bool {
    bytes > before.saturating_add(before / 50)
}

fn replace(path: &Path, text: &[u8]) -> std::io::Result<()> {
    let new = path.with_extension("new");
    std::fs::write(&new, text)?;
    std::fs::rename(new, path)
}

/// Of several processes, what the largest has in memory; nothing where the system does not say.
pub(crate) fn most_resident(pids: &[u32]) -> Option<u64> {
    pids.iter().filter_map(|pid| resident_bytes(*pid)).max()
}

/// What of a process is in memory and nowhere else: pages of files can be dropped, and are shared.
#[cfg(target_os = "linux")]
pub(crate) fn resident_bytes(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let kib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    Some((kib("RssAnon:")? + kib("RssShmem:")?) * 1024)
}

/// Not known here.
#[cfg(not(target_os = "linux"))]
pub(crate) fn resident_bytes(_: u32) -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_is_kept_and_rubbish_is_not_believed() {
        let dir = tempfile::tempdir().expect("tempdir");
        let digest = Digest([1; 32]);
        let memory = Memory::open(dir.path());
        memory.loaded(digest, 100 * MIB);
        assert!(memory.grew(&digest, 110 * MIB));
        assert!(!memory.grew(&digest, 111 * MIB), "too little to matter");
        let seen = Memory::open(dir.path()).seen(&digest).expect("kept");
        assert_eq!((seen.loaded_bytes, seen.peak_bytes), (100 * MIB, 110 * MIB));
        std::fs::write(dir.path().join(FILE), "{").expect("written");
        assert_eq!(Memory::open(dir.path()).seen(&digest), None);
    }

    #[test]
    fn a_peak_that_is_not_seen_again_is_forgotten_load_by_load() {
        let dir = tempfile::tempdir().expect("tempdir");
        let digest = Digest([1; 32]);
        let memory = Memory::open(dir.path());
        memory.loaded(digest, 20 * MIB);
        assert!(memory.grew(&digest, 2_020 * MIB));
        let peaks = [1_020, 520, 270].map(|peak| {
            memory.loaded(digest, 20 * MIB);
            (memory.seen(&digest).expect("seen").peak_bytes, peak * MIB)
        });
        assert!(peaks.iter().all(|(is, should)| is == should), "{peaks:?}");
        for _ in 0..30 {
            memory.loaded(digest, 20 * MIB);
        }
        assert_eq!(memory.seen(&digest).expect("seen").peak_bytes, 20 * MIB);
        // One that is real comes back.
        assert!(memory.grew(&digest, 100 * MIB));
    }

    #[test]
    fn a_configured_budget_wins() {
        let mut config = WorkerConfig {
            memory_gib: 80,
            ..WorkerConfig::default()
        };
        assert_eq!(budget_bytes(&config), 80 * 1024 * MIB);
        config.memory_budget_mib = 512;
        assert_eq!(budget_bytes(&config), 512 * MIB);
        assert!(budget_bytes(&WorkerConfig::default()) > 0);
    }

    #[test]
    fn an_accelerators_budget_is_configured_or_most_of_what_it_has() {
        let json = r#"{"memory_budget_mib": 10, "engine": {"device": "cuda:1"},
            "devices": {"cuda:0": {"memory_budget_mib": 20}},
            "models": [{"path": "a"}, {"path": "b", "device": "cuda:5"}]}"#;
        let config: WorkerConfig = serde_json::from_str(json).expect("valid");
        let gpu = GpuReading {
            memory_total_mib: 100,
            ..GpuReading::default()
        };
        let budgets = budgets(&config, &[gpu.clone(), gpu]);
        assert_eq!(budgets, Amount::new(10 * MIB, [20 * MIB, 90 * MIB, 0]));
        assert_eq!(place(&config, Device::Cuda(1)), Place::Accelerator(2));
        assert_eq!(
            place(&config, Device::Metal),
            Place::Machine { is_cpu: false }
        );
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_is_in_memory() {
        assert!(resident_bytes(std::process::id()).is_some_and(|bytes| bytes > MIB));
    }
}
