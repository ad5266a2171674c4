//! The suite of OpenAI's SDK for Python, run against a gateway. (GW-1)

use crate::environment::environment;
use crate::support::{repository, tether};
use std::process::{Command, Stdio};

/// Runs `tests/sdk/test_openai.py` against the gateway at this URL (without a path); without Python
/// it is skipped, as [`environment`] says.
#[track_caller]
pub(crate) fn python_sdk(gateway: &str, api_key: &str, model: &str, mesh: &str) {
    let Some(python) = environment("python") else {
        return;
    };
    let output = Command::new(python.join("bin/python"))
        .args(["-B", "-m", "unittest", "-v", "test_openai"])
        .current_dir(repository().join("tests/sdk"))
        .env("TETHER_BASE_URL", format!("{gateway}/v1"))
        .env("TETHER_API_KEY", api_key)
        .env("TETHER_MODEL", model)
        .env("TETHER_BINARY", tether())
        .env("TETHER_MESH", mesh)
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
