use super::*;
use tether_wire::grant::Access;
use tether_wire::infer::{Chunk, Finish, Input, Output, Sampling, Usage};
use tether_wire::{CorrelationId, Digest, MeshId, NodeKey, Receipt, TenantId};

fn mesh() -> Mesh {
    Mesh {
        id: MeshId([9; 32]),
        recovery: None,
        access: Access::Open,
    }
}

fn worker() -> NodeKey {
    NodeKey::from_seed([2; 32])
}

fn order() -> WorkOrder {
    WorkOrder {
        correlation: CorrelationId([1; 16]),
        attempt: 2,
        fence: 3,
        tenant: TenantId::new("t").expect("valid"),
        model: "tiny@1.0".parse().expect("valid"),
        digest: Digest([7; 32]),
        input: Input::Text("x".into()),
        sampling: Sampling {
            seed: Some(5),
            ..Sampling::default()
        },
        output: Output::default(),
        transcript: Vec::new(),
    }
}

fn given() -> hash::Given {
    let mut given = hash::Given::default();
    given.take(&Chunk::new(0, vec![1, 2], "é"));
    given
}

fn receipt() -> Receipt {
    let order = order();
    Receipt {
        correlation: order.correlation,
        attempt: order.attempt,
        fence: order.fence,
        model: order.model,
        digest: order.digest,
        adapters: Vec::new(),
        numerics_class: "class".into(),
        engine: "echo 1".into(),
        request: hash::request(&order.input, &order.sampling, &order.output, 5),
        text: given().text(),
        calls: None,
        tokens: given().tokens(),
        prompt_tokens: 3,
        completion_tokens: 2,
        finish: Finish::Stop,
        seed: 5,
        began_ms: 10,
        first_token_ms: None,
        ended_ms: 20,
        continued_from: 0,
        grant: None,
    }
}

fn done(receipt: Option<Vec<u8>>) -> Done {
    Done {
        finish: Finish::Stop,
        usage: Usage {
            prompt_tokens: 3,
            completion_tokens: 2,
        },
        receipt,
    }
}

fn judged(sealed: Option<Vec<u8>>) -> Verdict {
    let done = done(sealed);
    judge(&Seen {
        mesh: &mesh(),
        worker: worker().id(),
        order: &order(),
        given: &given(),
        done: &done,
    })
}

fn sealed_by(key: &NodeKey, mesh: &MeshId, receipt: &Receipt) -> Option<Vec<u8>> {
    let sealed = Signed::seal(key, mesh, receipt).expect("inside limits");
    Some(sealed.as_bytes().to_vec())
}

#[test]
fn a_receipt_that_says_what_was_seen_passes() {
    let right = sealed_by(&worker(), &mesh().id, &receipt());
    assert_eq!(judged(right), Verdict::Right);
    assert_eq!(judged(None), Verdict::Missing);
    // Of an adapter, which is a model of its own.
    let mut adapter = receipt();
    adapter.adapters = vec![adapter.digest];
    let adapter = sealed_by(&worker(), &mesh().id, &adapter);
    assert_eq!(judged(adapter), Verdict::Right);
}

type Lie = fn(&mut Receipt);

#[test]
fn a_worker_that_lies_in_any_field_is_caught() {
    let lies: [(&str, Lie); 15] = [
        ("correlation", |r| r.correlation = CorrelationId([2; 16])),
        ("attempt", |r| r.attempt = 1),
        ("fence", |r| r.fence = 4),
        ("model", |r| r.model = "tiny@1.1".parse().expect("valid")),
        ("digest", |r| r.digest = Digest([8; 32])),
        ("adapters", |r| r.adapters = vec![Digest([8; 32])]),
        ("seed", |r| r.seed = 6),
        ("request", |r| r.request = Digest([8; 32])),
        ("text", |r| r.text = Digest([8; 32])),
        ("calls", |r| r.calls = Some(Digest([8; 32]))),
        ("tokens", |r| r.tokens = Some(Digest([8; 32]))),
        ("prompt_tokens", |r| r.prompt_tokens = 2),
        ("completion_tokens", |r| r.completion_tokens = 9),
        ("finish", |r| r.finish = Finish::Length),
        ("continued_from", |r| r.continued_from = 1),
    ];
    for (field, lie) in lies {
        let mut lying = receipt();
        lie(&mut lying);
        let Verdict::Wrong(why) = judged(sealed_by(&worker(), &mesh().id, &lying)) else {
            panic!("a lie about {field} passes");
        };
        assert!(why.contains(&format!("`{field}`")), "{why}");
    }
}

/// [T-INF-11]
#[test]
fn of_a_continued_answer_tokens_and_beginning_are_held_against_the_order() {
    let order = WorkOrder {
        transcript: vec![1],
        ..order()
    };
    // The first token is told again.
    let mut given = hash::Given::default();
    given.take(&Chunk::new(0, vec![1], "whole "));
    given.take(&Chunk::new(1, vec![2], "\u{e9}"));
    let judged = |change: Lie| {
        let mut receipt = receipt();
        receipt.continued_from = 1;
        receipt.text = hash::text("whole \u{e9}");
        change(&mut receipt);
        let done = done(sealed_by(&worker(), &mesh().id, &receipt));
        judge(&Seen {
            mesh: &mesh(),
            worker: worker().id(),
            order: &order,
            given: &given,
            done: &done,
        })
    };
    assert_eq!(judged(|_| ()), Verdict::Right);
    let lies: [(&str, Lie); 3] = [
        ("continued_from", |r| r.continued_from = 0),
        ("text", |r| r.text = hash::text("\u{e9}")),
        ("tokens", |r| r.tokens = Some(Digest([8; 32]))),
    ];
    for (field, lie) in lies {
        let Verdict::Wrong(why) = judged(lie) else {
            panic!("a lie about {field} passes");
        };
        assert!(why.contains(&format!("`{field}`")), "{why}");
    }
}

#[test]
fn a_receipt_of_another_key_or_mesh_or_of_no_kind_is_wrong() {
    let others = [
        sealed_by(&NodeKey::from_seed([3; 32]), &mesh().id, &receipt()),
        sealed_by(&worker(), &MeshId([8; 32]), &receipt()),
        Some(Vec::new()),
        Some(vec![1; 100_000]),
    ];
    for other in others {
        assert!(matches!(judged(other), Verdict::Wrong(_)));
    }
}
