//! Why a worker gets no work, as far as it can know itself, and what to do. Pure.
//!
//! What only orchestrators know (a clock that is off, beats that are refused, a better worker) says
//! `tether fleet explain`.

use crate::admission::Load;
use crate::health::strain::Strain;
use crate::models::ModelReport;
use serde::Serialize;
use tether_net::UplinkView;
use tether_wire::beat::NodeState;

/// A reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// A stable word for programs.
    pub code: &'static str,
    /// For people.
    pub why: String,
    /// What to do about it.
    pub next: String,
}

/// What there is to judge by.
pub(crate) struct Facts<'a> {
    pub(crate) state: NodeState,
    /// Why its key does not belong to the mesh, where it knows that.
    pub(crate) barred: Option<String>,
    /// Why its grant does not hold.
    pub(crate) grant: Option<String>,
    /// Orchestrators that hear it.
    pub(crate) hearing: usize,
    pub(crate) uplinks: &'a [UplinkView],
    pub(crate) models: &'a [ModelReport],
    pub(crate) load: Load,
    pub(crate) queue_limit: u32,
    /// Why the machine has too much to do, beyond a threshold of `[worker.shed]`.
    pub(crate) strain: Option<Strain>,
}

/// All reasons, the one to begin with first; none where orchestrators can send work.
pub(crate) fn reasons(facts: &Facts<'_>) -> Vec<Reason> {
    let mut found = Vec::new();
    let mut say = |code, why: String, next: &str| {
        let next = next.to_owned();
        found.push(Reason { code, why, next });
    };
    if matches!(facts.state, NodeState::Draining | NodeState::Leaving) {
        say(
            "draining",
            "it is stopping: it finishes what it has and takes nothing new".to_owned(),
            "start it again when it has ended",
        );
    }
    if let Some(why) = &facts.barred {
        say(
            "revoked",
            format!("its key does not belong to the mesh any more: {why}"),
            "ask the operator; where the key was replaced, start the worker with the new one",
        );
    }
    if let Some(why) = &facts.grant {
        say(
            "grant",
            format!("its grant does not hold: {why}"),
            "ask the operator for a new grant, or join anew with a token and --rejoin",
        );
    }
    if facts.hearing == 0 {
        let (code, why, next) = unheard(facts.uplinks);
        say(code, why, next);
    }
    let counts = |state: &str| facts.models.iter().filter(|it| it.state == state).count();
    if facts.models.is_empty() {
        say(
            "no-model",
            "no model is configured".to_owned(),
            "add [[worker.models]] with a path, and the publisher's key in trusted_publishers",
        );
    } else if counts("faulted") == facts.models.len() {
        let first = facts.models.iter().find_map(|it| it.fault.as_ref());
        let (code, reason) = first.map_or(("", ""), |(code, reason)| (code, reason.as_str()));
        say(
            "models-faulted",
            format!("none of its models can be served; the first ({code}): {reason}"),
            mending(code),
        );
    } else if facts.state == NodeState::Starting {
        say(
            "starting",
            "its models are being verified and loaded".to_owned(),
            "wait; `tether worker status --watch` shows how far it is",
        );
    }
    if let Some(Strain { code, reason }) = &facts.strain {
        say(
            code,
            format!("its machine has too much to do: {reason}"),
            "this passes by itself; [worker.shed] has the thresholds",
        );
    }
    if facts.queue_limit > 0 && facts.load.waiting >= facts.queue_limit {
        say(
            "overloaded",
            format!("its queue is full: {} requests wait", facts.load.waiting),
            "this passes by itself; `slots` and `queue_limit` in [worker] say how much it takes",
        );
    }
    found
}

/// What to do about a fault of a model.
fn mending(code: &str) -> &'static str {
    match code {
        "server-down" => {
            "start that server, or wait until it is ready; where it is another one, write its `url` in [[worker.servers]] and start the worker again"
        }
        "server-model" => {
            "load the model in that server; where it has another name there, write that as `model` in [[worker.servers]] and start the worker again"
        }
        "server-refuses-key" | "server-key-file" => {
            "put the server's key into the file that `api_key_file` in [[worker.servers]] names, and start the worker again"
        }
        "server-url" => {
            "write the address of its API as `url` in [[worker.servers]], and start the worker again"
        }
        "base-missing" | "not-found" => {
            "name a folder that holds it in `sources` of [worker] and start the worker again, or put it into one that is named; those are looked into again by themselves"
        }
        "source-damaged" => "mend it there; it is fetched again by itself",
        "copy-damaged" => "look at the disk of the data folder; it is fetched again by itself",
        "disk-full" | "io" | "internal" => {
            "mend what the reason names; it is tried again by itself"
        }
        "over-memory-budget" => {
            "raise `memory_budget_mib` in [worker], pin fewer, or serve a smaller model, and start the worker again"
        }
        code if code.starts_with("engine-") => {
            "mend what the reason names; its engine is started again by itself"
        }
        _ => "mend what the reason names, and start the worker again",
    }
}

/// What to do about processes of a model that do not answer while others do: all are tried again.
pub(crate) fn mending_process(code: &str) -> &'static str {
    match code {
        "engine-changed" => {
            "start the worker again, so that all of them run the new program; or put the one back that the others run: they are started again by themselves"
        }
        "engine-memory" => {
            "raise `memory_limit_mib` in [worker.engine] where it comes again; it is started again by itself"
        }
        code if code.starts_with("engine-") => mending(code),
        _ => "mend what the reason names: it is tried again by itself for as long as others answer",
    }
}

/// Why no orchestrator hears the worker.
fn unheard(uplinks: &[UplinkView]) -> (&'static str, String, &'static str) {
    let failures = || uplinks.iter().filter_map(|it| it.last_failure.as_ref());
    if let Some(failure) = failures().find(|it| it.refused.is_some()) {
        let next = match failure.refused {
            Some("version") => "install the version that the mesh runs",
            Some("mesh") => "check `mesh` in [node]: it is another mesh's",
            Some("busy") => "wait: it is tried again by itself",
            _ => "ask the operator; the reason names what is missing",
        };
        return (
            "not-admitted",
            format!("it is not let in: {}", failure.why),
            next,
        );
    }
    if uplinks.is_empty() {
        return (
            "no-orchestrator",
            "no orchestrator of its region was found".to_owned(),
            "check `bootstrap` and `region` in [node], and that UDP can go out; `tether probe` asks a bootstrap node",
        );
    }
    let last = failures().next().map_or_else(
        || "none was linked yet".to_owned(),
        |failure| failure.why.clone(),
    );
    (
        "unreached",
        format!("none of {} orchestrators is reached: {last}", uplinks.len()),
        "check that UDP can go out to them, and whether they run",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use tether_net::DialFailure;
    use tether_wire::NodeId;

    fn model(state: &'static str) -> ModelReport {
        ModelReport {
            configured: "m".into(),
            model: None,
            digest: None,
            base: None,
            state,
            progress: None,
            is_pinned: false,
            memory_bytes: None,
            device: None,
            shields: Vec::new(),
            processes: None,
            sequences: 0,
            load_ms: None,
            process_faults: Vec::new(),
            fault: (state == "faulted").then(|| ("corrupt-file", "it is damaged".to_owned())),
        }
    }

    fn uplink(refused: Option<&'static str>) -> UplinkView {
        UplinkView {
            id: NodeId([1; 32]),
            source: "found",
            state: "not-linked",
            failures: 1,
            last_failure: Some(DialFailure {
                why: "words".into(),
                refused,
            }),
            missed: 0,
            linked_ago: None,
            dial_in: None,
            addresses: Vec::new(),
        }
    }

    fn codes(change: impl FnOnce(&mut Facts<'_>)) -> Vec<&'static str> {
        let models = [model("warm"), model("faulted")];
        let mut facts = Facts {
            state: NodeState::Serving,
            barred: None,
            grant: None,
            hearing: 1,
            uplinks: &[],
            models: &models,
            load: Load::default(),
            queue_limit: 4,
            strain: None,
        };
        change(&mut facts);
        let found = reasons(&facts);
        assert!(
            found
                .iter()
                .all(|it| !it.why.is_empty() && !it.next.is_empty())
        );
        found.into_iter().map(|reason| reason.code).collect()
    }

    #[test]
    fn a_worker_that_is_heard_and_serves_has_no_reason() {
        assert!(codes(|_| ()).is_empty());
    }

    #[test]
    fn each_reason_is_told_with_what_to_do() {
        assert_eq!(codes(|it| it.state = NodeState::Draining), ["draining"]);
        assert_eq!(codes(|it| it.barred = Some("x".into())), ["revoked"]);
        assert_eq!(codes(|it| it.grant = Some("over".into())), ["grant"]);
        assert_eq!(codes(|it| it.hearing = 0), ["no-orchestrator"]);
        let refused = [uplink(None), uplink(Some("expired"))];
        let alone = |it: &mut Facts<'_>| it.hearing = 0;
        assert_eq!(
            codes(|it| {
                alone(it);
                it.uplinks = &[];
            }),
            ["no-orchestrator"]
        );
        let facts = |uplinks: &[UplinkView]| unheard(uplinks).0;
        assert_eq!(facts(&refused), "not-admitted");
        assert_eq!(facts(&refused[..1]), "unreached");
        assert_eq!(codes(|it| it.models = &[]), ["no-model"]);
        assert_eq!(codes(|it| it.state = NodeState::Starting), ["starting"]);
        assert_eq!(codes(|it| it.load.waiting = 4), ["overloaded"]);
        let strain = Strain {
            code: "memory-strained",
            reason: "words".to_owned(),
        };
        assert_eq!(codes(|it| it.strain = Some(strain)), ["memory-strained"]);
    }

    #[test]
    fn what_mends_itself_asks_for_no_new_start_and_a_server_is_named_by_its_settings() {
        for code in [
            "source-damaged",
            "copy-damaged",
            "disk-full",
            "engine-crash",
        ] {
            let next = mending(code);
            assert!(next.contains("by itself"), "{code}: {next}");
            assert!(!next.contains("start the worker"), "{code}: {next}");
        }
        for (code, setting) in [
            ("server-down", "`url`"),
            ("server-model", "`model`"),
            ("server-refuses-key", "`api_key_file`"),
        ] {
            let next = mending(code);
            assert!(next.contains(setting), "{code}: {next}");
        }
        assert!(mending("server-down").starts_with("start that server"));
        assert!(mending("corrupt-file").contains("start the worker again"));
    }

    #[test]
    fn what_ails_one_process_of_several_is_tried_again_by_itself() {
        for code in [
            "corrupt-file",
            "engine-changed",
            "engine-memory",
            "engine-crash",
        ] {
            let next = mending_process(code);
            assert!(next.contains("again by itself") || next.contains("again by themselves"));
        }
        assert!(mending_process("engine-changed").starts_with("start the worker again"));
    }

    #[test]
    fn a_worker_whose_models_are_all_refused_says_why_the_first_is() {
        let models = [model("faulted")];
        let found = reasons(&Facts {
            state: NodeState::Serving,
            barred: None,
            grant: None,
            hearing: 1,
            uplinks: &[],
            models: &models,
            load: Load::default(),
            queue_limit: 0,
            strain: None,
        });
        assert_eq!(found.len(), 1);
        assert!(found[0].why.contains("it is damaged"), "{}", found[0].why);
    }
}
