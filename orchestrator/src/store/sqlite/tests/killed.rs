//! A process that is killed while it writes. (RSV-4)

use super::*;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

/// Where the process that is killed has its store.
const FOLDER: &str = "TETHER_TEST_STORE_FOLDER";
/// Jobs that it has under way at once.
const AT_ONCE: usize = 16;
/// Steps that are acknowledged before it is killed.
const ACKNOWLEDGED: usize = 400;

fn way(n: usize) -> Vec<Step> {
    let events: [&[u8]; 1] = [&[1; 3_000]];
    let end = match n % 4 {
        0 => answered(&acme(), &events),
        1 => failed(2),
        2 => Step::Cancelled { usage: usage(1) },
        _ => done(3),
    };
    vec![dispatched(1), Step::Streaming, dispatched(2), end]
}

/// Runs jobs for ever, and says of each step when it is acknowledged.
async fn run_jobs(store: &SqliteStore, first: usize) {
    for n in (first..).step_by(AT_ONCE) {
        let token = format!("{} {n}", std::process::id());
        let say = |taken: usize| {
            let mut out = std::io::stdout();
            let said = writeln!(out, "acknowledged {taken} of {token}").and_then(|()| out.flush());
            said.is_ok()
        };
        if reserved(store, &token).await != Ok(1) || !say(0) {
            return;
        }
        for (taken, step) in (1..).zip(way(n)) {
            let step = store.step(holder(&token, 1), step, 200).await;
            if step.is_err() || !say(taken) {
                return;
            }
        }
    }
}

#[tokio::test]
#[ignore = "the process that the test below kills"]
async fn the_process_that_is_killed() {
    let Ok(folder) = std::env::var(FOLDER) else {
        return;
    };
    let store = open(Path::new(&folder));
    let jobs = (0..AT_ONCE).map(|first| run_jobs(&store, first));
    futures_util::future::join_all(jobs).await;
}

/// Starts the process, kills it in the middle of its work, and gives what it said: how many steps of
/// each job were acknowledged.
fn killed(folder: &Path) -> HashMap<String, usize> {
    let mut child = Command::new(std::env::current_exe().expect("this test"))
        .args(["the_process_that_is_killed", "--ignored", "--nocapture"])
        .env(FOLDER, folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    let said = BufReader::new(child.stdout.take().expect("piped"));
    let mut acknowledged = HashMap::new();
    let mut count = 0;
    for line in said.lines().map_while(Result::ok) {
        // The harness begins its own line before the first of these.
        let Some((_, told)) = line.split_once("acknowledged ") else {
            continue;
        };
        let (taken, token) = told.split_once(" of ").expect("what and of which");
        acknowledged.insert(token.to_owned(), taken.parse().expect("a number"));
        count += 1;
        if count == ACKNOWLEDGED {
            child.kill().expect("killed");
        }
    }
    child.wait().expect("ended");
    assert!(count >= ACKNOWLEDGED, "it ended by itself after {count}");
    acknowledged
}

#[tokio::test]
async fn what_a_killed_process_was_acknowledged_is_there_and_every_job_is_whole() {
    let place = Folder::new();
    for _ in 0..3 {
        let acknowledged = killed(place.0.path());
        is_whole(&place).await;
        let store = open(place.0.path());
        for (token, taken) in acknowledged {
            let job = read(&store, &token).await;
            let n: usize = token
                .rsplit(' ')
                .next()
                .expect("a number")
                .parse()
                .expect("a number");
            let states: Vec<JobState> = [JobState::Reserved, JobState::Dispatched]
                .into_iter()
                .chain([JobState::Streaming, JobState::Streaming])
                .chain(way(n).last().map(Step::state))
                .collect();
            // What was acknowledged, or the one step behind it that was under way.
            let at = states.iter().rposition(|state| *state == job.state);
            let at = at.expect("a state of its way");
            assert!(
                at >= taken,
                "{token}: {taken} acknowledged, {:?}",
                job.state
            );
            assert!(
                states[..=(taken + 1).min(4)].contains(&job.state),
                "{token}"
            );
        }
        // Nothing of it runs any more; the next process finds it accounted for.
        store
            .release_open(OWNER, "killed".into(), 900)
            .await
            .expect("works");
        store.close().await.expect("closes");
        drop(store);
        assert_eq!(is_whole(&place).await.open_jobs, 0);
    }
}
