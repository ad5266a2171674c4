use super::*;
use std::sync::Mutex;
use tether_wire::CorrelationId;

#[test]
fn pauses_double_up_to_the_longest() {
    assert_eq!(longer(RETRY_MIN), 2 * RETRY_MIN);
    assert_eq!(longer(RETRY_MAX), RETRY_MAX);
}

fn end(open: &OpenJobs, n: u8) -> UnrecordedEnd {
    let job = CorrelationId([n; 16]);
    UnrecordedEnd {
        holder: Holder {
            job,
            owner: NodeId([5; 32]),
            fence: 1,
        },
        step: Step::Refused { error: "x".into() },
        held: open.hold(job),
    }
}

/// Records the ends of three jobs, the first of which fails by this: which are on the disk then, and
/// which still wait.
async fn recorded(error: StoreError) -> (Vec<u8>, usize) {
    let open = OpenJobs::default();
    let mut waiting: VecDeque<_> = (1..=3).map(|n| end(&open, n)).collect();
    let taken = Mutex::new(Vec::new());
    let take = |holder: Holder, _| -> StoreFuture<'_, ()> {
        let n = holder.job.0[0];
        let result = if n == 1 {
            Err(error.clone())
        } else {
            taken.lock().expect("nobody panicked").push(n);
            Ok(())
        };
        Box::pin(std::future::ready(result))
    };
    let is_done = record(take, &mut waiting).await;
    assert_eq!(is_done, waiting.is_empty());
    assert_eq!(open.len(), waiting.len(), "what is dropped is held no more");
    (taken.into_inner().expect("nobody panicked"), waiting.len())
}

#[tokio::test]
async fn an_end_that_can_never_be_recorded_keeps_no_other_from_the_disk() {
    let refused = StoreError::Refused {
        job: CorrelationId([1; 16]),
        asked: "x",
        found: "y".into(),
    };
    for error in [
        StoreError::Corrupt("a job, column 3 from the end".into()),
        StoreError::Unreadable("x".into()),
        refused,
    ] {
        assert_eq!(recorded(error.clone()).await, (vec![2, 3], 0), "{error}");
    }
}

#[tokio::test]
async fn ends_wait_in_order_for_a_store_that_does_not_work_now() {
    let unreachable = StoreError::Connect {
        place: "x".into(),
        why: "y".into(),
    };
    for error in [StoreError::Disk("full".into()), unreachable] {
        assert_eq!(recorded(error.clone()).await, (vec![], 3), "{error}");
    }
}
