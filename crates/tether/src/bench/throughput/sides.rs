//! Who is asked: meshes, mistral.rs alone, llama.cpp's server.

use super::models::{Measured, Models};
use super::programs::Programs;
use super::server::{Llama, Server};
use crate::bench::mesh::Mesh;
use crate::bench::round::{Answered, Round};
use anyhow::{Context, ensure};
use serde_json::Value;
use std::ffi::OsStr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// How long a model may take to be warm in all its processes.
const WARM_TIMEOUT: Duration = Duration::from_secs(60);
/// Pause between two looks at a worker.
const LOOK: Duration = Duration::from_millis(100);
/// What is called the engine for newer processors.
const NEWER: &str = "x86-64-v3";
/// Answers that mistral.rs may give at once.
const AT_ONCE: u16 = super::MAX_STREAMS;

/// Who is asked.
pub(super) enum Side {
    Server(Server),
    Llama(Llama),
    Alone(Alone),
}

impl Side {
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Server(server) => &server.name,
            Self::Llama(llama) => &llama.server.name,
            Self::Alone(alone) => &alone.name,
        }
    }

    /// Asks everything at once.
    pub(super) async fn ask(
        &mut self,
        questions: Vec<String>,
        tokens: u32,
    ) -> anyhow::Result<Answered> {
        let round = Round { questions, tokens };
        let name = self.name().to_owned();
        let answered = match self {
            Self::Server(server) => server.ask(&round).await,
            Self::Llama(llama) => llama.server.ask(&round).await,
            Self::Alone(alone) => alone.ask(&round).await,
        };
        answered.with_context(|| name)
    }
}

/// A mesh with one worker, and what it is called.
pub(super) struct Measuring {
    mesh: Mesh,
    name: String,
}

impl Measuring {
    pub(super) async fn stop(self) -> anyhow::Result<()> {
        self.mesh.stop().await
    }
}

/// As it comes; with one process for each model; and with engines for newer processors.
pub(super) async fn meshes(programs: &Programs, models: &Models) -> anyhow::Result<Vec<Measuring>> {
    let mut meshes = Vec::new();
    let portable = &programs.portable;
    let mut wanted = vec![
        (portable, "1", "through the mesh, one process".to_owned()),
        (portable, "0", "through the mesh".to_owned()),
    ];
    if let Some((newer, _)) = &programs.newer {
        wanted.push((newer, "0", format!("through the mesh, {NEWER}")));
    }
    let publisher = models.publisher.to_string();
    for (program, replicas, name) in wanted {
        let more = [
            OsStr::new("--model"),
            models.large().as_os_str(),
            OsStr::new("--publisher"),
            OsStr::new(&publisher),
            OsStr::new("--replicas"),
            OsStr::new(replicas),
        ];
        let mesh = Mesh::of(program, &more).await?;
        meshes.push(Measuring { mesh, name });
    }
    Ok(meshes)
}

/// Everybody, for one model.
pub(super) async fn of(
    programs: &Programs,
    meshes: &[Measuring],
    model: &Measured,
    llama: Option<&Path>,
) -> anyhow::Result<Vec<Side>> {
    let mut sides = Vec::new();
    for Measuring { mesh, name } in meshes {
        let text = |field: &str| -> anyhow::Result<String> {
            Ok(mesh.ready(field)?.as_str().context("text")?.to_owned())
        };
        let base = format!("{}/v1", text("gateway")?);
        let server = Server::new(name, &base, model.name, &text("api_key")?)?;
        server.wait_until_warm(WARM_TIMEOUT).await?;
        all_processes(mesh).await.with_context(|| name.clone())?;
        sides.push(Side::Server(server));
    }
    if cfg!(feature = "mistralrs") {
        let name = "mistral.rs alone";
        sides.push(Side::Alone(Alone::start(&programs.portable, name, model)?));
        if let Some((_, newer)) = &programs.newer {
            let name = format!("{name}, {NEWER}");
            sides.push(Side::Alone(Alone::start(newer, &name, model)?));
        }
    }
    if let Some(llama) = llama {
        sides.push(Side::Llama(Llama::start(llama, model).await?));
    }
    Ok(sides)
}

/// Waits until each loaded model answers in all its processes: the first alone answers before.
async fn all_processes(mesh: &Mesh) -> anyhow::Result<()> {
    let waits = async {
        loop {
            if is_whole(&mesh.worker_status().await?) {
                return Ok(());
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    let waited = tokio::time::timeout(WARM_TIMEOUT, waits).await;
    waited.context("a model's processes are not all there in time")?
}

/// Whether it is so, by what a worker says of itself.
fn is_whole(status: &Value) -> bool {
    let models = status["models"].as_array().into_iter().flatten();
    let mut warm = models.filter(|model| model["state"] == "warm").peekable();
    warm.peek().is_some() && warm.all(|model| model["processes"][0] == model["processes"][1])
}

/// mistral.rs in a process of its own, by its own interface.
pub(super) struct Alone {
    name: String,
    _child: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Alone {
    fn start(program: &Path, name: &str, model: &Measured) -> anyhow::Result<Self> {
        let mut child = Command::new(program)
            .args(["bench", "alone", "--weights", model.weights, "--at-once"])
            .arg(AT_ONCE.to_string())
            .arg("--model")
            .arg(&model.folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let stdout = child.stdout.take().context("piped")?;
        Ok(Self {
            name: name.to_owned(),
            stdin: child.stdin.take().context("piped")?,
            lines: BufReader::new(stdout).lines(),
            _child: child,
        })
    }

    async fn ask(&mut self, round: &Round) -> anyhow::Result<Answered> {
        let mut line = serde_json::to_string(round)?;
        line.push('\n');
        self.stdin.write_all(line.as_bytes()).await?;
        let answered = loop {
            let line = self.lines.next_line().await?;
            let line = line.context("it ended")?;
            // What it says of itself goes there, too.
            if let Ok(answered) = serde_json::from_str::<Answered>(&line) {
                break answered;
            }
        };
        ensure!(
            answered.answers.len() == round.questions.len(),
            "answers are missing"
        );
        Ok(answered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_model_is_whole_when_it_answers_in_all_its_processes() {
        let models = |models: Value| is_whole(&json!({ "models": models }));
        let warm = |running| json!({"state": "warm", "processes": [running, 2]});
        let cold = json!({"state": "cold", "processes": [0, 1]});
        assert!(!models(json!([])));
        assert!(!models(json!([cold])));
        assert!(!models(json!([warm(1), cold])));
        assert!(!models(json!([warm(1), warm(2)])));
        assert!(models(json!([warm(2), cold, warm(2)])));
    }
}
