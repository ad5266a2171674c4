//! What gateways are told.

use crate::mesh::{Mesh, request, within};
use crate::script::Script;
use tether_net::Call;
use tether_wire::codec;
use tether_wire::directory::{Availability, DirectoryUpdate, MAX_UPDATE_BYTES};
use tether_wire::rpc::{Code, method};
use tether_wire::{Digest, Tier};

async fn next(call: &mut Call) -> DirectoryUpdate {
    let item = within("an update", call.next())
        .await
        .expect("well")
        .expect("an update");
    codec::decode("update", &item, MAX_UPDATE_BYTES).expect("an update")
}

fn tenants(ids: &[&str]) -> String {
    let entry = |(n, id): (usize, &&str)| {
        let hash = Digest([u8::try_from(n).expect("few"); 32]).to_hex();
        format!("[[tenant]]\nid = \"{id}\"\nkey_hashes = [\"{hash}\"]\n")
    };
    ids.iter().enumerate().map(entry).collect()
}

#[tokio::test]
async fn a_gateway_gets_everything_and_then_what_changes_and_a_bad_file_changes_nothing() {
    let mesh = Mesh::start().await;
    let file = mesh.data.path().join("tenants.toml");
    let link = mesh.link().await;
    let mut call = link
        .call(method::DIRECTORY, None, &[])
        .await
        .expect("called");
    let whole = next(&mut call).await;
    assert!(whole.whole && whole.tenants.is_empty());
    assert_eq!(whole.models, Some(Vec::new()));

    std::fs::write(&file, tenants(&["acme", "beta"])).expect("written");
    let delta = next(&mut call).await;
    assert!(!delta.whole && delta.version > whole.version);
    assert_eq!(delta.tenants.len(), 2);
    assert!(delta.models.is_none());

    // A mistake, and then, told apart by what comes next, the file made good again.
    let mut refused = mesh.orchestrator.tenants_refused();
    std::fs::write(&file, "[[tenant]]\nid = \"A C M E\"\n").expect("written");
    within("the mistake is found", refused.wait_for(|count| *count > 0))
        .await
        .expect("lives");
    std::fs::write(&file, tenants(&["acme"])).expect("written");
    let delta = next(&mut call).await;
    assert!(
        delta.tenants.is_empty(),
        "acme was kept all along: {delta:?}"
    );
    assert_eq!(delta.removed_tenants.len(), 1);

    let worker = mesh.worker(10, Script::Answer(1)).await;
    let models = next(&mut call).await.models.expect("models changed");
    assert_eq!(models.len(), 1);
    assert_eq!(models[0].availability, Availability::Available);
    worker.node.shutdown().await;
    let mut worker = mesh.silent_worker(10, Script::Answer(1)).await;
    let goodbye = worker.goodbye(9);
    worker.send(&goodbye).await;
    let models = next(&mut call).await.models.expect("models changed");
    assert_eq!(
        models[0].availability,
        Availability::Unavailable,
        "still known"
    );
}

#[tokio::test]
async fn what_an_untrusted_worker_offers_is_gone_with_it() {
    let mesh = Mesh::start().await;
    let mut worker = (mesh.silent_worker_of(10, Script::Answer(1), Tier::Untrusted)).await;
    worker.send(&worker.says(1)).await;
    mesh.fleet("there", |fleet| fleet.len() == 1).await;
    assert!(mesh.submit(&request("a")).await.is_whole());
    let link = mesh.link().await;
    let mut call = link
        .call(method::DIRECTORY, None, &[])
        .await
        .expect("called");
    let mut models = next(&mut call).await.models.expect("whole");
    if models.is_empty() {
        models = next(&mut call).await.models.expect("models");
    }
    assert_eq!(models[0].availability, Availability::Available);
    let goodbye = worker.goodbye(2);
    worker.send(&goodbye).await;
    assert_eq!(next(&mut call).await.models, Some(Vec::new()));
    let answer = mesh.submit(&request("b")).await;
    assert_eq!(answer.failed().code, Code::NotFound);
    let remembered = mesh.orchestrator.store().known_models().await;
    assert_eq!(remembered, Ok(Vec::new()));
}

#[tokio::test]
async fn a_model_once_seen_is_known_after_a_restart() {
    let mesh = Mesh::start().await;
    let worker = mesh.worker(10, Script::Answer(1)).await;
    mesh.remembers().await;
    worker.node.shutdown().await;
    let mesh = mesh.restart(|_| ()).await;
    let link = mesh.link().await;
    let mut call = link
        .call(method::DIRECTORY, None, &[])
        .await
        .expect("called");
    let mut models = next(&mut call).await.models.expect("whole");
    if models.is_empty() {
        models = next(&mut call).await.models.expect("models");
    }
    assert_eq!(models[0].model.to_string(), "tiny@1.0");
    assert_eq!(models[0].availability, Availability::Unavailable);
}
