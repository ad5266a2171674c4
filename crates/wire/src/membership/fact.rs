//! What control messages say. [T-CTL-7]

use super::shelf::{Basis, Group};
use super::{ControlError, MAX_REPLACED_OF_KEY};
use crate::codec;
use crate::control::{Control, Revocation, Target};
use crate::envelope::{Signed, Verified};
use crate::grant::chain::Chain;
use crate::grant::{Grant, MAX_GRANT_LIFE_MS, Mesh};
use crate::id::{Digest, NodeId};
use crate::invite::{Invite, MAX_INVITE_LIFE_MS};
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
        /// The key that first held the grant.
        first: NodeId,
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
        /// Who let it in.
        by: NodeId,
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
    /// On whose word.
    pub(super) basis: Basis,
    /// With what it is counted, where it is no revocation.
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
                let rests_on = match &revocation.issuer {
                    Some(own) if !mesh.is_root(&by) => {
                        let own = Signed::<Grant>::from_bytes(own.as_slice());
                        Chain::verify(&own, mesh)?.grants().to_vec()
                    }
                    _ => Vec::new(),
                };
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
                    basis: basis([by], &rests_on, u64::MAX),
                    group: None,
                }])
            }
            Control::Grant(sealed) => {
                let sealed = Signed::<Grant>::from_bytes(sealed.as_slice());
                let chain = Chain::verify(&sealed, mesh)?;
                let mut facts = replaced(chain.grants());
                facts.extend(used(&chain));
                if facts.is_empty() {
                    return Err(ControlError::Plain(chain.leaf().subject));
                }
                Ok(facts)
            }
        }
    }

    fn new(grant: &Verified<Grant>, fact: Fact, basis: Basis, group: Group) -> Self {
        Self {
            fact,
            control: Control::Grant(grant.bytes().to_vec()),
            basis,
            group: Some(group),
        }
    }
}

/// What grants say about keys that were replaced. They come from the leaf up.
fn replaced(grants: &[Verified<Grant>]) -> Vec<Checked> {
    let mut facts = Vec::new();
    let mut passed: Option<(usize, u8)> = None;
    for (at, grant) in grants.iter().enumerate().rev() {
        if grant.consent.is_none() {
            passed = Some((at, 0));
            continue;
        }
        // The last one of a chain is the operator's, and passes nothing on.
        let Some((first, depth)) = &mut passed else {
            continue;
        };
        let first = &grants[*first..];
        // The old key may hold another grant, which began before this one ended, or come by its
        // invite again.
        let ends_ms = (grant.expires_ms)
            .saturating_add(MAX_INVITE_LIFE_MS)
            .saturating_add(MAX_GRANT_LIFE_MS);
        let basis = basis([], first, ends_ms);
        let holder = first[0].subject;
        let group = Group {
            name: Digest(holder.0),
            owner: basis.owner,
            most: MAX_REPLACED_OF_KEY,
        };
        let fact = Fact::Replaced {
            first: holder,
            depth: *depth,
            old: grant.signer(),
            new: grant.subject,
        };
        facts.push(Checked::new(grant, fact, basis, group));
        *depth += 1;
    }
    facts
}

/// What a chain says about the use of an invite.
fn used(chain: &Chain) -> Option<Checked> {
    let (came, invited) = chain.invited()?;
    let (invite, rests_on) = (&invited.invite, &invited.rests_on);
    let group = invite_group(invite, rests_on);
    let fact = Fact::Used {
        invite: group.name,
        came_ms: came.not_before_ms,
        subject: came.subject,
        by: came.signer(),
    };
    let at = (chain.grants().iter()).position(|grant| grant.bytes() == came.bytes())?;
    let all = [&chain.grants()[at..], rests_on.as_slice()].concat();
    let ends_ms = invite.expires_ms.saturating_add(invite.grant_life_ms);
    let basis = Basis {
        owner: group.owner,
        ..basis([invite.signer()], &all, ends_ms)
    };
    Some(Checked::new(came, fact, basis, group))
}

/// On whose word something by these signers stands, whose right rests on these grants.
fn basis<const N: usize>(by: [NodeId; N], grants: &[Verified<Grant>], ends_ms: u64) -> Basis {
    Basis {
        owner: grants.last().map(|granted| granted.subject),
        signers: (by.into_iter())
            .chain(grants.iter().map(Verified::signer))
            .collect(),
        ends_ms,
    }
}

/// All who came by an invite, which rests on these grants.
pub(super) fn invite_group(invite: &Verified<Invite>, rests_on: &[Verified<Grant>]) -> Group {
    Group {
        name: Digest::of(invite.bytes()),
        owner: rests_on.last().map(|granted| granted.subject),
        most: usize::try_from(invite.uses).unwrap_or(usize::MAX),
    }
}
