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

/// Configuration and weights of an adapter, parted by a NUL.
pub(crate) fn adapter(bytes: &[u8]) -> Verdict {
    let mut parts = bytes.splitn(2, |byte| *byte == 0);
    let (config, weights) = (parts.next(), parts.next());
    Verdict::of(decoders::adapter(
        config.unwrap_or_default(),
        weights.unwrap_or_default(),
    ))
}

/// A small adapter.
pub(crate) fn adapter_sample() -> Vec<u8> {
    let config = r#"{"peft_type":"LORA","r":1,"lora_alpha":2.0,"target_modules":["q"]}"#;
    let header = r#"{"__metadata__":{"format":"pt"},"base_model.model.q.lora_A.weight":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]},"base_model.model.q.lora_B.weight":{"dtype":"F32","shape":[2,1],"data_offsets":[8,16]}}"#;
    let len = (header.len() as u64).to_le_bytes();
    [config.as_bytes(), &[0], &len, header.as_bytes(), &[0; 16]].concat()
}
