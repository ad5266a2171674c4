//! What breakers do where an operator sees it, over real processes: a worker whose server fails is left
//! alone for a while, tried, and back; what tenants do wrong is nobody's fault. (SCH-3)

#[allow(dead_code, reason = "the scenarios of membership use all of it")]
#[path = "../membership/mesh.rs"]
mod mesh;
#[path = "../support/operator.rs"]
mod operator;
mod server;
#[path = "../support/mod.rs"]
mod support;

use mesh::World;
use operator::text;
use serde_json::Value;
use server::{MODEL, Mood, Server};
use std::cell::Cell;
use std::io::Write;
use support::{Process, Reply, Tether, eventually, get};

/// Requests below which no failure rate is formed; one fault more opens.
const LEAST_REQUESTS: usize = 6;
/// For how long a breaker is open, at most, and half of it at least: far longer than a few requests and
/// a look at the fleet take.
const OPEN_MS: u64 = 8_000;
/// Requests that are wrong, at least.
const REFUSED: usize = 24;

/// A mesh with two workers, each before a server.
struct Scene {
    world: World,
    workers: [(String, Process); 2],
    asked: Cell<u32>,
}

impl Scene {
    fn start(servers: [&Server; 2]) -> Self {
        let mut world = World::start(false);
        let breakers = format!(
            "\n[orchestrator.breakers]\nwindow_ms = 60000\nworker_least_requests = {LEAST_REQUESTS}\n\
             open_ms = {OPEN_MS}\n\
             max_open_ms = {OPEN_MS}\n"
        );
        append(&world, "orchestrator/orchestrator.toml", &breakers);
        world.restart_orchestrator();
        let mut nth = 0;
        let workers = servers.map(|server| {
            nth += 1;
            worker(&world, &format!("w{nth}"), server)
        });
        let scene = Self {
            world,
            workers,
            asked: Cell::new(0),
        };
        eventually("both workers get work", || {
            (scene.workers.iter()).all(|(id, _)| scene.world.serves(id))
        });
        eventually("the gateway is ready", || scene.world.is_ready());
        scene
    }

    /// A request that begins as none before it: whoever answered another has no reason to be asked.
    fn chat(&self) -> Reply {
        self.asked.set(self.asked.get() + 1);
        let prompt = format!("{}: what is the capital of France?", self.asked.get());
        self.world.chat_about(&prompt)
    }

    fn id(&self, nth: usize) -> &str {
        &self.workers[nth].0
    }

    /// What `tether fleet` says.
    fn fleet(&self, more: &[&str]) -> String {
        let (admin, token) = self.world.admin();
        let of = ["fleet", "--admin", &admin, "--token-file", text(&token)];
        Tether::ok(&[&of[..], more].concat())
    }

    /// The row of a worker in `tether fleet --json`.
    fn row(&self, nth: usize) -> Value {
        let rows: Vec<Value> = serde_json::from_str(&self.fleet(&["--json"])).expect("JSON");
        let row = rows.into_iter().find(|row| row["id"] == self.id(nth));
        row.expect("its row")
    }

    /// Breakers of any kind that are not closed.
    fn breakers(&self) -> u64 {
        let text = get(&format!("{}/metrics", self.world.admin().0), "").text;
        let lines = text
            .lines()
            .filter(|line| line.starts_with("tether_orchestrator_breakers{"));
        let counts = lines.map(|line| line.rsplit(' ').next().expect("a count"));
        counts.map(|it| it.parse::<u64>().expect("a number")).sum()
    }
}

/// A worker that has its model from a server.
fn worker(world: &World, name: &str, server: &Server) -> (String, Process) {
    let id = world.node(name, "worker", "");
    let file = format!("{name}/worker.toml");
    let own = std::fs::read_to_string(world.path(&file)).expect("written");
    let (before, _) = own.split_once("[[worker.models]]").expect("its model");
    std::fs::write(world.path(&file), before).expect("written");
    let served = format!(
        "[[worker.servers]]\nurl = \"http://{}/v1\"\nmodel = \"{MODEL}\"\nartifact = \"{}\"\n",
        server.address,
        text(&world.path("tiny")),
    );
    append(world, &file, &served);
    (id, world.worker(name))
}

fn append(world: &World, file: &str, lines: &str) {
    let mut file = std::fs::File::options()
        .append(true)
        .open(world.path(file))
        .expect("there");
    file.write_all(lines.as_bytes()).expect("written");
}

#[test]
fn a_worker_that_fails_half_its_requests_is_left_alone_tried_and_back_when_it_is_well() {
    let (flaky, good) = (Server::start(Mood::FailsHalf), Server::start(Mood::Well));
    let scene = Scene::start([&flaky, &good]);
    let ask = || {
        let reply = scene.chat();
        assert_eq!(reply.answer(), "Paris.", "nobody notices");
        reply.worker().to_owned()
    };
    eventually("its breaker is open", || {
        ask();
        scene.row(0)["breaker"] == "open"
    });
    let asked = flaky.asked();
    assert!(
        (LEAST_REQUESTS..=LEAST_REQUESTS + 1).contains(&asked),
        "it was asked {asked} times"
    );
    let row = scene.row(0);
    let reason = row["reason"].as_str().expect("a reason").to_owned();
    let left_ms = reason
        .strip_prefix("its breaker is open for another ")
        .and_then(|rest| rest.split_once(" ms: too many requests failed"))
        .and_then(|(left_ms, _)| left_ms.parse::<u64>().ok());
    assert!(
        left_ms.is_some_and(|left_ms| (1..=OPEN_MS).contains(&left_ms)),
        "{reason}"
    );
    let shown = scene.fleet(&[]);
    assert!(
        shown.contains("its breaker is open for another "),
        "{shown}"
    );
    for _ in 0..6 {
        assert_eq!(ask(), scene.id(1), "only the good one is asked");
    }
    assert_eq!(flaky.asked(), asked, "it is left alone");
    assert_eq!(scene.row(1)["breaker"], "closed");
    assert_eq!(scene.breakers(), 1, "no model's and no region's");

    flaky.turns(Mood::Well);
    eventually("it may be tried", || scene.row(0)["breaker"] == "half-open");
    assert_eq!(flaky.asked(), asked, "nobody asked it until now");
    eventually("it is well again", || {
        ask();
        scene.row(0)["breaker"] == "closed"
    });
    assert!(flaky.asked() > asked, "it was tried");
    assert_eq!(scene.row(0)["reason"], Value::Null);
    assert_eq!(scene.breakers(), 0);
    eventually("it gets work again", || ask() == scene.id(0));
}

#[test]
fn what_every_worker_refuses_as_wrong_leaves_every_breaker_closed() {
    let servers = [Server::start(Mood::Refuses), Server::start(Mood::Refuses)];
    let scene = Scene::start([&servers[0], &servers[1]]);
    let mut sent = 0;
    // By whom each is refused is drawn: until faults of any of them would have been enough.
    eventually("every worker refused some", || {
        let reply = scene.chat();
        assert_eq!(reply.status, 400, "{}", reply.text);
        sent += 1;
        sent >= REFUSED && servers.iter().all(|it| it.asked() > LEAST_REQUESTS)
    });
    let asked = servers.iter().map(Server::asked);
    assert_eq!(asked.sum::<usize>(), sent, "each by one worker");
    for nth in 0..servers.len() {
        let row = scene.row(nth);
        assert_eq!(
            (&row["breaker"], &row["reason"]),
            (&"closed".into(), &Value::Null)
        );
    }
    assert_eq!(scene.breakers(), 0);
}
