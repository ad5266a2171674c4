//! What keeps an engine's process from everything but its model: what may be demanded of it, and
//! what a process says that it has. (WRK-3)
//!
//! * [`Protection`] – what a provider may demand, by name
//! * [`Shield`] – one of them, as an engine's process found that it holds or does not
//! * [`SandboxConfig`] – `[worker.sandbox]`
//! * [`Confine`] – what an engine's process is told of it
//! * [`doctor`] – what this machine can enforce, found out by trying to escape
//!
//! The confinement itself is done by the engine's process (`engine::child::confine`).

pub mod doctor;

use crate::device::Device;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::{Component, Path, PathBuf};

/// Most devices that an engine may be let into.
const MAX_DEVICES: usize = 32;
/// Most further files and folders that an engine may read.
const MAX_READ: usize = 64;

/// Something that an engine's process is kept from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protection {
    /// It reaches no network, nor any socket on this machine.
    Network,
    /// It reads its model's files and a few of the system's, and writes none.
    Files,
    /// It calls only what an engine needs of the kernel.
    Syscalls,
    /// It has no capabilities and can gain none.
    Privileges,
    /// It starts no other process, and reaches none.
    Processes,
    /// Its memory is bounded by the kernel.
    Memory,
    /// Its open files and its core dumps are bounded, and it stands behind others for the processors.
    Limits,
}

impl Protection {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Network,
        Self::Files,
        Self::Syscalls,
        Self::Privileges,
        Self::Processes,
        Self::Memory,
        Self::Limits,
    ];

    /// Its name in the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Network => "network",
            Self::Files => "files",
            Self::Syscalls => "syscalls",
            Self::Privileges => "privileges",
            Self::Processes => "processes",
            Self::Memory => "memory",
            Self::Limits => "limits",
        }
    }
}

impl fmt::Display for Protection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What became of one protection in one process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shield {
    /// Which.
    pub protection: Protection,
    /// Whether it holds.
    pub enforced: bool,
    /// What enforces it; several things may, one inside the other.
    pub by: Vec<String>,
    /// What would as well, and why this machine does not have it.
    pub missing: Vec<String>,
}

impl Shield {
    /// Nothing enforces it.
    #[must_use]
    pub fn none(protection: Protection, why: &str) -> Self {
        Self {
            protection,
            enforced: false,
            by: Vec::new(),
            missing: vec![why.to_owned()],
        }
    }
}

/// What of `required` does not hold, with the reasons; nothing when all of it does.
#[must_use]
pub fn lacking(required: &[Protection], shields: &[Shield]) -> Option<String> {
    let mut lacking = Vec::new();
    for protection in required {
        match shields.iter().find(|it| it.protection == *protection) {
            Some(shield) if shield.enforced => {}
            Some(shield) => {
                lacking.push(format!("{protection} ({})", shield.missing.join("; ")));
            }
            None => lacking.push(format!("{protection} (its process did not say)")),
        }
    }
    (!lacking.is_empty()).then(|| {
        format!(
            "this machine cannot enforce what worker.sandbox.require demands: {}; `tether worker doctor` says more",
            lacking.join(", ")
        )
    })
}

/// `[worker.sandbox]`: what keeps engines in. Everything that the machine has is always used;
/// this says what must hold before a model is served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SandboxConfig {
    /// Protections without which no model is served: `network`, `files`, `syscalls`, `privileges`,
    /// `processes`, `memory`, `limits`. The default on Linux is all but `files`, which is what every
    /// kernel gives without being set up; elsewhere it is empty.
    pub require: Vec<Protection>,
    /// Further devices that engines may open, beneath `/dev`. Those of `engine.device` are let in by
    /// themselves. A device's driver is within reach of whoever takes over an engine.
    pub devices: Vec<PathBuf>,
    /// Further files and folders that engines may read, such as the libraries of a toolkit. Those of
    /// the driver of `engine.device` are let in by themselves.
    pub read: Vec<PathBuf>,
}

impl Default for SandboxConfig {
    fn default() -> Self {
        // `files` needs Landlock or user namespaces, which a container or an old kernel may lack.
        // The rest needs nothing but seccomp, so where it fails something is wrong, and a provider
        // should rather hear of it than serve half protected.
        let require = if cfg!(target_os = "linux") {
            let mut all = Protection::ALL.to_vec();
            all.retain(|it| *it != Protection::Files);
            all
        } else {
            Vec::new()
        };
        Self {
            require,
            devices: Vec::new(),
            read: Vec::new(),
        }
    }
}

impl SandboxConfig {
    /// Checks every setting; the one that cannot be, and why.
    ///
    /// # Errors
    /// The first setting that cannot be.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        let mut seen = Vec::new();
        for protection in &self.require {
            if seen.contains(protection) {
                return Err(("sandbox.require", format!("names `{protection}` twice")));
            }
            seen.push(*protection);
        }
        check_paths("sandbox.devices", &self.devices, MAX_DEVICES)?;
        let outside = self.devices.iter().find(|path| !path.starts_with("/dev"));
        if let Some(path) = outside {
            let why = format!("has `{}`, which is not beneath /dev", path.display());
            return Err(("sandbox.devices", why));
        }
        check_paths("sandbox.read", &self.read, MAX_READ)
    }
}

fn check_paths(
    field: &'static str,
    paths: &[PathBuf],
    most: usize,
) -> Result<(), (&'static str, String)> {
    if paths.len() > most {
        return Err((field, format!("has more than {most} entries")));
    }
    for path in paths {
        let is_plain = path.is_absolute()
            && path.components().count() > 1
            && !path.components().any(|it| it == Component::ParentDir);
        if !is_plain {
            let path = path.display();
            let why = format!("has `{path}`: give an absolute path without `..`, and not `/`");
            return Err((field, why));
        }
        if field == "sandbox.devices" && path == Path::new("/dev") {
            return Err((field, "has `/dev`: name single devices".to_owned()));
        }
    }
    Ok(())
}

/// What an engine's process is told about its own confinement.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Confine {
    /// Without these it must not load its model.
    pub require: Vec<Protection>,
    /// Devices that it may open.
    pub devices: Vec<PathBuf>,
    /// Further files and folders that it may read.
    pub read: Vec<PathBuf>,
    /// Most bytes of memory; 0 for no limit.
    pub memory_limit_bytes: u64,
    /// Whether the worker put it into a control group that bounds its memory.
    pub has_cgroup: bool,
    /// Why not, if not.
    pub no_cgroup: String,
    /// Where its processors begin, of those that the worker may use, where it is to keep to as many
    /// as it has threads; nothing means that it may use all of them.
    pub first_processor: Option<u32>,
}

impl Confine {
    /// As configured.
    #[must_use]
    pub fn new(config: &SandboxConfig, memory_limit_bytes: u64) -> Self {
        Self {
            require: config.require.clone(),
            devices: config.devices.clone(),
            read: config.read.clone(),
            memory_limit_bytes,
            has_cgroup: false,
            no_cgroup: String::new(),
            first_processor: None,
        }
    }

    /// Lets in what an engine needs of the system to compute on `device`, and no other.
    #[must_use]
    pub(crate) fn with_device(mut self, device: Device) -> Self {
        for (all, further) in [
            (&mut self.devices, device.files()),
            (&mut self.read, device.reads()),
        ] {
            let new: Vec<_> = further.into_iter().filter(|it| !all.contains(it)).collect();
            all.extend(new);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shield(protection: Protection, enforced: bool) -> Shield {
        Shield {
            protection,
            enforced,
            by: Vec::new(),
            missing: vec!["no such kernel".to_owned()],
        }
    }

    #[test]
    fn what_is_demanded_and_missing_is_named_with_its_reason() {
        let shields = [
            shield(Protection::Network, true),
            shield(Protection::Files, false),
        ];
        assert_eq!(lacking(&[], &shields), None);
        assert_eq!(lacking(&[Protection::Network], &shields), None);
        let why = lacking(&Protection::ALL, &shields).expect("lacking");
        assert!(why.contains("files (no such kernel)"), "{why}");
        assert!(why.contains("memory (its process did not say)"), "{why}");
        assert!(!why.contains("network"), "{why}");
    }

    #[test]
    fn an_accelerator_is_let_in_beside_what_is_configured_and_once() {
        let config = SandboxConfig {
            devices: vec!["/dev/nvidiactl".into(), "/dev/kfd".into()],
            ..SandboxConfig::default()
        };
        let plain = Confine::new(&config, 0);
        assert_eq!(plain.clone().with_device(Device::Cpu), plain);
        let let_in = plain.with_device(Device::Cuda(1)).devices;
        for device in [
            "/dev/nvidiactl",
            "/dev/kfd",
            "/dev/nvidia-uvm",
            "/dev/nvidia1",
        ] {
            let times = let_in
                .iter()
                .filter(|it| it.as_path() == Path::new(device))
                .count();
            assert_eq!(times, 1, "{device}");
        }
    }

    #[test]
    fn names_are_those_of_the_configuration() {
        for protection in Protection::ALL {
            let json = serde_json::to_string(&protection).expect("encodes");
            assert_eq!(json, format!("\"{protection}\""));
        }
        let wrong = serde_json::from_str::<SandboxConfig>(r#"{"require": ["netwrok"]}"#);
        let error = wrong.expect_err("no such name").to_string();
        assert!(error.contains("`network`"), "{error}");
    }

    #[test]
    fn paths_that_would_open_more_than_is_meant_are_refused() {
        let with = |devices: &[&str], read: &[&str]| SandboxConfig {
            devices: devices.iter().map(PathBuf::from).collect(),
            read: read.iter().map(PathBuf::from).collect(),
            ..SandboxConfig::default()
        };
        with(&["/dev/nvidia0"], &["/usr/lib/cuda"])
            .check()
            .expect("valid");
        for (devices, read, field) in [
            (&["/etc/passwd"][..], &[][..], "sandbox.devices"),
            (&["/dev"], &[], "sandbox.devices"),
            (&["/dev/../etc"], &[], "sandbox.devices"),
            (&["dev/null"], &[], "sandbox.devices"),
            (&["/dev/null"; MAX_DEVICES + 1], &[], "sandbox.devices"),
            (&[], &["/"], "sandbox.read"),
            (&[], &["lib"], "sandbox.read"),
            (&[], &["/lib"; MAX_READ + 1], "sandbox.read"),
        ] {
            let (named, _) = with(devices, read).check().expect_err("refused");
            assert_eq!(named, field);
        }
        let twice = SandboxConfig {
            require: vec![Protection::Files; 2],
            ..SandboxConfig::default()
        };
        assert_eq!(twice.check().expect_err("refused").0, "sandbox.require");
    }
}
