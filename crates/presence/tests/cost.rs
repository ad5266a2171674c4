//! What presence costs: prints figures, and holds them against the bounds of issue 3.
//! `cargo test --release -p tether-presence --test cost -- --ignored --nocapture`

#[path = "support/mod.rs"]
mod support;

use std::time::{Duration, Instant};
use support::*;
use tether_presence::{AdmittedCard, Event, Input, Now, Origin, Settings, Spread};
use tether_wire::card::ModelOffer;
use tether_wire::{Beat, Card, Digest, NodeId, NodeKey, Role, Signed, Tier, Verified};

const NODES: u64 = 100_000;

fn node_key(n: u64) -> NodeKey {
    let mut seed = [9; 32];
    seed[..8].copy_from_slice(&n.to_be_bytes());
    NodeKey::from_seed(seed)
}

/// A worker's card with two models, as long as real ones.
fn real_card(key: &NodeKey) -> Box<AdmittedCard> {
    let mut card = card_in(1, 1, Role::Worker);
    card.agent = "tether 0.1.0".into();
    card.addresses = vec!["192.0.2.7:4433".into(), "[2001:db8::7]:4433".into()];
    card.grant = Some(vec![3; 330]);
    if let Some(worker) = &mut card.worker {
        worker.engine = "mistralrs 0.8.1".into();
        worker.models = (0..2)
            .map(|n| ModelOffer {
                model: format!("tether-model-{n}@1.0").parse().expect("valid"),
                digest: Digest([n; 32]),
                warm: true,
                context_tokens: 8_192,
                adapters: Vec::new(),
                numerics_class: "mistralrs-0.8.1/x86-64-v3/q8_0".into(),
            })
            .collect();
    }
    let card: Verified<Card> = (Signed::seal(key, &mesh().id, &card))
        .and_then(|it| it.verify(&mesh().id))
        .expect("inside its limits");
    Box::new(AdmittedCard::new(
        card,
        Tier::Trusted,
        Some(START + 86_400_000),
    ))
}

fn real_beat(key: &NodeKey, card: Digest, seq: u64, at: i64) -> Signed<Beat> {
    let beat = Beat {
        card,
        queue_depth: 3,
        in_flight: 7,
        tokens_per_s: 320.5,
        first_token_ms: 120,
        ..plain(1, START, seq, at)
    };
    Signed::seal(key, &mesh().id, &beat).expect("inside its limits")
}

/// Resident bytes of this process.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages = statm.split_whitespace().nth(1).expect("a field");
    pages.parse::<u64>().expect("a number") * 4_096
}

fn per(took: Duration, count: u64) -> u64 {
    u64::try_from(took.as_nanos()).expect("short") / count
}

fn now(ms: u64) -> Now {
    at(ms)
}

#[test]
#[ignore = "prints figures; run it in release"]
fn a_hundred_thousand_nodes() {
    let mut spread = Spread::new(id(101), Settings::default(), now(0), 1);
    let mut outputs = Vec::new();
    let before = resident();
    let mut sizes = (0, 0);
    let mut digests = Vec::new();
    for n in 0..NODES {
        let key = node_key(n);
        let card = real_card(&key);
        let made = n * 5_000 / NODES;
        let beat = real_beat(&key, card.digest(), 1, i64::try_from(made).expect("small"))
            .verify(&mesh().id)
            .expect("valid");
        sizes = (beat.bytes().len(), card.card().bytes().len());
        digests.push(card.digest());
        let (card, origin) = (Some(card), Origin::Direct);
        spread.handle(
            Input::Own(Event::Beat { beat, card, origin }),
            now(made),
            &mut outputs,
        );
        if n % (NODES / 100) == 0 {
            spread.handle(Input::Own(Event::Tick), now(made), &mut outputs);
        }
        outputs.clear();
    }
    let bytes = (resident() - before) / NODES;
    println!(
        "{NODES} nodes: {bytes} bytes each, of which beat {} and card {}",
        sizes.0, sizes.1
    );

    for n in 0..3 {
        let (peer, near) = (NodeId([n; 32]), true);
        spread.handle(Input::PeerUp { peer, near }, now(5_000), &mut outputs);
    }
    let sealed: Vec<_> = (0..NODES / 5)
        .map(|n| {
            real_beat(
                &node_key(n),
                digests[usize::try_from(n).expect("small")],
                2,
                5_000,
            )
        })
        .collect();
    let begun = Instant::now();
    let beats: Vec<_> = (sealed.iter())
        .map(|it| it.verify(&mesh().id).expect("valid"))
        .collect();
    let verify_ns = per(begun.elapsed(), NODES / 5);
    let begun = Instant::now();
    for beat in beats {
        let (card, origin) = (None, Origin::Direct);
        spread.handle(
            Input::Own(Event::Beat { beat, card, origin }),
            now(5_000),
            &mut outputs,
        );
        outputs.clear();
    }
    let accept_ns = per(begun.elapsed(), NODES / 5);
    println!("a beat: verified and decoded in {verify_ns} ns, accepted in {accept_ns} ns");

    let resident_kib = (resident() - before) / NODES;
    println!(
        "with {} beats waiting for each of 3 peers: {resident_kib} bytes",
        NODES / 5
    );
    for n in 0..3 {
        let gone = Input::PeerDown(NodeId([n; 32]));
        spread.handle(gone, now(5_000), &mut outputs);
    }
    // All fall silent, as they last beat: over five seconds.
    let (mut took, mut worst) = (Vec::new(), Duration::ZERO);
    for tick in 100..420 {
        let begun = Instant::now();
        spread.handle(Input::Own(Event::Tick), now(tick * 50), &mut outputs);
        let effects = outputs.len();
        outputs.clear();
        took.push(begun.elapsed());
        if begun.elapsed() > worst {
            worst = begun.elapsed();
            println!("a tick with {effects} effects: {} µs", worst.as_micros());
        }
    }
    took.sort_unstable();
    let at = |percent: usize| took[(took.len() - 1) * percent / 100].as_micros();
    println!(
        "ticks of 50 ms: p50 {} µs, p90 {} µs, p99 {} µs, worst {} µs",
        at(50),
        at(90),
        at(99),
        at(100)
    );
    assert_eq!(spread.presence().live(), 0);
    assert!(bytes <= 2_048, "{bytes} bytes");
    assert!(accept_ns < 5_000, "{accept_ns} ns");
}
