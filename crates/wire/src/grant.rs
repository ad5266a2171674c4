//! Grants: who may do what in a mesh. (NET-8) [T-GRA-1] to [T-GRA-6]
//!
//! A mesh is its operator's key. The operator signs grants; a grant gives one key one role, in one
//! region or in all, for a time. An operator of a region holds a grant of that role and may issue
//! grants for it, which never outlive its own.

use crate::codec::{self, CodecError};
use crate::envelope::{Signable, Signed, Verified, VerifyError};
use crate::id::{MeshId, NodeId, Region};
use serde::{Deserialize, Serialize};
use std::fmt;

/// What a node is in the mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Takes tenants' requests.
    Gateway,
    /// Keeps the fleet, places requests, owns jobs.
    Orchestrator,
    /// Serves inference.
    Worker,
    /// Signs artifacts.
    Publisher,
    /// Issues grants for one region.
    Operator,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gateway => "gateway",
            Self::Orchestrator => "orchestrator",
            Self::Worker => "worker",
            Self::Publisher => "publisher",
            Self::Operator => "operator",
        })
    }
}

impl std::str::FromStr for Role {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        [
            Self::Gateway,
            Self::Orchestrator,
            Self::Worker,
            Self::Publisher,
            Self::Operator,
        ]
        .into_iter()
        .find(|role| role.to_string() == text)
        .ok_or_else(|| {
            format!(
                "`{text}` is not a role: use gateway, orchestrator, worker, publisher or operator"
            )
        })
    }
}

/// How far the results of a worker are believed. (TRU-1)
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Tier {
    /// Anyone: results are validated.
    #[default]
    Untrusted,
    /// Vetted by the operator: results are spot-checked.
    Trusted,
}

/// Who may come. (PRE-6)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// Every node needs a grant; the topics' keys are keyed with the mesh id.
    #[default]
    Private,
    /// Workers may come without a grant, as untrusted; the topics' keys are unkeyed.
    Open,
}

/// A mesh as a node knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mesh {
    /// Public key of the operator.
    pub id: MeshId,
    /// Who may come.
    pub access: Access,
}

impl Mesh {
    /// What the topics' keys are keyed with. [T-TOP-4]
    #[must_use]
    pub fn topic_key(&self, topic: &crate::Topic) -> crate::TopicKey {
        topic.key(match self.access {
            Access::Private => Some(&self.id),
            Access::Open => None,
        })
    }
}

/// A role given to a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Whose role it is.
    pub subject: NodeId,
    /// The role.
    pub role: Role,
    /// Where it holds; nothing means in every region.
    #[serde(default)]
    pub region: Option<Region>,
    /// How far a worker is believed.
    #[serde(default)]
    pub tier: Tier,
    /// Unix milliseconds from which it holds.
    pub not_before_ms: u64,
    /// Unix milliseconds from which it no longer holds.
    pub expires_ms: u64,
    /// Number given by the issuer, by which it can be revoked.
    pub serial: u64,
    /// The issuer's own grant (a sealed [`Grant`] of role operator) where the issuer is not the
    /// operator of the mesh.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "serde_bytes")]
    pub issuer: Option<Vec<u8>>,
}

/// Longest life of a grant: two years. Grants renew. [T-GRA-3]
pub const MAX_GRANT_LIFE_MS: u64 = 2 * 366 * 24 * 3_600_000;
/// How far a verifier's clock may be behind the issuer's. [T-GRA-4]
pub const GRANT_SKEW_MS: u64 = 5 * 60_000;

impl Signable for Grant {
    const WHAT: &'static str = "grant";
    const DOMAIN: &'static str = "tether/grant/1";
    const MAX_BYTES: usize = 2_048;

    fn check(&self, _: &NodeId) -> Result<(), CodecError> {
        codec::check_field(
            Self::WHAT,
            "expires_ms",
            self.expires_ms > self.not_before_ms,
            || "is not after not_before_ms".to_owned(),
        )?;
        let life = self.expires_ms.saturating_sub(self.not_before_ms);
        codec::check_field(Self::WHAT, "expires_ms", life <= MAX_GRANT_LIFE_MS, || {
            "is more than two years after not_before_ms".to_owned()
        })
    }
}

/// Why a grant is worth nothing here and now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GrantError {
    /// Not rightly signed.
    #[error(transparent)]
    Invalid(#[from] VerifyError),
    /// Signed by somebody who may not issue it.
    #[error("the grant is signed by {signer}, who may not issue it: {why}")]
    Issuer {
        /// The signer.
        signer: NodeId,
        /// Why they may not.
        why: &'static str,
    },
    /// Over.
    #[error("the grant (serial {serial}) expired {ago_s} s ago: ask the operator for a new one")]
    Expired {
        /// Its number.
        serial: u64,
        /// Seconds since.
        ago_s: u64,
    },
    /// Not yet begun.
    #[error("the grant (serial {serial}) holds only in {in_s} s: check this node's clock")]
    NotYet {
        /// Its number.
        serial: u64,
        /// Seconds until.
        in_s: u64,
    },
}

impl Signed<Grant> {
    /// Verifies signature, issuer and time. [T-GRA-2] to [T-GRA-5]
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn verify_grant(&self, mesh: &MeshId, now_ms: u64) -> Result<Verified<Grant>, GrantError> {
        let grant = self.verify(mesh)?;
        if grant.signer() != mesh.operator() {
            verify_issuer(&grant, mesh)?;
        }
        let serial = grant.serial;
        if now_ms >= grant.expires_ms {
            return Err(GrantError::Expired {
                serial,
                ago_s: (now_ms - grant.expires_ms) / 1000,
            });
        }
        if now_ms.saturating_add(GRANT_SKEW_MS) < grant.not_before_ms {
            return Err(GrantError::NotYet {
                serial,
                in_s: (grant.not_before_ms - now_ms) / 1000,
            });
        }
        Ok(grant)
    }
}

/// One level of delegation: the issuer holds a grant of role operator from the mesh's operator.
fn verify_issuer(grant: &Verified<Grant>, mesh: &MeshId) -> Result<(), GrantError> {
    let refuse = |why| {
        Err(GrantError::Issuer {
            signer: grant.signer(),
            why,
        })
    };
    let Some(bytes) = &grant.issuer else {
        return refuse("it is not the operator of this mesh");
    };
    let issuer = Signed::<Grant>::from_bytes(bytes.as_slice()).verify(mesh)?;
    if issuer.signer() != mesh.operator() {
        return refuse("its own grant is not signed by the operator of this mesh");
    }
    if issuer.subject != grant.signer() || issuer.role != Role::Operator {
        return refuse("its own grant does not make it an operator");
    }
    if grant.role == Role::Operator {
        return refuse("only the operator of the mesh makes operators");
    }
    if issuer.region.is_some() && issuer.region != grant.region {
        return refuse("it is operator of another region");
    }
    if grant.expires_ms > issuer.expires_ms || grant.not_before_ms < issuer.not_before_ms {
        return refuse("the grant outlives its issuer's own");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::NodeKey;

    const NOW: u64 = 1_800_000_000_000;
    const DAY: u64 = 86_400_000;

    fn operator() -> NodeKey {
        NodeKey::from_seed([1; 32])
    }
    fn mesh() -> MeshId {
        MeshId(operator().id().0)
    }
    fn grant(subject: &NodeKey, role: Role) -> Grant {
        Grant {
            subject: subject.id(),
            role,
            region: Some(Region::new("eu").expect("valid")),
            tier: Tier::Trusted,
            not_before_ms: NOW,
            expires_ms: NOW + DAY,
            serial: 1,
            issuer: None,
        }
    }
    fn seal(key: &NodeKey, grant: &Grant) -> Signed<Grant> {
        Signed::seal(key, &mesh(), grant).expect("inside limits")
    }

    #[test]
    fn the_operators_grant_holds_from_its_begin_to_its_end() {
        let signed = seal(
            &operator(),
            &grant(&NodeKey::from_seed([2; 32]), Role::Worker),
        );
        assert!(signed.verify_grant(&mesh(), NOW).is_ok());
        assert!(signed.verify_grant(&mesh(), NOW + DAY - 1).is_ok());
        let late = signed.verify_grant(&mesh(), NOW + DAY).expect_err("over");
        assert!(matches!(late, GrantError::Expired { .. }));
        let early = signed
            .verify_grant(&mesh(), NOW - GRANT_SKEW_MS - 1)
            .expect_err("early");
        assert!(matches!(early, GrantError::NotYet { .. }));
    }

    #[test]
    fn a_grant_that_a_stranger_signed_is_refused() {
        let stranger = NodeKey::from_seed([3; 32]);
        let signed = seal(&stranger, &grant(&stranger, Role::Orchestrator));
        let error = signed
            .verify_grant(&mesh(), NOW)
            .expect_err("not the operator");
        assert!(matches!(error, GrantError::Issuer { .. }), "{error}");
    }

    #[test]
    fn an_operator_of_a_region_grants_there_and_never_beyond_itself() {
        let regional = NodeKey::from_seed([4; 32]);
        let worker = NodeKey::from_seed([5; 32]);
        let own = seal(&operator(), &grant(&regional, Role::Operator));
        let issue = |change: fn(&mut Grant)| {
            let mut g = grant(&worker, Role::Worker);
            g.issuer = Some(own.as_bytes().to_vec());
            change(&mut g);
            seal(&regional, &g).verify_grant(&mesh(), NOW)
        };
        assert!(issue(|_| ()).is_ok());
        assert!(issue(|g| g.expires_ms += 1).is_err(), "outlives its issuer");
        assert!(issue(|g| g.region = Some(Region::new("us").expect("valid"))).is_err());
        assert!(
            issue(|g| g.region = None).is_err(),
            "wider than its issuer's"
        );
        assert!(
            issue(|g| g.role = Role::Operator).is_err(),
            "operators make no operators"
        );
        assert!(issue(|g| g.issuer = None).is_err());
    }

    #[test]
    fn a_grant_for_ever_is_not_issued() {
        let mut g = grant(&NodeKey::from_seed([2; 32]), Role::Worker);
        g.expires_ms = NOW + MAX_GRANT_LIFE_MS + 1;
        assert!(Signed::seal(&operator(), &mesh(), &g).is_err());
    }
}
