//! Time on the core, resident memory, bare verification.

use anyhow::Context;
use ed25519_dalek::{Signature, VerifyingKey};
use rustix::thread::{CpuSet, sched_getcpu, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;
use tether_wire::envelope::HEADER_LEN;
use tether_wire::{Beat, MeshId, Signable};

/// Holds this thread, and those that it starts, to the core that it is on.
pub(super) fn stay_on_one_core() -> anyhow::Result<()> {
    let mut this = CpuSet::new();
    this.set(sched_getcpu());
    sched_setaffinity(None, &this).context("this thread cannot be held to one core")
}

/// The time that this process was on a core, with all its threads.
pub(super) fn time_on_core() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Resident memory of this process, in bytes.
pub(super) fn resident_bytes() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status").context("needs Linux")?;
    let kib = (status.lines())
        .find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next())
        .context("the system does not tell resident memory")?;
    Ok(kib.parse::<u64>()? * 1_024)
}

/// A signature ready to be verified by the bare primitive.
pub(super) struct Bare {
    key: [u8; 32],
    signature: [u8; 64],
    message: Vec<u8>,
}

impl Bare {
    /// The signature of a sealed beat.
    pub(super) fn of(sealed: &[u8], mesh: &MeshId) -> anyhow::Result<Self> {
        let (head, body) = (sealed.split_at_checked(HEADER_LEN)).context("an envelope")?;
        let mut message = Beat::DOMAIN.as_bytes().to_vec();
        message.push(0);
        message.extend_from_slice(&mesh.0);
        message.extend_from_slice(body);
        Ok(Self {
            key: head[1..33].try_into()?,
            signature: head[33..].try_into()?,
            message,
        })
    }

    /// Verifies it strictly, from the bytes of key and signature.
    pub(super) fn verify(&self) -> bool {
        let signature = Signature::from_bytes(&self.signature);
        VerifyingKey::from_bytes(&self.key)
            .is_ok_and(|key| key.verify_strict(&self.message, &signature).is_ok())
    }
}

/// The value below which so many percent of the samples are.
pub(super) fn percentile(samples: &mut [f64], percent: usize) -> f64 {
    samples.sort_unstable_by(f64::total_cmp);
    let at = samples.len().saturating_sub(1) * percent / 100;
    samples.get(at).copied().unwrap_or(f64::NAN)
}
