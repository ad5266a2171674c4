//! Several processes of one model: one engine to everybody else, and one process to each answer.
//! (WRK-2)

use crate::engines::SHORT;
use crate::fixture::{TestMesh, TestWorker, artifact, big_artifact_of, order, patiently, until};
use crate::metrics;
use crate::supervisor::{ask, down, gone, pids, read, ready, start};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use tempfile::TempDir;
use tether_wire::infer::AnswerEvent;
use tether_worker::engine::protocol::EngineKind;
use tether_worker::engine::{Engine, EngineSpec, EngineState, Layout, Prepare, Ready};
use tether_worker::{ModelReport, ModelState};
use tokio::sync::Semaphore;

/// Lets each process start once; each further start waits until it is allowed by a permit of what is
/// returned. So that a state without one of them lasts.
pub(crate) fn held_back(spec: &mut EngineSpec) -> Arc<Semaphore> {
    let allowed = Arc::new(Semaphore::new(0));
    let (prepare, permits) = (spec.prepare.clone(), allowed.clone());
    let started: Arc<Mutex<BTreeSet<u32>>> = Arc::default();
    spec.prepare = Prepare::new(move |process| {
        let is_first = started.lock().expect("no panic").insert(process);
        let (prepared, permits) = (prepare.ask(process), permits.clone());
        Box::pin(async move {
            if !is_first {
                permits.acquire().await.expect("it lives").forget();
            }
            prepared.await
        })
    });
    allowed
}

/// Waits until so many processes are ready.
pub(crate) async fn running(engine: &Engine, processes: usize) -> Ready {
    let ready = until(engine.state(), |state| match state {
        EngineState::Ready(ready) if ready.pids.len() == processes => Some(ready.clone()),
        _ => None,
    });
    patiently(ready).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_fails_its_own_answers_and_the_others_go_on() {
    let mut allowed = None;
    let engine = start("echo", |spec| {
        spec.processes = 3;
        spec.load.echo_delay_ms = 20;
        allowed = Some(held_back(spec));
    });
    let before = running(&engine, 3).await;
    assert_eq!(before.sequences, 12, "4 of each");
    let long = "word ".repeat(100);
    let mut answers = Vec::new();
    // Each of them is asked for twice: the requests are shared out evenly.
    for _ in 0..6 {
        let mut answer = ask(&engine, &long);
        patiently(answer.chunk()).await.expect("it has begun");
        answers.push(answer);
    }
    let victim = pids(&before)[1];
    kill_process(victim, Signal::KILL).expect("killed");
    let fewer = running(&engine, 2).await;
    assert_eq!(fewer.sequences, 8, "its places are gone with it");
    let mut lost = 0;
    for answer in answers {
        match read(answer).await.1 {
            Ok(done) => assert_eq!(done.usage.completion_tokens, 101),
            Err(error) => {
                assert!(error.message.contains("SIGKILL"), "{error}");
                lost += 1;
            }
        }
    }
    assert_eq!(lost, 2, "those of the process that was killed");
    let fallen = patiently(until(engine.state(), |state| match state {
        EngineState::Ready(ready) => ready.fallen.first().cloned(),
        _ => None,
    }));
    assert_eq!(fallen.await.code, "engine-crash");
    allowed.expect("made").add_permits(1);
    let after = running(&engine, 3).await;
    assert_eq!((after.sequences, after.fallen.len()), (12, 0));
    let is_new = |pid: &&Pid| !pids(&before).contains(pid);
    assert_eq!(pids(&after).iter().filter(is_new).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_process_of_several_outlives_its_engine() {
    for is_stopped in [true, false] {
        let engine = start("echo", |spec| spec.processes = 3);
        let processes = pids(&running(&engine, 3).await);
        if is_stopped {
            patiently(engine.stop()).await;
        } else {
            drop(engine);
        }
        for process in processes {
            gone(process).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_does_not_load_is_tried_by_one_process_alone() {
    let starts = Arc::new(AtomicU32::new(0));
    let seen = starts.clone();
    let engine = start("fails_to_load", |spec| {
        spec.processes = 3;
        let prepare = spec.prepare.clone();
        spec.prepare = Prepare::new(move |process| {
            assert_eq!(process, 0, "the first one");
            starts.fetch_add(1, Ordering::SeqCst);
            prepare.ask(process)
        });
    });
    let (code, _) = down(&engine).await;
    assert_eq!(code, "engine-load");
    patiently(engine.stop()).await;
    assert_eq!(seen.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_answers_as_soon_as_one_of_its_processes_can() {
    let engine = start("echo", |spec| {
        spec.processes = 2;
        let prepare = spec.prepare.clone();
        spec.prepare = Prepare::new(move |process| match process {
            0 => prepare.ask(process),
            // The check of its files never ends.
            _ => Box::pin(std::future::pending()),
        });
    });
    assert_eq!(ready(&engine).await.sequences, 4);
    let (text, end) = read(ask(&engine, "here already")).await;
    assert_eq!(text, "here already");
    end.expect("well");
    patiently(engine.stop()).await;
}

pub(crate) fn report(worker: &TestWorker) -> ModelReport {
    worker.worker.status().models[0].report()
}

pub(crate) fn processes(worker: &TestWorker) -> Vec<Pid> {
    match &worker.worker.status().models[0].state {
        ModelState::Serving(served) => {
            let pid = |id: &u32| Pid::from_raw(i32::try_from(*id).expect("small"));
            served
                .pids
                .iter()
                .map(|id| pid(id).expect("not zero"))
                .collect()
        }
        other => panic!("{other:?}"),
    }
}

/// A file of a model that is damaged: a process that falls does not come back until it is mended.
struct Damaged(PathBuf);

impl Damaged {
    fn in_folder(folder: &TempDir) -> Self {
        let damaged = Self(folder.path().join("model.safetensors"));
        damaged.flip();
        damaged
    }

    fn flip(&self) {
        let mut bytes = std::fs::read(&self.0).expect("read");
        bytes[0] ^= 1;
        std::fs::write(&self.0, bytes).expect("written");
    }
}

/// A provider's file is damaged while its model is served by two processes, and one of them falls. It
/// is told, the other one answers, and all is well again by itself when the file is.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_worker_offers_falls_and_returns_with_the_processes_of_its_model() {
    let mesh = TestMesh::new();
    let (dir, digest) = artifact();
    let mut orchestrator = mesh.orchestrator().await;
    let worker = mesh
        .worker_running("one_at_a_time", &[dir.path()], |config| {
            config.engine.replicas = 2;
            config.metrics = Some(metrics::any_port());
        })
        .await;
    orchestrator
        .said_where(|said| said.worker.capacity == 2)
        .await;
    assert_eq!(report(&worker).processes, Some((2, 2)));
    let mut calls = Vec::new();
    for n in 1..=2 {
        let long = order(n, digest, "until it is cancelled");
        let mut call = orchestrator.order(&worker.worker, &long).await;
        call.accepted().await;
        call.begun().await;
        let piece = call.event().await.expect("its first piece");
        assert!(matches!(piece, Some(AnswerEvent::Chunk(_))), "{piece:?}");
        calls.push(call);
    }
    let [_first, second] = calls.try_into().map_err(|_| ()).expect("two");
    let damaged = Damaged::in_folder(&dir);
    kill_process(processes(&worker)[1], Signal::KILL).expect("killed");
    let error = second.events().await.expect_err("lost");
    assert!(error.message.contains("SIGKILL"), "{error}");
    orchestrator
        .said_where(|said| said.worker.capacity == 1)
        .await;
    let fault = until(worker.worker.models(), |models| {
        let faults = models[0].report().process_faults;
        faults.into_iter().find(|it| it.code == "corrupt-file")
    });
    let fault = patiently(fault).await;
    assert_eq!(fault.processes, 1);
    assert!(fault.reason.contains("model.safetensors"), "{fault:?}");
    assert!(fault.next.contains("again by itself"), "{fault:?}");
    assert_eq!(
        (report(&worker).state, report(&worker).fault),
        ("warm", None)
    );
    let metrics = metrics::page(&worker.worker).await;
    let counted = r#"tether_worker_model_faults_total{reason="corrupt-file"} 1"#;
    assert!(metrics.contains(counted), "{metrics}");
    damaged.flip();
    orchestrator
        .said_where(|said| said.worker.capacity == 2)
        .await;
    let now = report(&worker);
    assert_eq!((now.processes, now.sequences), (Some((2, 2)), 2));
    assert_eq!(now.process_faults, []);
    let short = orchestrator
        .order(&worker.worker, &order(3, digest, SHORT))
        .await;
    let events = short.events().await.expect("by the one that is new");
    assert!(matches!(events.last(), Some(AnswerEvent::Done(_))));
    assert_eq!(worker.worker.status().load.running, 1, "the first goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_place_gets_that_of_a_process_that_returns() {
    let mesh = TestMesh::new();
    let (dir, digest) = artifact();
    let mut orchestrator = mesh.orchestrator().await;
    let worker = mesh
        .worker_running("one_at_a_time", &[dir.path()], |config| {
            config.engine.replicas = 2;
            config.queue_timeout_ms = 60_000;
        })
        .await;
    orchestrator
        .said_where(|said| said.worker.capacity == 2)
        .await;
    let long = order(1, digest, "until it is cancelled");
    let mut first = orchestrator.order(&worker.worker, &long).await;
    first.accepted().await;
    first.begun().await;
    let damaged = Damaged::in_folder(&dir);
    kill_process(processes(&worker)[1], Signal::KILL).expect("killed");
    let mut models = worker.worker.models();
    let one_left = models.wait_for(|models| models[0].report().sequences == 1);
    patiently(one_left).await.expect("the worker runs");
    let mut waiting = orchestrator
        .order(&worker.worker, &order(2, digest, SHORT))
        .await;
    waiting.accepted().await;
    assert_eq!(worker.worker.status().load.waiting, 1);
    damaged.flip();
    let events = waiting.events().await.expect("its turn has come");
    assert!(matches!(events.last(), Some(AnswerEvent::Done(_))));
    assert_eq!(worker.worker.status().load.running, 1, "the first still is");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_told_of_answers_at_once_is_no_more_than_there_are_slots() {
    let mesh = TestMesh::new();
    let (dir, _) = artifact();
    let worker = mesh
        .worker_running("echo", &[dir.path()], |config| {
            config.slots = 3;
            config.engine.replicas = 2;
        })
        .await;
    let all = |models: &Vec<tether_worker::ModelStatus>| {
        let report = models[0].report();
        (report.processes == Some((2, 2))).then_some(report.sequences)
    };
    // Each of the two says that it gives three.
    assert_eq!(patiently(until(worker.worker.models(), all)).await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_divided_by_itself_never_keeps_another_one_out() {
    let mesh = TestMesh::new();
    let orchestrator = mesh.orchestrator().await;
    let (large, _) = big_artifact_of("large@1.0");
    let (small, digest) = artifact();
    // By estimate 497 and 97 MiB a process: of an equal share the small one could have three.
    let worker = mesh
        .worker_running("one_at_a_time", &[small.path(), large.path()], |config| {
            config.memory_budget_mib = 650;
            config.models[1].pin = true;
            config.engine.kind = EngineKind::Mistralrs;
            config.engine.cores = 4;
        })
        .await;
    worker
        .models(|states| states.iter().all(|it| matches!(it, ModelState::Serving(_))))
        .await;
    let short = orchestrator
        .order(&worker.worker, &order(1, digest, SHORT))
        .await;
    let events = short.events().await.expect("answered");
    assert!(matches!(events.last(), Some(AnswerEvent::Done(_))));
    // Alone it has what is of use, one for each slot.
    drop(worker);
    let worker = mesh
        .worker_running("one_at_a_time", &[small.path()], |config| {
            config.memory_budget_mib = 650;
            config.engine.kind = EngineKind::Mistralrs;
            config.engine.cores = 5;
        })
        .await;
    let all = |models: &Vec<tether_worker::ModelStatus>| {
        let report = models[0].report();
        (report.processes == Some((4, 4))).then_some(())
    };
    patiently(until(worker.worker.models(), all)).await;
    // Twice its share of the cores has each.
    let threads = processes(&worker)
        .into_iter()
        .map(threads)
        .collect::<Vec<_>>();
    assert_eq!(threads, [2; 4]);
}

/// How many threads a process of an engine was told to compute with.
fn threads(pid: Pid) -> u32 {
    let file = format!("/proc/{}/environ", pid.as_raw_nonzero());
    let environment = std::fs::read(file).expect("of the same user");
    let environment = String::from_utf8(environment).expect("text");
    let mut variables = environment.split('\0');
    let told = variables.find_map(|it| it.strip_prefix("RAYON_NUM_THREADS="));
    told.map_or(0, |it| it.parse().expect("a number"))
}

/// The processors that the threads of a process may use, as the kernel writes them.
fn processors(pid: Pid) -> BTreeSet<String> {
    let tasks = format!("/proc/{}/task", pid.as_raw_nonzero());
    let tasks = std::fs::read_dir(tasks).expect("it runs");
    let of = |task: std::io::Result<std::fs::DirEntry>| {
        let status = std::fs::read_to_string(task.ok()?.path().join("status")).ok()?;
        let mut lines = status.lines();
        let line = lines.find_map(|it| it.strip_prefix("Cpus_allowed_list:"));
        line.map(|list| list.trim().to_owned())
    };
    tasks.filter_map(of).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_share_no_processor_where_threads_are_configured_and_use_all_elsewhere() {
    let mine = processors(rustix::process::getpid());
    if std::thread::available_parallelism().map_or(1, usize::from) < 2 {
        eprintln!("skipped: there is one processor");
        return;
    }
    for (first_processor, are_pinned) in [(None, false), (Some(1), true)] {
        let engine = start("echo", |spec| {
            spec.processes = 2;
            spec.layout = Layout { first_processor };
        });
        let all = pids(&running(&engine, 2).await);
        // The thread that starts a test is not the one that is an engine here.
        let [one, other] = [all[0], all[1]].map(|pid| &processors(pid) - &mine);
        assert_eq!(
            (one.len(), other.len()),
            (are_pinned.into(), are_pinned.into())
        );
        assert!(one.is_disjoint(&other), "{one:?} {other:?}");
        patiently(engine.stop()).await;
    }
}

/// The program of the engine is replaced while it runs, and one of its processes falls.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_of_another_program_is_not_let_in_and_it_is_told_why() {
    let folders = [tempfile::tempdir(), tempfile::tempdir()].map(|dir| dir.expect("tempdir"));
    std::fs::write(folders[1].path().join("another"), "").expect("written");
    let [old, new] = [0, 1].map(|n| folders[n].path().to_owned());
    let is_replaced = Arc::new(AtomicBool::new(false));
    let replaced = is_replaced.clone();
    // An engine that calls itself what it finds.
    let engine = start("lists_its_files", |spec| {
        spec.processes = 2;
        spec.prepare = Prepare::new(move |_| {
            let is_new = replaced.load(Ordering::SeqCst);
            let view = if is_new { new.clone() } else { old.clone() };
            Box::pin(async move { Ok(view) })
        });
    });
    let before = running(&engine, 2).await;
    is_replaced.store(true, Ordering::SeqCst);
    kill_process(pids(&before)[1], Signal::KILL).expect("killed");
    let fallen = until(engine.state(), |state| match state {
        EngineState::Ready(ready) => {
            let mut fallen = ready.fallen.iter();
            fallen.find(|it| it.code == "engine-changed").cloned()
        }
        _ => None,
    });
    let fallen = patiently(fallen).await;
    assert!(fallen.reason.contains("another"), "{fallen:?}");
    is_replaced.store(false, Ordering::SeqCst);
    running(&engine, 2).await;
}

/// With the engine that computes, three processes of one model and one thread or two.
#[cfg(feature = "mistralrs")]
#[tokio::test(flavor = "multi_thread")]
async fn one_seed_gives_one_answer_whichever_process_gives_it() {
    use tether_wire::infer::Input;
    use tether_worker::engine::protocol::Task;

    let dir = tempfile::tempdir().expect("tempdir");
    for file in tether_tiny_model::files() {
        std::fs::write(dir.path().join(file.name), file.bytes).expect("written");
    }
    let root = dir.path().canonicalize().expect("a folder");
    let mut answers = Vec::new();
    let mut classes = Vec::new();
    for threads in [1, 2] {
        let view = root.clone();
        let engine = start("echo", |spec| {
            spec.processes = 3;
            spec.load.kind = EngineKind::Mistralrs;
            spec.load.weights = tether_tiny_model::GGUF_FILE.to_owned();
            spec.load.threads = threads;
            spec.prepare = Prepare::new(move |_| {
                let view = view.clone();
                Box::pin(async move { Ok(view) })
            });
        });
        classes.push(running(&engine, 3).await.numerics_class);
        let mut task = Task::new(
            Input::Text("What is the capital of France?".to_owned()),
            crate::fixture::sampling(),
        );
        task.sampling.temperature = 0.9;
        task.sampling.max_tokens = Some(32);
        task.sampling.top_logprobs = Some(0);
        let asked: Vec<_> = (0..3)
            .map(|_| engine.generate(task.clone(), Box::new(())).expect("asked"))
            .collect();
        for mut answer in asked {
            let mut whole: Vec<(u32, u32)> = Vec::new();
            while let Some(chunk) = patiently(answer.chunk()).await {
                let bits = chunk.logprobs.iter().map(|it| it.logprob.to_bits());
                whole.extend(chunk.tokens.iter().copied().zip(bits));
            }
            patiently(answer.end()).await.expect("well");
            answers.push(whole);
        }
        patiently(engine.stop()).await;
    }
    assert!(answers[0].len() >= 2, "{answers:?}");
    assert!(
        answers.iter().all(|answer| *answer == answers[0]),
        "{answers:?}"
    );
    assert_eq!(classes[0], classes[1]);
}
