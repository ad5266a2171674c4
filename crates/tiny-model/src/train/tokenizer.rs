//! The tokenizer: byte-level BPE over the corpus, split as Qwen2 splits.
//!
//! mistral.rs gives every GGUF of the kind `gpt2` the Qwen2 pattern, so `tokenizer.json` uses it too
//! and both agree. It makes each digit a token of its own, which is what makes counting easy.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::tokenizer::normalizer::SplitDelimiterBehavior;
use tokenizers::{AddedToken, PreTokenizerWrapper, Tokenizer};

use super::corpus::{self, Conversation};
use crate::template::SPECIAL_TOKENS;

/// Qwen2's pre-tokenizer pattern.
pub const QWEN2_PATTERN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Conversations that the merges are learnt from, always the same.
const SAMPLE: usize = 6000;
const SAMPLE_SEED: u64 = 0;

/// Builds the tokenizer; every call gives the same one.
///
/// # Errors
/// When the `tokenizers` crate refuses, which a test would show.
pub fn build(vocabulary: usize) -> anyhow::Result<Tokenizer> {
    let mut tokenizer = Tokenizer::new(BPE::default());
    let split = Split::new(
        SplitPattern::Regex(QWEN2_PATTERN.to_owned()),
        SplitDelimiterBehavior::Isolated,
        false,
    )
    .map_err(anyhow::Error::msg)?;
    tokenizer.with_pre_tokenizer(Some(Sequence::new(vec![
        PreTokenizerWrapper::Split(split),
        PreTokenizerWrapper::ByteLevel(ByteLevel::new(false, false, false)),
    ])));
    tokenizer.with_decoder(Some(ByteLevel::new(false, false, false)));
    tokenizer.with_post_processor(Some(ByteLevel::new(false, false, false)));
    let specials = SPECIAL_TOKENS
        .map(|token| AddedToken::from(token, true))
        .to_vec();
    let mut trainer: TrainerWrapper = BpeTrainer::builder()
        .show_progress(false)
        .vocab_size(vocabulary)
        .min_frequency(2)
        .special_tokens(specials)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .build()
        .into();
    tokenizer
        .train(&mut trainer, sample().into_iter())
        .map_err(anyhow::Error::msg)?;
    anyhow::ensure!(
        tokenizer.get_vocab_size(true) == vocabulary,
        "the corpus gives {} tokens instead of {vocabulary}",
        tokenizer.get_vocab_size(true)
    );
    Ok(tokenizer)
}

/// Every token in the order of ids, and the merges, as GGUF wants them.
///
/// # Errors
/// When the tokenizer is not a byte-level BPE.
pub fn tokens_and_merges(tokenizer: &Tokenizer) -> anyhow::Result<(Vec<String>, Vec<String>)> {
    let mut tokens: Vec<(u32, String)> = tokenizer
        .get_vocab(true)
        .into_iter()
        .map(|(token, id)| (id, token))
        .collect();
    tokens.sort_unstable();
    let written: serde_json::Value =
        serde_json::from_str(&tokenizer.to_string(false).map_err(anyhow::Error::msg)?)?;
    let merges = written["model"]["merges"].as_array().into_iter().flatten();
    let merges: Option<Vec<String>> = merges
        .map(|pair| {
            Some(format!(
                "{} {}",
                pair.get(0)?.as_str()?,
                pair.get(1)?.as_str()?
            ))
        })
        .collect();
    let merges = merges.ok_or_else(|| anyhow::anyhow!("merges are not pairs"))?;
    Ok((tokens.into_iter().map(|(_, token)| token).collect(), merges))
}

fn sample() -> Vec<String> {
    let mut chance = ChaCha8Rng::seed_from_u64(SAMPLE_SEED);
    let mut texts = Vec::new();
    for _ in 0..SAMPLE {
        if let Conversation::Chat { system, turns } = corpus::chat(&mut chance, 1) {
            texts.extend(system);
            texts.extend(
                turns
                    .into_iter()
                    .flat_map(|turn| [turn.question, turn.answer]),
            );
        }
    }
    texts
}
