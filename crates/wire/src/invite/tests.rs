//! Invites and the tokens that carry them.

use super::*;
use crate::key::NodeKey;

const NOW: u64 = 1_800_000_000_000;

fn operator() -> NodeKey {
    NodeKey::from_seed([1; 32])
}
fn invite() -> Invite {
    Invite {
        region: Region::new("eu").expect("valid"),
        tier: Tier::Untrusted,
        not_before_ms: NOW,
        expires_ms: NOW + MAX_INVITE_LIFE_MS,
        uses: MAX_USES,
        grant_life_ms: MAX_GRANT_LIFE_MS,
        serial: 5,
        secret: Invite::digest_of(&[7; 32]),
        issuer: None,
    }
}
fn token() -> Token {
    let mesh = MeshId(operator().id().0);
    Token {
        mesh,
        recovery: Some(NodeKey::from_seed([2; 32]).id()),
        access: Access::Invite,
        bootstrap: vec!["192.0.2.1:4711".parse().expect("an address")],
        invite: Signed::seal(&operator(), &mesh, &invite())
            .expect("valid")
            .as_bytes()
            .to_vec(),
        secret: [7; 32],
    }
}

#[test]
fn an_invite_is_bounded_in_time_and_uses() {
    let is_good = |change: fn(&mut Invite)| {
        let mut it = invite();
        change(&mut it);
        it.check(&operator().id()).is_ok()
    };
    assert!(is_good(|_| ()));
    assert!(!is_good(|it| it.expires_ms += 1));
    assert!(!is_good(|it| it.expires_ms = it.not_before_ms));
    assert!(!is_good(|it| it.uses += 1));
    assert!(!is_good(|it| it.uses = 0));
    assert!(!is_good(|it| it.grant_life_ms += 1));
    assert!(!is_good(|it| it.grant_life_ms = 0));
}

#[test]
fn a_token_is_read_back_and_never_shows_its_secret() {
    let text = token().to_text();
    assert!(text.len() < 1_500, "{}", text.len());
    assert_eq!(Token::from_text(&format!("  {text}\n")), Ok(token()));
    assert!(!format!("{:?}", token()).contains("07"));
    assert_eq!(
        format!("{:?}", Join { secret: [7; 32] }),
        "Join(secret)".to_owned()
    );
}

#[test]
fn what_is_no_token_is_told_in_words_that_do_not_quote_it() {
    let text = token().to_text();
    for wrong in [
        "",
        "tether-join-1-",
        "tether-join-2-00",
        &text[..text.len() - 1],
        &text[..text.len() - 2],
        &format!("{text}00"),
        &text.replace("tether", "Tether"),
        &"a".repeat(MAX_TOKEN_BYTES + 1),
    ] {
        let error = Token::from_text(wrong).expect_err(wrong).to_string();
        assert!(!error.contains("0707"), "{error}");
    }
    let mut long = token();
    long.bootstrap = vec![long.bootstrap[0]; MAX_TOKEN_BOOTSTRAP + 1];
    assert!(Token::from_text(&long.to_text()).is_err());
}
