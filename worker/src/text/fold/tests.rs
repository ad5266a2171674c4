use super::*;
use proptest::prelude::*;

/// Tokens 0–255 are bytes; 256 ends the answer; from 1000 on they index whole pieces.
struct Bytes(Vec<String>);

const EOS: u32 = 256;

impl Detokenize for Bytes {
    fn detokenize(&self, tokens: &[u32]) -> String {
        let mut bytes = Vec::new();
        for token in tokens {
            match token {
                0..=255 => bytes.push(u8::try_from(*token).expect("a byte")),
                1000.. => bytes.extend_from_slice(self.0[*token as usize - 1000].as_bytes()),
                _ => {}
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

fn limits(stop: &[&str], max_tokens: u32) -> Limits {
    Limits {
        eos: BTreeSet::from([EOS]),
        max_tokens,
        stop: stop.iter().map(|stop| (*stop).to_owned()).collect(),
        spelled: BTreeMap::new(),
    }
}

struct Outcome {
    text: String,
    chunks: Vec<Chunk>,
    finish: Option<Finish>,
}

fn run(detokenizer: &Bytes, tokens: &[u32], limits: Limits) -> Outcome {
    let mut fold = Fold::new(detokenizer, limits);
    let chunks: Vec<Chunk> = tokens
        .iter()
        .map_while(|token| fold.push(*token))
        .map(|step| step.chunk)
        .collect();
    assert_eq!(fold.drawn() as usize, chunks.len());
    for (position, chunk) in (0u32..).zip(&chunks) {
        assert_eq!(chunk.position, position, "positions have no gaps");
        assert_eq!(chunk.tokens, [tokens[position as usize]]);
    }
    Outcome {
        text: chunks.iter().map(|chunk| chunk.text.as_str()).collect(),
        chunks,
        finish: fold.finish(),
    }
}

/// Each byte of the text as a token.
fn bytes(text: &str) -> Vec<u32> {
    text.bytes().map(u32::from).collect()
}

fn run_bytes(text: &str, stop: &[&str]) -> Outcome {
    let mut tokens = bytes(text);
    tokens.push(EOS);
    run(&Bytes(Vec::new()), &tokens, limits(stop, u32::MAX))
}

#[test]
fn the_ending_token_is_counted_and_has_no_text() {
    let outcome = run_bytes("Hi", &[]);
    assert_eq!(outcome.text, "Hi");
    assert_eq!(outcome.chunks.len(), 3);
    assert_eq!(outcome.finish, Some(Finish::Stop));
}

#[test]
fn a_character_comes_whole_or_not_at_all() {
    let outcome = run_bytes("aé🌍b", &[]);
    let texts: Vec<&str> = outcome.chunks.iter().map(|c| c.text.as_str()).collect();
    assert_eq!(texts, ["a", "", "é", "", "", "", "🌍", "b", ""]);
}

#[test]
fn an_answer_cut_within_a_character_ends_before_it() {
    let tokens = &bytes("a🌍")[..3];
    let outcome = run(&Bytes(Vec::new()), tokens, limits(&[], 3));
    assert_eq!(outcome.text, "a");
    assert_eq!(outcome.finish, Some(Finish::Length));
    assert_eq!(outcome.chunks.len(), 3);
}

#[test]
fn bytes_that_never_become_a_character_do_not_hold_the_answer_back() {
    let mut tokens = vec![0xff; 20];
    tokens.extend(bytes("ok"));
    let outcome = run(&Bytes(Vec::new()), &tokens, limits(&[], 22));
    assert!(outcome.text.ends_with("ok"), "{:?}", outcome.text);
    assert!(
        outcome.chunks[..15]
            .iter()
            .any(|chunk| !chunk.text.is_empty())
    );
}

#[test]
fn one_token_is_one_token() {
    let outcome = run(&Bytes(Vec::new()), &bytes("abc"), limits(&[], 1));
    assert_eq!(
        (outcome.text.as_str(), outcome.finish),
        ("a", Some(Finish::Length))
    );
}

#[test]
fn a_stop_string_across_tokens_is_never_shown() {
    let outcome = run_bytes("Hello\nUser: more", &["\nUser:"]);
    assert_eq!(
        (outcome.text.as_str(), outcome.finish),
        ("Hello", Some(Finish::Stop))
    );
    assert_eq!(outcome.chunks.len(), "Hello\nUser:".len());
}

#[test]
fn what_looked_like_a_stop_string_comes_when_it_is_none() {
    let outcome = run_bytes("Hello\nUsher", &["\nUser:"]);
    assert_eq!(
        (outcome.text.as_str(), outcome.finish),
        ("Hello\nUsher", Some(Finish::Stop))
    );
    let cut = run(&Bytes(Vec::new()), &bytes("a\nUs"), limits(&["\nUser:"], 4));
    assert_eq!(
        (cut.text.as_str(), cut.finish),
        ("a\nUs", Some(Finish::Length))
    );
}

#[test]
fn a_stop_string_that_overlaps_itself_is_found() {
    assert_eq!(run_bytes("aabaabaaac", &["aabaaa"]).text, "aab");
    assert_eq!(run_bytes("ababc", &["abc"]).text, "ab");
}

#[test]
fn the_stop_string_that_is_complete_first_wins() {
    assert_eq!(run_bytes("xabcdy", &["abcd", "bc"]).text, "xa");
    assert_eq!(run_bytes("xabcdy", &["c", "abc"]).text, "x");
}

#[test]
fn a_stop_string_completed_by_the_last_token_is_a_stop() {
    let outcome = run(&Bytes(Vec::new()), &bytes("ab"), limits(&["b"], 2));
    assert_eq!(
        (outcome.text.as_str(), outcome.finish),
        ("a", Some(Finish::Stop))
    );
}

#[test]
fn nothing_is_taken_after_the_end() {
    let bytes = Bytes(Vec::new());
    let mut fold = Fold::new(&bytes, limits(&[], 1));
    assert!(fold.push(65).is_some_and(|step| step.finish.is_some()));
    assert_eq!(fold.push(66), None);
    assert_eq!(fold.usage(5).completion_tokens, 1);
}

#[test]
fn a_special_token_of_calls_is_spelled_and_ends_what_was_pending() {
    let mut limits = limits(&[], 20);
    limits.spelled.insert(500, "[TOOL_CALLS]".to_owned());
    let mut tokens = bytes("aé");
    tokens.truncate(2);
    tokens.extend([500, 98]);
    let outcome = run(&Bytes(Vec::new()), &tokens, limits);
    assert_eq!(outcome.text, "a[TOOL_CALLS]b");
}

#[test]
fn an_answer_that_nothing_can_follow_ends_with_its_last_token() {
    let bytes = Bytes(Vec::new());
    let mut fold = Fold::new(&bytes, limits(&["bc"], 10));
    assert_eq!(fold.push(97).map(|step| step.finish), Some(None));
    let step = fold.push_and(98, true).expect("taken");
    assert_eq!(
        (step.chunk.text.as_str(), step.finish),
        ("b", Some(Finish::Stop))
    );
    assert_eq!(fold.push(99), None);
}

/// What the fold must give: characters one by one, ending at the first that completes a stop.
fn reference(text: &str, stops: &[String]) -> String {
    let mut seen = String::new();
    for character in text.chars() {
        seen.push(character);
        let complete = stops.iter().filter(|stop| seen.ends_with(stop.as_str()));
        if let Some(len) = complete.map(String::len).max() {
            seen.truncate(seen.len() - len);
            return seen;
        }
    }
    seen
}

/// Few characters, so that stop strings are found and almost found.
fn text() -> impl Strategy<Value = String> {
    proptest::collection::vec(prop_oneof!["a", "b", "c", "é", "\n", "🌍"], 0..40)
        .prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn the_text_does_not_depend_on_how_it_came_in_tokens(
        text in text(),
        cuts in proptest::collection::vec(0usize..160, 0..12),
        stops in proptest::collection::vec("[abc\n]{1,3}|é|🌍", 0..4),
    ) {
        // Pieces between cuts are single tokens; where a cut falls into a character, its bytes are.
        let mut pieces = Vec::new();
        let mut tokens = Vec::new();
        let mut start = 0;
        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (text.len() + 1)).collect();
        ends.push(text.len());
        ends.sort_unstable();
        for end in ends {
            match text.get(start..end) {
                Some("") => {}
                Some(piece) => {
                    tokens.push(1000 + u32::try_from(pieces.len()).expect("few"));
                    pieces.push(piece.to_owned());
                }
                None => tokens.extend(text.as_bytes()[start..end].iter().map(|byte| u32::from(*byte))),
            }
            start = end;
        }
        tokens.push(EOS);
        let limits = Limits { eos: BTreeSet::from([EOS]), max_tokens: u32::MAX, stop: stops.clone(), ..Limits::default() };
        let outcome = run(&Bytes(pieces), &tokens, limits);
        let expected = reference(&text, &stops);
        prop_assert_eq!(&outcome.text, &expected);
        prop_assert_eq!(outcome.finish, Some(Finish::Stop));
        // At no time does the text shown so far hold something that is not in the end.
        let mut shown = String::new();
        for chunk in &outcome.chunks {
            shown += &chunk.text;
            prop_assert!(expected.starts_with(shown.as_str()));
        }
    }

    #[test]
    fn any_tokens_give_gapless_positions_and_at_most_the_limit(
        tokens in proptest::collection::vec(0u32..257, 0..80),
        max_tokens in 1u32..90,
        stops in proptest::collection::vec("[a-c]{1,2}", 0..3),
    ) {
        let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
        let outcome = run(&Bytes(Vec::new()), &tokens, limits(&stops, max_tokens));
        prop_assert!(outcome.chunks.len() <= max_tokens as usize);
        prop_assert_eq!(outcome.finish.is_some(),
            outcome.chunks.len() == max_tokens as usize
                || tokens.contains(&EOS) && outcome.chunks.last().is_some_and(|c| c.tokens == [EOS])
                || outcome.finish == Some(Finish::Stop));
        for stop in stops {
            prop_assert!(!outcome.text.contains(stop));
        }
    }
}
