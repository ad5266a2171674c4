//! What orchestrators hear of a gateway. (PRE-1, PRE-2)

use crate::world::{World, within};
use tether_wire::beat::NodeState;
use tether_wire::{Beat, Card, Digest, Role, Signed, Verified};

/// Its beats until one is as wished, and the cards that came with them.
async fn beat_where(
    world: &mut World,
    wish: impl Fn(&Beat) -> bool,
) -> (Verified<Beat>, Option<Verified<Card>>) {
    let mesh = world.nodes[0].mesh().id;
    let mut card = None;
    loop {
        let push = within(world.reports.pushed.recv()).await.expect("it lives");
        let beat = Signed::<Beat>::from_bytes(push.beat).verify(&mesh);
        let beat = beat.expect("rightly signed");
        assert_eq!(beat.signer(), world.gateway.id());
        if let Some(bytes) = push.card {
            assert_eq!(Digest::of(&bytes), beat.card);
            let pushed = Signed::<Card>::from_bytes(bytes).verify(&mesh);
            card = Some(pushed.expect("rightly signed"));
        }
        if wish(&beat) {
            return (beat, card);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_says_that_it_serves_how_busy_it_is_and_goodbye() {
    let mut world = World::new().await;
    let (_, card) = beat_where(&mut world, |beat| beat.state == NodeState::Serving).await;
    let card = card.expect("the first push brings it");
    assert_eq!(card.role, Role::Gateway);
    assert!(card.grant.is_some() && card.worker.is_none());

    let answer = within(world.chat("slow", true).send()).await;
    beat_where(&mut world, |beat| beat.in_flight == 1).await;
    drop(answer);

    let id = world.gateway.id();
    let mesh = world.nodes[0].mesh().id;
    within(world.gateway.shutdown()).await;
    let mut last = None;
    while let Ok(push) = world.reports.pushed.try_recv() {
        let beat = Signed::<Beat>::from_bytes(push.beat).verify(&mesh);
        last = Some(beat.expect("rightly signed"));
    }
    let last = last.expect("a goodbye");
    assert_eq!((last.signer(), last.state), (id, NodeState::Leaving));
}
