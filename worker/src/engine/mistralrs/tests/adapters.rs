//! Adapters over their base: what they say, and which are refused.

use super::{chat, greedy, model_load};
use crate::engine::child::conversation::client::{Client, Got};
use crate::engine::protocol::{FromEngine, Load, ToEngine};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use tether_tiny_model::random_lora::merged;
use tether_tiny_model::{write_random_hf, write_random_lora};
use tether_wire::infer::Sampling;
use tether_wire::manifest::Format;

const WEIGHTS: &str = "model.safetensors";
const ADAPTER: &str = "adapter_model.safetensors";
const CONFIG: &str = "adapter_config.json";

/// A base and an adapter as an engine is shown them.
struct Pair {
    folder: TempDir,
}

impl Pair {
    fn new(seed: u64) -> Self {
        let pair = Self {
            folder: tempfile::tempdir().expect("folder"),
        };
        write_random_hf(&pair.base(), 7).expect("written");
        write_random_lora(&pair.adapter(), seed).expect("written");
        pair
    }

    fn base(&self) -> PathBuf {
        self.folder.path().join("base")
    }

    fn adapter(&self) -> PathBuf {
        self.folder.path().join("adapter")
    }

    fn load(&self) -> Load {
        Load {
            has_adapter: true,
            ..model_load(self.folder.path(), WEIGHTS, Format::Safetensors)
        }
    }

    /// The same weights as those of one model.
    fn merged(&self) -> TempDir {
        let folder = tempfile::tempdir().expect("folder");
        write_random_hf(folder.path(), 7).expect("written");
        let read = |path: PathBuf| fs::read(path).expect("read");
        let sum = merged(
            &read(self.base().join(WEIGHTS)),
            &read(self.adapter().join(ADAPTER)),
        );
        fs::write(folder.path().join(WEIGHTS), sum.expect("added")).expect("written");
        folder
    }

    fn change_config(&self, change: impl FnOnce(&mut Value)) {
        let path = self.adapter().join(CONFIG);
        let mut config = serde_json::from_slice(&fs::read(&path).expect("read")).expect("JSON");
        change(&mut config);
        fs::write(path, config.to_string()).expect("written");
    }

    /// Why it is not loaded.
    fn refused(&self) -> FromEngine {
        let mut client = Client::start();
        client.send(&ToEngine::Load(self.load()));
        client.receive().expect("said")
    }

    fn unfit(&self) -> String {
        match self.refused() {
            FromEngine::AdapterUnfit { reason } => reason,
            other => panic!("{other:?}"),
        }
    }
}

fn plain(folder: &Path) -> Load {
    model_load(folder, WEIGHTS, Format::Safetensors)
}

const PROMPTS: [&str; 6] = [
    "Hello",
    "What is the capital of France?",
    "Count to 20.",
    "What is 2 + 2?",
    "a",
    "The opposite of hot is what, and why would anybody ask that?",
];

fn answers(load: &Load) -> Vec<Got> {
    let mut client = Client::loaded(load);
    let sampling = Sampling {
        max_tokens: Some(40),
        top_logprobs: Some(3),
        ..greedy()
    };
    let ask = |prompt: &&str| client.ask(chat(prompt), &sampling);
    PROMPTS.iter().map(ask).collect()
}

fn tokens(answers: &[Got]) -> Vec<&[u32]> {
    answers.iter().map(|got| got.tokens.as_slice()).collect()
}

/// The most that a told logarithm of a probability differs.
fn apart(these: &[Got], those: &[Got]) -> f32 {
    let told = |all: &[Got]| -> Vec<f32> {
        let each = all.iter().flat_map(|got| &got.logprobs);
        each.flat_map(|it| it.top.iter().map(|top| top.logprob))
            .collect()
    };
    let pairs = told(these).into_iter().zip(told(those));
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn an_adapters_answers_are_those_of_merged_weights() {
    let pair = Pair::new(1);
    let adapted = answers(&pair.load());
    let merged = pair.merged();
    let expected = answers(&plain(merged.path()));
    let base = answers(&plain(&pair.base()));
    assert_eq!(tokens(&adapted), tokens(&expected));
    let difference = apart(&adapted, &expected);
    eprintln!("logprobs differ by {difference:e} at most");
    assert!(difference < 1e-4, "{difference}");
    for (adapted, base) in adapted.iter().zip(&base) {
        assert_ne!(adapted.tokens, base.tokens, "the adapter changes nothing");
    }
    // Once more in this process, and the base after it.
    assert_eq!(tokens(&answers(&pair.load())), tokens(&adapted));
    let again = answers(&plain(&pair.base()));
    assert_eq!(tokens(&again), tokens(&base));
    assert_eq!(apart(&again, &base).to_bits(), 0, "to the last bit");
}

#[test]
fn an_adapter_that_does_not_fit_is_refused_by_name() {
    type Change = fn(&Pair);
    let cases: [(&str, Change); 8] = [
        ("use_dora", |it| {
            it.change_config(|c| c["use_dora"] = json!(true));
        }),
        ("use_rslora", |it| {
            it.change_config(|c| c["use_rslora"] = json!(true));
        }),
        ("modules_to_save", |it| {
            it.change_config(|c| c["modules_to_save"] = json!(["lm_head"]));
        }),
        ("bias", |it| {
            it.change_config(|c| c["bias"] = json!("lora_only"));
        }),
        ("rank 8", |it| it.change_config(|c| c["r"] = json!(8))),
        ("nothing for gate_proj", |it| {
            it.change_config(|c| {
                c["target_modules"]
                    .as_array_mut()
                    .expect("a list")
                    .push(json!("gate_proj"))
            });
        }),
        // The weights are cut, and the header is whole.
        (ADAPTER, |it| {
            let path = it.adapter().join(ADAPTER);
            let bytes = fs::read(&path).expect("read");
            fs::write(&path, &bytes[..bytes.len() - 100]).expect("written");
        }),
        // Made for another base.
        ("is made for [64, 64], and the base has [64, 32]", |it| {
            let shape = tether_tiny_model::shape::Shape {
                heads: 1,
                ..tether_tiny_model::random_hf::RANDOM_SHAPE
            };
            tether_tiny_model::write_random_hf_of(&it.base(), 7, &shape).expect("written");
        }),
    ];
    for (says, change) in cases {
        let pair = Pair::new(1);
        change(&pair);
        let why = pair.unfit();
        assert!(why.contains(says), "{why}");
    }
    let pair = Pair::new(1);
    fs::remove_file(pair.adapter().join(CONFIG)).expect("removed");
    assert!(matches!(pair.refused(), FromEngine::LoadFailed { reason } if reason.contains(CONFIG)));
}

#[test]
fn a_module_that_the_engine_does_not_build_is_never_left_out_in_silence() {
    let pair = Pair::new(1);
    // In the base's file, in the adapter, and of the right sizes; only no layer takes it.
    let name = "layers.9.self_attn.q_proj";
    edit(&pair.base().join(WEIGHTS), |header, data| {
        let begin = data.len();
        data.extend([0; 64 * 64 * 4]);
        header[&format!("model.{name}.weight")] =
            json!({"dtype": "F32", "shape": [64, 64], "data_offsets": [begin, data.len()]});
    });
    edit(&pair.adapter().join(ADAPTER), |header, _| {
        let text = header.to_string();
        let text = text.replace("layers.1.self_attn.q_proj", name);
        *header = serde_json::from_str(&text).expect("JSON");
    });
    let why = pair.unfit();
    assert!(
        why.contains("cannot add") && why.contains("layers.9"),
        "{why}"
    );
}

/// Changes the header and the numbers of a file of safetensors.
fn edit(path: &Path, change: impl FnOnce(&mut Value, &mut Vec<u8>)) {
    let bytes = fs::read(path).expect("read");
    let (len, rest) = bytes.split_at(8);
    let len = u64::from_le_bytes(len.try_into().expect("eight"));
    let (header, data) = rest.split_at(usize::try_from(len).expect("small"));
    let mut header = serde_json::from_slice(header).expect("JSON");
    let mut data = data.to_vec();
    change(&mut header, &mut data);
    let header = header.to_string();
    let len = (header.len() as u64).to_le_bytes();
    fs::write(path, [&len, header.as_bytes(), &data].concat()).expect("written");
}
