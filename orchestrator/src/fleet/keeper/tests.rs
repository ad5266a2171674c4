use super::*;
use crate::placement::Placement;
use crate::testing::{NOW, beat, card, id, key, mesh, verified};
use std::sync::atomic::{AtomicU64, Ordering};
use tether_presence::{AdmittedCard, Origin, Settings};
use tether_telemetry::metrics::Registry;
use tether_wire::beat::{EXPIRY_MS, NodeState};
use tether_wire::{Beat, Card, Digest, Role, Tier};

const PATIENCE: Duration = Duration::from_secs(20);

/// A fleet whose clock the test sets.
struct Scene {
    fleet: Fleet,
    edge: mpsc::Receiver<Outgoing>,
    clock: Arc<AtomicU64>,
    registry: Registry,
    stop: CancellationToken,
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Scene {
    fn start() -> Self {
        let (clock, registry) = (Arc::new(AtomicU64::new(0)), Registry::new());
        let stop = CancellationToken::new();
        let settings = FleetSettings {
            id: id(999),
            presence: Settings::default(),
            placement: Placement::default().in_force(),
            seed: 1,
            metrics: OrchestratorMetrics::register(&registry),
            stop: stop.clone(),
        };
        let read = clock.clone();
        let now = move || {
            let ms = read.load(Ordering::Relaxed);
            Now {
                unix_ms: NOW + ms,
                mono_ms: ms,
            }
        };
        let (fleet, edge) = Fleet::start_by(settings, now);
        Self {
            fleet,
            edge,
            clock,
            registry,
            stop,
        }
    }

    fn pass(&self, ms: u64) {
        self.clock.fetch_add(ms, Ordering::Relaxed);
    }

    /// Worker `n` pushes a beat, and its card where it is wanted.
    async fn push(&self, n: u16, seq: u64, with_card: bool, change: impl FnOnce(&mut Beat)) {
        self.push_card(n, seq, card(), with_card, change).await;
    }

    async fn push_card(
        &self,
        n: u16,
        seq: u64,
        card: Card,
        with_card: bool,
        change: impl FnOnce(&mut Beat),
    ) {
        let card = verified(n, &card);
        let mut beat = Beat {
            issued_ms: NOW + self.clock.load(Ordering::Relaxed),
            card: Digest::of(card.bytes()),
            ..beat(seq)
        };
        change(&mut beat);
        let card = AdmittedCard::new(card, Tier::Trusted, None);
        let event = Event::Beat {
            beat: verified(n, &beat),
            card: with_card.then(|| Box::new(card)),
            origin: Origin::Direct,
        };
        self.fleet.tell(Input::Own(event)).await;
    }

    /// Until everything that was told is taken in.
    async fn settle(&self) {
        let sifted = self.fleet.sift(Batch::default()).await;
        sifted.expect("the keeper runs");
    }

    /// Until readers see this.
    async fn sees(&self, what: &str, is_so: impl Fn(&Snapshot) -> bool) {
        let mut changes = self.fleet.changes();
        tokio::time::timeout(PATIENCE, async {
            while !is_so(&self.fleet.snapshot()) {
                self.pass(1);
                tokio::select! {
                    changed = changes.changed() => changed.expect("the keeper runs"),
                    () = tokio::time::sleep(Duration::from_millis(1)) => {}
                }
            }
        })
        .await
        .unwrap_or_else(|_| panic!("waited in vain: {what}"));
    }

    /// Until the keeper has ticked with the time that it is now.
    async fn ticks(&self) {
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(FLUSH_MS)).await;
            self.settle().await;
        }
    }
}

#[tokio::test]
async fn what_was_told_is_in_the_readers_snapshot() {
    let scene = Scene::start();
    scene.push(1, 1, true, |_| ()).await;
    scene.sees("it came", |fleet| fleet.len() == 1).await;
    scene.pass(1_000);
    scene.push(1, 2, false, |it| it.queue_depth = 4).await;
    scene.settle().await;
    let fleet = scene.fleet.snapshot();
    let view = fleet.worker(&id(1)).expect("there");
    assert_eq!((view.queue_depth(), view.epoch()), (4, 1));
    assert!(view.heard_mono_ms() >= 1_000);
    scene
        .push(1, 3, false, |it| it.state = NodeState::Leaving)
        .await;
    scene.sees("it left", Snapshot::is_empty).await;
}

#[tokio::test]
async fn beats_that_wait_are_heard_before_silence_is_looked_for() {
    let scene = Scene::start();
    for n in 0..50 {
        scene.push(n, 1, true, |_| ()).await;
    }
    scene.sees("all came", |fleet| fleet.len() == 50).await;
    // They beat for as long as they live; the orchestrator is slow to look.
    for seq in 2..40 {
        scene.pass(900);
        for n in 0..50 {
            scene.push(n, seq, false, |_| ()).await;
        }
        tokio::task::yield_now().await;
    }
    scene.ticks().await;
    let fleet = scene.fleet.snapshot();
    assert_eq!(fleet.len(), 50);
    assert!(fleet.workers().all(|worker| !worker.is_suspect()));
}

#[tokio::test]
async fn an_orchestrator_that_was_not_run_for_long_expires_nobody_and_later_the_dead() {
    let scene = Scene::start();
    for n in [1, 2] {
        scene.push(n, 1, true, |_| ()).await;
    }
    scene.sees("both came", |fleet| fleet.len() == 2).await;
    scene.ticks().await;
    scene.pass(20 * EXPIRY_MS);
    scene.ticks().await;
    let fleet = scene.fleet.snapshot();
    assert_eq!(fleet.len(), 2, "who was not run heard nobody");
    // One of them goes on; the other was dead all along.
    for seq in 2..40 {
        scene.pass(900);
        scene.push(1, seq, false, |_| ()).await;
        scene.settle().await;
    }
    scene.sees("one expired", |fleet| fleet.len() == 1).await;
    assert!(scene.fleet.snapshot().worker(&id(1)).is_some());
}

#[tokio::test]
async fn who_pushes_without_its_card_is_asked_for_it_and_is_no_worker() {
    let mut scene = Scene::start();
    scene.push(1, 1, false, |_| ()).await;
    let asked = tokio::time::timeout(PATIENCE, scene.edge.recv()).await;
    assert!(matches!(asked, Ok(Some(Outgoing::WantCard(node))) if node == id(1)));
    assert!(scene.fleet.snapshot().is_empty());
    scene.push(1, 2, true, |_| ()).await;
    scene.sees("it came", |fleet| fleet.len() == 1).await;
}

#[tokio::test]
async fn questions_never_take_the_room_of_batches() {
    let mut scene = Scene::start();
    for n in 0..2 * u16::try_from(MAX_ASIDE).expect("small") {
        scene.push(n, 1, false, |_| ()).await;
    }
    scene.settle().await;
    let mut asked = 0;
    while let Ok(Outgoing::WantCard(_)) = scene.edge.try_recv() {
        asked += 1;
    }
    assert_eq!(asked, MAX_ASIDE);
}

#[tokio::test]
async fn a_doubt_is_seen_at_once_and_ends_with_the_next_beat() {
    let scene = Scene::start();
    scene.push(1, 1, true, |_| ()).await;
    scene.sees("it came", |fleet| fleet.len() == 1).await;
    let fleet = scene.fleet.snapshot();
    let view = fleet.worker(&id(1)).expect("there");
    let mut changes = scene.fleet.changes();
    changes.mark_unchanged();
    scene.fleet.unreachable(id(1), "its link broke").await;
    scene.settle().await;
    assert!(view.is_suspect() && view.redial_mono_ms() > 0);
    assert!(changes.has_changed().expect("the keeper runs"));
    scene.push(1, 2, false, |_| ()).await;
    scene.settle().await;
    assert!(!view.is_suspect() && view.redial_mono_ms() == 0);
    scene.fleet.suspect(id(1), "it did not answer").await;
    scene.settle().await;
    assert!(view.is_suspect() && view.redial_mono_ms() == 0);
}

#[tokio::test]
async fn gateways_and_orchestrators_are_counted_and_are_no_workers() {
    let scene = Scene::start();
    for (n, role) in [
        (1, Role::Gateway),
        (2, Role::Gateway),
        (3, Role::Orchestrator),
    ] {
        let (worker, card) = (None, card());
        let card = Card {
            role,
            worker,
            ..card
        };
        scene.push_card(n, 1, card, true, |_| ()).await;
    }
    scene.fleet.unreachable(id(2), "its link broke").await;
    let expected = [
        "tether_orchestrator_nodes{role=\"gateway\",state=\"live\"} 1",
        "tether_orchestrator_nodes{role=\"gateway\",state=\"suspect\"} 1",
        "tether_orchestrator_nodes{role=\"orchestrator\",state=\"live\"} 1",
    ];
    let counted = async {
        loop {
            let text = scene.registry.encode();
            if expected
                .iter()
                .all(|it| text.lines().any(|line| line == *it))
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, counted)
        .await
        .expect("counted");
    assert!(scene.fleet.snapshot().is_empty());
    let both = async {
        while scene.fleet.snapshot().orchestrators() != 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, both)
        .await
        .expect("itself and another one");
}

#[tokio::test]
async fn what_is_held_is_sifted_out_of_a_peers_batch() {
    let scene = Scene::start();
    scene.push(1, 5, true, |_| ()).await;
    let relayed = |n: u16, seq| {
        let sealed = tether_wire::Signed::seal(&key(n), &mesh(), &beat(seq)).expect("sealed");
        tether_wire::spread::RelayedBeat {
            epoch: 1,
            seq,
            ahead_ms: 0,
            beat: sealed.as_bytes().to_vec(),
        }
    };
    let batch = Batch {
        beats: vec![relayed(1, 4), relayed(1, 6), relayed(2, 1)],
        ..Batch::default()
    };
    let sifted = scene.fleet.sift(batch).await.expect("the keeper runs");
    assert_eq!(
        sifted.costs(),
        2,
        "what is not above the floor costs nothing"
    );
}
