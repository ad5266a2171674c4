use super::*;
use crate::config::{ServerConfig, ServerKind};
use tether_telemetry::metrics::Registry;

#[derive(Debug)]
struct TwoGpus;

fn gpu(busy_pct: Option<u8>) -> GpuReading {
    GpuReading {
        name: "NVIDIA H100 80GB HBM3".to_owned(),
        memory_total_mib: 81_559,
        memory_free_mib: 40_000,
        busy_pct,
    }
}

impl Gpus for TwoGpus {
    fn look(&mut self) -> Vec<GpuReading> {
        vec![gpu(Some(100)), gpu(Some(41))]
    }
}

fn with_server() -> WorkerConfig {
    WorkerConfig {
        servers: vec![ServerConfig {
            url: "http://h/v1".to_owned(),
            kind: ServerKind::Vllm,
            model: "m".to_owned(),
            artifact: "a".into(),
            digest: None,
            api_key_file: None,
            concurrency: 1,
            probe_interval_ms: 1_000,
        }],
        ..WorkerConfig::default()
    }
}

#[tokio::test]
async fn the_machine_is_looked_at_and_a_strain_is_seen_at_once() {
    let registry = Registry::new();
    let metrics = WorkerMetrics::register(&registry);
    let thresholds = Thresholds {
        gpu_memory_free_mib: 90_000,
        ..Thresholds::default()
    };
    let health = Health::watch(Eyes::new(Box::new(TwoGpus)), thresholds, metrics).await;
    let reading = health.reading();
    assert!(reading.memory_free_mib > 0 && reading.memory_free_mib <= reading.memory_total_mib);
    let vitals = health.vitals();
    assert_eq!(
        (vitals.gpu_pct, vitals.gpu_memory_free_mib),
        (Some(70), Some(80_000))
    );
    let strain = health
        .strain()
        .borrow()
        .clone()
        .expect("too little is free");
    assert_eq!(strain.code, "gpu-memory-strained");
    tokio::task::yield_now().await;
    assert!(
        registry
            .encode()
            .contains("tether_worker_accelerator_memory_free_bytes 83886080000")
    );
}

#[test]
fn a_machine_without_the_library_has_no_accelerators_and_no_error() {
    let mut eyes = Eyes::new(match nvml::open() {
        Some(nvml) => Box::new(nvml),
        None => Box::new(NoGpus),
    });
    let vitals = eyes.look().vitals();
    assert!(vitals.memory_free_mib > 0 && vitals.cpu_pct <= 100);
}

#[test]
fn what_is_found_is_told_where_it_is_used_and_a_setting_wins() {
    let found = Reading {
        memory_total_mib: 24_000,
        gpus: vec![gpu(None), gpu(None)],
        ..Reading::default()
    };
    let machine = Machine::of(&with_server(), &found);
    assert_eq!(machine.gpu_class, "h100-80gb-hbm3");
    assert_eq!((machine.accelerators, machine.memory_gib), (2, 159));
    let plain = Machine::of(&WorkerConfig::default(), &found);
    assert_eq!(
        (
            plain.gpu_class.as_str(),
            plain.accelerators,
            plain.memory_gib
        ),
        ("cpu", 0, 23)
    );
    let told = WorkerConfig {
        memory_gib: 80,
        gpu_class: "a100".to_owned(),
        accelerators: 1,
        ..with_server()
    };
    let told = Machine::of(&told, &found);
    assert_eq!(
        (told.gpu_class.as_str(), told.accelerators, told.memory_gib),
        ("a100", 1, 80)
    );
}

#[test]
fn any_name_makes_a_class_that_fits_a_card() {
    assert_eq!(class_of("NVIDIA GeForce RTX 4090"), "rtx-4090");
    assert_eq!(class_of("Tesla T4"), "t4");
    assert_eq!(class_of("NVIDIA"), "gpu");
    assert!(class_of(&"word ".repeat(50)).len() <= MAX_CLASS_BYTES);
}
