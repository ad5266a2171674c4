//! The builds of this program that are measured: the one for every processor, and the one for newer
//! ones where it was built.

use crate::engine_program;
use std::path::{Path, PathBuf};

/// Where they are. Each is in a folder of its own, so that it is known which engines are run.
#[derive(Debug)]
pub(super) struct Programs {
    _folder: tempfile::TempDir,
    /// Runs everywhere, alone in its folder.
    pub(super) portable: PathBuf,
    /// The same with the one for newer processors beside it, and that one.
    pub(super) newer: Option<(PathBuf, PathBuf)>,
}

impl Programs {
    pub(super) fn find() -> anyhow::Result<Self> {
        let own = std::env::current_exe()?;
        // Beside it, where links are likely to be possible.
        let parent = own.parent().unwrap_or(Path::new("."));
        let folder = tempfile::Builder::new()
            .prefix(".bench-")
            .tempdir_in(parent)
            .or_else(|_| tempfile::tempdir())?;
        let put = |program: &Path, at: &Path| -> anyhow::Result<PathBuf> {
            std::fs::create_dir_all(at)?;
            let place = at.join(program.file_name().unwrap_or_default());
            if std::fs::hard_link(program, &place).is_err() {
                std::fs::copy(program, &place)?;
            }
            Ok(place)
        };
        let portable = put(&own, &folder.path().join("portable"))?;
        let newer = match engine_program::newer(&own) {
            Some(newer) => {
                let at = folder.path().join("newer");
                Some((put(&own, &at)?, put(&newer, &at)?))
            }
            None => None,
        };
        Ok(Self {
            _folder: folder,
            portable,
            newer,
        })
    }

    /// What the table lacks.
    pub(super) fn note(&self) -> Option<&'static str> {
        let is_missing = self.newer.is_none();
        is_missing.then_some(
            "Engines for newer processors are not in the table: `ops/release/build` makes them, and \
             this processor must be one.",
        )
    }
}
