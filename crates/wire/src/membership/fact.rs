//! What control messages say. [T-CTL-7]

use super::shelf::Group;
use super::{ControlError, MAX_REPLACED_OF_GRANT};
use crate::codec;
use crate::control::{Control, Revocation, Target};
use crate::envelope::{Signed, Verified};
use crate::grant::chain::Chain;
use crate::grant::{Grant, Mesh};
use crate::id::{Digest, NodeId};
use crate::invite::Invite;
use serde::Serialize;

/// What a control message says, once it was checked who signed it. Messages that say the same are
/// one. [T-CTL-7]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fact {
    /// A key is revoked.
    Key {
        /// Which.
        key: NodeId,
        /// Whether what rests on it goes on.
        keeps_issued: bool,
        /// Who revoked it.
        by: NodeId,
    },
    /// What an operator gave this number is revoked.
    Serial {
        /// The operator.
        issuer: NodeId,
        /// The number.
        serial: u64,
        /// Who revoked it.
        by: NodeId,
    },
    /// A key was replaced.
    Replaced {
        /// Of the sealed grant that was passed on first.
        grant: Digest,
        /// How often it was passed on before.
        depth: u8,
        /// The key that counts no more.
        old: NodeId,
        /// The one that took over.
        new: NodeId,
    },
    /// A worker came by an invite.
    Used {
        /// Of the sealed invite.
        invite: Digest,
        /// Unix milliseconds at which the worker came.
        came_ms: u64,
        /// The worker.
        subject: NodeId,
    },
}

impl Fact {
    /// By which it is known among facts. [T-CTL-7]
    #[must_use]
    pub fn id(&self) -> Digest {
        Digest::of(&codec::encode(self))
    }

    /// Whether it takes something back, and so is told before others.
    #[must_use]
    pub fn is_revocation(&self) -> bool {
        matches!(self, Self::Key { .. } | Self::Serial { .. })
    }
}

/// A fact, and the control message that proves it; for the mesh that checked it.
#[derive(Clone, Debug)]
pub struct Checked {
    pub(super) fact: Fact,
    control: Control,
    /// What it rests on, where it is no revocation.
    pub(super) group: Option<Group>,
}

impl Checked {
    /// What it says.
    #[must_use]
    pub fn fact(&self) -> &Fact {
        &self.fact
    }

    /// The message to pass on.
    #[must_use]
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// All that a control message says. A grant that rests on others says what they say, too.
    pub(super) fn all(control: &Control, mesh: &Mesh) -> Result<Vec<Self>, ControlError> {
        match control {
            Control::Revocation(sealed) => {
                let sealed = Signed::<Revocation>::from_bytes(sealed.as_slice());
                let revocation = sealed.verify_revocation(mesh)?;
                let (by, keeps_issued) = (revocation.signer(), revocation.keeps_issued);
                Ok(vec![Self {
                    fact: match revocation.target {
                        Target::Key(key) => Fact::Key {
                            key,
                            keeps_issued,
                            by,
                        },
                        Target::Serial { issuer, serial } => Fact::Serial { issuer, serial, by },
                    },
                    control: control.clone(),
                    group: None,
                }])
            }
            Control::Grant(sealed) => {
                let sealed = Signed::<Grant>::from_bytes(sealed.as_slice());
                let chain = Chain::verify(&sealed, mesh)?;
                let mut facts = replaced(chain.grants(), mesh);
                facts.extend(used(&chain, mesh));
                if facts.is_empty() {
                    return Err(ControlError::Plain(chain.leaf().subject));
                }
                Ok(facts)
            }
        }
    }

    fn new(grant: &Verified<Grant>, fact: Fact, group: Group) -> Self {
        Self {
            fact,
            control: Control::Grant(grant.bytes().to_vec()),
            group: Some(group),
        }
    }
}

/// What grants say about keys that were replaced. They come from the leaf up.
fn replaced(grants: &[Verified<Grant>], mesh: &Mesh) -> Vec<Checked> {
    let mut facts = Vec::new();
    let mut passed: Option<(Group, u8)> = None;
    for (at, grant) in grants.iter().enumerate().rev() {
        if grant.consent.is_none() {
            passed = Some((grant_group(&grants[at..], mesh), 0));
            continue;
        }
        // The last one of a chain is the operator's, and passes nothing on.
        let Some((group, depth)) = &mut passed else {
            continue;
        };
        let fact = Fact::Replaced {
            grant: group.digest,
            depth: *depth,
            old: grant.signer(),
            new: grant.subject,
        };
        facts.push(Checked::new(grant, fact, *group));
        *depth += 1;
    }
    facts
}

/// What a chain says about the use of an invite.
fn used(chain: &Chain, mesh: &Mesh) -> Option<Checked> {
    let (came, invited) = chain.invited()?;
    let group = invite_group(&invited.invite, &invited.rests_on, mesh);
    let fact = Fact::Used {
        invite: group.digest,
        came_ms: came.not_before_ms,
        subject: came.subject,
    };
    Some(Checked::new(came, fact, group))
}

/// All that is about a grant that was passed on, the first of these; it rests on the others.
fn grant_group(grants: &[Verified<Grant>], mesh: &Mesh) -> Group {
    let grant = &grants[0];
    let top = grants.last().unwrap_or(grant).signer();
    Group {
        digest: Digest::of(grant.bytes()),
        owner: Some(grant.signer()).filter(|by| !mesh.is_root(by)),
        on_first: top == mesh.id.operator(),
        ends_ms: grant.expires_ms,
        most: MAX_REPLACED_OF_GRANT,
    }
}

/// All that is about an invite, which rests on these grants.
pub(super) fn invite_group(
    invite: &Verified<Invite>,
    rests_on: &[Verified<Grant>],
    mesh: &Mesh,
) -> Group {
    let top = rests_on.last().map_or(invite.signer(), Verified::signer);
    Group {
        digest: Digest::of(invite.bytes()),
        owner: Some(invite.signer()).filter(|by| !mesh.is_root(by)),
        on_first: top == mesh.id.operator(),
        ends_ms: invite.expires_ms.saturating_add(invite.grant_life_ms),
        most: usize::try_from(invite.uses).unwrap_or(usize::MAX),
    }
}
