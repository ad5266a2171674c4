//! Ids as people write them, in files, on command lines and in URLs; and the topics made of them.

use crate::Verdict;
use crate::known::mesh;
use std::fmt::Display;
use std::str::FromStr;
use tether_orchestrator::policy::NamedModel;
use tether_wire::directory::ModelSelector;
use tether_wire::grant::Access;
use tether_wire::id::IdError;
use tether_wire::{
    CorrelationId, Digest, MeshId, ModelName, ModelRef, ModelVersion, NodeId, Region, Role,
    TenantId, Topic, codec,
};

/// Longest text of an error: a stranger's words are not repeated at length.
const MAX_ERROR_BYTES: usize = 600;

/// What is read is written, and reads the same again.
fn read<T>(text: &str) -> Option<T>
where
    T: FromStr<Err = IdError> + Display + PartialEq + std::fmt::Debug,
{
    match text.parse::<T>() {
        Ok(id) => {
            assert_eq!(id.to_string().parse::<T>().expect("our own text"), id);
            Some(id)
        }
        Err(error) => {
            let words = error.to_string();
            assert!(words.len() <= MAX_ERROR_BYTES, "{words}");
            assert!(!words.contains(char::is_control), "{words}");
            None
        }
    }
}

/// Runs all of them.
pub(crate) fn run(bytes: &[u8]) -> Verdict {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return Verdict::Refused;
    };
    let ids = [
        read::<NodeId>(text).is_some(),
        read::<MeshId>(text).is_some(),
        read::<Digest>(text).is_some(),
        read::<CorrelationId>(text).is_some(),
        read::<ModelName>(text).is_some(),
        read::<TenantId>(text).is_some(),
        read::<ModelSelector>(text).is_some(),
        read::<NamedModel>(text).is_some(),
        text.parse::<Role>()
            .is_ok_and(|role| role.to_string() == text),
    ];
    let version = read::<ModelVersion>(text);
    if let Some(version) = &version {
        let (major, minor) = version.numbers();
        assert_eq!(format!("{major}.{minor}"), text, "one spelling each");
    }
    let region = read::<Region>(text);
    let model = read::<ModelRef>(text);
    let local = Region::new("local").expect("valid");
    let topics = [
        region.clone().map(Topic::Presence),
        region.map(Topic::Control),
        model.map(|model| Topic::Model(model, local)),
    ];
    let accepted = ids.contains(&true) || version.is_some() || topics.iter().any(Option::is_some);
    for topic in topics.into_iter().flatten() {
        let name = topic.to_string();
        assert!(name.bytes().all(|byte| byte.is_ascii_graphic()), "{name}");
        let mesh = mesh(Access::Invite);
        assert_ne!(topic.key(None), topic.key(Some(&mesh.id)), "meshes meet");
    }
    // The same rules hold where the text comes in CBOR.
    let coded = codec::encode(&text);
    let region = codec::decode::<Region>("region", &coded, coded.len());
    assert_eq!(region.is_ok(), Region::new(text).is_ok());
    Verdict::of(accepted)
}
