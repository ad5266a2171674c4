//! The text form is what Prometheus reads, and the names follow its conventions.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tether_telemetry::metrics::{
    DhtOperation, Direction, GatewayMetrics, NetMetrics, OrchestratorMetrics, Registry,
    WorkerMetrics,
};

/// Each metric once, with a sample of each family.
fn text() -> String {
    let registry = Registry::new();
    let net = NetMetrics::register(&registry);
    net.link_up("worker");
    net.link_up("worker");
    net.link_down("worker");
    net.link_quiet("worker", true);
    net.refused("version");
    net.refused_by_peer("grant");
    net.call("submit", Direction::Incoming).ended("ok");
    net.bytes(Direction::Outgoing, 42);
    net.dht(DhtOperation::Lookup, true, Duration::from_millis(2));
    let gateway = GatewayMetrics::register(&registry);
    gateway.http_request("/v1/models", 200);
    gateway.inference("chat", "tiny@1.0", "none", Duration::from_millis(30));
    gateway.first_token("tiny@1.0", Duration::from_millis(3));
    gateway.finished("tiny@1.0", 5, 9, Duration::from_millis(27));
    gateway.broken("unavailable");
    gateway.auth_failure("invalid_api_key");
    gateway.limited("connections");
    gateway.disconnected();
    gateway.set_orchestrators(1);
    gateway.directory(7);
    gateway.in_flight().inc();
    let orchestrator = OrchestratorMetrics::register(&registry);
    orchestrator.heartbeat_accepted();
    orchestrator.heartbeat_rejected("replayed");
    orchestrator.set_fleet(&[("ready", 2)]);
    orchestrator.set_jobs(&[("running", 1)]);
    orchestrator.dispatched("ok");
    orchestrator.retried("unavailable");
    orchestrator.attempt("ok", Duration::from_millis(10));
    orchestrator.accepted(Duration::from_millis(1));
    orchestrator.first_chunk(Duration::from_millis(4));
    orchestrator.committed(3, Duration::from_millis(1));
    let worker = WorkerMetrics::register(&registry);
    worker.request("ok");
    worker.shed("queue-full");
    worker.engine_restarted("crash");
    worker.model_fault("bad-signature");
    worker.model_loaded("tiny@1.0", Duration::from_secs(1));
    let (prefill, decode) = (Duration::from_millis(2), Duration::from_millis(20));
    worker.answered("tiny@1.0", 5, 9, prefill, decode);
    // Who asks again is given the same metrics, so that nothing appears twice.
    NetMetrics::register(&registry).link_up("worker");
    registry.encode()
}

#[derive(Debug, Default)]
struct Family {
    help: String,
    kind: String,
    unit: String,
    samples: BTreeMap<String, f64>,
}

/// A strict reader of what OpenMetrics 1.0 allows and we use.
fn parse(text: &str) -> BTreeMap<String, Family> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let body = text.strip_suffix("# EOF\n").expect("it ends with # EOF");
    for line in body.lines() {
        if let Some(meta) = line.strip_prefix("# ") {
            let mut words = meta.splitn(3, ' ');
            let kind = words.next().expect("a keyword");
            let name = words.next().expect("a name").to_owned();
            let rest = words.next().unwrap_or_default().to_owned();
            let family = families.entry(name).or_default();
            let field = match kind {
                "HELP" => &mut family.help,
                "TYPE" => &mut family.kind,
                "UNIT" => &mut family.unit,
                other => panic!("unknown keyword {other}"),
            };
            assert!(field.is_empty(), "{kind} comes twice: {line}");
            *field = rest;
            continue;
        }
        let (series, value) = line.rsplit_once(' ').expect("a value");
        let value: f64 = value.parse().expect("a number");
        let name = series.split('{').next().expect("a name");
        let family = families
            .iter_mut()
            .filter(|(family, _)| name.starts_with(family.as_str()))
            .max_by_key(|(family, _)| family.len())
            .unwrap_or_else(|| panic!("{name} was not declared"))
            .1;
        let again = family.samples.insert(series.to_owned(), value);
        assert_eq!(again, None, "{series} comes twice");
    }
    families
}

#[test]
fn every_metric_is_declared_once_with_help_and_a_sample() {
    let families = parse(&text());
    assert!(families.len() > 45, "only {} metrics", families.len());
    for (name, family) in &families {
        assert!(family.help.len() > 15, "{name}: {:?}", family.help);
        assert!(!family.kind.is_empty(), "{name} has no type");
        assert!(!family.samples.is_empty(), "{name} has no sample");
    }
    assert!(
        (families["tether_net_links"].samples["tether_net_links{role=\"worker\"}"] - 2.0).abs()
            < 0.1
    );
}

#[test]
fn names_follow_the_conventions() {
    let families = parse(&text());
    let mut prefixes = BTreeSet::new();
    for (name, family) in &families {
        assert!(
            name.bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'),
            "{name}"
        );
        prefixes.insert(name.split('_').next().expect("a prefix").to_owned());
        assert!(
            !name.ends_with("_total"),
            "{name}: the text form appends it"
        );
        for wrong in ["_ms", "_millis", "_milliseconds", "_kb", "_percent"] {
            assert!(!name.ends_with(wrong), "{name}: base units only");
        }
        let times = family.help.starts_with("Time ") || family.help.starts_with("Mean time ");
        if times {
            assert_eq!(family.unit, "seconds", "{name}");
        }
        if !family.unit.is_empty() {
            assert!(
                name.ends_with(&format!("_{}", family.unit)),
                "{name}: {}",
                family.unit
            );
        }
        if family.kind == "counter" {
            let total = |series: &String| {
                series
                    .split('{')
                    .next()
                    .expect("a name")
                    .ends_with("_total")
            };
            assert!(family.samples.keys().all(total), "{name}");
        }
    }
    assert_eq!(
        prefixes,
        BTreeSet::from(["gen".to_owned(), "tether".to_owned()])
    );
    for name in [
        "gen_ai_server_request_duration_seconds",
        "gen_ai_server_time_to_first_token_seconds",
        "gen_ai_server_time_per_output_token_seconds",
    ] {
        assert_eq!(families[name].kind, "histogram");
    }
}

#[test]
fn peers_and_tenants_cannot_grow_the_text_by_naming_things() {
    let registry = Registry::new();
    let net = NetMetrics::register(&registry);
    let gateway = GatewayMetrics::register(&registry);
    for n in 0..5_000 {
        net.call(&format!("method-{n}"), Direction::Incoming)
            .ended("ok");
        gateway.inference("chat", &format!("model-{n}"), "none", Duration::ZERO);
    }
    let text = registry.encode();
    assert!(
        text.lines().count() < 5_000,
        "{} lines",
        text.lines().count()
    );
    assert!(text.contains("method=\"other\""));
}
