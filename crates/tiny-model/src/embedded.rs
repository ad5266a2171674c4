//! The committed model, inside the binary.

/// Name of the model.
pub const NAME: &str = "tether-tiny";
/// Version of the model, `MAJOR.MINOR`.
pub const VERSION: &str = "1.0";
/// The file with the weights.
pub const GGUF_FILE: &str = "tether-tiny-q8_0.gguf";

/// One file of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EmbeddedFile {
    /// Its name, without a folder.
    pub name: &'static str,
    /// What is in it.
    pub bytes: &'static [u8],
}

macro_rules! embedded {
    ($name:literal) => {
        EmbeddedFile {
            name: $name,
            bytes: include_bytes!(concat!("../model/", $name)),
        }
    };
}

const FILES: [EmbeddedFile; 6] = [
    embedded!("tether-tiny-q8_0.gguf"),
    embedded!("tokenizer.json"),
    embedded!("tokenizer_config.json"),
    embedded!("generation_config.json"),
    embedded!("config.json"),
    embedded!("LICENSE"),
];

/// The model's files, the weights first.
#[must_use]
pub fn files() -> &'static [EmbeddedFile] {
    &FILES
}

/// The bytes of one file.
#[must_use]
pub fn file(name: &str) -> Option<&'static [u8]> {
    FILES
        .iter()
        .find(|file| file.name == name)
        .map(|file| file.bytes)
}
