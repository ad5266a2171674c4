//! What comes over a link before anybody is known, what is found on the DHT, and what a node remembers.

use crate::Verdict;
use tether_net::decoders;
use tether_wire::codec;
use tether_wire::link::{HelloAnswer, MAX_HELLO_BYTES};
use tether_wire::rpc::MAX_FRAME_BYTES;

/// A stream of frames, cut as its first byte says: the same frames come out however it is cut, and
/// they are the bytes that went in.
pub(crate) fn frames(bytes: &[u8]) -> Verdict {
    let Some((cut, stream)) = bytes.split_first() else {
        return Verdict::Refused;
    };
    let limit = if *cut % 2 == 0 { 64 } else { usize::MAX };
    let _ = decoders::block(stream, MAX_HELLO_BYTES);
    let whole = decoders::frames([stream], limit);
    let pieces = stream.chunks(usize::from(*cut).max(1));
    assert_eq!(
        decoders::frames(pieces, limit),
        whole,
        "it matters how it is cut"
    );
    let Ok((frames, left)) = whole else {
        return Verdict::Refused;
    };
    let mut written = Vec::new();
    for (kind, payload) in &frames {
        assert!(payload.len() <= limit.min(MAX_FRAME_BYTES - 1));
        written.extend(decoders::frame(*kind, payload));
    }
    assert_eq!(written.len() + left, stream.len());
    assert_eq!(written, stream[..written.len()], "frames are what was sent");
    Verdict::of(!frames.is_empty())
}

/// The answer to our greeting. What is shown of a refusal is short and on one line.
pub(crate) fn greeting_answer(bytes: &[u8]) -> Verdict {
    if let Ok(answer) = codec::decode::<HelloAnswer>("answer", bytes, MAX_HELLO_BYTES) {
        let coded = codec::encode(&answer);
        assert_eq!(codec::decode("answer", &coded, usize::MAX), Ok(answer));
    }
    match decoders::greeting_answer(bytes) {
        Ok(hello) => {
            assert!(hello.agent.len() <= 128);
            Verdict::Accepted
        }
        Err(refusal) => {
            assert!(refusal.message.chars().count() <= 600, "{refusal}");
            assert!(!refusal.message.contains(char::is_control), "{refusal}");
            Verdict::Refused
        }
    }
}

/// The file of orchestrators that were linked with.
pub(crate) fn orchestrators(bytes: &[u8]) -> Verdict {
    let Some(written) = decoders::remembered_orchestrators(bytes) else {
        return Verdict::Refused;
    };
    let again = decoders::remembered_orchestrators(&written);
    assert_eq!(again.as_ref(), Some(&written), "it reads the same again");
    Verdict::Accepted
}

/// The file of control messages.
pub(crate) fn controls(bytes: &[u8]) -> Verdict {
    let Some(written) = decoders::kept_controls(bytes) else {
        return Verdict::Refused;
    };
    let again = decoders::kept_controls(&written);
    assert_eq!(again.as_ref(), Some(&written), "it reads the same again");
    Verdict::Accepted
}

/// A datagram of the DHT.
pub(crate) fn datagram(bytes: &[u8]) -> Verdict {
    Verdict::of(decoders::datagram(bytes) > 0)
}
