//! What an engine may see, opened while everything can be.
//!
//! A model's folder is made by the worker, of links to the verified files; each entry here is a file
//! that was opened through one link and no more, so that a link that was put in the file's place
//! since leads nowhere.

use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat};
use std::collections::VecDeque;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// Most entries of a model's folder.
const MAX_ENTRIES: usize = 4_096;
/// Most folders in one another.
const MAX_DEPTH: usize = 16;

/// What the numeric libraries read of the system: how many processors there are and what they can,
/// and how much memory. Found by watching them; none of it names a process or a user.
const SYSTEM: [&str; 5] = [
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/uptime",
    "/sys/devices/system/cpu",
];

/// Something that may be seen, and where.
#[derive(Debug)]
pub(super) struct Entry {
    /// Opened without any right but to say which it is.
    pub(super) file: OwnedFd,
    /// Where it is: relative to the model's folder, or absolute.
    pub(super) path: PathBuf,
    pub(super) is_folder: bool,
}

/// All that may be seen.
#[derive(Debug)]
pub(super) struct View {
    /// The model's folder.
    pub(super) root: PathBuf,
    /// The folders in it, itself first.
    pub(super) folders: Vec<Entry>,
    /// The files in it.
    pub(super) files: Vec<Entry>,
    /// Files and folders of the system.
    pub(super) system: Vec<Entry>,
    /// Devices.
    pub(super) devices: Vec<Entry>,
    /// The null device, which is no risk and which libraries open.
    pub(super) null: Option<Entry>,
    /// Why `files` cannot be kept to, if so.
    pub(super) excess: Option<String>,
}

impl View {
    /// Opens all of it.
    pub(super) fn open(root: &Path, devices: &[PathBuf], read: &[PathBuf]) -> Result<Self, String> {
        let mut view = Self {
            root: root.to_owned(),
            folders: Vec::new(),
            files: Vec::new(),
            system: Vec::new(),
            devices: Vec::new(),
            null: entry(Path::new("/dev/null"), PathBuf::from("/dev/null")).ok(),
            excess: None,
        };
        view.walk()
            .map_err(|error| format!("the model's folder cannot be read: {error}"))?;
        for path in SYSTEM {
            // A kernel or a container may lack any of them.
            view.system
                .extend(entry(Path::new(path), PathBuf::from(path)));
        }
        for path in read {
            let told = |error| format!("worker.sandbox.read: {}: {error}", path.display());
            // Libraries are often links; what they lead to today is what is let in.
            let real = fs::canonicalize(path).map_err(told)?;
            let found = entry(&real, path.clone()).map_err(|error| told(error.into()))?;
            view.system.push(found);
        }
        for path in devices {
            let told = |why: &str| format!("worker.sandbox.devices: {}: {why}", path.display());
            let found = entry(path, path.clone()).map_err(|error| told(&error.to_string()))?;
            match kind(&found.file) {
                Some(FileType::CharacterDevice) => view.devices.push(found),
                _ => return Err(told("it is not a character device")),
            }
        }
        Ok(view)
    }

    fn walk(&mut self) -> std::io::Result<()> {
        let mut waiting = VecDeque::from([(PathBuf::new(), 0)]);
        let mut count = 0;
        while let Some((folder, depth)) = waiting.pop_front() {
            let at = self.root.join(&folder);
            self.folders.push(entry(&at, folder.clone())?);
            for found in fs::read_dir(&at)? {
                count += 1;
                if count > MAX_ENTRIES || depth > MAX_DEPTH {
                    self.excess = Some(format!(
                        "{} has more than {MAX_ENTRIES} entries",
                        self.root.display()
                    ));
                    return Ok(());
                }
                let found = found?;
                let (path, name) = (found.path(), folder.join(found.file_name()));
                let kind = found.file_type()?;
                if kind.is_dir() {
                    waiting.push_back((name, depth + 1));
                } else {
                    let target = if kind.is_symlink() {
                        at.join(fs::read_link(&path)?)
                    } else {
                        path
                    };
                    self.add_file(&target, name);
                }
            }
        }
        Ok(())
    }

    /// What is no file is not shown; whoever needs it will miss it by name.
    fn add_file(&mut self, target: &Path, name: PathBuf) {
        if let Ok(found) = entry(target, name)
            && kind(&found.file) == Some(FileType::RegularFile)
        {
            self.files.push(found);
        }
    }
}

fn entry(at: &Path, path: PathBuf) -> rustix::io::Result<Entry> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(CWD, at, flags, Mode::empty())?;
    let is_folder = kind(&file) == Some(FileType::Directory);
    Ok(Entry {
        file,
        path,
        is_folder,
    })
}

fn kind(file: &OwnedFd) -> Option<FileType> {
    fstat(file)
        .ok()
        .map(|stat| FileType::from_raw_mode(stat.st_mode))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn names(entries: &[Entry]) -> Vec<String> {
        let mut names: Vec<String> = entries
            .iter()
            .map(|entry| entry.path.display().to_string())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn links_are_followed_once_and_only_to_files() {
        let dir = tempfile::tempdir().expect("tempdir");
        let (view, other) = (dir.path().join("view"), dir.path().join("other"));
        fs::create_dir_all(view.join("sub")).expect("folder");
        fs::create_dir_all(&other).expect("folder");
        fs::write(other.join("weights"), "w").expect("write");
        fs::write(view.join("plain"), "p").expect("write");
        symlink(other.join("weights"), view.join("sub/weights")).expect("link");
        symlink(&other, view.join("folder")).expect("link");
        symlink(view.join("sub/weights"), view.join("twice")).expect("link");
        symlink("/nonexistent", view.join("nowhere")).expect("link");
        let opened = View::open(&view, &[], &[]).expect("opens");
        assert_eq!(names(&opened.files), ["plain", "sub/weights"]);
        assert_eq!(names(&opened.folders), ["", "sub"]);
        assert_eq!(opened.excess, None);
    }

    #[test]
    fn a_folder_without_end_is_said_and_not_walked() {
        let dir = tempfile::tempdir().expect("tempdir");
        for n in 0..=MAX_ENTRIES {
            fs::write(dir.path().join(n.to_string()), "").expect("write");
        }
        let opened = View::open(dir.path(), &[], &[]).expect("opens");
        assert!(opened.excess.expect("said").contains("more than 4096"));
    }

    #[test]
    fn only_devices_are_devices() {
        let dir = tempfile::tempdir().expect("tempdir");
        let open = |path: &str| View::open(dir.path(), &[PathBuf::from(path)], &[]);
        assert_eq!(open("/dev/zero").expect("opens").devices.len(), 1);
        for wrong in ["/dev/shm", "/dev/none-such"] {
            let error = open(wrong).expect_err("refused");
            assert!(error.contains("worker.sandbox.devices"), "{error}");
            assert!(error.contains(wrong), "{error}");
        }
    }
}
