use super::*;
use serde_json::{Value, json};

fn config() -> Value {
    json!({
        "peft_type": "LORA", "r": 4, "lora_alpha": 8, "bias": "none",
        "target_modules": ["q_proj"], "lora_dropout": 0.1,
    })
}

fn weights(tensors: &[(&str, [u64; 2])]) -> Vec<u8> {
    let mut header = json!({"__metadata__": {"format": "pt"}});
    for (name, shape) in tensors {
        header[name] = json!({"dtype": "F32", "shape": shape, "data_offsets": [0, 0]});
    }
    let header = header.to_string();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes
}

const A: &str = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight";
const B: &str = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight";

fn good() -> Vec<u8> {
    weights(&[(A, [4, 64]), (B, [64, 4])])
}

fn tried(config: &Value, weights: &[u8]) -> Result<Adapter, String> {
    check(config.to_string().as_bytes(), weights)
}

#[test]
fn plain_lora_is_taken_and_what_would_be_left_out_is_refused_by_name() {
    tried(&config(), &good()).expect("plain");
    for (key, value) in [
        ("peft_type", json!("LOHA")),
        ("use_dora", json!(true)),
        ("use_rslora", json!(true)),
        ("bias", json!("all")),
        ("rank_pattern", json!({"q_proj": 8})),
        ("alpha_pattern", json!({"q_proj": 8})),
        ("modules_to_save", json!(["lm_head"])),
        ("lora_bias", json!(true)),
        ("fan_in_fan_out", json!(true)),
        ("layer_replication", json!([[0, 2]])),
        ("trainable_token_indices", json!([1, 2])),
        ("alora_invocation_tokens", json!([1])),
        ("of_a_later_version", json!("some")),
        ("init_lora_weights", json!("pissa")),
        ("layers_to_transform", json!([1])),
        ("target_modules", json!([".*"])),
        ("target_modules", json!([])),
        ("target_modules", json!(["lm_head"])),
        ("target_modules", json!("all-linear")),
        ("r", json!(0)),
    ] {
        let mut config = config();
        config[key] = value;
        let why = tried(&config, &good()).expect_err(key);
        assert!(why.contains(ADAPTER_CONFIG), "{why}");
    }
}

#[test]
fn weights_that_do_not_belong_to_the_configuration_are_refused() {
    let other = "base_model.model.model.layers.0.self_attn.k_proj.lora_A.weight";
    for (wrong, says) in [
        (weights(&[(A, [4, 64])]), "no lora_B"),
        (weights(&[(A, [8, 64]), (B, [64, 8])]), "rank 4"),
        (
            weights(&[(A, [4, 64]), (B, [64, 4]), (other, [4, 64])]),
            "belongs to no",
        ),
        (weights(&[("model.layers.0.weight", [4, 64])]), "begin with"),
        (weights(&[]), "nothing for q_proj"),
        (good()[..40].to_vec(), "middle of its header"),
        (u64::MAX.to_le_bytes().to_vec(), "claims a header"),
        (
            weights(&[
                ("base_model.model.a b.q_proj.lora_A.weight", [4, 64]),
                ("base_model.model.a b.q_proj.lora_B.weight", [64, 4]),
            ]),
            "path of modules",
        ),
        (
            String::from_utf8(good())
                .expect("text")
                .replace("F32", "F8_")
                .into_bytes(),
            "written as F8_",
        ),
    ] {
        let why = tried(&config(), &wrong).expect_err(says);
        assert!(why.contains(says), "{why}");
    }
}

#[test]
fn more_modules_than_a_pattern_should_hold_are_refused() {
    let names: Vec<String> = (0..=MAX_MODULES)
        .flat_map(|n| ["A", "B"].map(|part| format!("{PREFIX}{n}.q_proj.lora_{part}.weight")))
        .collect();
    let tensors: Vec<_> = (names.iter()).map(|name| (name.as_str(), [4, 4])).collect();
    let why = tried(&config(), &weights(&tensors)).expect_err("too many");
    assert!(why.contains("more than 2048 modules"), "{why}");
    tried(&config(), &weights(&tensors[2..])).expect("as many as may be");
}

#[test]
fn each_pair_must_fit_its_module_in_the_base() {
    let adapter = tried(&config(), &good()).expect("plain");
    let base = |shape| {
        let name = "model.layers.0.self_attn.q_proj.weight";
        Shapes::read(weights(&[(name, shape)]).as_slice()).expect("a header")
    };
    adapter.fits(&base([64, 64])).expect("it fits");
    let why = adapter.fits(&base([64, 32])).expect_err("other sizes");
    assert!(
        why.contains("[64, 64]") && why.contains("[64, 32]"),
        "{why}"
    );
    let why = adapter.fits(&Shapes::default()).expect_err("no module");
    assert!(
        why.contains("no module model.layers.0.self_attn.q_proj"),
        "{why}"
    );
}
