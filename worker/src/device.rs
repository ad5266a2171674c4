//! Where an engine computes: `cpu`, `cuda:0`, `metal`.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Most accelerators of one kind.
const MAX_ORDINAL: u32 = 63;
/// Devices of NVIDIA's driver that belong to no single accelerator.
const NVIDIA_COMMON: [&str; 2] = ["/dev/nvidiactl", "/dev/nvidia-uvm"];
/// What NVIDIA's driver says of itself, which its library reads.
const NVIDIA_FACTS: [&str; 2] = ["/proc/driver/nvidia", "/proc/devices"];
/// Where the library of the driver is, which is loaded when the engine first asks for it.
const LIBRARY_FOLDERS: [&str; 5] = [
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib/wsl/lib",
    "/usr/local/nvidia/lib64",
];
/// How the names of its files begin.
const LIBRARY_PREFIXES: [&str; 2] = ["libcuda.so", "libnvidia-"];

/// Where an engine computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Device {
    /// The machine's processors.
    #[default]
    Cpu,
    /// An accelerator of NVIDIA, by its place on the bus, as `nvidia-smi` counts.
    Cuda(u32),
    /// The accelerator of an Apple machine. It shares the machine's memory.
    Metal,
}

/// What an engine's process is told of where and how it computes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Compute {
    /// Where.
    pub device: Device,
    /// Class of the accelerator, as in the worker's card; part of the numerics class.
    pub class: String,
    /// Most answers that are computed in one batch; at least 1.
    pub sequences: u32,
}

impl Default for Compute {
    fn default() -> Self {
        Self {
            device: Device::Cpu,
            class: "cpu".to_owned(),
            sequences: 1,
        }
    }
}

/// A device that there is not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no device: give `cpu`, `cuda:0` (up to `cuda:{MAX_ORDINAL}`) or `metal`")]
pub struct UnknownDevice(String);

impl Device {
    /// Whether its memory is its own.
    #[must_use]
    pub fn has_memory(self) -> bool {
        matches!(self, Self::Cuda(_))
    }

    /// What an engine's process finds in its environment: of several accelerators it sees its own
    /// alone, as the first.
    pub(crate) fn environment(self) -> Vec<(&'static str, String)> {
        match self {
            Self::Cpu | Self::Metal => Vec::new(),
            Self::Cuda(ordinal) => vec![
                ("CUDA_DEVICE_ORDER", "PCI_BUS_ID".to_owned()),
                ("CUDA_VISIBLE_DEVICES", ordinal.to_string()),
            ],
        }
    }

    /// Devices of the system that an engine has to open for it.
    pub(crate) fn files(self) -> Vec<PathBuf> {
        match self {
            Self::Cpu | Self::Metal => Vec::new(),
            Self::Cuda(ordinal) => {
                let own = format!("/dev/nvidia{ordinal}");
                let all = NVIDIA_COMMON.into_iter().chain([own.as_str()]);
                all.map(PathBuf::from).collect()
            }
        }
    }

    /// What an engine has to read for it, of what this machine has.
    pub(crate) fn reads(self) -> Vec<PathBuf> {
        match self {
            Self::Cpu | Self::Metal => Vec::new(),
            Self::Cuda(_) => {
                let facts = NVIDIA_FACTS.iter().map(PathBuf::from);
                let libraries = LIBRARY_FOLDERS
                    .iter()
                    .flat_map(|it| libraries(Path::new(it)));
                facts
                    .filter(|path| path.exists())
                    .chain(libraries)
                    .collect()
            }
        }
    }
}

/// The files of the driver's library in a folder.
fn libraries(folder: &Path) -> Vec<PathBuf> {
    let is_of_driver = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| LIBRARY_PREFIXES.iter().any(|it| name.starts_with(it)))
    };
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries.map(|it| it.path()).filter(is_of_driver).collect();
    found.sort();
    found
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
            Self::Metal => f.write_str("metal"),
        }
    }
}

impl FromStr for Device {
    type Err = UnknownDevice;

    fn from_str(text: &str) -> Result<Self, UnknownDevice> {
        match text.split_once(':') {
            None if text == "cpu" => Ok(Self::Cpu),
            None if text == "metal" => Ok(Self::Metal),
            Some(("cuda", ordinal)) => match ordinal.parse::<u32>() {
                Ok(number) if number <= MAX_ORDINAL && number.to_string() == ordinal => {
                    Ok(Self::Cuda(number))
                }
                _ => Err(UnknownDevice(text.to_owned())),
            },
            _ => Err(UnknownDevice(text.to_owned())),
        }
    }
}

impl Serialize for Device {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Device {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_written_as_they_are_read_and_others_are_named() {
        for text in ["cpu", "cuda:0", "cuda:63", "metal"] {
            let device: Device = text.parse().expect("a device");
            assert_eq!(device.to_string(), text);
            let json = serde_json::to_string(&device).expect("encodes");
            assert_eq!(
                serde_json::from_str::<Device>(&json).expect("decodes"),
                device
            );
        }
        for text in [
            "", "gpu", "cuda", "cuda:", "cuda:64", "cuda:01", "cuda:-1", "metal:0",
        ] {
            let error = text.parse::<Device>().expect_err(text).to_string();
            assert!(
                error.contains(&format!("`{text}`")) && error.contains("`cuda:0`"),
                "{error}"
            );
        }
    }

    #[test]
    fn an_engine_sees_its_own_accelerator_and_no_other() {
        assert_eq!(Device::Cpu.environment(), []);
        assert!(Device::Cpu.files().is_empty() && Device::Cpu.reads().is_empty());
        let device = Device::Cuda(3);
        assert!(
            device
                .environment()
                .contains(&("CUDA_VISIBLE_DEVICES", "3".to_owned()))
        );
        let files = device.files();
        assert!(files.contains(&"/dev/nvidia3".into()), "{files:?}");
        assert!(!files.contains(&"/dev/nvidia0".into()), "{files:?}");
    }

    #[test]
    fn only_the_drivers_libraries_are_read() {
        let dir = tempfile::tempdir().expect("tempdir");
        for name in [
            "libcuda.so.1",
            "libnvidia-ml.so.1",
            "libc.so.6",
            "libcudart.so",
        ] {
            std::fs::write(dir.path().join(name), "").expect("written");
        }
        let found = libraries(dir.path());
        let names: Vec<_> = found
            .iter()
            .filter_map(|it| it.file_name()?.to_str())
            .collect();
        assert_eq!(names, ["libcuda.so.1", "libnvidia-ml.so.1"]);
        assert!(libraries(&dir.path().join("none")).is_empty());
    }
}
