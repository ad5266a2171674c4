//! What is measured: the small model, in which what surrounds the arithmetic counts, and a random
//! one in which the arithmetic does. Both are in Q8_0.

use std::path::{Path, PathBuf};
use tether_artifact_store::PackOptions;
use tether_tiny_model::shape::Shape;
use tether_tiny_model::{GGUF_FILE, RANDOM_GGUF_FILE, write_random_gguf};
use tether_wire::{NodeId, NodeKey};

/// Its name in the mesh.
const LARGE: &str = "random-24m";
/// 24.4 million parameters.
const LARGE_SHAPE: Shape = Shape {
    hidden: 512,
    layers: 8,
    heads: 8,
    kv_heads: 4,
    head_width: 64,
    feed_forward: 1_408,
    ..Shape::TINY
};
/// Of its weights.
const SEED: u64 = 1;

/// A model, and what it is called.
#[derive(Debug)]
pub(super) struct Measured {
    /// In the table.
    pub(super) words: String,
    /// In the mesh.
    pub(super) name: &'static str,
    pub(super) folder: PathBuf,
    pub(super) weights: &'static str,
}

/// Both, in a folder that goes with this.
#[derive(Debug)]
pub(super) struct Models {
    _folder: tempfile::TempDir,
    measured: [Measured; 2],
    pub(super) publisher: NodeId,
}

impl Models {
    pub(super) fn measured(&self) -> &[Measured] {
        &self.measured
    }

    /// The folder of the one that the mesh does not bring along.
    pub(super) fn large(&self) -> &Path {
        &self.measured[1].folder
    }
}

pub(super) fn make() -> anyhow::Result<Models> {
    let folder = tempfile::tempdir()?;
    let (small, large) = (folder.path().join("small"), folder.path().join("large"));
    std::fs::create_dir_all(&small)?;
    for file in tether_tiny_model::files() {
        std::fs::write(small.join(file.name), file.bytes)?;
    }
    write_random_gguf(&large, SEED, &LARGE_SHAPE)?;
    let key = NodeKey::from_seed(rand::random());
    let options = PackOptions::new(format!("{LARGE}@1.0").parse()?);
    tether_artifact_store::pack(&large, options, &key, &mut |_| {})?;
    let words = |shape: &Shape| {
        #[expect(clippy::cast_precision_loss, reason = "millions")]
        let millions = shape.parameters() as f64 / 1e6;
        format!("{millions:.1} million parameters")
    };
    Ok(Models {
        measured: [
            Measured {
                words: words(&Shape::TINY),
                name: tether_tiny_model::NAME,
                folder: small,
                weights: GGUF_FILE,
            },
            Measured {
                words: words(&LARGE_SHAPE),
                name: LARGE,
                folder: large,
                weights: RANDOM_GGUF_FILE,
            },
        ],
        publisher: key.id(),
        _folder: folder,
    })
}
