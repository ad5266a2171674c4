//! Which tokens may come next, where an answer must have a form. By `llguidance`.
//!
//! A grammar is compiled for each answer, against the vocabulary as bytes. It is given each token of
//! the answer from the first on, those of a transcript too, so that what it allows is a function of
//! the tokens alone. White space in JSON is fixed, but for one blank behind `,` and `:`: with more
//! freedom, models fill answers with it.
//!
//! A schema or grammar is a tenant's: its size, the work of compiling it and that of each step are
//! bounded, and a fault of the library is an error of the request and not of the process.

mod intersections;

use crate::text::tokenizer::TextTokenizer;
use intersections::MAX_PATTERNS;
use llguidance::api::{ParserLimits, TopLevelGrammar};
use llguidance::panic_utils::catch_unwind;
use llguidance::toktrie::{ApproximateTokEnv, SimpleVob, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tether_wire::infer::Format;

/// Work of building a grammar's lexer; some milliseconds. The library counts expressions, however
/// long, and a sequence of n things that may all be missing makes n expressions of up to n: what it
/// allows by default are minutes, and gigabytes.
const INITIAL_LEXER_FUEL: u64 = 20_000;
/// Work of the lexer for one token; about 15 ms.
const STEP_LEXER_FUEL: u64 = 200_000;
/// Items of the parser for one token; about 3 ms.
const STEP_MAX_ITEMS: usize = 50_000;
/// States of a grammar's lexer, of 1 to 2 kB each.
const MAX_LEXER_STATES: usize = 50_000;
/// Symbols of a grammar.
const MAX_GRAMMAR_SIZE: usize = 200_000;
/// Stack of the compiler, which the deepest nesting of the longest text does not fill. It is reserved,
/// and taken as far as it is used.
const STACK_BYTES: usize = 256 << 20;
/// Time of the processor for following a grammar: at first, and for each token.
const AT_FIRST: Duration = Duration::from_secs(2);
const FOR_EACH_TOKEN: Duration = Duration::from_millis(20);
/// Most characters of the library's words that a tenant is told.
const MAX_WHY_CHARS: usize = 300;

/// What a grammar is made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// A JSON schema.
    Json(Value),
    /// A regular expression.
    Regex(String),
    /// A grammar in Lark's language.
    Lark(String),
}

/// The library's name for that nothing can follow.
const NO_EXTENSION: &str = "NoExtension";
/// The same for who asked.
const NO_TOKEN: &str = "no token of the model continues the answer as the grammar wants it";

/// A grammar that cannot be compiled, or that the answer cannot follow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct GrammarError(pub(crate) String);

impl GrammarError {
    fn new(why: impl fmt::Display) -> Self {
        let why = why.to_string();
        // What follows in tags is for the library's authors: its state, or frames of this program.
        let ends = ["\n<backtrace>", "\n<state>", "\n<non-verbose/>"].map(|tag| why.find(tag));
        let end = ends.into_iter().flatten().min().unwrap_or(why.len());
        let why = &why[..end];
        let why = if why.contains(NO_EXTENSION) {
            NO_TOKEN
        } else {
            why
        };
        let legible = |c: char| if c.is_control() { ' ' } else { c };
        Self(why.chars().map(legible).take(MAX_WHY_CHARS).collect())
    }
}

impl Source {
    /// The form that a request asks for; nothing for free text.
    pub(crate) fn of(format: &Format) -> Result<Option<Self>, GrammarError> {
        Ok(Some(match format {
            Format::Text => return Ok(None),
            Format::JsonObject => Self::Json(json!({"type": "object"})),
            Format::JsonSchema(text) => Self::Json(schema(text)?),
            Format::Regex(text) => Self::Regex(text.clone()),
            Format::Lark(text) => Self::Lark(text.clone()),
            Format::Choice(choices) => {
                let escaped: Vec<String> = choices.iter().map(|it| escape(it)).collect();
                Self::Regex(format!("({})", escaped.join("|")))
            }
        }))
    }

    /// What the library would not stop at by itself.
    fn check(&self) -> Result<(), GrammarError> {
        let (operator, patterns) = match self {
            Self::Json(schema) => (false, intersections::too_many_patterns(schema)),
            Self::Lark(text) => (
                intersections::operator(text),
                intersections::schemas(text).any(|it| intersections::too_many_patterns(&it)),
            ),
            Self::Regex(_) => (false, false),
        };
        match (operator, patterns) {
            (true, _) => Err(GrammarError::new(
                "intersections (`&`) are not supported: say what may come in one expression",
            )),
            (_, true) => Err(GrammarError::new(format_args!(
                "more than {MAX_PATTERNS} patterns, or formats, may hold for one value: say it in fewer"
            ))),
            _ => Ok(()),
        }
    }

    fn into_grammar(self) -> TopLevelGrammar {
        match self {
            Self::Json(mut schema) => {
                fix_blanks(&mut schema);
                TopLevelGrammar::from_json_schema(schema)
            }
            Self::Regex(text) => TopLevelGrammar::from_regex(&text),
            Self::Lark(text) => TopLevelGrammar::from_lark(text),
        }
    }
}

/// A schema that is an object; what `true` and `false` mean is of no use to anybody.
pub(crate) fn schema(text: &str) -> Result<Value, GrammarError> {
    let schema: Value = serde_json::from_str(text)
        .map_err(|error| GrammarError::new(format_args!("the schema is not JSON: {error}")))?;
    if schema.is_object() {
        Ok(schema)
    } else {
        Err(GrammarError::new("the schema is not a JSON object"))
    }
}

/// Settings of the compiler go with the schema. Those that a tenant wrote are replaced.
pub(crate) fn fix_blanks(schema: &mut Value) {
    schema["x-guidance"] = json!({
        "whitespace_flexible": false,
        "item_separator": ", ?",
        "key_separator": ": ?",
    });
}

/// A text as a regular expression that matches it alone.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() + 8);
    for char in text.chars() {
        match char {
            '\n' => escaped += "\\n",
            '\r' => escaped += "\\r",
            '\t' => escaped += "\\t",
            _ => {
                if char.is_ascii_punctuation() {
                    escaped.push('\\');
                }
                escaped.push(char);
            }
        }
    }
    escaped
}

/// Compiles grammars for one model's vocabulary, which is read when the first is.
pub(crate) struct Grammars {
    tokenizer: Arc<TextTokenizer>,
    /// Special tokens that stand in the text of calls.
    spelled: BTreeMap<u32, String>,
    factory: OnceLock<Result<ParserFactory, GrammarError>>,
}

impl fmt::Debug for Grammars {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Grammars")
    }
}

impl Grammars {
    pub(crate) fn new(tokenizer: Arc<TextTokenizer>, spelled: BTreeMap<u32, String>) -> Self {
        Self {
            tokenizer,
            spelled,
            factory: OnceLock::new(),
        }
    }

    fn factory(&self) -> Result<&ParserFactory, GrammarError> {
        let factory = self.factory.get_or_init(|| {
            catch_unwind(std::panic::AssertUnwindSafe(|| {
                let vocabulary = self.vocabulary();
                let mut factory = ParserFactory::new_simple(&vocabulary)?;
                factory.quiet();
                *factory.limits_mut() = limits();
                Ok(factory)
            }))
            .map_err(GrammarError::new)
        });
        factory.as_ref().map_err(Clone::clone)
    }

    fn vocabulary(&self) -> TokEnv {
        let ids = 0..u32::try_from(self.tokenizer.vocabulary()).unwrap_or(u32::MAX);
        let eos: Vec<u32> = self
            .tokenizer
            .eos()
            .iter()
            .copied()
            .filter(|id| ids.contains(id))
            .collect();
        let words: Vec<Vec<u8>> = ids
            .clone()
            .map(|id| {
                let bytes = self.tokenizer.bytes(id);
                match self.spelled.get(&id) {
                    Some(spelling) => spelling.clone().into_bytes(),
                    // A name that no text has, as the library wants for what is not text.
                    None if bytes.is_empty() || eos.contains(&id) => {
                        let mut name = vec![TokTrie::SPECIAL_TOKEN_MARKER];
                        name.extend(format!("<[{id}]>").into_bytes());
                        name
                    }
                    None => bytes.to_vec(),
                }
            })
            .collect();
        let info = TokRxInfo::new(ids.end, eos.first().copied().unwrap_or_default());
        let trie = TokTrie::from(&info, &words);
        let trie = if eos.is_empty() {
            trie
        } else {
            trie.with_eos_tokens(&eos)
        };
        Arc::new(ApproximateTokEnv::new(trie))
    }

    /// Compiles a grammar. Takes a while: not to be called where tokens are made.
    pub(crate) fn compile(&self, source: Source) -> Result<Grammar, GrammarError> {
        let factory = self.factory()?;
        // The library follows rules, terminals and references by calling itself, and what runs out of
        // stack takes the process with it.
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new()
                .name("grammar".to_owned())
                .stack_size(STACK_BYTES);
            let compiling = thread.spawn_scoped(scope, || compile_here(factory, source));
            let compiled = compiling.map_err(|error| {
                GrammarError::new(format_args!("there is no room to compile it now: {error}"))
            })?;
            let panicked = |_| GrammarError::new("the compiler failed");
            compiled.join().map_err(panicked).flatten()
        })
    }
}

fn compile_here(factory: &ParserFactory, source: Source) -> Result<Grammar, GrammarError> {
    source.check()?;
    let parser = catch_unwind(std::panic::AssertUnwindSafe(|| {
        factory.create_parser(source.into_grammar())
    }));
    let matcher = Matcher::new(Ok(parser.map_err(GrammarError::new)?));
    match matcher.get_error() {
        None => Ok(Grammar {
            matcher,
            budget: Budget::default(),
        }),
        Some(why) => Err(GrammarError::new(why)),
    }
}

fn limits() -> ParserLimits {
    ParserLimits {
        initial_lexer_fuel: INITIAL_LEXER_FUEL,
        step_lexer_fuel: STEP_LEXER_FUEL,
        step_max_items: STEP_MAX_ITEMS,
        max_lexer_states: MAX_LEXER_STATES,
        max_grammar_size: MAX_GRAMMAR_SIZE,
        // Their errors repeat the whole grammar.
        verbose_errors: false,
        ..ParserLimits::default()
    }
}

/// A grammar, and how far an answer is in it.
pub(crate) struct Grammar {
    matcher: Matcher,
    budget: Budget,
}

impl fmt::Debug for Grammar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Grammar")
    }
}

impl Grammar {
    /// What may come next; those that end an answer only where the grammar may end.
    pub(crate) fn mask(&mut self) -> Result<Mask, GrammarError> {
        let matcher = &mut self.matcher;
        let mask = self.budget.spend(|| matcher.compute_mask())?;
        if mask.is_zero() {
            return Err(GrammarError::new(NO_TOKEN));
        }
        Ok(Mask(mask))
    }

    /// Takes the next token, which does not end the answer.
    pub(crate) fn take(&mut self, token: u32) -> Result<(), GrammarError> {
        self.budget.tokens += 1;
        let matcher = &mut self.matcher;
        self.budget.spend(|| matcher.consume_token(token))
    }

    /// Whether the grammar may end here.
    pub(crate) fn may_end(&mut self) -> bool {
        self.matcher.is_accepting().unwrap_or(false)
    }

    /// Whether it is complete and nothing can follow.
    pub(crate) fn is_over(&self) -> bool {
        self.matcher.is_stopped()
    }
}

/// What following a grammar may cost over an answer: an ambiguous one costs more with each token, and
/// keeps everybody waiting. Time of the processor, so that a busy machine takes no answer away.
#[derive(Debug, Default)]
struct Budget {
    tokens: u32,
    spent: Duration,
}

impl Budget {
    fn spend<T, E: fmt::Display>(
        &mut self,
        step: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, GrammarError> {
        let began = thread_time();
        let done = step().map_err(GrammarError::new)?;
        self.spent += thread_time().saturating_sub(began);
        if self.spent > AT_FIRST + FOR_EACH_TOKEN * self.tokens {
            return Err(GrammarError::new(format_args!(
                "following it takes too long, {} ms for {} tokens: make it less ambiguous",
                self.spent.as_millis(),
                self.tokens
            )));
        }
        Ok(done)
    }
}

/// Time that this thread was run.
fn thread_time() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(now).unwrap_or_default()
}

/// Tokens that may come next.
pub(crate) struct Mask(SimpleVob);

impl Mask {
    pub(crate) fn allows(&self, token: u32) -> bool {
        (token as usize) < self.0.len() && self.0.is_allowed(token)
    }
}

#[cfg(test)]
mod tests;
