//! Tenants use the OpenAI SDK for Node as it is, with another base URL. (GW-1)
//!
//! The SDK and everything it brings is pinned in `tests/sdk/package-lock.json`.

mod environment;
mod support;

use std::process::{Command, Stdio};
use support::{Mesh, repository};

#[test]
fn the_openai_sdk_for_node_works_unchanged() {
    let Some(folder) = environment::environment("node-sdk") else {
        return;
    };
    let mesh = Mesh::start(&[]);
    let output = Command::new("node")
        .arg("--test")
        .arg(repository().join("tests/sdk/test_openai.mjs"))
        .current_dir(folder)
        .env("TETHER_BASE_URL", format!("{}/v1", mesh.gateway()))
        .env("TETHER_API_KEY", mesh.api_key())
        .env("TETHER_MODEL", mesh.model())
        .env("NO_PROXY", "*")
        .stdin(Stdio::null())
        .output()
        .expect("Node runs");
    assert!(
        output.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
