//! Who belongs to a mesh, over real processes: invited workers join, keys are replaced, what is
//! revoked is gone for good. (PRE-6)

mod mesh;
#[path = "../support/operator.rs"]
mod operator;
#[path = "../support/mod.rs"]
mod support;

use mesh::{World, id_of, said, says};
use operator::text;
use std::path::Path;
use std::process::Output;
use support::{Process, Tether, eventually};

/// Exit code of what nobody was reached for.
const NOT_READY: i32 = 4;
/// Exit codes of joining.
const SPENT: i32 = 12;
const REVOKED: i32 = 13;

#[test]
fn an_invited_worker_serves_under_each_of_its_keys_until_it_is_revoked() {
    let mut world = World::start(false);
    let (token, _) = world.invite("1");
    let worker = world.join("w", &token);
    let first = id_of(&worker);
    eventually("it gets work", || world.serves(&first));
    eventually("the gateway is ready", || world.is_ready());
    eventually("a prompt is answered", || world.chat().status == 200);
    assert_eq!(world.chat().worker(), first);

    // The same folder and token again: it has joined, and takes no second use.
    assert_eq!(worker.stop(), Some(0));
    let worker = world.join("w", &token);
    assert_eq!(id_of(&worker), first);
    assert!(
        worker.log().contains("has joined before"),
        "{}",
        worker.log()
    );
    eventually("it gets work", || world.serves(&first));

    // A use that was spent is spent, also for an orchestrator that was restarted.
    let refused = |world: &World, name: &str| {
        let output = world.joining(name, &token).output().expect("it runs");
        assert_eq!(output.status.code(), Some(SPENT), "{}", said(&output));
        assert!(
            said(&output).contains("whom it was for (1)"),
            "{}",
            said(&output)
        );
        let (key, grant) = (format!("{name}/node.key"), format!("{name}/node.grant"));
        assert!(world.path(&key).exists() && !world.path(&grant).exists());
    };
    refused(&world, "late");
    world.restart_orchestrator();
    refused(&world, "late");
    eventually("the worker is back", || world.serves(&first));

    // Its key is replaced while it runs, and counts from its next start.
    let old = world.path("old");
    std::fs::create_dir(&old).expect("made");
    for name in ["node.key", "node.grant", "worker.toml"] {
        std::fs::copy(world.path("w").join(name), old.join(name)).expect("copied");
    }
    let second = Tether::ok(&["keys", "rotate", "--data-dir", text(&world.path("w"))]);
    assert!(world.serves(&first), "it runs on");
    assert_eq!(worker.stop(), Some(0));
    let worker = world.worker("w");
    assert_eq!(id_of(&worker), second);
    eventually("it gets work under its new key", || world.serves(&second));
    eventually("a prompt is answered", || world.chat().status == 200);
    assert_eq!(world.chat().worker(), second);
    let thief = world.worker("old");
    says(&thief, "was replaced by");
    assert!(!world.shows(&first));
    drop(thief);

    // Revoked, it is gone at once, and stays so.
    world.revoked(&[&second, "--reason", "a drill"]);
    eventually("it is gone", || !world.shows(&second));
    says(&worker, "was revoked");
    assert_eq!(world.chat().status, 503);
    drop(worker);
    world.restart_orchestrator();
    std::fs::remove_file(world.path("w/data/membership.cbor")).ok();
    let back = world.worker("w");
    says(&back, "was revoked");
    assert!(!world.shows(&second));
    let list = Tether::ok(&["grant", "ls", text(&world.path("mesh"))]);
    assert!(list.contains(&second) && list.contains("a drill"), "{list}");
}

#[test]
fn a_worker_that_was_away_when_it_was_revoked_is_refused_when_it_is_back() {
    let world = World::start(false);
    let (token, _) = world.invite("2");
    let worker = world.join("w", &token);
    let id = id_of(&worker);
    eventually("it gets work", || world.serves(&id));
    assert_eq!(worker.stop(), Some(0));
    world.revoked(&[&id]);
    // Once more is no mistake.
    world.revoked(&[&id]);
    let back = world.worker("w");
    says(&back, "was revoked");
    assert!(!world.shows(&id));
    drop(back);
    // The same token is good for another.
    let other = world.join("other", &token);
    eventually("another gets work", || world.serves(&id_of(&other)));
    // Before it is greeted a revoked key sees no grant of who refuses it: this folder knows by whom.
    std::fs::remove_file(world.path("w/data/membership.cbor")).ok();
    let (token, _) = world.invite("1");
    let output = world.joining("w", &token).arg("--rejoin").output();
    let output = output.expect("it runs");
    assert_eq!(output.status.code(), Some(REVOKED), "{}", said(&output));
    assert!(said(&output).contains("was revoked"), "{}", said(&output));
}

#[test]
fn a_stranger_who_refuses_decides_nothing_for_a_worker_that_joins() {
    let mut world = World::start(false);
    let stranger = world.stranger();
    let (token, _) = world.invite("2");
    let worker = world.join("w", &token);
    eventually("it gets work", || world.serves(&id_of(&worker)));
    let orchestrator = world.orchestrator.take().expect("it runs");
    assert_eq!(orchestrator.stop(), Some(0));
    let output = world.joining("late", &token).output().expect("it runs");
    assert_eq!(output.status.code(), Some(NOT_READY), "{}", said(&output));
    for words in [
        "refused without having proved to be an orchestrator",
        "within 30 s",
        "goes on where it was",
    ] {
        assert!(said(&output).contains(words), "{}", said(&output));
    }
    drop(stranger);
}

#[test]
fn an_invite_that_is_revoked_takes_those_along_who_came_by_it() {
    let world = World::start(false);
    let (token, serial) = world.invite("5");
    let (one, two) = (world.join("one", &token), world.join("two", &token));
    let ids = [id_of(&one), id_of(&two)];
    eventually("both get work", || ids.iter().all(|id| world.serves(id)));
    world.revoked(&["--serial", &serial]);
    eventually("both are gone", || !ids.iter().any(|id| world.shows(id)));
    let output = world.joining("three", &token).output().expect("it runs");
    assert_eq!(output.status.code(), Some(REVOKED), "{}", said(&output));
    // The keys are not barred: a new invite lets them in again.
    drop(one);
    let (token, _) = world.invite("1");
    let mut again = world.joining("one", &token);
    again.arg("--rejoin");
    let again = Process::start(again, &world.path("one.log"));
    assert_eq!(id_of(&again), ids[0]);
    eventually("it gets work again", || world.serves(&ids[0]));
}

#[test]
fn a_revoked_orchestrator_does_not_count_as_told() {
    let world = World::start(false);
    let first = id_of(world.orchestrator.as_ref().expect("it runs"));
    let entered = || {
        let list = Tether::ok(&["grant", "ls", text(&world.path("mesh"))]);
        list.contains("revoked")
    };
    let itself = format!("orchestrator {} does not count", &first[..8]);
    let says = |output: &Output, words: &[&str]| {
        for words in words {
            assert!(said(output).contains(words), "{words} in {}", said(output));
        }
    };
    // Alone it hears of it, by whatever way, and nobody is left who would pass it on.
    let (admin, token) = world.admin();
    let by_admin = ["--admin", &admin, "--admin-token-file", text(&token)];
    for alone in [
        world.revoke(&[&first]),
        world.revoke_at(&[&first], &by_admin),
    ] {
        assert_eq!(alone.status.code(), Some(NOT_READY), "{}", said(&alone));
        says(&alone, &[&itself, "nobody took it who counts"]);
        assert!(!entered(), "it is no success");
    }
    let named = format!("orchestrators = [\"{first}\"]\n");
    let second = world.node("second", "orchestrator", &named);
    let running = world.orchestrator_of("second");
    // Where nobody is found, the one that is named takes it; one that is nowhere is no failure.
    let nobody = "11".repeat(32);
    let bootstrap = ["--bootstrap", &world.bootstrap, "--region", "us"];
    let names = ["--orchestrator", &second, "--orchestrator", &nobody];
    let output = world.revoke_at(&[&first], &[bootstrap, names].concat());
    assert!(output.status.success(), "{}", said(&output));
    let took = format!("orchestrator {} took it", &second[..8]);
    says(
        &output,
        &[&took, "1 orchestrator took it", "note: not taken"],
    );
    assert!(entered());
    // The configuration of a node names the first, and says where the second is found.
    let config = world.path("second/orchestrator.toml");
    let output = world.revoke_at(&[&first], &["--config", text(&config)]);
    assert!(output.status.success(), "{}", said(&output));
    says(&output, &[&took, &itself, "1 orchestrator took it"]);
    drop(running);
}

#[test]
fn what_was_signed_offline_is_brought_by_hand() {
    let world = World::start(false);
    let id = world.node("w", "worker", "");
    let worker = world.worker("w");
    eventually("it gets work", || world.serves(&id));
    // With the key that is on no network, and has a register of its own.
    std::fs::create_dir(world.path("safe")).expect("made");
    let key = world.path("safe/recovery.key");
    std::fs::rename(world.path("mesh/recovery.key"), &key).expect("moved");
    let file = world.path("stolen.control");
    Tether::ok(&[
        "revoke",
        &id,
        "--operator",
        text(&key),
        "--yes",
        "--out",
        text(&file),
    ]);
    assert!(world.serves(&id), "nobody was told yet");
    let (admin, token) = world.admin();
    let send = ["control", "send", text(&file)];
    let to = ["--admin", &admin, "--admin-token-file", text(&token)];
    let said = Tether::ok(&[&send[..], &to[..]].concat());
    assert!(said.contains(&id), "{said}");
    eventually("it is gone", || !world.shows(&id));
    drop(worker);
    // Over links it is brought by any operator; another mesh's message is taken by nobody.
    let other = World::path(&world, "other-mesh");
    Tether::ok(&["mesh", "new", text(&other)]);
    let theirs = world.path("theirs.control");
    Tether::ok(&[
        "revoke",
        &id,
        "--operator",
        text(&other),
        "--yes",
        "--out",
        text(&theirs),
    ]);
    let over_links = |file: &Path| {
        Tether::output(&[
            "control",
            "send",
            text(file),
            "--operator",
            text(&world.path("mesh")),
            "--bootstrap",
            &world.bootstrap,
            "--region",
            "eu",
        ])
    };
    assert!(over_links(&file).status.success());
    for output in [
        over_links(&theirs),
        Tether::output(&[&["control", "send", text(&theirs)][..], &to[..]].concat()),
        // One of two is not both.
        Tether::output(&[&send[..], &[text(&theirs)], &to[..]].concat()),
    ] {
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(
            String::from_utf8_lossy(&output.stderr).contains("nobody took it"),
            "{output:?}"
        );
    }
}

#[test]
fn what_a_stolen_first_key_rightly_revoked_outlives_it() {
    let mut world = World::start(false);
    let banned = world.node("banned", "worker", "");
    let other = world.node("other", "worker", "");
    let (worker, good) = (world.worker("banned"), world.worker("other"));
    eventually("both get work", || {
        world.serves(&banned) && world.serves(&other)
    });
    world.revoked(&[&banned, "--reason", "spies"]);
    eventually("it is gone", || !world.shows(&banned));
    // A thief of the key takes back one that serves well.
    std::fs::create_dir(world.path("thief")).expect("made");
    for file in ["operator.key", "mesh.id"] {
        let [from, to] = ["mesh", "thief"].map(|folder| world.path(folder).join(file));
        std::fs::copy(from, to).expect("copied");
    }
    let stolen = world.path("thief/operator.key");
    let by = ["revoke", &other, "--operator", text(&stolen), "--yes"];
    let to = ["--bootstrap", &world.bootstrap, "--region", "eu"];
    Tether::ok(&[&by[..], &to].concat());
    eventually("that is gone, too", || !world.shows(&other));
    drop((worker, good));
    std::fs::create_dir(world.path("safe")).expect("made");
    let key = world.path("safe/recovery.key");
    std::fs::rename(world.path("mesh/recovery.key"), &key).expect("moved");
    let mesh = world.path("mesh");
    let first = Tether::ok(&["keys", "show", text(&mesh.join("operator.key"))]);
    let recover = |to: &[&str]| {
        let by = ["revoke", &first, "--operator", text(&key), "--yes"];
        let output = Tether::output(&[&by[..], &["--register", text(&mesh)], to].concat());
        assert!(output.status.success(), "{}", said(&output));
        assert!(
            said(&output).contains("1 revocation of the first key signed anew"),
            "{}",
            said(&output)
        );
        output
    };
    // That the mesh knows of the banned key is no mistake, and neither is the same once more: here
    // signed offline, and brought.
    for _ in 0..2 {
        let output = recover(&["--bootstrap", &world.bootstrap, "--region", "eu"]);
        assert!(
            said(&output).contains("1 orchestrator took it"),
            "{}",
            said(&output)
        );
    }
    let file = world.path("stolen.control");
    recover(&["--out", text(&file)]);
    let (admin, token) = world.admin();
    let to = ["--admin", &admin, "--admin-token-file", text(&token)];
    let brought = Tether::ok(&[&["control", "send", text(&file)][..], &to].concat());
    let brought: Vec<_> = brought.lines().collect();
    assert!(
        brought.len() == 2 && brought[0].contains(&banned) && brought[1].contains(&first),
        "{brought:?}"
    );
    // Granted anew by the key that is left, all come back but the one that was banned.
    let gateway = id_of(world.gateway.as_ref().expect("it runs"));
    let orchestrator = id_of(world.orchestrator.as_ref().expect("it runs"));
    for (name, id) in [
        ("orchestrator", &orchestrator),
        ("gateway", &gateway),
        ("banned", &banned),
        ("other", &other),
    ] {
        let file = world.path(name).join("node.grant");
        std::fs::remove_file(&file).expect("the old one");
        let role = if name == "banned" || name == "other" {
            "worker"
        } else {
            name
        };
        operator::grant(&key, id, role, &file);
    }
    world.restart_orchestrator();
    // A banned one tells nobody what it knows, and the other is told to forget what the thief did.
    for name in ["banned", "other"] {
        std::fs::remove_file(world.path(name).join("data/membership.cbor")).ok();
    }
    let (back, good) = (world.worker("banned"), world.worker("other"));
    eventually("the other gets work", || world.serves(&other));
    says(&back, "was revoked");
    assert!(!world.shows(&banned));
    drop((back, good));
}

#[test]
fn a_list_of_keys_is_followed_while_the_orchestrator_runs() {
    let world = World::start(true);
    let gateway = id_of(world.gateway.as_ref().expect("it runs"));
    let (a, b) = (world.node("a", "worker", ""), world.node("b", "worker", ""));
    world.allow(&[&gateway, &a]);
    let one = world.worker("a");
    eventually("the one on the list gets work", || world.serves(&a));
    let other = world.worker("b");
    says(&other, "not on this node's list of allowed keys");
    assert!(!world.shows(&b));
    world.allow(&[&gateway, &b]);
    eventually("the new one gets work, the other is gone", || {
        world.serves(&b) && !world.serves(&a)
    });
    // A list with a mistake changes nothing.
    let mistake = "nonsense".to_owned();
    world.allow(&[&gateway, &mistake]);
    says(world.orchestrator.as_ref().expect("it runs"), "line 2");
    assert!(world.serves(&b) && !world.serves(&a));
    drop((one, other));
}
