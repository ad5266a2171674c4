//! What orchestrators hear of a node that speaks for itself. (PRE-1, PRE-2, PRE-3)

use crate::mesh::{TestMesh, start};
use std::sync::Arc;
use tether_net::testing::within;
use tether_net::{BoxFuture, Herald, Incoming, Link, Load, Node, Nudge, Pushes, Service, Told};
use tether_wire::beat::NodeState;
use tether_wire::rpc::{RpcError, method};
use tether_wire::spread::{Push, PushReply};
use tether_wire::{Beat, Card, Digest, Role, Signed, Verified, codec};
use tokio::sync::{mpsc, watch};

/// Bytes of a push that the test reads at most.
const LIMIT: usize = 64 * 1024;

/// An orchestrator that writes down what is pushed, and asks for a card when the test says so.
struct Scribe {
    pushes: mpsc::UnboundedSender<Push>,
    wants_card: watch::Receiver<u32>,
}

impl Service for Scribe {
    fn serve(&self, mut call: Incoming) -> BoxFuture<'static, Result<(), RpcError>> {
        assert_eq!(call.method(), method::PRESENCE);
        let (pushes, mut wants_card) = (self.pushes.clone(), self.wants_card.clone());
        Box::pin(async move {
            loop {
                tokio::select! {
                    item = call.recv(LIMIT) => match item? {
                        Some(item) => drop(pushes.send(Push::decode(&item).expect("a push"))),
                        None => return Ok(()),
                    },
                    Ok(()) = wants_card.changed() => {
                        let reply = PushReply { wants_card: true };
                        call.send(&codec::encode(&reply)).await?;
                    }
                }
            }
        })
    }
}

struct World {
    mesh: TestMesh,
    pushes: mpsc::UnboundedReceiver<Push>,
    wants_card: watch::Sender<u32>,
    orchestrator: Node,
    gateway: Node,
    told: watch::Sender<Told>,
    links: watch::Sender<Vec<Link>>,
    nudge: Nudge,
    pushes_out: Pushes,
}

impl World {
    async fn new() -> Self {
        let mesh = TestMesh::new();
        let (sender, pushes) = mpsc::unbounded_channel();
        let (wants_card, wanted) = watch::channel(0);
        let service = Scribe {
            pushes: sender,
            wants_card: wanted,
        };
        let (config, _) = mesh.config(Role::Orchestrator);
        let orchestrator = Node::start(config, Arc::new(service)).await;
        let gateway = start(mesh.config(Role::Gateway)).await.node;
        let (told, teller) = watch::channel(Told {
            state: NodeState::Starting,
            worker: None,
        });
        let load = || Load {
            in_flight: 4,
            ..Load::default()
        };
        let herald = Herald::start(&gateway, 9, teller, load);
        let (links, linked) = watch::channel(Vec::new());
        Self {
            nudge: herald.nudge(),
            pushes_out: Pushes::start(herald, linked, || ()),
            links,
            mesh,
            pushes,
            wants_card,
            orchestrator: orchestrator.expect("it starts"),
            gateway,
            told,
        }
    }

    /// Lets beats be pushed to the orchestrator, until the links are others.
    async fn push(&self) {
        let link = self
            .gateway
            .link(self.orchestrator.id(), Role::Orchestrator);
        self.links.send_replace(vec![link.await.expect("linked")]);
    }

    /// Lets nothing be pushed any more.
    async fn stop(&self) {
        self.links.send_replace(Vec::new());
        self.heard_by(0).await;
    }

    async fn heard_by(&self, count: usize) {
        let mut hearing = self.pushes_out.hearing();
        let heard = within(hearing.wait_for(|now| *now == count)).await;
        heard.expect("it goes on");
    }

    async fn next(&mut self) -> (Verified<Beat>, Option<Verified<Card>>) {
        let push: Push = within(self.pushes.recv()).await.expect("a push");
        let id = &self.mesh.mesh.id;
        let beat = Signed::<Beat>::from_bytes(push.beat).verify(id);
        let beat = beat.expect("rightly signed");
        assert_eq!(beat.signer(), self.gateway.id());
        let card = push.card.map(|card: Vec<u8>| {
            assert_eq!(Digest::of(&card), beat.card, "the beat names it");
            let card = Signed::<Card>::from_bytes(card).verify(id);
            card.expect("rightly signed")
        });
        (beat, card)
    }

    /// Passes over beats until one is as wanted.
    async fn until(
        &mut self,
        wanted: impl Fn(&Beat, Option<&Card>) -> bool,
    ) -> (Verified<Beat>, Option<Verified<Card>>) {
        loop {
            let (beat, card) = self.next().await;
            if wanted(&beat, card.as_deref()) {
                return (beat, card);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_call_gets_a_beat_of_its_own_with_the_card_and_then_beats_alone() {
    let mut world = World::new().await;
    world.push().await;
    let (first, card) = world.next().await;
    let card = card.expect("the first push brings the card");
    assert_eq!((first.epoch, first.in_flight), (9, 4));
    assert_eq!((card.role, card.epoch), (Role::Gateway, 9));
    assert!(card.grant.is_some() && !card.addresses.is_empty());
    world
        .told
        .send_modify(|told| told.state = NodeState::Serving);
    let (second, card) = world
        .until(|beat, _| beat.state == NodeState::Serving)
        .await;
    assert!(
        second.order() > first.order(),
        "at once, not in five seconds"
    );
    assert!(card.is_none(), "it is known");
    world.heard_by(1).await;
    world.stop().await;
    world.push().await;
    let (third, card) = world.until(|_, card| card.is_some()).await;
    assert!(third.order() > second.order(), "never one that was seen");
    assert!(card.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orchestrator_that_wants_the_card_gets_it() {
    let mut world = World::new().await;
    world.push().await;
    let (first, _) = world.next().await;
    world.wants_card.send_modify(|count| *count += 1);
    let (beat, _) = world.until(|_, card| card.is_some()).await;
    assert!(beat.order() > first.order());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_goodbye_is_heard_and_is_the_last() {
    let mut world = World::new().await;
    world.push().await;
    world.next().await;
    within(world.pushes_out.goodbye()).await;
    world.heard_by(0).await;
    let (last, _) = world
        .until(|beat, _| beat.state == NodeState::Leaving)
        .await;
    assert_eq!(last.state, NodeState::Leaving);
    world.nudge.soon();
    assert!(world.pushes.try_recv().is_err(), "nothing came after it");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_the_load_tells_is_said_when_asked_for_and_not_five_seconds_later() {
    let mut world = World::new().await;
    world.push().await;
    let said = async {
        // By itself it would take longer than the test waits.
        let (mut last, _) = world.next().await;
        for _ in 0..20 {
            world.nudge.soon();
            let (next, _) = world.next().await;
            assert!(next.order() > last.order());
            last = next;
        }
    };
    within(said).await;
}
