//! Accelerators of NVIDIA, through the library of their driver, which is loaded when it is there.

use super::look::{GpuReading, Gpus};
use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;
use std::ffi::OsStr;

/// Names of the library: with a driver alone only the second is there.
const LIBRARIES: [&str; 2] = ["libnvidia-ml.so", "libnvidia-ml.so.1"];
/// Most accelerators that are looked at.
const MAX_GPUS: u32 = 64;
const BYTES_IN_MIB: u64 = 1_024 * 1_024;

/// The library, open.
#[derive(Debug)]
pub(super) struct NvmlGpus(Nvml);

/// Opens the library; a machine without it has no such accelerators, and that is no error.
pub(super) fn open() -> Option<NvmlGpus> {
    let opened = LIBRARIES
        .iter()
        .find_map(|name| Nvml::builder().lib_path(OsStr::new(name)).init().ok())?;
    tracing::info!(driver = opened.sys_driver_version().ok(), "NVML is there");
    Some(NvmlGpus(opened))
}

impl Gpus for NvmlGpus {
    fn look(&mut self) -> Vec<GpuReading> {
        let count = self.0.device_count().unwrap_or(0).min(MAX_GPUS);
        (0..count)
            .filter_map(|index| self.one(index).ok())
            .collect()
    }
}

impl NvmlGpus {
    fn one(&self, index: u32) -> Result<GpuReading, NvmlError> {
        let device = self.0.device_by_index(index)?;
        let memory = device.memory_info()?;
        // A part of an accelerator (MIG) does not say how busy it is.
        let busy = device
            .utilization_rates()
            .ok()
            .map(|rates| rates.gpu.min(100));
        Ok(GpuReading {
            name: device.name()?,
            memory_total_mib: memory.total / BYTES_IN_MIB,
            memory_free_mib: memory.free / BYTES_IN_MIB,
            busy_pct: busy.and_then(|busy| u8::try_from(busy).ok()),
        })
    }
}
