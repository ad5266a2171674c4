//! Tenants use the OpenAI SDK for Python as it is, with another base URL. (GW-1)
//!
//! The SDK and everything it brings is pinned in `tests/sdk/requirements.txt`. The same suite runs
//! against a mesh of five processes in `five_processes.rs`.

mod environment;
#[path = "support/sdk.rs"]
mod sdk;
mod support;

use support::Mesh;

#[test]
fn the_openai_sdk_for_python_works_unchanged() {
    let mesh = Mesh::start(&[]);
    let id = mesh.ready["mesh"].as_str().expect("the mesh");
    sdk::python_sdk(mesh.gateway(), mesh.api_key(), mesh.model(), id);
}
