//! Accelerators, their memory and who computes on them.

use super::{ConfigError, ModelConfig, WorkerConfig};
use crate::device::Device;
use serde::{Deserialize, Serialize};

/// Most sequences in one batch.
const MAX_SEQUENCES: u32 = 256;
/// Most MiB of one accelerator.
const MAX_MEMORY_MIB: u64 = 64 * 1024 * 1024;

/// `[worker.devices."cuda:0"]`: an accelerator.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DeviceConfig {
    /// Memory that loaded models may take of it together, in MiB; 0 means nine tenths of what its
    /// driver says that it has.
    pub memory_budget_mib: u64,
}

impl WorkerConfig {
    /// Where a model is computed.
    #[must_use]
    pub fn device_of(&self, model: &ModelConfig) -> Device {
        model.device.unwrap_or(self.engine.device)
    }

    /// Accelerators with memory of their own that models are computed on or that have a budget.
    #[must_use]
    pub fn accelerators(&self) -> Vec<Device> {
        let used = self.models.iter().map(|model| self.device_of(model));
        let named = self.devices.keys().copied();
        let mut all: Vec<Device> = used.chain(named).filter(|it| it.has_memory()).collect();
        all.sort();
        all.dedup();
        all
    }

    pub(super) fn check_devices(&self) -> Result<(), ConfigError> {
        let refuse = |field, why: String| Err(ConfigError { field, why });
        for (device, of_device) in &self.devices {
            if !device.has_memory() {
                let why = format!(
                    "has `{device}`, whose memory is the machine's: say `worker.memory_budget_mib`"
                );
                return refuse("devices", why);
            }
            if of_device.memory_budget_mib > MAX_MEMORY_MIB {
                let why = format!("gives `{device}` more than {MAX_MEMORY_MIB} MiB");
                return refuse("devices", why);
            }
        }
        let sequences = self.engine.sequences;
        if !(1..=MAX_SEQUENCES).contains(&sequences) {
            let why = format!("must be between 1 and {MAX_SEQUENCES}");
            return refuse("engine.sequences", why);
        }
        let mut devices = self.models.iter().map(|model| self.device_of(model));
        let on_cpu = self.engine.device == Device::Cpu || devices.any(|it| it == Device::Cpu);
        if sequences > 1 && on_cpu {
            let why =
                "must be 1 where models are computed on the `cpu`: the engine's kernel mixes \
                       the sequences of a batch there"
                    .to_owned();
            return refuse("engine.sequences", why);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(toml: &str) -> WorkerConfig {
        serde_json::from_str(toml).expect("valid")
    }

    #[test]
    fn a_model_is_where_it_says_or_where_all_are() {
        let config = config(
            r#"{"engine": {"device": "cuda:1"}, "devices": {"cuda:2": {"memory_budget_mib": 9}},
                "models": [{"path": "a"}, {"path": "b", "device": "cpu"}, {"path": "c", "device": "cuda:0"}]}"#,
        );
        let devices: Vec<_> = config
            .models
            .iter()
            .map(|it| config.device_of(it))
            .collect();
        assert_eq!(devices, [Device::Cuda(1), Device::Cpu, Device::Cuda(0)]);
        let accelerators = config.accelerators();
        assert_eq!(
            accelerators,
            [Device::Cuda(0), Device::Cuda(1), Device::Cuda(2)]
        );
    }

    #[test]
    fn what_devices_cannot_be_is_named() {
        for (wrong, part) in [
            (r#"{"devices": {"cpu": {}}}"#, "worker.memory_budget_mib"),
            (r#"{"devices": {"metal": {}}}"#, "the machine's"),
            (
                r#"{"devices": {"cuda:0": {"memory_budget_mib": 67108865}}}"#,
                "67108864",
            ),
            (r#"{"engine": {"sequences": 0}}"#, "worker.engine.sequences"),
            (
                r#"{"engine": {"sequences": 257, "device": "cuda:0"}}"#,
                "256",
            ),
            (r#"{"engine": {"sequences": 2}}"#, "mixes"),
        ] {
            let error = config(wrong).check_devices().expect_err(wrong).to_string();
            assert!(error.contains(part), "{error}");
        }
        let mixed =
            r#"{"engine": {"sequences": 2, "device": "cuda:0"}, "models": [{"device": "cpu"}]}"#;
        config(mixed)
            .check_devices()
            .expect_err("one of them is on the cpu");
        config(r#"{"engine": {"sequences": 2, "device": "cuda:0"}}"#)
            .check_devices()
            .expect("valid");
        assert!(serde_json::from_str::<WorkerConfig>(r#"{"engine": {"device": "gpu"}}"#).is_err());
    }
}
