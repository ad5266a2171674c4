use super::*;
use proptest::prelude::*;

/// An answer of some words and a call, one token at a time.
fn pieces() -> Vec<Chunk> {
    let mut pieces: Vec<Chunk> = (0..)
        .zip(["é", "", "x", "yz", ""])
        .map(|(at, text)| Chunk::new(at, vec![at + 7], text))
        .collect();
    let deltas = [
        (Some("say"), "{\"a"),
        (None, "\": 1}"),
        (Some("go"), ""),
        (None, "é"),
    ];
    let indexes = [0, 0, 1, 1];
    for ((at, (name, arguments)), index) in (5..).zip(deltas).zip(indexes) {
        let call = CallDelta {
            index,
            id: name.map(|_| "id".to_owned()),
            name: name.map(str::to_owned),
            arguments: arguments.to_owned(),
        };
        pieces.push(Chunk {
            calls: vec![call],
            ..Chunk::new(at, vec![at + 7], "")
        });
    }
    pieces
}

fn all(pieces: &[Chunk]) -> (Amount, Given) {
    let (mut amount, mut given) = (Amount::default(), Given::default());
    for piece in pieces {
        amount.add(piece);
        given.take(piece);
    }
    (amount, given)
}

/// Pieces as somebody else would cut them.
fn merged(pieces: &[Chunk], ends: &[bool]) -> Vec<Chunk> {
    let mut merged: Vec<Chunk> = Vec::new();
    for (piece, starts_anew) in pieces.iter().zip(ends) {
        match merged.last_mut() {
            Some(last) if !starts_anew => {
                last.tokens.extend_from_slice(&piece.tokens);
                last.text += &piece.text;
                last.calls.extend_from_slice(&piece.calls);
            }
            _ => merged.push(piece.clone()),
        }
    }
    merged
}

proptest! {
    #[test]
    fn what_is_given_and_what_is_new_make_the_whole(given in 0_usize..=9, ends in proptest::collection::vec(any::<bool>(), 9)) {
        let whole = pieces();
        let (amount, digest) = all(&whole[..given]);
        let (mut after, mut answer) = (amount.clone(), digest.clone());
        let mut again = Again::default();
        let mut is_over = false;
        for piece in merged(&whole, &ends) {
            if is_over {
                after.add(&piece);
                answer.take(&piece);
                continue;
            }
            if let Told::Rest(rest) = again.take(piece, &amount, &digest).expect("the same") {
                is_over = true;
                after.add(&rest);
                answer.take(&rest);
            }
        }
        let (in_all, whole) = all(&whole);
        prop_assert_eq!(after, in_all);
        prop_assert_eq!(answer.text(), whole.text());
        prop_assert_eq!(answer.tokens(), whole.tokens());
        prop_assert_eq!(answer.calls(), whole.calls());
    }

    #[test]
    fn another_answer_is_seen_to_be_another(given in 1_usize..=9, at in 0_usize..9, what in 0..3) {
        let at = at % given;
        let mut other = pieces();
        let (amount, digest) = all(&other[..given]);
        let piece = &mut other[at];
        match (what, piece.calls.first_mut()) {
            (0, _) => piece.tokens[0] += 1,
            (1, Some(call)) => call.arguments.insert(0, 'q'),
            (_, Some(call)) if call.name.is_some() => call.name = Some("other".to_owned()),
            _ => piece.text.insert(0, 'q'),
        }
        let mut again = Again::default();
        let mut differs = false;
        for piece in other {
            match again.take(piece, &amount, &digest) {
                Ok(Told::Known) => {}
                Ok(Told::Rest(_)) => break,
                Err(Differs) => {
                    differs = true;
                    break;
                }
            }
        }
        prop_assert!(differs);
    }
}

#[test]
fn tokens_without_ids_are_counted_and_their_text_compared() {
    let nameless = |position, unnamed, text: &str| Chunk {
        position,
        unnamed,
        text: text.to_owned(),
        ..Chunk::default()
    };
    let (amount, given) = all(&[nameless(0, 3, "abc")]);
    let mut again = Again::default();
    let told = again.take(nameless(0, 5, "abcde"), &amount, &given);
    assert_eq!(told, Ok(Told::Rest(nameless(3, 2, "de"))));
    let told = Again::default().take(nameless(0, 5, "abxde"), &amount, &given);
    assert_eq!(told, Err(Differs));
}
