//! The key-values at the start of a GGUF file, read within bounds.
//!
//! Layout: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>. Only a publisher's own
//! files are read here, but a broken download should say so and not take all memory.

use super::config::cache_width;
use std::collections::BTreeMap;
use std::io::{self, BufReader, Read};

/// Most bytes of key-values; vocabularies of 256k tokens with merges have some 15 MB.
const MAX_HEADER_BYTES: u64 = 256 * 1024 * 1024;
/// Most key-values; files in use have some 50.
const MAX_KEY_VALUES: u64 = 65_536;
/// Longest key, by the specification.
const MAX_KEY_BYTES: u64 = 65_535;
/// Longest text that is kept; longer ones are skipped.
const MAX_TEXT_BYTES: u64 = 4_096;
/// Deepest arrays of arrays.
const MAX_ARRAY_DEPTH: u32 = 4;

/// What packing needs of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) context_tokens: Option<u32>,
    pub(crate) has_tokenizer: bool,
    pub(crate) licence: Option<String>,
    pub(crate) cache_width: Option<u32>,
}

/// What is kept of the numbers, by the ends of their keys.
const NUMBERS: [&str; 7] = [
    "context_length",
    "block_count",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "embedding_length",
];

/// The numbers of a header, those of other architectures too.
struct Numbers {
    architecture: String,
    numbers: BTreeMap<String, u64>,
}

impl Numbers {
    fn get(&self, end: &str) -> Option<u32> {
        let value = self.numbers.get(&format!("{}.{end}", self.architecture))?;
        u32::try_from(*value).ok()
    }

    fn cache_width(&self) -> Option<u32> {
        let heads = self
            .get("attention.head_count")
            .filter(|heads| *heads > 0)?;
        let default = self.get("embedding_length").map(|width| width / heads);
        cache_width(
            self.get("block_count")?,
            self.get("attention.head_count_kv").unwrap_or(heads),
            self.get("attention.key_length").or(default)?,
            self.get("attention.value_length").or(default)?,
        )
    }
}

/// A value that may matter.
enum Value {
    Number(u64),
    Text(String),
    Skipped,
}

pub(crate) fn read(file: impl Read) -> Result<Header, String> {
    Reader {
        inner: BufReader::new(file).take(MAX_HEADER_BYTES),
    }
    .header()
}

struct Reader<R> {
    inner: R,
}

impl<R: Read> Reader<R> {
    fn header(&mut self) -> Result<Header, String> {
        if self.bytes::<4>()? != *b"GGUF" {
            return Err("it does not begin with GGUF".to_owned());
        }
        let version = self.u32()?;
        if !(2..=3).contains(&version) {
            return Err(format!("GGUF version {version} is not supported"));
        }
        let _tensors = self.u64()?;
        let count = self.u64()?;
        if count > MAX_KEY_VALUES {
            return Err(format!("it claims {count} key-values"));
        }
        let mut header = Header::default();
        let mut architecture = None;
        let mut numbers = BTreeMap::new();
        for _ in 0..count {
            let key = self.text(MAX_KEY_BYTES)?;
            let kind = self.u32()?;
            match (key.as_str(), self.value(kind, 0)?) {
                ("general.architecture", Value::Text(text)) => architecture = Some(text),
                ("general.license", Value::Text(text)) => header.licence = Some(text),
                ("tokenizer.ggml.model", Value::Text(_)) => header.has_tokenizer = true,
                (key, Value::Number(number)) if NUMBERS.iter().any(|end| key.ends_with(end)) => {
                    numbers.insert(key.to_owned(), number);
                }
                _ => {}
            }
        }
        let architecture = architecture.ok_or("it names no general.architecture")?;
        let numbers = Numbers {
            architecture,
            numbers,
        };
        header.context_tokens = numbers.get("context_length");
        header.cache_width = numbers.cache_width();
        Ok(header)
    }

    fn value(&mut self, kind: u32, depth: u32) -> Result<Value, String> {
        const U8: u32 = 0;
        const STRING: u32 = 8;
        const ARRAY: u32 = 9;
        Ok(match kind {
            U8 | 1 | 7 => self.skip(1)?,
            2 | 3 => self.skip(2)?,
            4 | 5 => Value::Number(u64::from(self.u32()?)),
            6 => self.skip(4)?,
            10 | 11 => Value::Number(self.u64()?),
            12 => self.skip(8)?,
            STRING => {
                let len = self.u64()?;
                if len <= MAX_TEXT_BYTES {
                    Value::Text(self.utf8(len)?)
                } else {
                    self.skip(len)?
                }
            }
            ARRAY => {
                let (of, len) = (self.u32()?, self.u64()?);
                if depth >= MAX_ARRAY_DEPTH {
                    return Err("its arrays are nested too deep".to_owned());
                }
                match of {
                    U8 | 1 | 7 => self.skip(len)?,
                    2 | 3 => self.skip(len.saturating_mul(2))?,
                    4..=6 => self.skip(len.saturating_mul(4))?,
                    10..=12 => self.skip(len.saturating_mul(8))?,
                    // Each element takes bytes, so the end of the header bounds this loop.
                    _ => {
                        for _ in 0..len {
                            self.element(of, depth + 1)?;
                        }
                        Value::Skipped
                    }
                }
            }
            unknown => return Err(format!("it holds a value of unknown type {unknown}")),
        })
    }

    fn element(&mut self, kind: u32, depth: u32) -> Result<(), String> {
        const STRING: u32 = 8;
        if kind == STRING {
            let len = self.u64()?;
            self.skip(len)?;
        } else {
            self.value(kind, depth)?;
        }
        Ok(())
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let mut bytes = [0; N];
        self.inner.read_exact(&mut bytes).map_err(|e| words(&e))?;
        Ok(bytes)
    }

    fn u32(&mut self) -> Result<u32, String> {
        self.bytes().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, String> {
        self.bytes().map(u64::from_le_bytes)
    }

    fn text(&mut self, limit: u64) -> Result<String, String> {
        let len = self.u64()?;
        if len > limit {
            return Err(format!("it claims a key of {len} bytes"));
        }
        self.utf8(len)
    }

    fn utf8(&mut self, len: u64) -> Result<String, String> {
        let mut text = String::new();
        let read = self
            .inner
            .by_ref()
            .take(len)
            .read_to_string(&mut text)
            .map_err(|e| words(&e))?;
        if (read as u64) < len {
            return Err(truncated());
        }
        Ok(text)
    }

    fn skip(&mut self, len: u64) -> Result<Value, String> {
        let skipped =
            io::copy(&mut self.inner.by_ref().take(len), &mut io::sink()).map_err(|e| words(&e))?;
        if skipped < len {
            return Err(truncated());
        }
        Ok(Value::Skipped)
    }
}

fn truncated() -> String {
    "it ends in the middle of its header".to_owned()
}

fn words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => truncated(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Writer(Vec<u8>, u64);

    impl Writer {
        fn text(bytes: &mut Vec<u8>, text: &str) {
            bytes.extend((text.len() as u64).to_le_bytes());
            bytes.extend(text.as_bytes());
        }
        fn key(&mut self, key: &str, kind: u32) -> &mut Vec<u8> {
            self.1 += 1;
            Self::text(&mut self.0, key);
            self.0.extend(kind.to_le_bytes());
            &mut self.0
        }
        fn file(&self) -> Vec<u8> {
            let mut bytes = b"GGUF".to_vec();
            bytes.extend(3_u32.to_le_bytes());
            bytes.extend(0_u64.to_le_bytes());
            bytes.extend(self.1.to_le_bytes());
            bytes.extend(&self.0);
            bytes
        }
    }

    fn sample() -> Writer {
        let mut w = Writer::default();
        Writer::text(w.key("general.architecture", 8), "llama");
        w.key("other.context_length", 4).extend(7_u32.to_le_bytes());
        w.key("llama.context_length", 4)
            .extend(2048_u32.to_le_bytes());
        for (key, number) in [
            ("block_count", 2_u32),
            ("attention.head_count", 4),
            ("attention.head_count_kv", 3),
            ("embedding_length", 256),
        ] {
            w.key(&format!("llama.{key}"), 4)
                .extend(number.to_le_bytes());
        }
        let tokens = w.key("tokenizer.ggml.tokens", 9);
        tokens.extend(8_u32.to_le_bytes());
        tokens.extend(2_u64.to_le_bytes());
        Writer::text(tokens, "a");
        Writer::text(tokens, &"b".repeat(10_000));
        w.key("flags", 9).extend(7_u32.to_le_bytes());
        w.0.extend(3_u64.to_le_bytes());
        w.0.extend([1, 0, 1]);
        Writer::text(w.key("tokenizer.ggml.model", 8), "gpt2");
        w
    }

    fn parse(bytes: &[u8]) -> Result<Header, String> {
        Reader { inner: bytes }.header()
    }

    #[test]
    fn the_context_of_its_own_architecture_and_the_tokenizer_are_found() {
        let header = parse(&sample().file()).expect("valid");
        assert_eq!(header.context_tokens, Some(2048));
        assert_eq!(header.cache_width, Some(2 * 3 * (64 + 64)));
        assert!(header.has_tokenizer);
    }

    #[test]
    fn a_file_cut_anywhere_in_its_header_is_an_error_and_nothing_worse() {
        let whole = sample().file();
        for len in 0..whole.len() {
            assert!(parse(&whole[..len]).is_err(), "cut to {len}");
        }
    }

    #[test]
    fn claims_that_no_file_can_keep_are_refused() {
        let mut w = sample();
        w.key("huge", 8).extend(u64::MAX.to_le_bytes());
        assert!(parse(&w.file()).is_err());
        let mut w = sample();
        let list = w.key("endless", 9);
        list.extend(8_u32.to_le_bytes());
        list.extend(u64::MAX.to_le_bytes());
        assert!(parse(&w.file()).is_err());
        let mut w = sample();
        w.1 = MAX_KEY_VALUES + 1;
        assert!(parse(&w.file()).is_err());
        let mut w = sample();
        let deep = w.key("deep", 9);
        for _ in 0..MAX_ARRAY_DEPTH + 2 {
            deep.extend(9_u32.to_le_bytes());
            deep.extend(1_u64.to_le_bytes());
        }
        let why = parse(&w.file()).expect_err("deep");
        assert!(why.contains("nested"), "{why}");
        let mut w = sample();
        w.key("new", 99);
        assert!(parse(&w.file()).is_err());
    }
}
