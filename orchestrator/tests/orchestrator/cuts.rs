//! The power goes after each thing that is written about a job: whoever comes with the key afterwards
//! has one whole answer and one bill. (RSV-4, REL-1)

use crate::disk::{Wrong, mesh};
use crate::mesh::request;
use crate::script::{Script, letter};
use tether_orchestrator::job::JobState;

/// Writes of a request that goes well: reserved, dispatched, streaming, done.
const WRITES: usize = 4;
const TOKENS: u32 = 5;

#[tokio::test]
async fn however_far_a_job_was_when_the_power_went_its_key_leads_to_one_whole_answer() {
    for writes in 0..=WRITES {
        let mesh = mesh(Wrong::Cut(writes)).await;
        let before = mesh.worker(10, Script::Letters(TOKENS)).await;
        let answer = mesh.submit(&request("a")).await;
        assert_eq!(answer.is_whole(), writes == WRITES, "after {writes}");
        let orders = before.scripted.orders();
        assert_eq!(
            orders > 0,
            writes > 0,
            "nothing runs that is not on the disk"
        );
        let mesh = mesh.restart(|_| ()).await;
        let found = mesh.orchestrator.store().job(request("a").correlation);
        let found = found.await.expect("works");
        let expected = match writes {
            0 => None,
            WRITES => Some(JobState::Done),
            _ => Some(JobState::Failed),
        };
        assert_eq!(
            found.as_ref().map(|job| job.state),
            expected,
            "after {writes}"
        );
        let after = mesh.worker(11, Script::Letters(TOKENS)).await;
        let again = mesh.submit(&request("a")).await;
        assert!(again.is_whole(), "after {writes}: {:?}", again.error);
        assert_eq!(again.text(), (0..TOKENS).map(letter).collect::<String>());
        assert_eq!(after.scripted.orders(), u32::from(writes < WRITES));
        let job = mesh.job(&request("a")).await;
        assert_eq!(job.state, JobState::Done);
        let counted = (job.usage.prompt_tokens, job.usage.completion_tokens);
        assert_eq!(counted, (3, TOKENS), "one bill, after {writes}");
        if let Some(found) = found {
            assert_eq!((job.seed, job.created_ms), (found.seed, found.created_ms));
        }
    }
}
