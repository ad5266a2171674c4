//! What a worker knows about its machine. (WRK-1, WRK-6)
//!
//! Looked at every two seconds, by a thread that may block: processors and memory through the
//! system, accelerators through NVML where its library is. A machine beyond a threshold of
//! `[worker.shed]` is *strained*: the worker takes nothing new and says why.
//!
//! * `look` – one look, at the system and at accelerators
//! * `nvml` – accelerators of NVIDIA; the one place that knows `nvml_wrapper`
//! * [`strain`] – when a machine has too much to do. Pure

mod look;
mod nvml;
pub mod strain;

use crate::config::WorkerConfig;
use look::{Eyes, NoGpus};
pub use look::{GpuReading, Gpus, Reading};
use std::sync::Arc;
use std::time::Duration;
use strain::{Strain, Thresholds};
use tether_telemetry::metrics::WorkerMetrics;
use tether_wire::beat::Vitals;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

const MIB_IN_GIB: u64 = 1_024;
/// How often the machine is looked at.
pub const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// Longest class of an accelerator, as in a card.
const MAX_CLASS_BYTES: usize = 32;

/// What a card says about the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Class of its accelerator.
    pub gpu_class: String,
    /// Number of accelerators.
    pub accelerators: u32,
    /// Memory for models, in GiB.
    pub memory_gib: u32,
}

impl Machine {
    /// As configured, and found where nothing is configured. Accelerators that were found count only
    /// where something of this worker uses them: a model on one of them, or a server beside it.
    #[must_use]
    pub fn of(config: &WorkerConfig, found: &Reading) -> Self {
        let is_unset = config.accelerators == 0 && config.gpu_class == "cpu";
        let uses_gpus = !config.servers.is_empty() || !config.accelerators().is_empty();
        let gpus = if is_unset && uses_gpus {
            found.gpus.as_slice()
        } else {
            &[]
        };
        let mib = match gpus {
            [] => found.memory_total_mib,
            gpus => gpus.iter().map(|gpu| gpu.memory_total_mib).sum(),
        };
        Self {
            gpu_class: match gpus.first() {
                Some(gpu) => gpu.class(),
                None => config.gpu_class.clone(),
            },
            accelerators: match gpus.len() {
                0 => config.accelerators,
                count => u32::try_from(count).unwrap_or(u32::MAX),
            },
            memory_gib: match config.memory_gib {
                0 => u32::try_from(mib / MIB_IN_GIB).unwrap_or(u32::MAX),
                configured => configured,
            },
        }
    }
}

/// Memory of this machine, or of its container.
pub(crate) fn memory_total_mib() -> u64 {
    Eyes::new(Box::new(NoGpus)).look().memory_total_mib
}

fn class_of(name: &str) -> String {
    let lower = name.to_lowercase();
    let words = lower
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !["", "nvidia", "geforce", "tesla"].contains(word));
    let mut class = String::new();
    for word in words {
        let gap = usize::from(!class.is_empty());
        if class.len() + gap + word.len() > MAX_CLASS_BYTES {
            break;
        }
        if gap > 0 {
            class.push('-');
        }
        class.push_str(word);
    }
    if class.is_empty() {
        "gpu".to_owned()
    } else {
        class
    }
}

/// The health of the machine, as it changes, until it is dropped.
#[derive(Debug)]
pub(crate) struct Health {
    reading: watch::Receiver<Reading>,
    strain: watch::Receiver<Option<Strain>>,
    _task: AbortOnDropHandle<()>,
}

impl Health {
    /// Looks once, and from then on every [`LOOK_INTERVAL`].
    pub(crate) async fn start(thresholds: Thresholds, metrics: Arc<WorkerMetrics>) -> Self {
        let opened = tokio::task::spawn_blocking(|| {
            let gpus: Box<dyn Gpus> = match nvml::open() {
                Some(nvml) => Box::new(nvml),
                None => Box::new(NoGpus),
            };
            Eyes::new(gpus)
        });
        match opened.await {
            Ok(eyes) => Self::watch(eyes, thresholds, metrics).await,
            // Only when the runtime ends.
            Err(_) => Self::watch(Eyes::new(Box::new(NoGpus)), thresholds, metrics).await,
        }
    }

    async fn watch(eyes: Eyes, thresholds: Thresholds, metrics: Arc<WorkerMetrics>) -> Self {
        let (eyes, first) = look(eyes).await;
        let (reading_sender, reading) = watch::channel(first.clone());
        let (strain_sender, strain) = watch::channel(thresholds.judge(&first, None));
        let task = async move {
            let mut eyes = eyes;
            loop {
                tell(&metrics, &reading_sender.borrow());
                tokio::time::sleep(LOOK_INTERVAL).await;
                let Some(open) = eyes else { return };
                let (again, now) = look(open).await;
                eyes = again;
                strain_sender.send_if_modified(|strain| {
                    let judged = thresholds.judge(&now, strain.as_ref());
                    let is_new =
                        judged.as_ref().map(|it| it.code) != strain.as_ref().map(|it| it.code);
                    if is_new {
                        match &judged {
                            Some(strain) => tracing::warn!(
                                code = strain.code,
                                reason = strain.reason,
                                "the machine has too much to do: nothing new is taken"
                            ),
                            None => tracing::info!("the machine has room again"),
                        }
                        *strain = judged;
                    }
                    is_new
                });
                reading_sender.send_replace(now);
            }
        };
        Self {
            reading,
            strain,
            _task: AbortOnDropHandle::new(tokio::spawn(task)),
        }
    }

    pub(crate) fn reading(&self) -> Reading {
        self.reading.borrow().clone()
    }

    pub(crate) fn vitals(&self) -> Vitals {
        self.reading.borrow().vitals()
    }

    pub(crate) fn strain(&self) -> watch::Receiver<Option<Strain>> {
        self.strain.clone()
    }
}

/// Off the async threads; the eyes are lost only when looking panics.
async fn look(mut eyes: Eyes) -> (Option<Eyes>, Reading) {
    let looked = tokio::task::spawn_blocking(move || {
        let reading = eyes.look();
        (eyes, reading)
    });
    match looked.await {
        Ok((eyes, reading)) => (Some(eyes), reading),
        Err(error) => {
            tracing::error!(%error, "the machine's health is not known any more");
            (None, Reading::default())
        }
    }
}

fn tell(metrics: &WorkerMetrics, reading: &Reading) {
    let vitals = reading.vitals();
    metrics.machine(vitals.cpu_pct, reading.memory_free_mib);
    if let (Some(pct), Some(_)) = (vitals.gpu_pct, vitals.gpu_memory_free_mib) {
        metrics.accelerators(pct, reading.gpu_memory_free_mib().unwrap_or(0));
    }
}

#[cfg(test)]
mod tests;
