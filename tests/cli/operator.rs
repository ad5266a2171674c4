//! What these tests share: an operator with a mesh, and how a command fails.

use crate::support::Tether;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Output;

pub(crate) const FAILURE: i32 = 1;
pub(crate) const USAGE: i32 = 2;
pub(crate) const CONFIG: i32 = 3;
pub(crate) const NOT_READY: i32 = 4;

/// A folder with a mesh, and a node with its grant.
pub(crate) struct Operator {
    dir: tempfile::TempDir,
    pub(crate) mesh: String,
}

impl Operator {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("temporary folder");
        let mesh_dir = dir.path().join("mesh");
        let mesh = Tether::ok(&["mesh", "new", text(&mesh_dir)]);
        Self { dir, mesh }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn issue(&self, key: &str, role: &str, more: &[&str]) -> Output {
        let id = Tether::ok(&["keys", "new", text(&self.path(key))]);
        let (operator, out) = (
            self.path("mesh/operator.key"),
            self.path(&format!("{key}.grant")),
        );
        let mut args = vec![
            "grant",
            "issue",
            "--operator",
            text(&operator),
            "--subject",
            &id,
            "--role",
            role,
            "--out",
            text(&out),
        ];
        args.extend(more);
        Tether::output(&args)
    }

    /// A worker's configuration that is right, with changes.
    pub(crate) fn worker_config(&self, name: &str, change: impl Fn(String) -> String) -> PathBuf {
        let path = self.path(name);
        let text = format!(
            "[node]\nkey = \"w\"\ngrant = \"w.grant\"\nmesh = \"{}\"\nregion = \"eu\"\n\
             bootstrap = [\"127.0.0.1:49737\"]\n\n[worker]\nslots = 2\n",
            self.mesh
        );
        std::fs::write(&path, change(text)).expect("written");
        path
    }
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

pub(crate) fn mode(path: &Path) -> u32 {
    let meta = std::fs::metadata(path).expect("it is there");
    meta.permissions().mode() & 0o777
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[track_caller]
pub(crate) fn fails(args: &[&str], code: i32, words: &[&str]) {
    let output = Tether::output(args);
    assert_eq!(output.status.code(), Some(code), "{}", stderr(&output));
    for word in words {
        assert!(
            stderr(&output).contains(word),
            "{word:?} in {}",
            stderr(&output)
        );
    }
}
