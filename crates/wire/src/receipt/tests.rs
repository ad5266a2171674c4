use super::*;
use crate::key::NodeKey;
use crate::{MeshId, Region};

const NOW_MS: u64 = 1_800_000_000_000;

fn operator() -> NodeKey {
    NodeKey::from_seed([1; 32])
}

fn worker() -> NodeKey {
    NodeKey::from_seed([2; 32])
}

fn mesh(access: Access) -> Mesh {
    Mesh {
        id: MeshId(operator().id().0),
        recovery: None,
        access,
    }
}

fn grant(change: impl FnOnce(&mut Grant)) -> Vec<u8> {
    let mut grant = Grant {
        subject: worker().id(),
        role: Role::Worker,
        region: Some(Region::new("local").expect("valid")),
        tier: Tier::Trusted,
        not_before_ms: NOW_MS,
        expires_ms: NOW_MS + 1_000_000,
        serial: 1,
        issuer: None,
        consent: None,
        invite: None,
    };
    change(&mut grant);
    let sealed = Signed::seal(&operator(), &mesh(Access::Invite).id, &grant);
    sealed.expect("inside limits").as_bytes().to_vec()
}

fn receipt() -> Receipt {
    Receipt {
        correlation: CorrelationId([3; 16]),
        attempt: 1,
        fence: 4,
        model: "tiny@1.0".parse().expect("valid"),
        digest: Digest([4; 32]),
        adapters: Vec::new(),
        numerics_class: "class".into(),
        engine: "echo 1".into(),
        request: Digest([5; 32]),
        text: Digest([6; 32]),
        calls: None,
        tokens: Some(Digest([7; 32])),
        prompt_tokens: 3,
        completion_tokens: 5,
        finish: Finish::Stop,
        seed: 9,
        began_ms: NOW_MS + 10,
        first_token_ms: Some(NOW_MS + 12),
        ended_ms: NOW_MS + 20,
        continued_from: 0,
        grant: Some(grant(|_| ())),
    }
}

fn sealed(receipt: &Receipt) -> Signed<Receipt> {
    Signed::seal(&worker(), &mesh(Access::Invite).id, receipt).expect("inside limits")
}

fn verdict(receipt: &Receipt) -> Result<Option<Tier>, ReceiptError> {
    verify(&sealed(receipt), &mesh(Access::Invite)).map(|proof| proof.tier)
}

#[test]
fn a_receipt_of_a_worker_is_believed() {
    assert_eq!(verdict(&receipt()), Ok(Some(Tier::Trusted)));
}

#[test]
fn a_receipt_of_another_mesh_or_role_or_with_anothers_grant_is_refused() {
    let elsewhere = Mesh {
        id: MeshId([8; 32]),
        ..mesh(Access::Invite)
    };
    assert!(matches!(
        verify(&sealed(&receipt()), &elsewhere),
        Err(ReceiptError::Invalid(VerifyError::BadSignature { .. }))
    ));
    let with = |grant| Receipt {
        grant: Some(grant),
        ..receipt()
    };
    for role in [Role::Gateway, Role::Orchestrator, Role::Publisher] {
        let other = with(grant(|it| it.role = role));
        assert_eq!(verdict(&other), Err(ReceiptError::Role { role }));
    }
    let others = with(grant(|it| it.subject = NodeId([9; 32])));
    assert!(matches!(
        verdict(&others),
        Err(ReceiptError::AnothersGrant { .. })
    ));
    let mut forged = grant(|_| ());
    forged[40] ^= 1;
    assert!(matches!(
        verdict(&with(forged)),
        Err(ReceiptError::Grant(GrantError::Invalid(_)))
    ));
}

#[test]
fn the_grant_must_hold_when_the_answer_ended_and_not_when_it_is_checked() {
    let over = Receipt {
        ended_ms: NOW_MS + 1_000_000,
        ..receipt()
    };
    assert_eq!(verdict(&over), Err(ReceiptError::OutsideGrant));
    let early = Receipt {
        began_ms: 0,
        first_token_ms: None,
        ended_ms: NOW_MS - GRANT_SKEW_MS - 1,
        ..receipt()
    };
    assert_eq!(verdict(&early), Err(ReceiptError::OutsideGrant));
}

#[test]
fn only_an_open_mesh_has_workers_without_a_grant() {
    let ungranted = Receipt {
        grant: None,
        ..receipt()
    };
    assert_eq!(verdict(&ungranted), Err(ReceiptError::Ungranted));
    let open = verify(&sealed(&ungranted), &mesh(Access::Open)).expect("believed");
    assert_eq!(open.tier, None);
}

#[test]
fn fields_beyond_their_bounds_are_not_sealed() {
    type Change = fn(&mut Receipt);
    let changes: [(&str, Change); 7] = [
        ("attempt", |r| r.attempt = 0),
        ("adapters", |r| {
            r.adapters = vec![Digest([1; 32]); MAX_ADAPTERS + 1];
        }),
        ("numerics_class", |r| r.numerics_class = "x".repeat(97)),
        ("engine", |r| r.engine = "x".repeat(65)),
        ("ended_ms", |r| r.ended_ms = r.began_ms),
        ("continued_from", |r| r.continued_from = 6),
        ("grant", |r| r.grant = Some(vec![0; Grant::MAX_BYTES + 1])),
    ];
    for (field, change) in changes {
        let mut wrong = receipt();
        change(&mut wrong);
        let error = Signed::seal(&worker(), &mesh(Access::Invite).id, &wrong).expect_err(field);
        assert!(error.to_string().contains(field), "{error}");
    }
}

#[test]
fn the_longest_receipt_fits() {
    let longest = Receipt {
        model: format!("{}@65535.65535", "m".repeat(64))
            .parse()
            .expect("valid"),
        adapters: vec![Digest([1; 32]); MAX_ADAPTERS],
        numerics_class: "x".repeat(MAX_NUMERICS_BYTES),
        engine: "x".repeat(MAX_ENGINE_BYTES),
        grant: Some(vec![0; Grant::MAX_BYTES]),
        ..receipt()
    };
    let sealed = Signed::seal(&worker(), &mesh(Access::Invite).id, &longest);
    assert!(sealed.expect("it fits").as_bytes().len() <= MAX_RECEIPT_BYTES);
}
