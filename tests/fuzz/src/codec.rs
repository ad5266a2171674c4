//! The bounds of the codec itself: length, depth, nothing after the end.

use crate::Verdict;
use ciborium::Value;
use tether_wire::codec::{CodecError, MAX_DEPTH, decode, encode};

/// Any value at all.
pub(crate) fn run(bytes: &[u8]) -> Verdict {
    if let Some(limit) = bytes.len().checked_sub(1) {
        let over = decode::<Value>("value", bytes, limit);
        assert!(matches!(over, Err(CodecError::TooLarge { .. })));
    }
    let Ok(value) = decode::<Value>("value", bytes, bytes.len()) else {
        return Verdict::Refused;
    };
    assert!(depth(&value) <= MAX_DEPTH, "deeper than {MAX_DEPTH}");
    let longer = [bytes, &[0]].concat();
    let trailing = decode::<Value>("value", &longer, longer.len());
    assert!(trailing.is_err(), "a byte after the end");
    let once = encode(&value);
    let again: Value = decode("value", &once, usize::MAX).expect("our own bytes");
    // Numbers of more than 64 bits lose their leading zeros with each reading of this type, which
    // none of our messages has.
    if !has_bignum(&value) {
        assert_eq!(encode(&again), once, "it reads the same again");
    }
    Verdict::Accepted
}

fn has_bignum(value: &Value) -> bool {
    match value {
        Value::Array(values) => values.iter().any(has_bignum),
        Value::Map(entries) => {
            let mut entries = entries.iter();
            entries.any(|(key, value)| has_bignum(key) || has_bignum(value))
        }
        Value::Tag(tag, value) => matches!(tag, 2 | 3) || has_bignum(value),
        _ => false,
    }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(values) => 1 + values.iter().map(depth).max().unwrap_or(0),
        Value::Map(entries) => {
            let each = entries
                .iter()
                .map(|(key, value)| depth(key).max(depth(value)));
            1 + each.max().unwrap_or(0)
        }
        Value::Tag(_, value) => 1 + depth(value),
        _ => 0,
    }
}
