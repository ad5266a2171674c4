//! The committed files are a whole model that other programs will accept. No tensor library is needed.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use serde_json::Value as Json;
use tether_tiny_model::gguf::{Gguf, Value};
use tether_tiny_model::questions::{self, count};
use tether_tiny_model::reference::Reference;
use tether_tiny_model::shape::Shape;
use tether_tiny_model::template::{BOS_ID, CHAT_TEMPLATE, END_ID, SPECIAL_TOKENS, prompt};
use tether_tiny_model::{GGUF_FILE, NAME, VERSION, file, files};
use tokenizers::Tokenizer;

/// Questions asked here; `tether-tiny-model check` asks all of them.
const ASKED: usize = 12;
const MEGABYTE: usize = 1 << 20;

fn weights() -> &'static [u8] {
    file(GGUF_FILE).expect("the weights are committed")
}

fn tokenizer() -> Tokenizer {
    let bytes = file("tokenizer.json").expect("the tokenizer is committed");
    Tokenizer::from_bytes(bytes).expect("the tokenizer loads")
}

fn texts(file: &Gguf<'_>, key: &str) -> Vec<String> {
    let Some(Value::Array(values)) = file.metadata.get(key) else {
        panic!("{key} is no array")
    };
    values
        .iter()
        .map(|value| match value {
            Value::Text(text) => text.clone(),
            other => panic!("{key} holds {other:?}"),
        })
        .collect()
}

#[test]
fn the_artifact_is_complete_named_and_about_a_megabyte() {
    assert_eq!((NAME, VERSION), ("tether-tiny", "1.0"));
    assert_eq!(files()[0].name, GGUF_FILE);
    let names: BTreeSet<_> = files().iter().map(|file| file.name).collect();
    assert_eq!(names.len(), files().len());
    assert!(files().iter().all(|file| !file.bytes.is_empty()));
    let total: usize = files().iter().map(|file| file.bytes.len()).sum();
    assert!(
        (MEGABYTE / 2..MEGABYTE * 3 / 2).contains(&total),
        "{total} bytes"
    );
}

#[test]
fn the_header_says_what_llama_engines_read() {
    let file = Gguf::parse(weights()).unwrap();
    let text = |key: &str| file.metadata[key].clone();
    assert_eq!(text("general.architecture"), Value::Text("llama".into()));
    assert_eq!(text("tokenizer.ggml.model"), Value::Text("gpt2".into()));
    assert_eq!(text("tokenizer.ggml.pre"), Value::Text("qwen2".into()));
    assert_eq!(
        text("tokenizer.chat_template"),
        Value::Text(CHAT_TEMPLATE.into())
    );
    assert_eq!(
        file.integer("tokenizer.ggml.bos_token_id").unwrap(),
        BOS_ID as usize
    );
    assert_eq!(
        file.integer("tokenizer.ggml.eos_token_id").unwrap(),
        END_ID as usize
    );
    assert!(file.integer("llama.context_length").unwrap() >= 2048);
    let matrices = file.tensors.values().filter(|info| info.sizes.len() == 2);
    assert!(
        matrices.into_iter().all(|info| info.kind == 8),
        "every matrix is Q8_0"
    );
    assert_eq!(
        Reference::from_gguf(weights()).unwrap().shape(),
        &Shape::TINY
    );
}

#[test]
fn both_tokenizers_and_both_templates_are_the_same() {
    let file = Gguf::parse(weights()).unwrap();
    let tokenizer = tokenizer();
    let tokens = texts(&file, "tokenizer.ggml.tokens");
    assert_eq!(tokens.len(), Shape::TINY.vocabulary);
    for (id, token) in (0..).zip(&tokens) {
        assert_eq!(tokenizer.id_to_token(id).as_ref(), Some(token));
    }
    for (token, given) in SPECIAL_TOKENS.iter().zip(&tokens) {
        assert_eq!(token, given);
    }
    let written: Json =
        serde_json::from_slice(tether_tiny_model::file("tokenizer.json").unwrap()).unwrap();
    let merges = written["model"]["merges"].as_array().unwrap();
    let merges: Vec<String> = merges
        .iter()
        .map(|pair| {
            format!(
                "{} {}",
                pair[0].as_str().unwrap(),
                pair[1].as_str().unwrap()
            )
        })
        .collect();
    assert_eq!(texts(&file, "tokenizer.ggml.merges"), merges);
    let config = tether_tiny_model::file("tokenizer_config.json").unwrap();
    let config: Json = serde_json::from_slice(config).unwrap();
    assert_eq!(config["chat_template"], CHAT_TEMPLATE);
}

#[test]
fn any_text_survives_the_tokenizer() {
    let tokenizer = tokenizer();
    for text in [
        "What is 12 + 7?",
        "naïve Ærøskøbing 東京 🦀",
        "  two\n\nlines\t",
        "1 2 3",
        "",
    ] {
        let encoding = tokenizer.encode(text, false).unwrap();
        assert_eq!(tokenizer.decode(encoding.get_ids(), false).unwrap(), text);
    }
    let ids = tokenizer
        .encode(prompt("Hi"), false)
        .unwrap()
        .get_ids()
        .to_vec();
    assert_eq!(ids[0], BOS_ID);
    assert_eq!(ids.iter().filter(|id| **id == END_ID).count(), 1);
}

#[test]
fn it_knows_capitals_sums_and_opposites() {
    let model = Reference::from_gguf(weights()).unwrap();
    let tokenizer = tokenizer();
    let exam = questions::exam();
    let mut asked: Vec<_> = exam
        .iter()
        .filter(|(_, expected)| expected.len() < 40)
        .collect();
    let stride = asked.len() / ASKED;
    asked = asked.into_iter().step_by(stride).collect();
    for (question, expected) in asked {
        let ids = tokenizer.encode(prompt(question), false).unwrap();
        let answer = model.continue_greedily(ids.get_ids(), 40, END_ID);
        let answer = tokenizer.decode(&answer, true).unwrap();
        assert!(answer.contains(expected), "{question} gave {answer:?}");
    }
}

#[test]
fn counting_to_200_is_longer_than_400_tokens() {
    let tokenizer = tokenizer();
    let counted = tokenizer.encode(count(200), false).unwrap();
    assert!(counted.get_ids().len() > 400);
}

#[test]
fn damaged_files_are_refused_not_run() {
    let bytes = weights();
    for length in [0, 3, 100, 20_000, bytes.len() - 4096] {
        assert!(
            Reference::from_gguf(&bytes[..length]).is_err(),
            "cut at {length}"
        );
    }
}
