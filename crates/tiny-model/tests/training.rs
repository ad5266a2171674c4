//! Training works end to end: lessons, gradients, export, and the file read back computes the same.
#![cfg(feature = "train")]
#![allow(clippy::unwrap_used)]

use candle_core::{Device, Tensor};
use tether_tiny_model::file;
use tether_tiny_model::reference::Reference;
use tether_tiny_model::shape::Shape;
use tether_tiny_model::template::prompt;
use tether_tiny_model::train::{export, tokenizer, trainer};

/// Q8_0 rounds weights to one part in some 250.
const TOLERANCE: f32 = 0.06;

const SHAPE: Shape = Shape {
    hidden: 64,
    layers: 2,
    feed_forward: 96,
    ..Shape::TINY
};

#[test]
fn the_exported_file_computes_what_was_trained() {
    let tokenizer = tokenizer::build(SHAPE.vocabulary).unwrap();
    let mut losses = Vec::new();
    let model = trainer::train(&SHAPE, &tokenizer, 3, 2, |progress| {
        losses.push(progress.loss)
    })
    .unwrap();
    assert!(
        losses.iter().all(|loss| loss.is_finite() && *loss < 10.0),
        "{losses:?}"
    );

    let bytes = export::gguf(&model, &tokenizer).unwrap();
    let reference = Reference::from_gguf(&bytes).unwrap();
    assert_eq!(reference.shape(), &SHAPE);

    let ids = tokenizer
        .encode(prompt("What is the capital of France?"), false)
        .unwrap();
    let ids = ids.get_ids();
    let inputs = Tensor::new(ids, &Device::Cpu).unwrap();
    let hidden = model.hidden(&inputs, 1, ids.len()).unwrap();
    let trained = model.logits(&hidden).unwrap().to_vec2::<f32>().unwrap();
    let mut sequence = reference.sequence();
    for (position, id) in ids.iter().enumerate() {
        for (read, trained) in sequence.push(*id).iter().zip(&trained[position]) {
            assert!(
                (read - trained).abs() < TOLERANCE,
                "position {position}: {read} and {trained}"
            );
        }
    }
}

#[test]
fn the_tokenizer_is_always_the_same_and_is_the_committed_one() {
    let build = || {
        let built = tokenizer::build(Shape::TINY.vocabulary).unwrap();
        built.to_string(false).unwrap().into_bytes()
    };
    let built = build();
    assert!(built == build(), "two builds differ");
    let committed = file("tokenizer.json").unwrap();
    assert!(
        built == committed,
        "the corpus changed: train and commit the model again"
    );
}
