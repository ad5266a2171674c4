//! The topics of this worker on the DHT: its region, and each model that it serves.

use crate::models::{self, ModelStatus};
use std::collections::BTreeSet;
use tether_net::Node;
use tether_wire::Topic;
use tokio::sync::watch;

/// Announces the region, and models as they come and go.
pub(super) async fn run(node: Node, mut models: watch::Receiver<Vec<ModelStatus>>) {
    announce(&node, &Topic::Presence(node.region().clone())).await;
    let mut announced = BTreeSet::new();
    loop {
        let served: BTreeSet<Topic> = models::offers(&models.borrow_and_update())
            .into_iter()
            .map(|offer| Topic::Model(offer.model, node.region().clone()))
            .collect();
        for topic in announced.difference(&served) {
            node.withdraw(topic).await;
        }
        for topic in served.difference(&announced) {
            announce(&node, topic).await;
        }
        announced = served;
        if models.changed().await.is_err() {
            return;
        }
    }
}

/// A first failure is tried again by the node itself.
async fn announce(node: &Node, topic: &Topic) {
    if let Err(error) = node.announce(topic).await {
        tracing::warn!(%topic, %error, "not announced on the DHT yet");
    }
}
