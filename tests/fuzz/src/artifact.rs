//! Files of artifacts, as far as they are read outside of an engine's process.

use crate::Verdict;
use crate::known::operator;
use tether_artifact_store::{ArtifactError, Trust, decoders};
use tether_wire::manifest::is_safe_path;
use tether_wire::{Digest, NodeId};

/// `tether.manifest`: only a trusted publisher's is read, and no path in it leads outside.
pub(crate) fn manifest_file(bytes: &[u8]) -> Verdict {
    let nobody = decoders::manifest(bytes, &Trust::default());
    assert!(nobody.is_err(), "nobody is trusted");
    let publisher = operator().id();
    match decoders::manifest(bytes, &Trust::in_publishers([publisher])) {
        Ok((digest, manifest)) => {
            assert_eq!(digest, Digest::of(bytes));
            assert_eq!(manifest.signer(), publisher);
            assert!(manifest.files.iter().all(|file| is_safe_path(&file.path)));
            Verdict::Accepted
        }
        Err(error) => {
            let claimed = bytes.get(1..33) == Some(publisher.0.as_slice());
            let untrusted = matches!(error, ArtifactError::UntrustedPublisher(NodeId(_)));
            assert!(!(claimed && untrusted), "{error}");
            assert!(!error.code().is_empty());
            Verdict::Refused
        }
    }
}

/// The header of a GGUF file.
pub(crate) fn gguf(bytes: &[u8]) -> Verdict {
    let Some((_, licence)) = decoders::gguf(bytes) else {
        return Verdict::Refused;
    };
    assert!(licence.is_none_or(|licence| licence.len() <= 4_096));
    Verdict::Accepted
}

/// A `config.json`.
pub(crate) fn config(bytes: &[u8]) -> Verdict {
    Verdict::of(decoders::config(bytes).is_some())
}

/// A small GGUF file: one of each type of value.
pub(crate) fn gguf_sample() -> Vec<u8> {
    fn text(bytes: &mut Vec<u8>, text: &str) {
        bytes.extend((text.len() as u64).to_le_bytes());
        bytes.extend(text.as_bytes());
    }
    let mut values = Vec::new();
    let mut count = 0_u64;
    let mut put = |key: &str, kind: u32, value: &[u8]| {
        text(&mut values, key);
        values.extend(kind.to_le_bytes());
        values.extend(value);
        count += 1;
    };
    let mut llama = Vec::new();
    text(&mut llama, "llama");
    let mut strings = [8_u32.to_le_bytes().to_vec(), 2_u64.to_le_bytes().to_vec()].concat();
    text(&mut strings, "a");
    text(&mut strings, "b");
    let floats = [&6_u32.to_le_bytes()[..], &1_u64.to_le_bytes(), &[0; 4]].concat();
    let nested = [&9_u32.to_le_bytes()[..], &1_u64.to_le_bytes(), &floats].concat();
    put("general.architecture", 8, &llama);
    put("general.license", 8, &llama);
    put("tokenizer.ggml.model", 8, &llama);
    put("llama.context_length", 4, &2_048_u32.to_le_bytes());
    put("wide", 10, &7_u64.to_le_bytes());
    put("flag", 7, &[1]);
    put("short", 2, &[1, 0]);
    put("tokenizer.ggml.tokens", 9, &strings);
    put("floats", 9, &floats);
    put("nested", 9, &nested);
    let head = [&b"GGUF"[..], &3_u32.to_le_bytes(), &0_u64.to_le_bytes()].concat();
    [head, count.to_le_bytes().to_vec(), values].concat()
}
