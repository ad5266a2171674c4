//! A store that another one is to replace, under another name beside its own. (RSV-2)
//!
//! With it goes what SQLite wrote beside it, which it would take for that of the other one and write
//! into it, also where the store itself is gone.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What SQLite writes beside a file: what a crash left of it belongs to that file alone.
const BESIDE: [&str; 3] = ["-wal", "-shm", "-journal"];
/// Stores that lie set aside at most: each is as large as a store.
pub(super) const MAX_ASIDE: u32 = 100;

/// What was set aside.
#[derive(Debug, Default)]
pub(super) struct Aside {
    /// Where each file lay, and where it lies now; the store last.
    moved: Vec<(PathBuf, PathBuf)>,
    /// The other name of a store that has its own still.
    linked: Option<PathBuf>,
}

impl Aside {
    /// Where it lies now, the store before what was beside it.
    pub(super) fn into_paths(self) -> Vec<PathBuf> {
        let moved = self.moved.into_iter().map(|(_, to)| to);
        let mut paths: Vec<PathBuf> = moved.chain(self.linked).collect();
        paths.sort();
        paths
    }

    /// Puts everything back, as far as that goes.
    pub(super) fn put_back(&self) {
        for (from, to) in &self.moved {
            let _ = fs::rename(to, from);
        }
        if let Some(link) = &self.linked {
            let _ = fs::remove_file(link);
        }
    }
}

/// Sets aside a store that nobody has open. Its file keeps its own name as well until the other takes
/// its place, so that there is always one of them; where the file system has no `link` it is renamed.
/// Where this fails, everything lies as it lay.
pub(super) fn set_aside(
    path: &Path,
    link: impl Fn(&Path, &Path) -> io::Result<()>,
) -> io::Result<Aside> {
    let mut aside = Aside::default();
    let set = aside.set(path, &link);
    set.inspect_err(|_| aside.put_back()).map(|()| aside)
}

impl Aside {
    fn set(
        &mut self,
        path: &Path,
        link: impl Fn(&Path, &Path) -> io::Result<()>,
    ) -> io::Result<()> {
        let to = free_name(path)?;
        // Before the file itself, so that these never lie beside none or another.
        for suffix in BESIDE {
            let (from, to) = (beside(path, suffix), beside(&to, suffix));
            match fs::rename(&from, &to) {
                Ok(()) => self.moved.push((from, to)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        if path.try_exists()? {
            if link(path, &to).is_ok() {
                self.linked = Some(to);
            } else {
                fs::rename(path, &to)?;
                self.moved.push((path.to_owned(), to));
            }
        }
        Ok(())
    }
}

/// The first name under which nothing lies yet.
fn free_name(path: &Path) -> io::Result<PathBuf> {
    for number in 1..=MAX_ASIDE {
        let name = beside(path, &format!(".replaced-{number}"));
        let mut all = vec![name.clone()];
        all.extend(BESIDE.iter().map(|suffix| beside(&name, suffix)));
        let mut is_free = true;
        for one in all {
            is_free &= !one.try_exists()?;
        }
        if is_free {
            return Ok(name);
        }
    }
    let why = format!("{MAX_ASIDE} stores that were replaced lie beside it: move some away");
    Err(io::Error::other(why))
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn no_links(_: &Path, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn names(dir: &Path) -> Vec<String> {
        let files = fs::read_dir(dir).expect("the folder");
        let name = |it: fs::DirEntry| it.file_name().to_string_lossy().into_owned();
        let mut names: Vec<String> = files.map(|it| name(it.expect("a file"))).collect();
        names.sort();
        names
    }

    fn store(dir: &Path, files: &[&str]) -> PathBuf {
        for file in files {
            fs::write(dir.join(file), file).expect("written");
        }
        dir.join("s")
    }

    #[test]
    fn a_file_system_without_links_has_its_store_renamed_and_put_back() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = store(dir.path(), &["s", "s-wal"]);
        let aside = set_aside(&path, no_links).expect("set aside");
        assert_eq!(names(dir.path()), ["s.replaced-1", "s.replaced-1-wal"]);
        aside.put_back();
        assert_eq!(names(dir.path()), ["s", "s-wal"]);
        let aside = set_aside(&path, no_links).expect("set aside");
        let lie = ["s.replaced-1", "s.replaced-1-wal"].map(|it| dir.path().join(it));
        assert_eq!(aside.into_paths(), lie);
        assert_eq!(fs::read(&lie[1]).expect("read"), b"s-wal");
    }

    #[test]
    fn a_store_keeps_its_name_as_well_and_what_was_beside_it_does_not() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = store(dir.path(), &["s", "s-wal", "s-shm", "s-journal"]);
        let link = |from: &Path, to: &Path| fs::hard_link(from, to);
        let set = set_aside(&path, link).expect("set aside");
        let aside = ["", "-journal", "-shm", "-wal"].map(|it| format!("s.replaced-1{it}"));
        assert_eq!(names(dir.path()), [&["s".to_owned()][..], &aside].concat());
        set.put_back();
        assert_eq!(names(dir.path()), ["s", "s-journal", "s-shm", "s-wal"]);
    }

    #[test]
    fn nothing_is_written_over_and_too_many_are_refused_with_everything_where_it_was() {
        let dir = tempfile::tempdir().expect("a folder");
        // Also where only a log lies under that name.
        let path = store(
            dir.path(),
            &["s", "s-wal", "s.replaced-1", "s.replaced-2-wal"],
        );
        let aside = set_aside(&path, no_links).expect("set aside");
        assert_eq!(aside.into_paths()[0], dir.path().join("s.replaced-3"));
        store(dir.path(), &["s", "s-wal"]);
        for number in 1..=MAX_ASIDE {
            store(dir.path(), &[&format!("s.replaced-{number}")]);
        }
        let before = names(dir.path());
        let refused = set_aside(&path, no_links).expect_err("refused");
        assert!(refused.to_string().contains("move some away"), "{refused}");
        assert_eq!(names(dir.path()), before);
    }
}
