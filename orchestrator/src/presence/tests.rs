use super::*;
use crate::testing::{NOW, beat, key, verified};
use proptest::prelude::*;
use tether_wire::heartbeat::HEARTBEAT_INTERVAL_MS;

fn at(ms: u64) -> Now {
    Now {
        unix_ms: NOW + ms,
        mono_ms: ms,
    }
}

fn send(presence: &mut Presence, n: u8, epoch: u64, seq: u64, ms: u64) -> Result<Change, Rejected> {
    let beat = beat(n, epoch, seq, NOW + ms);
    presence.accept(verified(n, &beat), Tier::Trusted, at(ms))
}

fn leave(
    presence: &mut Presence,
    n: u8,
    epoch: u64,
    seq: u64,
    ms: u64,
) -> Result<Change, Rejected> {
    let mut beat = beat(n, epoch, seq, NOW + ms);
    beat.state = WorkerState::Leaving;
    presence.accept(verified(n, &beat), Tier::Trusted, at(ms))
}

#[test]
fn a_worker_is_there_with_its_first_heartbeat_and_refreshed_by_the_next() {
    let mut presence = Presence::new(8);
    assert!(matches!(
        send(&mut presence, 1, 1, 1, 0),
        Ok(Change::Beat { .. })
    ));
    assert!(send(&mut presence, 1, 1, 2, 10).is_ok());
    assert!(send(&mut presence, 1, 2, 1, 20).is_ok(), "a restart");
    assert_eq!(presence.live(), 1);
}

#[test]
fn the_tier_is_that_of_the_grant_whatever_the_heartbeat_claims() {
    let mut presence = Presence::new(8);
    let claims = beat(1, 1, 1, NOW);
    assert_eq!(claims.tier, Tier::Trusted);
    let change = presence
        .accept(verified(1, &claims), Tier::Untrusted, at(0))
        .expect("accepted");
    assert!(matches!(
        change,
        Change::Beat {
            tier: Tier::Untrusted,
            ..
        }
    ));
}

#[test]
fn a_replayed_or_reordered_heartbeat_is_refused() {
    let mut presence = Presence::new(8);
    send(&mut presence, 1, 5, 5, 0).expect("first");
    assert_eq!(
        send(&mut presence, 1, 5, 5, 1).err(),
        Some(Rejected::Replayed)
    );
    assert_eq!(
        send(&mut presence, 1, 5, 4, 1).err(),
        Some(Rejected::Reordered)
    );
    assert_eq!(
        send(&mut presence, 1, 4, 9, 1).err(),
        Some(Rejected::Reordered)
    );
}

#[test]
fn freshness_has_both_edges() {
    let offer = |issued: u64, now: u64| {
        let mut presence = Presence::new(8);
        let beat = beat(1, 1, 1, issued);
        presence
            .accept(
                verified(1, &beat),
                Tier::Trusted,
                Now {
                    unix_ms: now,
                    mono_ms: 0,
                },
            )
            .err()
    };
    assert_eq!(offer(NOW + MAX_FUTURE_MS, NOW), None);
    assert_eq!(offer(NOW + MAX_FUTURE_MS + 1, NOW), Some(Rejected::Future));
    assert_eq!(offer(NOW - MAX_AGE_MS, NOW), None);
    assert_eq!(offer(NOW - MAX_AGE_MS - 1, NOW), Some(Rejected::Stale));
    assert_eq!(offer(u64::MAX, NOW), Some(Rejected::Future));
    assert_eq!(offer(0, NOW), Some(Rejected::Stale));
}

#[test]
fn silence_for_three_intervals_expires_and_only_something_newer_revives() {
    let mut presence = Presence::new(8);
    send(&mut presence, 1, 1, 5, 0).expect("first");
    assert!(presence.tick(at(EXPIRY_MS - 1)).is_empty());
    let gone = presence.tick(at(EXPIRY_MS));
    assert!(matches!(gone[..], [Change::Gone(id, Gone::Expired)] if id == key(1).id()));
    assert_eq!(presence.live(), 0);
    // The same order, even freshly dated, is a ghost.
    assert_eq!(
        send(&mut presence, 1, 1, 5, EXPIRY_MS + 1).err(),
        Some(Rejected::Replayed)
    );
    assert!(send(&mut presence, 1, 1, 6, EXPIRY_MS + 2).is_ok());
    assert_eq!(presence.live(), 1);
}

#[test]
fn a_jump_of_the_wall_clock_expires_nobody() {
    let mut presence = Presence::new(8);
    send(&mut presence, 1, 1, 1, 0).expect("first");
    let jumped = Now {
        unix_ms: NOW + 3_600_000,
        mono_ms: 10,
    };
    assert!(presence.tick(jumped).is_empty());
}

#[test]
fn after_goodbye_only_a_higher_order_revives() {
    let mut presence = Presence::new(8);
    send(&mut presence, 1, 1, 1, 0).expect("first");
    let gone = leave(&mut presence, 1, 1, 3, 1).expect("goodbye");
    assert!(matches!(gone, Change::Gone(_, Gone::Departed)));
    assert_eq!(presence.live(), 0);
    assert_eq!(
        send(&mut presence, 1, 1, 2, 2).err(),
        Some(Rejected::Departed)
    );
    assert_eq!(
        leave(&mut presence, 1, 1, 3, 2).err(),
        Some(Rejected::Departed)
    );
    assert!(presence.tick(at(EXPIRY_MS * 2)).is_empty(), "gone once");
    assert!(send(&mut presence, 1, 2, 0, EXPIRY_MS * 2).is_ok());
}

#[test]
fn a_goodbye_that_overtakes_the_first_heartbeat_still_counts() {
    let mut presence = Presence::new(8);
    leave(&mut presence, 1, 1, 2, 0).expect("goodbye");
    assert_eq!(
        send(&mut presence, 1, 1, 1, 1).err(),
        Some(Rejected::Departed)
    );
    assert_eq!(presence.live(), 0);
}

#[test]
fn a_tombstone_outlives_every_heartbeat_that_could_still_be_fresh() {
    const { assert!(TOMBSTONE_MS > 2 * (MAX_AGE_MS + MAX_FUTURE_MS + HEARTBEAT_INTERVAL_MS)) };
    let mut presence = Presence::new(8);
    leave(&mut presence, 1, 1, 1, 0).expect("goodbye");
    presence.tick(at(TOMBSTONE_MS - 1));
    assert_eq!(presence.remembered(), 1);
    presence.tick(at(TOMBSTONE_MS));
    assert_eq!(presence.remembered(), 0);
}

#[test]
fn a_suspect_is_well_again_at_its_next_heartbeat() {
    let mut presence = Presence::new(8);
    assert!(presence.suspect(key(1).id()).is_none(), "not known");
    send(&mut presence, 1, 1, 1, 0).expect("first");
    assert!(matches!(
        presence.suspect(key(1).id()),
        Some(Change::Suspect(_))
    ));
    assert!(presence.suspect(key(1).id()).is_none(), "already");
    assert_eq!(presence.live(), 1, "suspect is not gone");
    assert!(matches!(
        send(&mut presence, 1, 1, 2, 1),
        Ok(Change::Beat { .. })
    ));
    assert!(presence.suspect(key(1).id()).is_some());
}

#[test]
fn more_workers_than_fit_are_refused_and_none_is_pushed_out() {
    let mut presence = Presence::new(2);
    send(&mut presence, 1, 1, 1, 0).expect("fits");
    send(&mut presence, 2, 1, 1, 0).expect("fits");
    assert_eq!(send(&mut presence, 3, 1, 1, 0).err(), Some(Rejected::Full));
    assert!(send(&mut presence, 1, 1, 2, 1).is_ok(), "those who are in");
    // Those who went are remembered, as many as may be there, and then no stranger is taken.
    leave(&mut presence, 1, 1, 3, 2).expect("goodbye");
    leave(&mut presence, 2, 1, 3, 2).expect("goodbye");
    leave(&mut presence, 3, 1, 3, 2).expect("remembered");
    leave(&mut presence, 4, 1, 3, 2).expect("remembered");
    assert_eq!(leave(&mut presence, 5, 1, 3, 2).err(), Some(Rejected::Full));
    assert_eq!(presence.remembered(), 4);
    assert!(send(&mut presence, 1, 2, 0, 3).is_ok(), "a known one again");
}

#[derive(Clone, Debug)]
enum Event {
    Beat {
        n: u8,
        epoch: u64,
        seq: u64,
        age: i64,
        leaving: bool,
    },
    Suspect(u8),
    Pass(u64),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let beat = (0..3_u8, 0..3_u64, 0..5_u64, -8_000..20_000_i64, any::<u8>()).prop_map(
        |(n, epoch, seq, age, dice)| Event::Beat {
            n,
            epoch,
            seq,
            age,
            leaving: dice < 50,
        },
    );
    let other = prop_oneof![
        (0..3_u8).prop_map(Event::Suspect),
        (0..12_000_u64).prop_map(Event::Pass)
    ];
    prop::collection::vec(prop_oneof![4 => beat, 2 => other], 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Whatever comes in whatever order: the order of a worker never goes back, nothing outside
    /// the window of freshness counts, and who is gone comes back only with something newer.
    #[test]
    fn no_interleaving_makes_a_ghost(events in events()) {
        let mut presence = Presence::new(2);
        let mut last: HashMap<NodeId, (u64, u64)> = HashMap::new();
        let mut alive: HashMap<NodeId, u64> = HashMap::new();
        let mut ms = 100_000;
        for event in events {
            match event {
                Event::Beat { n, epoch, seq, age, leaving } => {
                    let mut beat = beat(n, epoch, seq, (NOW + ms).saturating_add_signed(-age));
                    if leaving { beat.state = WorkerState::Leaving; }
                    let id = beat.worker;
                    let issued = beat.issued_ms;
                    match presence.accept(verified(n, &beat), Tier::Trusted, at(ms)) {
                        Ok(change) => {
                            prop_assert!(last.get(&id).is_none_or(|o| (epoch, seq) > *o));
                            prop_assert!(issued <= NOW + ms + MAX_FUTURE_MS);
                            prop_assert!(issued + MAX_AGE_MS >= NOW + ms);
                            last.insert(id, (epoch, seq));
                            if matches!(change, Change::Gone(..)) { alive.remove(&id); }
                            else { alive.insert(id, ms); }
                        }
                        Err(reason) => prop_assert!(Rejected::ALL.contains(&reason)),
                    }
                }
                Event::Suspect(n) => {
                    let id = key(n).id();
                    if presence.suspect(id).is_some() { prop_assert!(alive.contains_key(&id)); }
                }
                Event::Pass(by) => {
                    ms += by;
                    for change in presence.tick(at(ms)) {
                        let Change::Gone(id, Gone::Expired) = change else { panic!("{change:?}") };
                        let heard = alive.remove(&id).expect("was alive");
                        prop_assert!(ms - heard >= EXPIRY_MS);
                    }
                    prop_assert!(alive.values().all(|heard| ms - heard < EXPIRY_MS));
                }
            }
            prop_assert_eq!(presence.live(), alive.len());
            prop_assert!(presence.live() <= 2 && presence.remembered() <= 4);
        }
    }
}

#[test]
fn a_worker_that_cannot_be_linked_is_left_alone_until_it_is_heard_or_for_a_while() {
    let mut presence = Presence::new(8);
    let worker = key(1).id();
    assert!(presence.unreachable(worker, at(0)).is_none(), "never seen");
    send(&mut presence, 1, 1, 1, 0).expect("accepted");
    let redial = |change| match change {
        Some(Change::Unreachable { redial_mono_ms, .. }) => Some(redial_mono_ms),
        _ => None,
    };
    let lost = |presence: &mut Presence, ms| redial(presence.unreachable(worker, at(ms)));
    assert_eq!(lost(&mut presence, 1_000), Some(1_000 + REDIAL_AFTER_MS));
    assert_eq!(lost(&mut presence, 1_200), None, "known already");
    assert!(presence.suspect(worker).is_none(), "it is suspect too");
    send(&mut presence, 1, 1, 2, 1_500).expect("heard again");
    assert!(presence.suspect(worker).is_some(), "it was well again");
    assert_eq!(lost(&mut presence, 1_600), Some(1_600 + REDIAL_AFTER_MS));
    let later = 1_600 + REDIAL_AFTER_MS;
    assert_eq!(lost(&mut presence, later), Some(later + REDIAL_AFTER_MS));
    leave(&mut presence, 1, 1, 3, later).expect("accepted");
    assert_eq!(lost(&mut presence, 60_000), None, "gone is gone");
}
