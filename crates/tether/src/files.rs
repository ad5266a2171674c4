//! Folders and files that only their owner may change, and files that are never half written.

mod private_group;

use rustix::io::Errno;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;
use tempfile::NamedTempFile;

/// Mode of a folder that we make.
const PRIVATE_DIR: u32 = 0o700;
/// Whoever has one of these may replace a folder's files, also those that they cannot read.
const WRITABLE_BY_GROUP: u32 = 0o020;
const WRITABLE_BY_OTHERS: u32 = 0o002;
/// Where Linux keeps a list of further users who have rights. With one, the group's right to write
/// is the most that anybody on the list may have.
const ACCESS_LIST: &str = "system.posix_acl_access";

/// Why a folder that is there is not used. It may be anything, `/tmp` say: its mode is never ours
/// to change.
#[derive(Debug, thiserror::Error)]
enum UnfitFolder {
    #[error(
        "others may write to this folder (mode {mode:04o}): give a new folder inside it, which is then made for you alone, or take their right away with `chmod go-w`"
    )]
    OpenToOthers { mode: u32 },
    #[error(
        "the members of a group may write to this folder (mode {mode:04o}), and it is not evident that you are alone in it: take their right away with `chmod g-w`, or give a new folder inside it, which is then made for you alone"
    )]
    OpenToGroup { mode: u32 },
    #[error(
        "this folder belongs to another user (uid {owner}, and this process runs as {own}): give a new folder, or run as its owner"
    )]
    NotOurs { owner: u32, own: u32 },
}

/// Makes a folder, and those above it, that only its owner may enter. One that is there is left as
/// it is, and refused if others own it or may write to it.
pub(crate) fn private_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(PRIVATE_DIR)
        .create(path)?;
    let meta = fs::metadata(path)?;
    let own = rustix::process::geteuid().as_raw();
    let is_ours_alone = || private_group::is_private(own, meta.gid()) && !has_access_list(path);
    fit(meta.uid(), own, meta.mode() & 0o7777, is_ours_alone)
        .map_err(|error| io::Error::new(io::ErrorKind::PermissionDenied, error))
}

/// Whether others than user, group and everybody have rights of their own; also where that cannot
/// be told.
fn has_access_list(path: &Path) -> bool {
    let mut none: [u8; 0] = [];
    match rustix::fs::getxattr(path, ACCESS_LIST, &mut none) {
        Ok(_) => true,
        Err(error) => error != Errno::NODATA && error != Errno::OPNOTSUPP,
    }
}

fn fit(
    owner: u32,
    own: u32,
    mode: u32,
    group_is_ours_alone: impl FnOnce() -> bool,
) -> Result<(), UnfitFolder> {
    if mode & WRITABLE_BY_OTHERS != 0 {
        return Err(UnfitFolder::OpenToOthers { mode });
    }
    if owner == own && mode & WRITABLE_BY_GROUP != 0 && !group_is_ours_alone() {
        return Err(UnfitFolder::OpenToGroup { mode });
    }
    if owner != own {
        return Err(UnfitFolder::NotOurs { owner, own });
    }
    Ok(())
}

/// Makes a new file that only its owner may read; one that is there is left alone. It is there
/// with its whole content or not at all, also when the disk is full or the machine stops.
///
/// # Errors
/// `AlreadyExists`, among others.
pub(crate) fn create_private(path: &Path, content: &[u8]) -> io::Result<()> {
    written_beside(path, content)?
        .persist_noclobber(path)
        .map_err(|error| error.error)?;
    sync_folder_of(path)
}

/// Replaces a file at once by one that only its owner may read: a reader sees the old content or
/// the new, never a part.
pub(crate) fn replace_private(path: &Path, content: &[u8]) -> io::Result<()> {
    written_beside(path, content)?
        .persist(path)
        .map_err(|error| error.error)?;
    sync_folder_of(path)
}

/// The content in a temporary file of the same folder, which has mode 0600 and is removed unless it
/// is moved to its place.
fn written_beside(path: &Path, content: &[u8]) -> io::Result<NamedTempFile> {
    let mut file = NamedTempFile::new_in(folder_of(path))?;
    file.write_all(content)?;
    file.as_file().sync_all()?;
    Ok(file)
}

/// A file's name is on the disk when its folder is.
fn sync_folder_of(path: &Path) -> io::Result<()> {
    File::open(folder_of(path))?.sync_all()
}

fn folder_of(path: &Path) -> &Path {
    path.parent()
        .filter(|dir| !dir.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

/// Whether others than the owner may read or write a file.
pub(crate) fn open_to_others(path: &Path) -> io::Result<Option<u32>> {
    let mode = fs::metadata(path)?.permissions().mode() & 0o777;
    Ok((mode & 0o077 != 0).then_some(mode))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;

    fn mode(path: &Path) -> u32 {
        let meta = fs::metadata(path).expect("it is there");
        meta.permissions().mode() & 0o7777
    }

    #[test]
    fn a_folder_that_was_there_keeps_its_mode_and_one_open_to_others_is_refused() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let new = dir.path().join("a/b");
        private_dir(&new).expect("made");
        assert_eq!((mode(&new), mode(&dir.path().join("a"))), (0o700, 0o700));
        // Others may look at what an operator made with the usual mode; secrets in it are 0600.
        fs::set_permissions(&new, Permissions::from_mode(0o755)).expect("opened");
        private_dir(&new).expect("used as it is");
        assert_eq!(mode(&new), 0o755);
        // As `/tmp` is, which every user of the machine needs.
        for shared in [0o1777, 0o702] {
            fs::set_permissions(&new, Permissions::from_mode(shared)).expect("opened");
            let error = private_dir(&new).expect_err("others write there");
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
            assert!(
                error.to_string().contains("a new folder inside it"),
                "{error}"
            );
            assert_eq!(mode(&new), shared, "not ours to change");
            private_dir(&new.join(format!("{shared:o}"))).expect("what it says works");
        }
    }

    #[test]
    fn a_folder_of_another_user_is_refused_by_name() {
        let error = fit(0, 1_000, 0o755, || true)
            .expect_err("root's")
            .to_string();
        assert!(error.contains("uid 0") && error.contains("1000"), "{error}");
        fit(1_000, 1_000, 0o755, || false).expect("ours");
    }

    #[test]
    fn a_folder_made_under_umask_002_is_used_where_the_group_is_ones_own() {
        for mode in [0o775, 0o770, 0o2775] {
            fit(1_000, 1_000, mode, || true).expect("nobody else is in the group");
            let error = fit(1_000, 1_000, mode, || false)
                .expect_err("somebody may be")
                .to_string();
            assert!(error.contains("chmod g-w"), "{error}");
        }
        fit(1_000, 1_000, 0o777, || true).expect_err("others are not the group");
    }

    #[test]
    fn a_list_of_further_users_is_noticed() {
        let dir = tempfile::tempdir().expect("temporary folder");
        assert!(!has_access_list(dir.path()), "none was made");
        assert!(has_access_list(&dir.path().join("none")), "not to be told");
    }

    #[test]
    fn a_secret_is_never_seen_half_written() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("secret");
        let content = vec![7; 16 << 20];
        std::thread::scope(|scope| {
            let seen = scope.spawn(|| {
                loop {
                    if let Ok(meta) = fs::metadata(&path) {
                        return meta.len();
                    }
                }
            });
            create_private(&path, &content).expect("made");
            assert_eq!(seen.join().expect("no panic"), content.len() as u64);
        });
        assert_eq!(mode(&path), 0o600);
        assert_eq!(
            fs::read_dir(dir.path()).expect("read").count(),
            1,
            "nothing is left beside it"
        );
    }

    #[test]
    fn secrets_are_closed_to_others_and_never_overwritten_by_accident() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let inner = dir.path().join("a/b");
        private_dir(&inner).expect("made");
        let file = inner.join("secret");
        create_private(&file, b"one").expect("made");
        assert_eq!(open_to_others(&file).expect("read"), None);
        let again = create_private(&file, b"two").expect_err("it is there");
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        replace_private(&file, b"three").expect("replaced");
        assert_eq!(fs::read(&file).expect("read"), b"three");
        assert_eq!(open_to_others(&file).expect("read"), None);
        fs::set_permissions(&file, Permissions::from_mode(0o644)).expect("opened");
        assert_eq!(open_to_others(&file).expect("read"), Some(0o644));
    }
}
