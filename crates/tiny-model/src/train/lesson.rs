//! Lessons: conversations as tokens, gathered into padded batches.

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use tokenizers::Tokenizer;

use super::corpus::{self, Conversation};
use crate::facts::COUNTS;
use crate::template::{ASSISTANT, BOS_ID, END_ID, SPECIAL_TOKENS, SYSTEM, USER};

/// Weight of a token that is only read.
const GIVEN: f32 = 0.0;
/// Weight of a token to be learnt.
const LEARNT: f32 = 1.0;
/// Weight of the decision to end a count or go on.
const DECISIVE: f32 = 6.0;

/// Tokens, and which of them are to be learnt (answers and their ends).
#[derive(Debug, Clone, Default)]
pub struct Lesson {
    /// Token ids.
    pub tokens: Vec<u32>,
    /// For each token, how much its prediction counts; 0 where it is given.
    pub weights: Vec<f32>,
}

impl Lesson {
    fn push(&mut self, tokens: &[u32], weight: f32) {
        self.tokens.extend(tokens);
        self.weights.resize(self.tokens.len(), weight);
    }

    /// An answer and its end. In a count, whether to go on after a number that counts may end at
    /// is one token of many and the hard one, so it weighs more.
    fn answer(
        &mut self,
        answer: &str,
        encode: impl Fn(&str) -> anyhow::Result<Vec<u32>>,
    ) -> anyhow::Result<()> {
        let counts = answer
            .split(' ')
            .zip(1u32..)
            .all(|(word, number)| word == number.to_string());
        if !counts {
            self.push(&encode(answer)?, LEARNT);
            self.push(&[END_ID], LEARNT);
            return Ok(());
        }
        let mut weight = LEARNT;
        for (word, number) in answer.split(' ').zip(1..) {
            if number > 1 {
                self.push(&encode(" ")?, weight);
            }
            self.push(&encode(word)?, LEARNT);
            weight = if COUNTS.contains(&number) {
                DECISIVE
            } else {
                LEARNT
            };
        }
        self.push(&[END_ID], DECISIVE);
        Ok(())
    }

    /// A conversation through the chat template.
    ///
    /// # Errors
    /// When the tokenizer fails.
    pub fn from_conversation(
        conversation: &Conversation,
        tokenizer: &Tokenizer,
        with_bos: bool,
    ) -> anyhow::Result<Self> {
        let encode = |text: &str| -> anyhow::Result<Vec<u32>> {
            let encoding = tokenizer.encode(text, false).map_err(anyhow::Error::msg)?;
            Ok(encoding.get_ids().to_vec())
        };
        let mut lesson = Self::default();
        if with_bos {
            lesson.push(&[BOS_ID], GIVEN);
        }
        match conversation {
            Conversation::Text(turn) => {
                lesson.push(&encode(&turn.question)?, GIVEN);
                lesson.push(&encode(&turn.answer)?, LEARNT);
                lesson.push(&[END_ID], LEARNT);
            }
            Conversation::Chat { system, turns } => {
                if let Some(system) = system {
                    lesson.push(&[special(SYSTEM)], GIVEN);
                    lesson.push(&encode(system)?, GIVEN);
                    lesson.push(&[END_ID], GIVEN);
                }
                for turn in turns {
                    lesson.push(&[special(USER)], GIVEN);
                    lesson.push(&encode(&turn.question)?, GIVEN);
                    lesson.push(&[END_ID, special(ASSISTANT)], GIVEN);
                    lesson.answer(&turn.answer, encode)?;
                }
            }
        }
        Ok(lesson)
    }
}

/// What one training step is about; kinds differ in length, so each batch has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One question, or bare text.
    Short,
    /// Two or three turns.
    Dialogue,
    /// Counting up to 50.
    CountFar,
    /// Counting up to 200.
    CountFarthest,
}

impl Kind {
    /// The kind of step number `step`: counts are dear, so they come seldom.
    #[must_use]
    pub fn of_step(step: usize) -> Self {
        match step % 8 {
            3 => Self::CountFar,
            7 => Self::CountFarthest,
            1 | 5 => Self::Dialogue,
            _ => Self::Short,
        }
    }

    /// Lessons per batch.
    #[must_use]
    pub fn batch(self) -> usize {
        match self {
            Self::Short => 24,
            Self::Dialogue => 8,
            Self::CountFar => 6,
            Self::CountFarthest => 2,
        }
    }

    fn conversation(self, chance: &mut ChaCha8Rng) -> Conversation {
        match self {
            Self::Short if chance.random_bool(0.06) => corpus::text(chance),
            Self::Short => corpus::chat(chance, 1),
            Self::Dialogue => {
                let turns = chance.random_range(2..=4);
                corpus::chat(chance, turns)
            }
            Self::CountFar => {
                let to = corpus::count_target(chance, 10..=50);
                corpus::counting(chance, to)
            }
            Self::CountFarthest => {
                let to = if chance.random_bool(0.25) {
                    200
                } else {
                    corpus::count_target(chance, 60..=150)
                };
                corpus::counting(chance, to)
            }
        }
    }
}

/// Lessons side by side, padded at the end to the longest.
#[derive(Debug)]
pub struct Batch {
    /// Rows.
    pub rows: usize,
    /// Tokens per row.
    pub length: usize,
    /// Inputs, `rows × length`.
    pub inputs: Vec<u32>,
    /// Indices into `inputs` after which a token is to be predicted.
    pub positions: Vec<u32>,
    /// The tokens to predict there.
    pub targets: Vec<u32>,
    /// How much each prediction counts.
    pub weights: Vec<f32>,
}

impl Batch {
    /// Draws a batch.
    ///
    /// # Errors
    /// When the tokenizer fails.
    pub fn draw(
        kind: Kind,
        chance: &mut ChaCha8Rng,
        tokenizer: &Tokenizer,
    ) -> anyhow::Result<Self> {
        let lessons: anyhow::Result<Vec<Lesson>> = (0..kind.batch())
            .map(|_| {
                let conversation = kind.conversation(chance);
                let bare = matches!(conversation, Conversation::Text(_)) && chance.random();
                Lesson::from_conversation(&conversation, tokenizer, !bare)
            })
            .collect();
        Ok(Self::of(&lessons?))
    }

    fn of(lessons: &[Lesson]) -> Self {
        let longest = lessons
            .iter()
            .map(|lesson| lesson.tokens.len())
            .max()
            .unwrap_or(1);
        let length = longest - 1;
        let mut batch = Self {
            rows: lessons.len(),
            length,
            inputs: vec![],
            positions: vec![],
            targets: vec![],
            weights: vec![],
        };
        for lesson in lessons {
            let start = batch.inputs.len();
            let last = lesson.tokens.len() - 1;
            batch.inputs.extend(&lesson.tokens[..last]);
            batch.inputs.resize(start + length, END_ID);
            for at in 0..last {
                if lesson.weights[at + 1] > 0.0 {
                    batch
                        .positions
                        .push(u32::try_from(start + at).expect("a batch is small"));
                    batch.targets.push(lesson.tokens[at + 1]);
                    batch.weights.push(lesson.weights[at + 1]);
                }
            }
        }
        batch
    }
}

fn special(token: &str) -> u32 {
    let id = SPECIAL_TOKENS.iter().position(|special| *special == token);
    u32::try_from(id.expect("it is one of ours")).expect("there are five")
}
