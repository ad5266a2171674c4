use super::*;
use std::collections::BTreeMap;

#[test]
fn a_job_that_ended_stays_as_it_ended() {
    for ended in JobState::ALL.into_iter().filter(|s| !s.is_open()) {
        for step in StepKind::ALL {
            assert_eq!(step.leads(ended), None, "{ended:?}, {step:?}");
        }
        assert_eq!(ended.taken_over(), None);
    }
    assert_eq!(JobState::Done.begun_anew(), None, "an answer is made once");
}

#[test]
fn every_open_job_can_fail_and_be_cancelled_and_none_goes_back() {
    use JobState::{Cancelled, Dispatched, Failed, Reserved, Streaming};
    for open in [Reserved, Dispatched, Streaming] {
        assert_eq!(StepKind::Failed.leads(open), Some(Failed));
        assert_eq!(StepKind::Cancelled.leads(open), Some(Cancelled));
        assert_eq!(open.taken_over(), Some(open), "as it stands");
        assert_eq!(open.begun_anew(), None, "it runs");
    }
    assert_eq!(StepKind::Streaming.leads(Reserved), None);
    assert_eq!(StepKind::Done.leads(Reserved), None);
    assert_eq!(
        StepKind::Dispatched.leads(Streaming),
        Some(Streaming),
        "a hand-over takes nothing back"
    );
}

#[test]
fn what_was_given_cannot_be_the_tenants_own_error() {
    assert_eq!(StepKind::Refused.leads(JobState::Streaming), None);
}

#[test]
fn names_of_states_are_read_back() {
    for state in JobState::ALL {
        assert_eq!(JobState::from_name(state.as_str()), Some(state));
    }
    assert_eq!(JobState::from_name("x"), None);
}

#[test]
fn long_errors_are_cut_between_characters() {
    let text = "é".repeat(MAX_ERROR_BYTES);
    let cut = bounded_error(&text);
    assert!(cut.len() <= MAX_ERROR_BYTES && cut.chars().all(|c| c == 'é'));
    assert_eq!(bounded_error("short"), "short");
}

/// What each column of the table leads to, by its state.
type Ways = BTreeMap<String, BTreeMap<String, String>>;

/// The table as this module has it.
fn ways() -> Ways {
    let row = |state: JobState| {
        let steps = (StepKind::ALL.into_iter()).map(|step| (step.as_str(), step.leads(state)));
        let beside = [
            ("begin anew", state.begun_anew()),
            ("take over", state.taken_over()),
        ];
        let named = |next: Option<JobState>| next.map_or("–", JobState::as_str).to_owned();
        let cells = (steps.chain(beside)).map(|(name, next)| (name.to_owned(), named(next)));
        (state.as_str().to_owned(), cells.collect())
    };
    JobState::ALL.into_iter().map(row).collect()
}

/// The table as the document has it.
fn documented() -> Ways {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/jobs.md");
    let text = std::fs::read_to_string(path).expect("docs/jobs.md is there");
    let mut lines = (text.lines())
        .skip_while(|line| !line.starts_with("| from |"))
        .take_while(|line| line.starts_with('|'))
        .map(|line| {
            let cells = line.trim_matches('|').split('|');
            (cells.map(|cell| cell.trim().trim_matches('`').to_owned())).collect::<Vec<_>>()
        });
    let head = lines.next().expect("the table of docs/jobs.md");
    let rows = lines.skip(1).map(|cells| {
        assert_eq!(cells.len(), head.len(), "{cells:?}");
        let next = head.iter().cloned().zip(cells.iter().cloned()).skip(1);
        (cells[0].clone(), next.collect())
    });
    rows.collect()
}

#[test]
fn the_table_of_the_documents_is_what_jobs_do() {
    assert_eq!(documented(), ways());
}
