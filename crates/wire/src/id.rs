//! A newtype for each identity on the wire.

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// Text that is not a valid id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a valid {what}: {rule}")]
pub struct IdError {
    what: &'static str,
    rule: &'static str,
    text: String,
}

impl IdError {
    pub(crate) fn new(what: &'static str, rule: &'static str, text: &str) -> Self {
        // A stranger's text may be long and hold what moves a screen's cursor; an error does not.
        let legible = |c: char| if c.is_control() { '\u{fffd}' } else { c };
        Self {
            what,
            rule,
            text: text.chars().map(legible).take(80).collect(),
        }
    }
}

/// Bytes of fixed length: bytes in CBOR, lower-case hex in JSON, TOML and on screen.
macro_rules! bytes_id {
    ($(#[$doc:meta])* $name:ident, $len:literal, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// Lower-case hex.
            #[must_use]
            pub fn to_hex(&self) -> String { hex::encode(self.0) }
            /// The first eight hex digits, for people.
            #[must_use]
            pub fn short(&self) -> String { hex::encode(&self.0[..4]) }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(&self.to_hex()) }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.short())
            }
        }
        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                let mut bytes = [0; $len];
                hex::decode_to_slice(text, &mut bytes)
                    .map_err(|_| IdError::new($what, concat!("expected ", $len, " bytes in hex"), text))?;
                Ok(Self(bytes))
            }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                if s.is_human_readable() { s.serialize_str(&self.to_hex()) } else { s.serialize_bytes(&self.0) }
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                // Both forms are accepted, since buffering deserialisers forget which one is spoken.
                struct V;
                impl Visitor<'_> for V {
                    type Value = $name;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str(concat!($len, " bytes, or their hex"))
                    }
                    fn visit_str<E: de::Error>(self, v: &str) -> Result<$name, E> {
                        v.parse().map_err(E::custom)
                    }
                    fn visit_bytes<E: de::Error>(self, v: &[u8]) -> Result<$name, E> {
                        v.try_into().map($name).map_err(|_| E::invalid_length(v.len(), &self))
                    }
                }
                if d.is_human_readable() { d.deserialize_str(V) } else { d.deserialize_bytes(V) }
            }
        }
    };
}

bytes_id!(
    /// A node: its Ed25519 public key.
    NodeId, 32, "node id"
);
bytes_id!(
    /// A mesh: the public key of its operator. (NET-8)
    MeshId, 32, "mesh id"
);
bytes_id!(
    /// BLAKE3 of some content.
    Digest, 32, "digest"
);
bytes_id!(
    /// One request from gateway to engine and back; also the id of its job. (OBS-1, RSV-1)
    CorrelationId, 16, "correlation id"
);

impl MeshId {
    /// The operator whose public key this is.
    #[must_use]
    pub fn operator(&self) -> NodeId {
        NodeId(self.0)
    }
}

impl Digest {
    /// Digest of bytes in memory.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

impl CorrelationId {
    /// The id of the request that a tenant made with a retry token: the same token gives the same
    /// id, and no other tenant can reach it. (RSV-1) [T-INF-2]
    #[must_use]
    pub fn derive(tenant: &TenantId, retry_token: &str) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("tether 2026 correlation id v1");
        hasher.update(&(tenant.as_str().len() as u64).to_be_bytes());
        hasher.update(tenant.as_str().as_bytes());
        hasher.update(retry_token.as_bytes());
        let mut id = [0; 16];
        hasher.finalize_xof().fill(&mut id);
        Self(id)
    }

    /// Rank of an orchestrator for this request, by rendezvous hashing: the lowest is asked first,
    /// and has the request once the one before it is lost. (FED-1) [T-INF-13]
    #[must_use]
    pub fn rank(&self, orchestrator: &NodeId) -> Digest {
        Digest::of(&[self.0.as_slice(), orchestrator.0.as_slice()].concat())
    }
}

/// Text with a rule, checked whenever it is made, also when it is decoded.
macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $rule:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(String);

        impl $name {
            /// Checks the text.
            ///
            /// # Errors
            /// When the text breaks the rule of this id.
            pub fn new(text: impl Into<String>) -> Result<Self, IdError> {
                let text = text.into();
                let check: fn(&str) -> bool = $check;
                if check(&text) { Ok(Self(text)) } else { Err(IdError::new($what, $rule, &text)) }
            }
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str { &self.0 }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(&self.0) }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { write!(f, "{:?}", self.0) }
        }
        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> { Self::new(text) }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> { s.serialize_str(&self.0) }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                Self::new(String::deserialize(d)?).map_err(de::Error::custom)
            }
        }
    };
}

fn kebab(text: &str, max: usize) -> bool {
    (1..=max).contains(&text.len())
        && !text.starts_with('-')
        && !text.ends_with('-')
        && !text.contains("--")
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

fn decimal(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 5
        && text.bytes().all(|b| b.is_ascii_digit())
        && (text == "0" || !text.starts_with('0'))
}

text_id!(
    /// Name of a model. (NET-3) [T-TOP-3]
    ModelName, "model name", "1 to 64 of a-z, 0-9 and single dashes between them", |t| kebab(t, 64)
);
text_id!(
    /// Version of a model, `MAJOR.MINOR`. (NET-3) [T-TOP-3]
    ModelVersion, "model version", "MAJOR.MINOR in decimal digits, such as 1.0",
    |t| matches!(t.split_once('.'), Some((major, minor)) if decimal(major) && decimal(minor))
);
text_id!(
    /// A region: where a node stands. (NET-3) [T-TOP-3]
    Region, "region", "1 to 32 of a-z, 0-9 and single dashes between them", |t| kebab(t, 32)
);
text_id!(
    /// A tenant.
    TenantId, "tenant id", "1 to 64 of a-z, 0-9 and single dashes between them", |t| kebab(t, 64)
);

impl ModelVersion {
    /// Major and minor, for ordering.
    #[must_use]
    pub fn numbers(&self) -> (u32, u32) {
        let (major, minor) = self.0.split_once('.').unwrap_or((&self.0, "0"));
        (major.parse().unwrap_or(0), minor.parse().unwrap_or(0))
    }
}

/// A model and its version; `name@MAJOR.MINOR` in text.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ModelRef {
    /// Name of the model.
    pub name: ModelName,
    /// Its version.
    pub version: ModelVersion,
}

impl fmt::Display for ModelRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, self.version)
    }
}

impl FromStr for ModelRef {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let (name, version) = text
            .split_once('@')
            .ok_or_else(|| IdError::new("model reference", "expected NAME@MAJOR.MINOR", text))?;
        Ok(Self {
            name: name.parse()?,
            version: version.parse()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_outside_the_rules_are_refused_with_the_rule() {
        for bad in ["", "-a", "a-", "a--b", "A", "a/b", "a b", &"x".repeat(65)] {
            let error = ModelName::new(bad).expect_err(bad);
            assert!(error.to_string().contains("a-z"), "{error}");
        }
        for bad in ["", "1", "1.", ".1", "01.0", "1.0.0", "1.a", "123456.0"] {
            assert!(ModelVersion::new(bad).is_err(), "{bad}");
        }
        assert!("tiny@1.0".parse::<ModelRef>().is_ok());
        assert!("tiny".parse::<ModelRef>().is_err());
    }

    #[test]
    fn ids_are_hex_in_json_and_bytes_in_cbor() {
        let id = NodeId([7; 32]);
        let json = serde_json_like(&id);
        assert_eq!(json, "07".repeat(32));
        let cbor = crate::codec::encode(&id);
        assert_eq!(cbor.len(), 34, "a two-byte header and the bytes");
        assert_eq!(crate::codec::decode::<NodeId>("id", &cbor, 64), Ok(id));
    }

    fn serde_json_like(id: &NodeId) -> String {
        id.to_string()
    }

    #[test]
    fn a_request_that_comes_again_asks_in_the_same_order_and_another_one_in_another() {
        let nodes: Vec<NodeId> = (0..5).map(|n| NodeId([n; 32])).collect();
        let order = |request: u8| {
            let mut nodes = nodes.clone();
            nodes.sort_by_key(|node| CorrelationId([request; 16]).rank(node));
            nodes
        };
        assert_eq!(order(1), order(1));
        assert!((2..20).any(|request| order(request)[0] != order(1)[0]));
    }

    #[test]
    fn a_token_of_one_tenant_is_another_request_for_another_tenant() {
        let a = TenantId::new("a").expect("valid");
        let ab = TenantId::new("ab").expect("valid");
        assert_eq!(
            CorrelationId::derive(&a, "x"),
            CorrelationId::derive(&a, "x")
        );
        assert_ne!(
            CorrelationId::derive(&a, "bx"),
            CorrelationId::derive(&ab, "x")
        );
    }
}
