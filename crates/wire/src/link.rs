//! The greeting at the start of a link, and who is admitted. (NET-4, NET-6, NET-8) [T-LNK-1] to [T-LNK-6]
//!
//! The transport has already proved which key the other side holds. The dialler sends a [`Hello`];
//! the other side answers with its own, or with a [`Refusal`]. Both sides decide with [`admit`].

use crate::codec::{self, CodecError};
use crate::envelope::{Signed, Verified};
use crate::grant::{Access, Grant, GrantError, Role, Tier};
use crate::id::{MeshId, NodeId, Region};
use crate::membership::Membership;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// ALPN of our links; it carries the major version. [T-VER-3]
pub const ALPN: &[u8] = b"tether/1";
/// Most bytes of a greeting or its answer. [T-LNK-2]
pub const MAX_HELLO_BYTES: usize = 8_192;

/// Who is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Major version of the protocol.
    pub major: u16,
    /// Minor version of the protocol.
    pub minor: u16,
    /// The mesh that this node belongs to.
    pub mesh: MeshId,
    /// The role in which it links.
    pub role: Role,
    /// Where it stands.
    pub region: Region,
    /// Its sealed [`Grant`].
    #[serde(default, with = "serde_bytes")]
    pub grant: Option<Vec<u8>>,
    /// The sealed [`crate::Invite`] of a worker that has no grant yet. [T-INV-3]
    #[serde(default, skip_serializing_if = "Option::is_none", with = "serde_bytes")]
    pub invite: Option<Vec<u8>>,
    /// Name and version of the software, for people.
    #[serde(default)]
    pub agent: String,
    /// Random number of this run of the node, so that a restart is told from a second dial; 0 for
    /// nothing said. [T-LNK-6]
    #[serde(default, skip_serializing_if = "is_zero")]
    pub boot: u64,
    /// In an answer: the address at which the dialler is seen, where the link is a direct one. [T-LNK-8]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed: Option<SocketAddr>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Hello {
    /// Decodes and checks a greeting.
    ///
    /// # Errors
    /// When it is too large or not a greeting.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let hello: Self = codec::decode("hello", bytes, MAX_HELLO_BYTES)?;
        codec::check_len("hello", "agent", hello.agent.len(), 128)?;
        Ok(hello)
    }
}

/// Why a link is refused, in a form that programs can branch on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RefusalCode {
    /// Another major version of the protocol.
    Version,
    /// A node of another mesh.
    Mesh,
    /// A key that shows no grant, where one is needed.
    UnknownKey,
    /// The grant is for another key, or not signed by one who may.
    Grant,
    /// The grant is over or not yet begun.
    Expired,
    /// The grant gives another role or region than claimed, or this node links with no such role.
    Role,
    /// The key or its grant was revoked.
    Revoked,
    /// The invite has let in all whom it was for.
    Spent,
    /// Too many links, in total or from there.
    Busy,
    /// Not a greeting.
    Malformed,
    /// A reason that this version does not know.
    #[serde(other)]
    Other,
}

impl RefusalCode {
    /// Its name, for metrics and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Version => "version",
            Self::Mesh => "mesh",
            Self::UnknownKey => "unknown-key",
            Self::Grant => "grant",
            Self::Expired => "expired",
            Self::Role => "role",
            Self::Revoked => "revoked",
            Self::Spent => "spent",
            Self::Busy => "busy",
            Self::Malformed => "malformed",
            Self::Other => "other",
        }
    }
}

/// A refused link, with words for a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// For programs.
    pub code: RefusalCode,
    /// For people: what was wrong and what to do.
    pub message: String,
    /// The sealed [`Grant`] of who refuses, to a worker that shows an invite: it believes nobody who
    /// has not proved to be an orchestrator. [T-LNK-2]
    #[serde(default, skip_serializing_if = "Option::is_none", with = "serde_bytes")]
    pub grant: Option<Vec<u8>>,
    /// The [`crate::Control`] message by which the grant that was shown counts no more: who is
    /// refused may not have heard of it. [T-LNK-4]
    #[serde(default, skip_serializing_if = "Option::is_none", with = "serde_bytes")]
    pub revocation: Option<Vec<u8>>,
}

impl Refusal {
    /// A refusal.
    pub fn new(code: RefusalCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            grant: None,
            revocation: None,
        }
    }
}

/// The answer to a greeting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HelloAnswer {
    /// Admitted; this is who we are.
    Welcome(Hello),
    /// Not admitted.
    Refused(Refusal),
}

/// The other side of a link, admitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its key, proved by the transport.
    pub id: NodeId,
    /// Its role, proved by its grant (or a worker in an open mesh).
    pub role: Role,
    /// Where it stands.
    pub region: Region,
    /// How far it is believed: untrusted without a grant, whatever it claims.
    pub tier: Tier,
    /// Unix milliseconds at which its grant ends; nothing without a grant.
    pub grant_expires_ms: Option<u64>,
    /// Whether it shows an invite and no grant yet: it may join, and nothing else.
    pub is_joining: bool,
    /// Minor version that it speaks.
    pub minor: u16,
    /// Its software, for people.
    pub agent: String,
}

/// Decides whether a peer is admitted. Pure; used by both sides of every link. [T-LNK-3]
///
/// `accept` are the roles that this node links with.
///
/// # Errors
/// The refusal to send back.
pub fn admit(
    members: &Membership,
    accept: &[Role],
    peer: NodeId,
    hello: &Hello,
    now_ms: u64,
) -> Result<Peer, Refusal> {
    use RefusalCode as Code;
    let mesh = members.mesh();
    if hello.major != crate::PROTOCOL_MAJOR {
        let (ours, theirs) = (crate::PROTOCOL_MAJOR, hello.major);
        return Err(Refusal::new(
            Code::Version,
            format!(
                "this node speaks tether/{ours}, the other tether/{theirs}: bring both to one major version"
            ),
        ));
    }
    if hello.mesh != mesh.id {
        let (ours, theirs) = (mesh.id, hello.mesh);
        return Err(Refusal::new(
            Code::Mesh,
            format!(
                "this node belongs to mesh {ours}, the other to mesh {theirs}: check `mesh` in its configuration"
            ),
        ));
    }
    members.check_key(&peer)?;
    let role = hello.role;
    let mut admitted = Peer {
        id: peer,
        role,
        region: hello.region.clone(),
        tier: Tier::Untrusted,
        grant_expires_ms: None,
        is_joining: false,
        minor: hello.minor,
        agent: hello.agent.clone(),
    };
    match (&hello.grant, &hello.invite) {
        (Some(grant), _) => {
            let grant = check_grant(members, grant, peer, hello, now_ms)?;
            admitted.tier = grant.tier;
            admitted.grant_expires_ms = Some(grant.expires_ms);
        }
        (None, Some(invite)) if role == Role::Worker => {
            let sealed = Signed::from_bytes(invite.as_slice());
            let invite = members.verify_invite(&sealed, &peer, now_ms)?;
            if invite.region != hello.region {
                return Err(elsewhere("invite", &invite.region, &hello.region));
            }
            admitted.is_joining = true;
        }
        _ if mesh.access == Access::Open && role == Role::Worker => {}
        _ if role == Role::Operator && mesh.is_root(&peer) => {}
        _ => {
            return Err(Refusal::new(
                Code::UnknownKey,
                format!(
                    "key {peer} shows no grant, and this mesh knows no {role} without one: ask the operator for `tether grant issue`{}",
                    if role == Role::Worker {
                        " or an invite"
                    } else {
                        ""
                    }
                ),
            ));
        }
    }
    if !accept.contains(&role) {
        return Err(Refusal::new(
            Code::Role,
            format!("this node takes no links from a {role}"),
        ));
    }
    Ok(admitted)
}

impl From<GrantError> for Refusal {
    fn from(error: GrantError) -> Self {
        let code = match error {
            GrantError::Expired { .. } | GrantError::NotYet { .. } => RefusalCode::Expired,
            GrantError::Invalid(_) | GrantError::Issuer { .. } => RefusalCode::Grant,
            GrantError::Revoked(_) => RefusalCode::Revoked,
            GrantError::Spent { .. } => RefusalCode::Spent,
        };
        Self::new(code, error.to_string())
    }
}

fn elsewhere(what: &str, region: &Region, claimed: &Region) -> Refusal {
    Refusal::new(
        RefusalCode::Role,
        format!("the {what} is for region {region}, the node says it stands in {claimed}"),
    )
}

fn check_grant(
    members: &Membership,
    bytes: &[u8],
    peer: NodeId,
    hello: &Hello,
    now_ms: u64,
) -> Result<Verified<Grant>, Refusal> {
    use RefusalCode as Code;
    let grant = members.verify_grant(&Signed::from_bytes(bytes), now_ms)?;
    if grant.subject != peer {
        let subject = grant.subject;
        return Err(Refusal::new(
            Code::Grant,
            format!("the grant is for key {subject}, the link is of key {peer}"),
        ));
    }
    if grant.role != hello.role {
        let (granted, claimed) = (grant.role, hello.role);
        return Err(Refusal::new(
            Code::Role,
            format!("key {peer} claims to be {claimed}, its grant makes it {granted}"),
        ));
    }
    match &grant.region {
        Some(region) if *region != hello.region => Err(elsewhere("grant", region, &hello.region)),
        _ => Ok(grant),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grant::Mesh;
    use crate::key::NodeKey;

    const NOW: u64 = 1_800_000_000_000;

    fn operator() -> NodeKey {
        NodeKey::from_seed([1; 32])
    }
    fn mesh() -> Mesh {
        Mesh {
            id: MeshId(operator().id().0),
            recovery: None,
            access: Access::Invite,
        }
    }
    fn members() -> Membership {
        Membership::new(mesh())
    }
    fn peer() -> NodeKey {
        NodeKey::from_seed([2; 32])
    }
    fn region() -> Region {
        Region::new("eu").expect("valid")
    }
    fn granted(subject: NodeId, role: Role) -> Vec<u8> {
        let grant = Grant {
            subject,
            role,
            region: Some(region()),
            tier: Tier::Trusted,
            not_before_ms: NOW - 1000,
            expires_ms: NOW + 1000,
            serial: 7,
            issuer: None,
            consent: None,
            invite: None,
        };
        Signed::seal(&operator(), &mesh().id, &grant)
            .expect("valid")
            .as_bytes()
            .to_vec()
    }
    fn hello() -> Hello {
        Hello {
            major: crate::PROTOCOL_MAJOR,
            minor: 99,
            mesh: mesh().id,
            role: Role::Worker,
            region: region(),
            grant: Some(granted(peer().id(), Role::Worker)),
            invite: None,
            agent: "test".into(),
            boot: 0,
            observed: None,
        }
    }
    fn decide(hello: &Hello, now: u64) -> Result<Peer, RefusalCode> {
        admit(&members(), &[Role::Worker], peer().id(), hello, now).map_err(|refusal| refusal.code)
    }

    #[test]
    fn a_granted_worker_is_admitted_whatever_its_minor_version() {
        let admitted = decide(&hello(), NOW).expect("admitted");
        assert_eq!(
            (admitted.role, admitted.tier),
            (Role::Worker, Tier::Trusted)
        );
    }

    #[test]
    fn each_wrong_greeting_is_refused_for_its_own_reason() {
        let change = |f: fn(&mut Hello)| {
            let mut h = hello();
            f(&mut h);
            decide(&h, NOW).expect_err("refused")
        };
        assert_eq!(change(|h| h.major += 1), RefusalCode::Version);
        assert_eq!(change(|h| h.mesh = MeshId([9; 32])), RefusalCode::Mesh);
        assert_eq!(change(|h| h.grant = None), RefusalCode::UnknownKey);
        assert_eq!(change(|h| h.grant = Some(vec![1; 200])), RefusalCode::Grant);
        assert_eq!(
            change(|h| h.grant = Some(granted(NodeId([5; 32]), Role::Worker))),
            RefusalCode::Grant
        );
        assert_eq!(change(|h| h.role = Role::Orchestrator), RefusalCode::Role);
        assert_eq!(
            change(|h| h.region = Region::new("us").expect("valid")),
            RefusalCode::Role
        );
        assert_eq!(
            decide(&hello(), NOW + 1000).expect_err("over"),
            RefusalCode::Expired
        );
    }

    #[test]
    fn a_role_that_this_node_does_not_link_with_is_refused() {
        let mut h = hello();
        h.role = Role::Gateway;
        h.grant = Some(granted(peer().id(), Role::Gateway));
        assert_eq!(
            decide(&h, NOW).expect_err("no gateways here"),
            RefusalCode::Role
        );
    }

    #[test]
    fn in_an_open_mesh_only_workers_come_without_a_grant_and_as_untrusted() {
        let open = Membership::new(Mesh {
            access: Access::Open,
            ..mesh()
        });
        let mut h = hello();
        h.grant = None;
        let accept = [Role::Worker, Role::Gateway];
        let worker = admit(&open, &accept, peer().id(), &h, NOW).expect("admitted");
        assert_eq!(worker.tier, Tier::Untrusted);
        h.role = Role::Gateway;
        let gateway = admit(&open, &accept, peer().id(), &h, NOW).expect_err("refused");
        assert_eq!(gateway.code, RefusalCode::UnknownKey);
    }
}
