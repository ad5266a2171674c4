//! One look at the machine.

use std::fmt;
use sysinfo::{CpuRefreshKind, MemoryRefreshKind, RefreshKind, System};
use tether_wire::beat::Vitals;

const BYTES_IN_MIB: u64 = 1_024 * 1_024;

/// What was seen at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Use of the processors in percent, since the look before.
    pub cpu_pct: u8,
    /// Memory that is there: the machine's, or a container's share of it.
    pub memory_total_mib: u64,
    /// Memory that is free for more.
    pub memory_free_mib: u64,
    /// Its accelerators.
    pub gpus: Vec<GpuReading>,
}

/// What was seen of an accelerator.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GpuReading {
    /// Its name, as its driver has it.
    pub name: String,
    /// Its memory.
    pub memory_total_mib: u64,
    /// Its memory that is free.
    pub memory_free_mib: u64,
    /// Its use in percent, where it says.
    pub busy_pct: Option<u8>,
}

impl GpuReading {
    /// Its class: `NVIDIA H100 80GB HBM3` is of the class `h100-80gb-hbm3`.
    #[must_use]
    pub fn class(&self) -> String {
        super::class_of(&self.name)
    }
}

/// Looks at accelerators. May block for a moment.
pub trait Gpus: Send + fmt::Debug {
    /// What is there now; one that does not answer is left out.
    fn look(&mut self) -> Vec<GpuReading>;
}

/// A machine without accelerators.
#[derive(Debug)]
pub(super) struct NoGpus;

impl Gpus for NoGpus {
    fn look(&mut self) -> Vec<GpuReading> {
        Vec::new()
    }
}

impl Reading {
    /// Memory of all accelerators that is free; nothing without any.
    #[must_use]
    pub fn gpu_memory_free_mib(&self) -> Option<u64> {
        let free = self.gpus.iter().map(|gpu| gpu.memory_free_mib);
        (!self.gpus.is_empty()).then(|| free.sum())
    }

    /// As a beat says it.
    #[must_use]
    pub fn vitals(&self) -> Vitals {
        let mib = |mib: u64| u32::try_from(mib).unwrap_or(u32::MAX);
        let busy = || self.gpus.iter().filter_map(|gpu| gpu.busy_pct);
        let mean = busy()
            .map(u32::from)
            .sum::<u32>()
            .checked_div(u32::try_from(busy().count()).unwrap_or(u32::MAX));
        Vitals {
            cpu_pct: self.cpu_pct.min(100),
            memory_free_mib: mib(self.memory_free_mib),
            gpu_pct: mean.map(|mean| u8::try_from(mean.min(100)).unwrap_or(100)),
            gpu_memory_free_mib: self.gpu_memory_free_mib().map(mib),
        }
    }
}

/// What looks: use of processors is a difference between two looks.
#[derive(Debug)]
pub(super) struct Eyes {
    system: System,
    gpus: Box<dyn Gpus>,
}

impl Eyes {
    pub(super) fn new(gpus: Box<dyn Gpus>) -> Self {
        let kinds = RefreshKind::nothing()
            .with_cpu(CpuRefreshKind::nothing().with_cpu_usage())
            .with_memory(MemoryRefreshKind::nothing().with_ram());
        Self {
            system: System::new_with_specifics(kinds),
            gpus,
        }
    }

    pub(super) fn look(&mut self) -> Reading {
        let ram = MemoryRefreshKind::nothing().with_ram();
        self.system.refresh_memory_specifics(ram);
        self.system.refresh_cpu_usage();
        // A container's share counts, where there is one.
        let (total, free) = match self.system.cgroup_limits() {
            Some(limits) => (limits.total_memory, limits.free_memory),
            None => (u64::MAX, u64::MAX),
        };
        Reading {
            cpu_pct: percent(self.system.global_cpu_usage()),
            memory_total_mib: self.system.total_memory().min(total) / BYTES_IN_MIB,
            memory_free_mib: self.system.available_memory().min(free) / BYTES_IN_MIB,
            gpus: self.gpus.look(),
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "between 0 and 100"
)]
fn percent(usage: f32) -> u8 {
    usage.clamp(0.0, 100.0).round() as u8
}
