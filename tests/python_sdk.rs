//! Tenants use the OpenAI SDK for Python as it is, with another base URL. (GW-1)
//!
//! The SDK and everything it brings is pinned in `tests/sdk/requirements.txt`.

mod environment;
mod support;

use std::process::{Command, Stdio};
use support::{Mesh, repository};

#[test]
fn the_openai_sdk_for_python_works_unchanged() {
    let Some(python) = environment::environment("python") else {
        return;
    };
    let mesh = Mesh::start(&[]);
    let output = Command::new(python.join("bin/python"))
        .args(["-B", "-m", "unittest", "-v", "test_openai"])
        .current_dir(repository().join("tests/sdk"))
        .env("TETHER_BASE_URL", format!("{}/v1", mesh.gateway()))
        .env("TETHER_API_KEY", mesh.api_key())
        .env("TETHER_MODEL", mesh.model())
        .env("NO_PROXY", "*")
        .stdin(Stdio::null())
        .output()
        .expect("the interpreter of the environment runs");
    assert!(
        output.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
