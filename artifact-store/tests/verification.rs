//! What a worker notices about an artifact before anything parses it. (ART-1)

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use tempfile::TempDir;
use tether_artifact_store::{
    ArtifactError, MANIFEST_FILE, PackOptions, Trust, pack, read_manifest, sign, verify,
    verify_until,
};
use tether_wire::manifest::{FileEntry, Format};
use tether_wire::{Digest, Manifest, MeshId, NodeKey, Signed};
use tokio_util::sync::CancellationToken;

fn publisher() -> NodeKey {
    NodeKey::from_seed([1; 32])
}

fn trust() -> Trust {
    Trust::in_publishers([publisher().id()])
}

fn options() -> PackOptions {
    PackOptions::new("small@1.0".parse().expect("valid"))
}

/// A Hugging Face directory in miniature; nothing here is ever loaded.
fn files() -> TempDir {
    let dir = tempfile::tempdir().expect("tempdir");
    fs::create_dir(dir.path().join("sub")).expect("mkdir");
    for (path, content) in [
        ("config.json", r#"{"max_position_embeddings": 2048}"#.into()),
        ("model.safetensors", vec![7; 300_000]),
        ("tokenizer.json", b"not even JSON".to_vec()),
        ("sub/extra.bin", vec![9; 10]),
    ] as [(&str, Vec<u8>); 4]
    {
        fs::write(dir.path().join(path), content).expect("write");
    }
    dir
}

fn packed() -> (TempDir, Digest) {
    let dir = files();
    let packed = pack(dir.path(), options(), &publisher(), &mut |_| ()).expect("pack");
    (dir, packed.digest)
}

fn check(dir: &Path) -> Result<(), ArtifactError> {
    verify(dir, &trust(), None, &mut |_| ()).map(drop)
}

fn code(dir: &Path) -> &'static str {
    check(dir).expect_err("must be refused").code()
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).expect("read");
    bytes[at] ^= 1;
    fs::write(path, bytes).expect("write");
}

#[test]
fn what_was_packed_is_verified_and_described() {
    let (dir, digest) = packed();
    let mut last = None;
    let artifact = verify(dir.path(), &trust(), Some(&digest), &mut |progress| {
        last = Some((progress.bytes_done, progress.bytes_total));
    })
    .expect("verify");
    let manifest = artifact.manifest();
    assert_eq!(artifact.digest(), digest);
    assert_eq!(artifact.publisher(), publisher().id());
    assert_eq!(manifest.format, Format::Safetensors);
    assert_eq!(manifest.weights, "model.safetensors");
    assert_eq!(manifest.tokenizer.as_deref(), Some("tokenizer.json"));
    assert_eq!(manifest.context_tokens, 2048);
    assert_eq!(manifest.files.len(), 4);
    assert!(artifact.unlisted().is_empty());
    let (done, total) = last.expect("progress was shown");
    assert_eq!(done, total);
    assert!(artifact.root().is_absolute());
}

#[test]
fn a_flipped_bit_anywhere_in_any_file_is_found() {
    let (dir, _) = packed();
    let (_, manifest) = read_manifest(dir.path(), &trust()).expect("manifest");
    for file in &manifest.files {
        let path = dir.path().join(&file.path);
        let size = usize::try_from(file.size_bytes).expect("small");
        for at in [0, size / 2, size - 1] {
            flip(&path, at);
            let error = check(dir.path()).expect_err("flipped");
            assert_eq!(error.code(), "corrupt-file", "{} at {at}", file.path);
            assert!(error.to_string().contains(&file.path), "{error}");
            flip(&path, at);
        }
    }
    check(dir.path()).expect("whole again");
}

#[test]
fn a_file_of_another_length_is_found_without_reading_it() {
    let (dir, _) = packed();
    let path = dir.path().join("model.safetensors");
    let file = fs::File::options().write(true).open(&path).expect("open");
    for len in [299_999, 0, 300_001] {
        file.set_len(len).expect("set_len");
        let mut read = 0;
        let error = verify(dir.path(), &trust(), None, &mut |_| read += 1).expect_err("length");
        assert_eq!(error.code(), "wrong-size");
        assert_eq!(read, 0);
    }
}

#[test]
fn a_missing_file_and_a_missing_manifest_are_named() {
    let (dir, _) = packed();
    fs::remove_file(dir.path().join("sub/extra.bin")).expect("remove");
    let error = check(dir.path()).expect_err("missing");
    assert_eq!(error.code(), "missing-file");
    assert!(error.to_string().contains("sub/extra.bin"), "{error}");
    fs::remove_dir(dir.path().join("sub")).expect("remove");
    assert_eq!(code(dir.path()), "missing-file");
    fs::remove_file(dir.path().join(MANIFEST_FILE)).expect("remove");
    assert_eq!(code(dir.path()), "missing-manifest");
}

#[test]
fn a_strangers_manifest_is_refused_before_it_is_parsed() {
    let (dir, _) = packed();
    let stranger = NodeKey::from_seed([66; 32]);
    sign(dir.path(), &stranger).expect("sign");
    let error = check(dir.path()).expect_err("stranger");
    assert_eq!(error.code(), "untrusted-publisher");
    assert!(
        error.to_string().contains(&stranger.id().to_hex()),
        "{error}"
    );

    // Not even its form is looked at: garbage in the stranger's name gives the same error.
    let mut garbage = vec![1];
    garbage.extend(stranger.id().0);
    garbage.extend([0xff; 100]);
    fs::write(dir.path().join(MANIFEST_FILE), garbage).expect("write");
    assert_eq!(code(dir.path()), "untrusted-publisher");

    // The same garbage in the publisher's name does not carry its signature.
    let mut garbage = vec![1];
    garbage.extend(publisher().id().0);
    garbage.extend([0xff; 100]);
    fs::write(dir.path().join(MANIFEST_FILE), garbage).expect("write");
    assert_eq!(code(dir.path()), "bad-signature");
}

#[test]
fn signing_again_gives_another_digest_and_another_publisher() {
    let (dir, digest) = packed();
    let other = NodeKey::from_seed([2; 32]);
    let signed = sign(dir.path(), &other).expect("sign");
    assert_ne!(signed.digest, digest);
    assert_eq!(signed.publisher, other.id());
    let trust = Trust::in_publishers([other.id()]);
    verify(dir.path(), &trust, Some(&signed.digest), &mut |_| ()).expect("verify");
}

#[test]
fn a_flipped_bit_anywhere_in_the_manifest_is_found() {
    let (dir, digest) = packed();
    let path = dir.path().join(MANIFEST_FILE);
    let len = fs::read(&path).expect("read").len();
    for at in 0..len {
        flip(&path, at);
        let expected = match at {
            0 => "manifest-malformed",
            1..33 => "untrusted-publisher",
            _ => "bad-signature",
        };
        assert_eq!(code(dir.path()), expected, "bit flipped in byte {at}");
        flip(&path, at);
    }
    verify(dir.path(), &trust(), Some(&digest), &mut |_| ()).expect("whole again");
}

#[test]
fn a_manifest_cut_or_grown_is_refused() {
    let (dir, _) = packed();
    let path = dir.path().join(MANIFEST_FILE);
    let whole = fs::read(&path).expect("read");
    for len in [0, 20] {
        fs::write(&path, &whole[..len]).expect("write");
        assert_eq!(code(dir.path()), "manifest-malformed", "{len}");
    }
    // Anything after the signer's key is a matter of the signature.
    fs::write(&path, &whole[..whole.len() - 1]).expect("write");
    assert_eq!(code(dir.path()), "bad-signature");
    let file = fs::File::create(&path).expect("create");
    file.set_len(10 * 1024 * 1024 * 1024).expect("sparse");
    assert_eq!(
        code(dir.path()),
        "manifest-malformed",
        "never read into memory"
    );
}

#[test]
fn another_artifact_than_the_expected_one_is_refused() {
    let (dir, _) = packed();
    let expect = Digest([3; 32]);
    let error = verify(dir.path(), &trust(), Some(&expect), &mut |_| ()).expect_err("digest");
    assert_eq!(error.code(), "wrong-digest");
}

#[test]
fn a_link_in_place_of_a_file_or_a_folder_is_refused() {
    let (dir, _) = packed();
    let outside = tempfile::tempdir().expect("tempdir");

    // The same content, but somewhere else, where anyone may change it after the check.
    let weights = dir.path().join("model.safetensors");
    let moved = outside.path().join("model.safetensors");
    fs::copy(&weights, &moved).expect("copy");
    fs::remove_file(&weights).expect("remove");
    symlink(&moved, &weights).expect("symlink");
    assert_eq!(code(dir.path()), "not-a-regular-file");
    fs::remove_file(&weights).expect("remove");
    fs::copy(&moved, &weights).expect("copy");
    check(dir.path()).expect("a copy is fine");

    let sub = dir.path().join("sub");
    fs::rename(&sub, outside.path().join("sub")).expect("rename");
    symlink(outside.path().join("sub"), &sub).expect("symlink");
    assert_eq!(code(dir.path()), "not-a-regular-file");

    let manifest = dir.path().join(MANIFEST_FILE);
    fs::rename(&manifest, outside.path().join("m")).expect("rename");
    symlink(outside.path().join("m"), &manifest).expect("symlink");
    assert_eq!(code(dir.path()), "not-a-regular-file");
}

#[test]
fn a_folder_or_a_device_in_place_of_a_file_is_refused() {
    let (dir, _) = packed();
    let path = dir.path().join("tokenizer.json");
    fs::remove_file(&path).expect("remove");
    fs::create_dir(&path).expect("mkdir");
    assert_eq!(code(dir.path()), "not-a-regular-file");
    fs::remove_dir(&path).expect("remove");
    // A socket stands for every special file; opening a FIFO for reading would also wait forever.
    let _socket = std::os::unix::net::UnixListener::bind(&path).expect("bind");
    assert!(matches!(code(dir.path()), "not-a-regular-file" | "io"));
}

#[test]
fn a_path_that_leads_outside_never_comes_out_of_a_manifest() {
    let (dir, _) = packed();
    let mut manifest = read_manifest(dir.path(), &trust())
        .expect("manifest")
        .1
        .into_inner();
    manifest.files.push(FileEntry {
        path: "../../etc/passwd".to_owned(),
        size_bytes: 1,
        digest: Digest([0; 32]),
    });
    // Our own code does not sign it, so it is put together from raw parts, as an attacker
    // with a trusted key would.
    assert!(Signed::<Manifest>::seal(&publisher(), &MeshId([0; 32]), &manifest).is_err());
    let sealed = seal_unchecked(&manifest);
    fs::write(dir.path().join(MANIFEST_FILE), sealed).expect("write");
    let error = check(dir.path()).expect_err("traversal");
    assert_eq!(error.code(), "manifest-malformed");
    assert!(
        error.to_string().contains("outside the artifact"),
        "{error}"
    );
}

/// Seals a value of the same shape and domain as a manifest, without a manifest's checks.
fn seal_unchecked(manifest: &Manifest) -> Vec<u8> {
    use serde::{Deserialize, Serialize};
    use tether_wire::{NodeId, Signable, codec::CodecError};

    #[derive(Serialize, Deserialize)]
    #[serde(transparent)]
    struct Unchecked(Manifest);
    impl Signable for Unchecked {
        const WHAT: &'static str = "manifest";
        const DOMAIN: &'static str = Manifest::DOMAIN;
        const MAX_BYTES: usize = Manifest::MAX_BYTES;
        const MESH_BOUND: bool = false;
        fn check(&self, _: &NodeId) -> Result<(), CodecError> {
            Ok(())
        }
    }
    Signed::seal(&publisher(), &MeshId([0; 32]), &Unchecked(manifest.clone()))
        .expect("sealed")
        .as_bytes()
        .to_vec()
}

#[test]
fn files_beside_the_listed_ones_are_reported_and_otherwise_ignored() {
    let (dir, _) = packed();
    fs::write(dir.path().join("note.txt"), "hello").expect("write");
    let artifact = verify(dir.path(), &trust(), None, &mut |_| ()).expect("verify");
    assert_eq!(artifact.unlisted(), ["note.txt"]);
}

#[test]
fn an_engine_is_shown_the_listed_files_and_nothing_else() {
    let (dir, _) = packed();
    fs::write(dir.path().join("extra.safetensors"), "unsigned").expect("write");
    let artifact = verify(dir.path(), &trust(), None, &mut |_| ()).expect("verify");
    let place = tempfile::tempdir().expect("temporary folder");
    let at = place.path().join("views/one");
    for _ in 0..2 {
        let view = artifact.expose(&at).expect("made, and made again");
        let mut seen: Vec<String> = fs::read_dir(&view)
            .expect("a folder")
            .map(|entry| {
                entry
                    .expect("readable")
                    .file_name()
                    .into_string()
                    .expect("UTF-8")
            })
            .collect();
        seen.sort();
        let mut listed: Vec<String> = artifact
            .manifest()
            .files
            .iter()
            .map(|f| f.path.clone())
            .collect();
        listed.sort();
        let top = |path: &String| path.split('/').next().expect("a first part").to_owned();
        assert_eq!(seen, listed.iter().map(top).collect::<Vec<_>>());
        for path in &listed {
            assert_eq!(
                fs::read(view.join(path)).expect("through the link"),
                fs::read(dir.path().join(path)).expect("the file")
            );
        }
        fs::write(at.join("left.safetensors"), "from an earlier version").expect("write");
    }
}

#[test]
fn packing_refuses_what_could_not_be_served() {
    let attempt = |change: &dyn Fn(&Path), options: PackOptions| {
        let dir = files();
        change(dir.path());
        pack(dir.path(), options, &publisher(), &mut |_| ()).map(drop)
    };
    let code = |result: Result<(), ArtifactError>| result.expect_err("refused").code();
    attempt(&|_| (), options()).expect("fine as it is");
    let remove =
        |name: &'static str| move |dir: &Path| fs::remove_file(dir.join(name)).expect("remove");
    for name in ["config.json", "tokenizer.json", "model.safetensors"] {
        assert_eq!(
            code(attempt(&remove(name), options())),
            "unsupported-format"
        );
    }
    let link = |dir: &Path| symlink("/etc/hostname", dir.join("x")).expect("symlink");
    assert_eq!(code(attempt(&link, options())), "not-a-regular-file");
    let garbage = |dir: &Path| fs::write(dir.join("m.gguf"), "garbage").expect("write");
    assert_eq!(code(attempt(&garbage, options())), "unsupported-format");
    let mut long = options();
    long.context_tokens = Some(4096);
    assert_eq!(code(attempt(&|_| (), long)), "unsupported-format");
}

#[test]
fn a_manifest_that_is_replaced_is_whole_at_every_moment() {
    let (dir, _) = packed();
    let path = dir.path().to_owned();
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let reader = std::thread::spawn({
        let stop = stop.clone();
        move || {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                read_manifest(&path, &trust()).expect("whole");
            }
        }
    });
    for _ in 0..50 {
        sign(dir.path(), &publisher()).expect("sign");
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    reader.join().expect("the reader never saw half a manifest");
    let names = fs::read_dir(dir.path()).expect("read_dir").count();
    assert_eq!(names, 5, "no temporary file is left");
}

#[test]
fn a_check_that_is_given_up_ends_in_the_middle_of_a_file_and_blames_nobody() {
    let (dir, digest) = packed();
    let cancel = CancellationToken::new();
    let mut reads = 0;
    let error = verify_until(dir.path(), &trust(), Some(&digest), &cancel, &mut |it| {
        reads += 1;
        if it.path == "model.safetensors" {
            cancel.cancel();
        }
    });
    let error = error.expect_err("given up");
    assert!(matches!(error, ArtifactError::Cancelled), "{error}");
    assert_eq!(reads, 2, "the rest of that file was not read");
}
