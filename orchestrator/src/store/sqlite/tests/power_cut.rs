//! A power cut at any point: copies of the log are cut at and inside each of its frames, and torn
//! where a sector was not written. Each must open as what was acknowledged last. (RSV-4)

use super::*;
use crate::job::{DeadLetter, Job};
use crate::store::{Grounds, Lease, TakeOver};
use std::collections::BTreeMap;

/// Of SQLite's log: bytes of its head and of a frame's, and the pages of these tests.
/// <https://sqlite.org/fileformat2.html#the_write_ahead_log>
const LOG_HEAD: usize = 32;
const FRAME_HEAD: usize = 24;
const PAGE: usize = 4_096;
const FRAME: usize = FRAME_HEAD + PAGE;

const TOKENS: [&str; 6] = ["done", "failed", "refused", "gone", "taken", "open"];

/// What a store holds: jobs by their keys, answers, dead letters.
#[derive(Clone, Debug, PartialEq)]
struct Held {
    jobs: BTreeMap<&'static str, Job>,
    answers: usize,
    letters: usize,
}

async fn held(store: &SqliteStore) -> Held {
    let mut jobs = BTreeMap::new();
    for token in TOKENS {
        let job = store.job(id(token)).await.expect("works");
        jobs.extend(job.map(|job| (token, job)));
    }
    let mut answers = 0;
    for token in TOKENS {
        let answer = store.answer(acme(), id(token), 300).await;
        answers += usize::from(answer.expect("opens").is_some());
    }
    let letters = store.dead_letters(None, 100).await.expect("works");
    Held {
        jobs,
        answers,
        letters: letters.len(),
    }
}

/// Everything that a store is asked to do, each a step that is acknowledged by itself.
async fn story(store: &SqliteStore, mut acknowledged: impl AsyncFnMut()) {
    for token in TOKENS {
        reserved(store, token).await.expect("new");
        acknowledged().await;
    }
    let letter = DeadLetter {
        tenant: acme(),
        code: "internal".into(),
        attempts: vec![],
        payload: vec![7; 9_000],
    };
    let failed = Step::Failed {
        error: "x".into(),
        usage: usage(3),
        letter: Some(Arc::new(letter)),
    };
    let way = [
        ("done", vec![dispatched(1), Step::Streaming, dispatched(2)]),
        ("done", vec![answered(&acme(), &[&[9; 6_000], b"end"])]),
        ("failed", vec![dispatched(1), Step::Streaming, failed]),
        ("refused", vec![refused()]),
        (
            "gone",
            vec![dispatched(1), Step::Cancelled { usage: usage(1) }],
        ),
        ("taken", vec![dispatched(1), Step::Streaming]),
    ];
    for (token, way) in way {
        for step in way {
            steps(store, token, 1, vec![step]).await;
            acknowledged().await;
        }
    }
    let order = TakeOver {
        from: holder("taken", 1),
        by: OTHER,
        grounds: Grounds::NamedLost,
        model: None,
        lease_until_ms: 9_000,
        now_ms: 300,
    };
    store.take_over(order).await.expect("taken");
    acknowledged().await;
    for token in ["refused", "gone", "failed"] {
        assert_eq!(reserved(store, token).await, Ok(2));
        acknowledged().await;
    }
    for step in [dispatched(1), answered(&acme(), &[b"late"])] {
        steps(store, "failed", 2, vec![step]).await;
        acknowledged().await;
    }
    let released = store.release_open(OWNER, "ended".into(), 400).await;
    let released = released.expect("works");
    assert_eq!((released.unanswered, released.partly_answered), (2, 1));
    acknowledged().await;
    let life = Lease {
        orchestrator: OWNER,
        ..lease(OWNER, 900)
    };
    store.renew(life).await.expect("works");
    let pruned = store.prune(500 + 24 * 3_600_000, 2).await.expect("works");
    assert_eq!(pruned.jobs, 2);
    acknowledged().await;
}

/// The file as it was before the story, its log after it, and what was acknowledged by which byte of
/// the log.
struct Recorded {
    place: Folder,
    log: Vec<u8>,
    acknowledged: Vec<(usize, Held)>,
}

async fn record_story() -> Recorded {
    let place = Folder::new();
    open(place.0.path()).close().await.expect("closes");
    let store = open(place.0.path());
    let log = place.0.path().join("s.sqlite-wal");
    let length = || std::fs::metadata(&log).map_or(0, |it| it.len() as usize);
    let mut acknowledged = vec![(0, held(&store).await)];
    story(&store, async || {
        acknowledged.push((length(), held(&store).await));
    })
    .await;
    let log = std::fs::read(&log).expect("the log");
    // As a machine leaves it that stops now: the store is not closed.
    let copied = Folder::new();
    for name in ["s.sqlite", "store.key"] {
        let (from, to) = (place.0.path().join(name), copied.0.path().join(name));
        std::fs::copy(from, to).expect("copied");
    }
    Recorded {
        place: copied,
        log,
        acknowledged,
    }
}

impl Recorded {
    /// What is there when the log is whole up to this byte.
    fn expected(&self, whole: usize) -> &Held {
        let before = self.acknowledged.iter().rev();
        let mut before = before.skip_while(|(length, _)| *length > whole);
        &before.next().expect("the beginning").1
    }

    /// Opens what a power cut left, and looks at everything.
    async fn open_with(&self, log: &[u8], whole: usize, what: &str) {
        let after = Folder::new();
        for name in ["s.sqlite", "store.key"] {
            let (from, to) = (self.place.0.path().join(name), after.0.path().join(name));
            std::fs::copy(from, to).expect("copied");
        }
        let to = after.0.path().join("s.sqlite-wal");
        std::fs::write(to, log).expect("written");
        let store = open(after.0.path());
        let report = store.check().await.expect("looked at");
        assert_eq!(report.problems, Vec::<String>::new(), "{what}");
        let (held, expected) = (held(&store).await, self.expected(whole));
        assert!(held == *expected, "{what}: {held:#?}, not {expected:#?}");
    }
}

#[tokio::test]
async fn a_log_that_is_cut_at_or_inside_any_frame_opens_as_what_was_acknowledged_last() {
    let recorded = record_story().await;
    let log = &recorded.log;
    let frames = (log.len() - LOG_HEAD) / FRAME;
    assert_eq!(log.len(), LOG_HEAD + frames * FRAME, "whole frames");
    assert!((60..400).contains(&frames), "{frames} frames");
    let mut cuts = vec![0, 1, LOG_HEAD];
    for frame in 0..frames {
        let at = LOG_HEAD + frame * FRAME;
        cuts.extend([at + FRAME_HEAD, at + FRAME_HEAD + PAGE / 2, at + FRAME]);
    }
    for cut in cuts {
        let whole = (cut.max(LOG_HEAD) - LOG_HEAD) / FRAME * FRAME + LOG_HEAD;
        let whole = if cut < LOG_HEAD { 0 } else { whole };
        let what = format!("cut at byte {cut}");
        recorded.open_with(&log[..cut], whole, &what).await;
    }
}

#[tokio::test]
async fn a_log_with_a_torn_frame_opens_as_what_was_acknowledged_before_it() {
    let recorded = record_story().await;
    let frames = (recorded.log.len() - LOG_HEAD) / FRAME;
    for frame in (0..frames).step_by(2) {
        let at = LOG_HEAD + frame * FRAME;
        let mut torn = recorded.log.clone();
        // Half of it never reached the disk, though what came behind it did.
        let half = at + FRAME_HEAD + PAGE / 2..at + FRAME;
        if torn[half.clone()].iter().all(|byte| *byte == 0) {
            continue;
        }
        torn[half].fill(0);
        recorded
            .open_with(&torn, at, &format!("torn frame {frame}"))
            .await;
    }
}
