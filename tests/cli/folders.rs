//! Data folders that others may write to.

use crate::operator::{FAILURE, Operator, fails, mode, text};
use crate::support::Tether;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

#[test]
fn a_folder_that_others_write_to_is_refused_and_left_as_it_is() {
    let operator = Operator::new();
    operator.issue("w", "worker", &["--region", "eu"]);
    // As `/tmp` is, which the whole machine needs.
    let shared = operator.path("shared");
    std::fs::create_dir(&shared).expect("made");
    std::fs::set_permissions(&shared, std::fs::Permissions::from_mode(0o1777)).expect("opened");
    let words = ["others may write", "1777", "a new folder inside it"];
    let up = [
        "up",
        "--gateway",
        "127.0.0.1:0",
        "--data-dir",
        text(&shared),
    ];
    fails(&up, FAILURE, &words);
    let worker = operator.worker_config("shared.toml", |text| {
        text.replace("\n\n[worker]", "\ndata_dir = \"shared\"\n\n[worker]")
    });
    fails(&["worker", "--config", text(&worker)], FAILURE, &words);
    fails(&["mesh", "new", text(&shared)], FAILURE, &words);
    let meta = std::fs::metadata(&shared).expect("it is there");
    assert_eq!(meta.permissions().mode() & 0o7777, 0o1777);
    let left = std::fs::read_dir(&shared).expect("read").count();
    assert_eq!(left, 0, "nothing was put into it");
}

/// What `id` says of this process.
fn id(option: &str) -> String {
    let output = Command::new("id").arg(option).output().expect("POSIX");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    text.trim().to_owned()
}

/// Whether this process's user is alone in a group, as `/etc/passwd` and `/etc/group` have it: the
/// primary group, of the user's name, and no other user is in it.
fn is_alone_in(gid: u32) -> bool {
    let table = |path: &str| -> Vec<Vec<String>> {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let lines = text.lines();
        lines
            .map(|line| line.split(':').map(str::to_owned).collect())
            .filter(|fields: &Vec<String>| fields.len() >= 4)
            .collect()
    };
    let (name, gid) = (id("-un"), gid.to_string());
    let (users, groups) = (table("/etc/passwd"), table("/etc/group"));
    let in_it: Vec<&str> = users
        .iter()
        .filter(|user| user[3] == gid)
        .map(|user| user[0].as_str())
        .collect();
    let group = groups.iter().find(|group| group[2] == gid);
    in_it == [name.as_str()]
        && group.is_some_and(|group| group[0] == name && (group[3].is_empty() || group[3] == name))
}

#[test]
fn a_folder_that_a_group_writes_to_is_used_where_its_user_is_alone_in_the_group() {
    let operator = Operator::new();
    let make = |name: &str, group: Option<u32>| {
        let dir = operator.path(name);
        std::fs::create_dir(&dir).expect("made");
        std::os::unix::fs::chown(&dir, None, group).expect("a group of ours");
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o775)).expect("set");
        dir
    };
    let is_refused = |dir: &Path| {
        let args = ["mesh", "new", text(dir)];
        fails(&args, FAILURE, &["0775", "chmod g-w"]);
        let left = std::fs::read_dir(dir).expect("read").count();
        assert_eq!(left, 0, "nothing was put into it");
        // The way out that was named.
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).expect("set");
        Tether::ok(&args);
    };
    let own = make("own", None);
    let gid = std::fs::metadata(&own).expect("it is there").gid();
    if is_alone_in(gid) {
        Tether::ok(&["mesh", "new", text(&own)]);
        assert_eq!(mode(&own), 0o775, "as it was");
    } else {
        is_refused(&own);
    }
    // A group that is not the primary one is never evidently ours alone. Root may give any, and
    // others one that they are in.
    let further = match id("-u").as_str() {
        "0" => Some(u32::from(u16::MAX) - 1),
        _ => id("-G")
            .split(' ')
            .map(|gid| gid.parse().expect("a number"))
            .find(|other: &u32| *other != gid && other.to_string() != id("-g")),
    };
    if let Some(further) = further {
        is_refused(&make("further", Some(further)));
    }
}
