//! The list of models.

use crate::directory::Directory;
use serde::Serialize;
use tether_wire::TenantId;
use tether_wire::directory::ModelEntry;

#[derive(Serialize)]
pub(crate) struct ModelJson {
    id: String,
    object: &'static str,
    created: u64,
    owned_by: &'static str,
}

#[derive(Serialize)]
pub(crate) struct ModelsJson {
    object: &'static str,
    data: Vec<ModelJson>,
}

/// One model, under the name by which it was asked for.
pub(crate) fn model_json(id: &str, entry: &ModelEntry) -> ModelJson {
    ModelJson {
        id: id.to_owned(),
        object: "model",
        created: entry.created_ms / 1_000,
        owned_by: "tether",
    }
}

/// The models that a tenant can have now.
pub(crate) fn models_json(directory: &Directory, tenant: &TenantId) -> ModelsJson {
    let data = directory
        .available(tenant)
        .into_iter()
        .map(|(id, entry)| model_json(&id, entry))
        .collect();
    ModelsJson {
        object: "list",
        data,
    }
}
