//! An outage with a thousand requests in a second: what workers have to bear of it.

use super::*;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::collections::BTreeMap;

/// A request under way.
#[derive(Clone, Copy)]
struct Request {
    deadline_ms: u64,
    tries: Tries,
}

/// What workers were given, second by second.
#[derive(Default)]
struct Load {
    /// Requests that came, and attempts, in each second.
    seconds: Vec<(u32, u32)>,
    /// Attempts that began after their request's deadline.
    late: u32,
    answered: u32,
}

/// 60 s: from the 20th to the 40th, each attempt fails after 20 ms, `share` of them; otherwise none.
fn outage(seed: u64, share: f64) -> Load {
    let settings = RetrySettings::default();
    let (mut budget, mut rng) = (Budget::default(), StdRng::seed_from_u64(seed));
    let mut load = Load::default();
    // Attempts that begin and end, by time.
    let mut begins: BTreeMap<u64, Vec<Request>> = BTreeMap::new();
    let mut fails: BTreeMap<u64, Vec<Request>> = BTreeMap::new();
    for now_ms in 0..60_000 {
        let second = usize::try_from(now_ms / 1_000).expect("small");
        load.seconds.resize(second + 1, (0, 0));
        // One in each millisecond.
        budget.request(&settings, now_ms);
        load.seconds[second].0 += 1;
        begins.entry(now_ms).or_default().push(Request {
            deadline_ms: now_ms + rng.random_range(100..2_000),
            tries: Tries {
                attempts: 1,
                hand_overs: 0,
            },
        });
        for request in begins.remove(&now_ms).unwrap_or_default() {
            load.seconds[second].1 += 1;
            load.late += u32::from(now_ms >= request.deadline_ms);
            let breaks = (20_000..40_000).contains(&now_ms) && rng.random_bool(share);
            if breaks {
                fails.entry(now_ms + 20).or_default().push(request);
            } else {
                load.answered += 1;
            }
        }
        for request in fails.remove(&now_ms).unwrap_or_default() {
            let situation = Situation {
                failure: Failure::Early,
                tries: request.tries,
                left_ms: request.deadline_ms.saturating_sub(now_ms),
                retry_after_ms: None,
            };
            let plan = plan(&settings, &situation, &mut budget, now_ms, &mut rng);
            if let Plan::Retry { after_ms, tries } = plan {
                let again = Request { tries, ..request };
                begins
                    .entry(now_ms + after_ms.max(1))
                    .or_default()
                    .push(again);
            }
        }
    }
    load
}

#[test]
fn an_outage_of_all_workers_is_not_multiplied_by_retries() {
    for seed in 0..10 {
        let load = outage(seed, 1.0);
        assert_eq!(load.late, 0, "seed {seed}: retries after the deadline");
        let window = 10;
        for seconds in load.seconds.windows(window) {
            let offered: u32 = seconds.iter().map(|it| it.0).sum();
            let given: u32 = seconds.iter().map(|it| it.1).sum();
            // A pause carries a retry into the next second: a hundredth of the window.
            let most = f64::from(offered) * 1.2 * 1.01;
            assert!(
                f64::from(given) <= most,
                "seed {seed}: {given} of {offered}"
            );
        }
        let during: u32 = load.seconds[20..40].iter().map(|it| it.1).sum();
        assert!(
            during > 20_000 + 3_000,
            "seed {seed}: there were retries: {during}"
        );
        let well: u32 = load.seconds[..20].iter().map(|it| it.1).sum();
        assert_eq!(well, 20_000, "seed {seed}: none while all is well");
    }
}

#[test]
fn where_some_attempts_fail_retries_save_nearly_all_requests() {
    for seed in 0..10 {
        let load = outage(seed, 0.1);
        assert_eq!(load.late, 0, "seed {seed}");
        let offered = 60_000.0;
        let lost = 1.0 - f64::from(load.answered) / offered;
        // One in ten fails, a tenth of which again, a tenth of which a third time; those whose
        // time is short are lost sooner.
        assert!(lost < 0.01, "seed {seed}: lost {lost}");
    }
}
