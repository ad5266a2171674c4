//! Whether a group is one user's alone.
//!
//! Fedora, Debian and Ubuntu give each user a group of its own name, and a umask of 002: what the
//! user makes is then writable by that group, which is to say by nobody else. Read from the
//! system's own two files, so an account that only a directory service knows is never taken for
//! private: then the folder is refused, and the message says what to do.

use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Most bytes of a file of users or groups; a larger one decides nothing.
const MAX_BYTES: u64 = 4 << 20;

/// Whether the group is the private one of the user, by the files of this system.
pub(super) fn is_private(uid: u32, gid: u32) -> bool {
    let files = ["/etc/passwd", "/etc/group"].map(|path| read(Path::new(path)));
    let [Some(users), Some(groups)] = files else {
        return false;
    };
    decide(uid, gid, &users, &groups)
}

fn read(path: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    let file = File::open(path).ok()?;
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).ok()?;
    if bytes.len() as u64 > MAX_BYTES {
        return None;
    }
    // A comment field may have any bytes; what is compared is ASCII.
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// The user's primary group, of the user's name, with no other member: neither one that is listed
/// nor one whose primary group it is. A name or number that is there twice decides against it.
fn decide(uid: u32, gid: u32, users: &str, groups: &str) -> bool {
    let mut own = users
        .lines()
        .filter_map(user)
        .filter(|user| user.uid == uid);
    let (Some(own), None) = (own.next(), own.next()) else {
        return false;
    };
    let mut group = groups.lines().filter_map(group).filter(|it| it.gid == gid);
    let (Some(group), None) = (group.next(), group.next()) else {
        return false;
    };
    let shares = |user: User<'_>| user.gid == gid && user.uid != uid;
    own.gid == gid
        && group.name == own.name
        && group.members().all(|member| member == own.name)
        && !users.lines().filter_map(user).any(shares)
}

struct User<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
}

/// `name:password:uid:gid:…`
fn user(line: &str) -> Option<User<'_>> {
    let mut fields = line.split(':');
    let (name, _password) = (fields.next()?, fields.next()?);
    Some(User {
        name,
        uid: fields.next()?.parse().ok()?,
        gid: fields.next()?.parse().ok()?,
    })
}

struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

impl<'a> Group<'a> {
    fn members(&self) -> impl Iterator<Item = &'a str> {
        let members = self.members.split(',').map(str::trim);
        members.filter(|member| !member.is_empty())
    }
}

/// `name:password:gid:member,member`
fn group(line: &str) -> Option<Group<'_>> {
    let mut fields = line.split(':');
    let (name, _password) = (fields.next()?, fields.next()?);
    Some(Group {
        name,
        gid: fields.next()?.parse().ok()?,
        members: fields.next()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const USERS: &str = "root:x:0:0:root:/root:/bin/bash\n\
        ada:x:1000:1000:Ada,,,:/home/ada:/bin/bash\n\
        bob:x:1001:1001::/home/bob:/bin/sh\n\
        eve:x:1002:100::/home/eve:/bin/sh\n\
        mal:x:1003:1001::/home/mal:/bin/sh\n";
    const GROUPS: &str = "root:x:0:\nusers:x:100:\nada:x:1000:\nbob:x:1001:\nstaff:x:50:ada,bob\n";

    #[test]
    fn a_group_of_ones_own_is_private_and_no_other_is() {
        assert!(decide(1000, 1000, USERS, GROUPS), "Ada's own");
        assert!(!decide(1000, 50, USERS, GROUPS), "not her primary group");
        assert!(!decide(1002, 100, USERS, GROUPS), "of another name");
        assert!(
            !decide(1001, 1001, USERS, GROUPS),
            "it is Mal's primary one too"
        );
        assert!(
            !decide(4711, 4711, USERS, GROUPS),
            "known to a directory only"
        );
    }

    #[test]
    fn another_member_or_a_second_line_decides_against_it() {
        let with = |line: &str| GROUPS.replace("ada:x:1000:", line);
        assert!(decide(1000, 1000, USERS, &with("ada:x:1000:ada")));
        for line in [
            "ada:x:1000:bob",
            "ada:x:1000:ada,bob",
            "ada:x:1000:\nada2:x:1000:bob",
            "ada:x:ten:",
            "",
        ] {
            assert!(!decide(1000, 1000, USERS, &with(line)), "{line}");
        }
        let twice = format!("{USERS}adam:x:1000:1000::/:/bin/sh\n");
        assert!(
            !decide(1000, 1000, &twice, GROUPS),
            "two names for one user"
        );
    }
}
