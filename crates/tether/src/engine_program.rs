//! Which program runs the engines of a worker: this one, or one beside it that was built for newer
//! processors.
//!
//! Quantised kernels are chosen when the engine is compiled: with AVX2 and FMA (x86-64-v3, most
//! processors since 2013) they are several times as fast. One binary that needs them would end with
//! an illegal instruction elsewhere, so the choice is made here, at run time, between two of them.
//! `ops/release/build` makes both.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tether_worker::EngineCommand;
use tracing::{info, warn};

/// What is put after the name of this program.
const NEWER: &str = "-x86-64-v3";

/// The command that starts an engine's process.
///
/// # Errors
/// When the system does not tell where this program is.
pub(crate) fn command() -> std::io::Result<EngineCommand> {
    let own = std::env::current_exe()?;
    let program = choose(own, processor_is_newer(), version_of);
    info!(program = %program.display(), "engines are run by");
    Ok(EngineCommand {
        program,
        args: vec!["engine".into()],
    })
}

/// The one beside `own` where it is there and can run here, whatever its version.
pub(crate) fn newer(own: &Path) -> Option<PathBuf> {
    let newer = beside(own);
    (processor_is_newer() && newer.is_file()).then_some(newer)
}

fn beside(own: &Path) -> PathBuf {
    let mut name = own.file_name().unwrap_or(OsStr::new("tether")).to_owned();
    name.push(NEWER);
    own.with_file_name(name)
}

/// The one beside `own` where it is there, can run here and is of the same version.
fn choose(
    own: PathBuf,
    can_newer: bool,
    version_of: impl Fn(&Path) -> std::io::Result<String>,
) -> PathBuf {
    let newer = beside(&own);
    if !can_newer || !newer.is_file() {
        return own;
    }
    // Worker and engine speak a protocol that is only the same within a version.
    let version = concat!("tether ", env!("CARGO_PKG_VERSION"));
    match version_of(&newer) {
        Ok(found) if found == version => newer,
        Ok(found) => {
            warn!(
                program = %newer.display(), found, version,
                "another version: engines are run by this program itself; build both anew"
            );
            own
        }
        Err(error) => {
            warn!(program = %newer.display(), %error, "cannot be run: engines are run by this program itself");
            own
        }
    }
}

fn version_of(program: &Path) -> std::io::Result<String> {
    let output = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Whether this processor has all of x86-64-v3.
#[cfg(target_arch = "x86_64")]
fn processor_is_newer() -> bool {
    is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("bmi1")
        && is_x86_feature_detected!("bmi2")
        && is_x86_feature_detected!("f16c")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("lzcnt")
        && is_x86_feature_detected!("movbe")
}

#[cfg(not(target_arch = "x86_64"))]
fn processor_is_newer() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Error, ErrorKind};

    const OWN: &str = concat!("tether ", env!("CARGO_PKG_VERSION"));

    /// What is chosen where both programs are there and the newer one says its version.
    fn chosen(can_newer: bool, says: std::io::Result<&str>) -> String {
        let folder = tempfile::tempdir().expect("a folder");
        let newer = folder.path().join("tether-x86-64-v3");
        std::fs::write(&newer, "").expect("written");
        let said = |program: &Path| {
            assert_eq!(program, newer);
            let error = |error: &Error| Err(Error::from(error.kind()));
            says.as_ref()
                .map_or_else(error, |says| Ok((*says).to_owned()))
        };
        let program = choose(folder.path().join("tether"), can_newer, said);
        let name = program.file_name().expect("a name");
        name.to_string_lossy().into_owned()
    }

    #[test]
    fn the_newer_build_of_the_same_version_is_taken_where_it_runs() {
        assert_eq!(chosen(true, Ok(OWN)), "tether-x86-64-v3");
        assert_eq!(chosen(false, Ok(OWN)), "tether", "an older processor");
        assert_eq!(
            chosen(true, Ok("tether 0.0.0")),
            "tether",
            "another version"
        );
        let broken = Err(Error::from(ErrorKind::PermissionDenied));
        assert_eq!(chosen(true, broken), "tether");
    }

    #[test]
    fn without_one_beside_it_it_is_this_program() {
        let folder = tempfile::tempdir().expect("a folder");
        let own = folder.path().join("tether");
        let never = |_: &Path| unreachable!("there is no other");
        assert_eq!(choose(own.clone(), true, never), own);
    }
}
