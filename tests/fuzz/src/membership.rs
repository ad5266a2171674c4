//! Who belongs to a mesh: control messages, and tokens that people paste.

use crate::Verdict;
use crate::known::{NOW_MS, members};
use std::collections::BTreeSet;
use tether_wire::control::MAX_CONTROL_BYTES;
use tether_wire::grant::Access;
use tether_wire::invite::{MAX_TOKEN_BOOTSTRAP, MAX_TOKEN_BYTES, Token};
use tether_wire::{Control, codec};

/// A control message: whatever it says is said once, whoever may not say it is refused.
pub(crate) fn control(bytes: &[u8]) -> Verdict {
    let Ok(control) = Control::decode(bytes) else {
        return Verdict::Refused;
    };
    assert!(bytes.len() <= MAX_CONTROL_BYTES);
    assert_eq!(
        Control::decode(&codec::encode(&control)),
        Ok(control.clone())
    );
    let mut all = members(Access::Invite);
    let Ok(checked) = all.check(&control) else {
        assert_eq!(all.counts(), [0; 3]);
        return Verdict::Refused;
    };
    let ids: BTreeSet<_> = checked.iter().map(|it| it.fact().id()).collect();
    assert!(!ids.is_empty(), "it says something");
    assert_eq!(all.learn(&control, NOW_MS), Ok(true));
    assert_eq!(all.counts().iter().sum::<usize>(), ids.len());
    assert_eq!(all.learn(&control, NOW_MS), Ok(false), "it is known");
    for one in &checked {
        // What is passed on for each fact says it by itself.
        let alone = members(Access::Invite)
            .check(one.control())
            .expect("authorised");
        assert!(alone.iter().any(|it| it.fact() == one.fact()));
    }
    Verdict::Accepted
}

/// A token to join with.
pub(crate) fn token(bytes: &[u8]) -> Verdict {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return Verdict::Refused;
    };
    let Ok(token) = Token::from_text(text) else {
        return Verdict::Refused;
    };
    assert!(text.len() <= MAX_TOKEN_BYTES && token.bootstrap.len() <= MAX_TOKEN_BOOTSTRAP);
    let written = token.to_text();
    if written.len() <= MAX_TOKEN_BYTES {
        assert_eq!(Token::from_text(&written), Ok(token));
    }
    Verdict::Accepted
}
