//! When a machine has too much to do. Pure.
//!
//! A strain ends only when there is a tenth more room than it began at, so that a machine at its
//! threshold does not come and go with each look.

use super::look::Reading;
use serde::{Deserialize, Serialize};

/// Beyond what a machine is strained; 0 means never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Thresholds {
    /// Use of the processors in percent from which nothing new is taken. Inference on processors
    /// uses them fully: for machines that do other work as well, or whose models run on GPUs.
    pub cpu_pct: u8,
    /// Free memory in MiB below which nothing new is taken.
    pub memory_free_mib: u32,
    /// Free memory of accelerators in MiB below which nothing new is taken. Without any it means
    /// nothing.
    pub gpu_memory_free_mib: u32,
}

/// Too much to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Strain {
    /// A stable code.
    pub code: &'static str,
    /// For people.
    pub reason: String,
}

impl Thresholds {
    /// Whether a machine is strained; `before` is whether it was.
    #[must_use]
    pub fn judge(&self, now: &Reading, before: Option<&Strain>) -> Option<Strain> {
        let was = |code| before.is_some_and(|strain| strain.code == code);
        let strain = |code, reason| Some(Strain { code, reason });
        let code = "cpu-strained";
        let most = u16::from(self.cpu_pct);
        let most = if was(code) { most * 9 / 10 } else { most };
        if self.cpu_pct > 0 && u16::from(now.cpu_pct) >= most.max(1) {
            let reason = format!(
                "the processors are used to {} %, and the threshold is {} %",
                now.cpu_pct, self.cpu_pct
            );
            return strain(code, reason);
        }
        let short = |code, free: u64, least: u32| {
            let least = u64::from(least);
            free < if was(code) { least + least / 10 } else { least }
        };
        let code = "memory-strained";
        if short(code, now.memory_free_mib, self.memory_free_mib) {
            let reason = format!(
                "{} MiB of memory are free, and the threshold is {} MiB",
                now.memory_free_mib, self.memory_free_mib
            );
            return strain(code, reason);
        }
        let code = "gpu-memory-strained";
        let free = now.gpu_memory_free_mib()?;
        if short(code, free, self.gpu_memory_free_mib) {
            let reason = format!(
                "{free} MiB of the accelerators' memory are free, and the threshold is {} MiB",
                self.gpu_memory_free_mib
            );
            return strain(code, reason);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::GpuReading;

    fn reading(cpu_pct: u8, memory_free_mib: u64, gpu_free: Option<u64>) -> Reading {
        let gpus = gpu_free.map(|memory_free_mib| GpuReading {
            memory_free_mib,
            ..GpuReading::default()
        });
        Reading {
            cpu_pct,
            memory_free_mib,
            memory_total_mib: 9_999,
            gpus: gpus.into_iter().collect(),
        }
    }

    const ALL: Thresholds = Thresholds {
        cpu_pct: 90,
        memory_free_mib: 1_000,
        gpu_memory_free_mib: 500,
    };

    fn code(now: &Reading, before: Option<&Strain>) -> Option<&'static str> {
        ALL.judge(now, before).map(|strain| strain.code)
    }

    #[test]
    fn without_thresholds_nothing_is_too_much() {
        let worst = reading(100, 0, Some(0));
        assert_eq!(Thresholds::default().judge(&worst, None), None);
    }

    #[test]
    fn each_threshold_is_told_by_name() {
        assert_eq!(code(&reading(89, 1_000, Some(500)), None), None);
        assert_eq!(code(&reading(90, 1_000, None), None), Some("cpu-strained"));
        assert_eq!(code(&reading(0, 999, None), None), Some("memory-strained"));
        let gpu = reading(0, 1_000, Some(499));
        assert_eq!(code(&gpu, None), Some("gpu-memory-strained"));
        assert_eq!(code(&reading(0, 1_000, None), None), None, "no accelerator");
    }

    #[test]
    fn a_strain_ends_with_some_room_and_not_at_its_threshold() {
        let cpu = ALL.judge(&reading(95, 5_000, None), None);
        assert_eq!(
            code(&reading(85, 5_000, None), cpu.as_ref()),
            Some("cpu-strained")
        );
        assert_eq!(code(&reading(80, 5_000, None), cpu.as_ref()), None);
        let memory = ALL.judge(&reading(0, 10, None), None);
        let now = reading(0, 1_050, None);
        assert_eq!(code(&now, memory.as_ref()), Some("memory-strained"));
        assert_eq!(code(&reading(0, 1_100, None), memory.as_ref()), None);
    }
}
