//! Names of topics and their keys on the DHT. (NET-3) [T-TOP-1] to [T-TOP-5]

use crate::id::{CorrelationId, MeshId, ModelRef, Region};
use blake2::digest::consts::U32;
use blake2::digest::{FixedOutput, Mac, Update};
use serde::{Deserialize, Serialize};
use std::fmt;

/// A meeting point.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Topic {
    /// Workers of a region. Only workers announce here.
    Presence(Region),
    /// Workers of a region that serve a model. Only workers announce here.
    Model(ModelRef, Region),
    /// Orchestrators of a region: where workers and gateways look for them.
    Control(Region),
    /// Those who follow one job. Ephemeral.
    Job(CorrelationId),
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Presence(region) => write!(f, "tether/presence/{region}"),
            Self::Model(model, region) => {
                write!(f, "tether/models/{}/{}/{region}", model.name, model.version)
            }
            Self::Control(region) => write!(f, "tether/control/{region}"),
            Self::Job(id) => write!(f, "tether/jobs/{id}"),
        }
    }
}

/// Key of a topic on the DHT.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct TopicKey(#[serde(with = "serde_bytes")] pub [u8; 32]);

impl TopicKey {
    /// Lower-case hex.
    #[must_use]
    pub fn to_hex(&self) -> String {
        hex::encode(self.0)
    }
}

impl Topic {
    /// BLAKE2b-256 of the UTF-8 name: unkeyed in an open mesh (the convention of Hyperswarm), keyed
    /// with the mesh id in a private one, so that meshes neither meet nor dilute each other. [T-TOP-4]
    #[must_use]
    pub fn key(&self, private_mesh: Option<&MeshId>) -> TopicKey {
        let name = self.to_string();
        TopicKey(match private_mesh {
            None => {
                let mut hash = blake2::Blake2b::<U32>::default();
                hash.update(name.as_bytes());
                hash.finalize_fixed().into()
            }
            Some(mesh) => {
                let mut mac = blake2::Blake2bMac::<U32>::new_from_slice(&mesh.0)
                    .expect("a key of 32 bytes fits BLAKE2b, which takes up to 64");
                Update::update(&mut mac, name.as_bytes());
                mac.finalize_fixed().into()
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region() -> Region {
        Region::new("local").expect("valid")
    }

    #[test]
    fn names_follow_the_specification() {
        let model: ModelRef = "tether-tiny@1.0".parse().expect("valid");
        assert_eq!(
            Topic::Presence(region()).to_string(),
            "tether/presence/local"
        );
        assert_eq!(
            Topic::Model(model, region()).to_string(),
            "tether/models/tether-tiny/1.0/local"
        );
        assert_eq!(Topic::Control(region()).to_string(), "tether/control/local");
    }

    #[test]
    fn meshes_do_not_meet() {
        let topic = Topic::Presence(region());
        let open = topic.key(None);
        let one = topic.key(Some(&MeshId([1; 32])));
        let two = topic.key(Some(&MeshId([2; 32])));
        assert_ne!(open, one);
        assert_ne!(one, two);
        // The convention of Hyperswarm: hypercore-crypto's `hash(Buffer.from(name))`.
        // Checked against Python: hashlib.blake2b(b"tether/presence/local", digest_size=32).
        assert_eq!(
            open.to_hex(),
            "389d734da92f4acecb103a11aa39a2e1d232e2d83e6bb1d9576fde4d5bc3e672"
        );
        assert_eq!(
            one.to_hex(),
            "8654c1df92f29c96dd00516d7c664cd3788a8bd7ae39392797c9180699b85530"
        );
    }
}
