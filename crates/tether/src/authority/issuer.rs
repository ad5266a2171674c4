//! Who gives roles, invites others and takes both back: the operator of a mesh, by the first key or
//! by the one for recovery, or an operator of a region.

use super::mesh_id::{self, MeshKeys};
use super::register::{self, Entry, InviteEntry, Line, REGISTER, RevocationEntry};
use super::{AuthorityError, grant_file, key_file};
use std::path::{Path, PathBuf};
use tether_wire::control::{Control, Revocation, Target};
use tether_wire::grant::{Grant, Mesh, Role, Tier};
use tether_wire::{
    Invite, Membership, MeshId, NodeId, NodeKey, Region, Signable, Signed, Verified, VerifyError,
};

/// What is to be granted.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    pub(crate) subject: NodeId,
    pub(crate) role: Role,
    pub(crate) region: Option<Region>,
    pub(crate) tier: Tier,
    pub(crate) life_ms: u64,
}

/// Whom an invite is to let in.
#[derive(Debug, Clone)]
pub(crate) struct InviteOrder {
    pub(crate) region: Region,
    pub(crate) tier: Tier,
    pub(crate) uses: u32,
    /// How long it can be used.
    pub(crate) life_ms: u64,
    pub(crate) grant_life_ms: u64,
}

/// What is to be taken back.
#[derive(Debug, Clone)]
pub(crate) struct RevocationOrder {
    pub(crate) target: Target,
    pub(crate) keeps_issued: bool,
    pub(crate) reason: String,
}

/// Who issues.
#[derive(Debug)]
pub(crate) struct Issuer {
    key: NodeKey,
    mesh: Mesh,
    own_grant: Option<(Vec<u8>, Option<Region>)>,
    register: PathBuf,
}

impl Issuer {
    /// The operator of the mesh; the register is beside the key.
    pub(crate) fn operator(key_path: &Path, named: Option<MeshId>) -> Result<Self, AuthorityError> {
        let mesh = mesh_id::of_operator(key_path, named)?;
        Self::open(key_path, mesh, None)
    }

    /// An operator of a region, who passes its own grant on with each that it issues. Its mesh is
    /// the one that is named here, that is beside its key or, where neither is, that its grant rests
    /// on.
    pub(crate) fn regional(
        key_path: &Path,
        grant_path: &Path,
        named: Option<MeshId>,
        now_ms: u64,
    ) -> Result<Self, AuthorityError> {
        let refuse =
            |why: String| AuthorityError::Issue(format!("{}: {why}", grant_path.display()));
        let sealed = grant_file::read(grant_path)?;
        let keys = match (mesh_id::beside(key_path)?, named) {
            (Some(keys), _) => keys,
            (None, Some(id)) => MeshKeys { id, recovery: None },
            (None, None) => MeshKeys {
                id: grant_file::inspect(&sealed)
                    .ok_or_else(|| {
                        refuse("its mesh cannot be told from it: name it with --mesh".to_owned())
                    })?
                    .0,
                recovery: None,
            },
        };
        if let Some(named) = named.filter(|named| *named != keys.id) {
            return Err(refuse(format!(
                "it is a grant in mesh {}, but --mesh says {named}",
                keys.id
            )));
        }
        let own = Membership::new(keys.mesh())
            .verify_grant(&sealed, now_ms)
            .map_err(|error| refuse(format!("the issuer's own grant: {error}")))?;
        let key = key_file::read(key_path)?.id();
        if own.subject != key || own.role != Role::Operator {
            return Err(refuse(format!(
                "it makes {} a {}, and who issues needs one that makes its own key {key} an operator",
                own.subject, own.role
            )));
        }
        let own_grant = (sealed.as_bytes().to_vec(), own.region.clone());
        Self::open(key_path, keys, Some(own_grant))
    }

    fn open(
        key_path: &Path,
        keys: MeshKeys,
        own_grant: Option<(Vec<u8>, Option<Region>)>,
    ) -> Result<Self, AuthorityError> {
        Ok(Self {
            key: key_file::read(key_path)?,
            mesh: keys.mesh(),
            own_grant,
            register: mesh_id::place(key_path)?.with_file_name(REGISTER),
        })
    }

    /// The mesh for which it issues.
    pub(crate) fn mesh(&self) -> Mesh {
        self.mesh
    }

    /// Takes the recovery key's public half from elsewhere than the mesh id beside the key.
    pub(crate) fn set_recovery(&mut self, recovery: NodeId) {
        self.mesh.recovery = Some(recovery);
    }

    /// Its key.
    pub(crate) fn key(&self) -> &NodeKey {
        &self.key
    }

    /// Its own grant, where it is an operator of a region.
    pub(crate) fn own_grant(&self) -> Option<Vec<u8>> {
        self.own_grant.as_ref().map(|(grant, _)| grant.clone())
    }

    /// The region of which it is operator, where it is not of all.
    pub(crate) fn own_region(&self) -> Option<&Region> {
        self.own_grant.as_ref()?.1.as_ref()
    }

    /// Issues a grant under a new serial and enters it in the register.
    pub(crate) fn issue(
        &self,
        order: &Order,
        now_ms: u64,
    ) -> Result<(Signed<Grant>, Grant), AuthorityError> {
        register::enter(&self.register, |serial, _| {
            let grant = Grant {
                subject: order.subject,
                role: order.role,
                region: order.region.clone(),
                tier: order.tier,
                not_before_ms: now_ms,
                expires_ms: now_ms.saturating_add(order.life_ms),
                serial,
                issuer: self.own_grant(),
                consent: None,
                invite: None,
            };
            let sealed = self.seal(&grant)?;
            // What no node would take is not issued: a regional operator may not outlive itself.
            Membership::new(self.mesh)
                .verify_grant(&sealed, now_ms)
                .map_err(refused)?;
            let entry = Entry {
                serial,
                issuer: Some(self.key.id()),
                subject: grant.subject,
                role: grant.role,
                region: grant.region.clone(),
                tier: grant.tier,
                not_before_ms: grant.not_before_ms,
                expires_ms: grant.expires_ms,
            };
            Ok((Line::Grant(entry), (sealed, grant)))
        })
    }

    /// Issues an invite for a secret, and enters it without that.
    pub(crate) fn invite(
        &self,
        order: &InviteOrder,
        secret: &[u8; 32],
        now_ms: u64,
    ) -> Result<Verified<Invite>, AuthorityError> {
        register::enter(&self.register, |serial, _| {
            let invite = Invite {
                region: order.region.clone(),
                tier: order.tier,
                not_before_ms: now_ms,
                expires_ms: now_ms.saturating_add(order.life_ms),
                uses: order.uses,
                grant_life_ms: order.grant_life_ms,
                serial,
                secret: Invite::digest_of(secret),
                issuer: self.own_grant(),
            };
            let sealed = self.seal(&invite)?;
            let (verified, _) = sealed.verify_invite(&self.mesh).map_err(refused)?;
            let entry = InviteEntry {
                serial,
                issuer: self.key.id(),
                region: invite.region,
                tier: invite.tier,
                uses: invite.uses,
                not_before_ms: invite.not_before_ms,
                expires_ms: invite.expires_ms,
                grant_life_ms: invite.grant_life_ms,
            };
            Ok((Line::Invite(entry), verified))
        })
    }

    /// Signs a revocation, which counts from when somebody takes it: see [`Issuer::note`].
    pub(crate) fn revoke(
        &self,
        order: &RevocationOrder,
        now_ms: u64,
    ) -> Result<Control, AuthorityError> {
        let revocation = Revocation {
            target: order.target,
            keeps_issued: order.keeps_issued,
            reason: order.reason.clone(),
            issued_ms: now_ms,
            issuer: self.own_grant(),
        };
        let sealed = Signed::seal(&self.key, &self.mesh.id, &revocation)
            .map_err(|error| AuthorityError::Revoke(error.to_string()))?;
        sealed
            .verify_revocation(&self.mesh)
            .map_err(|error| AuthorityError::Revoke(error.to_string()))?;
        Ok(Control::Revocation(sealed.as_bytes().to_vec()))
    }

    /// Enters revocations that somebody took. One that is there already is there once.
    pub(crate) fn note(
        &self,
        orders: &[RevocationOrder],
        now_ms: u64,
    ) -> Result<(), AuthorityError> {
        let entry = |order: &RevocationOrder| RevocationEntry {
            target: order.target,
            keeps_issued: order.keeps_issued,
            reason: order.reason.clone(),
            issued_ms: now_ms,
        };
        let entries: Vec<_> = orders.iter().map(entry).collect();
        register::note(&self.register, &entries)
    }

    /// Whether this is the mesh's recovery key.
    pub(crate) fn is_recovery(&self) -> bool {
        self.own_grant.is_none() && self.key.id() != self.mesh.id.operator()
    }

    /// The register beside its key.
    pub(crate) fn register(&self) -> &Path {
        &self.register
    }

    /// Who gave a serial, as far as the register beside the key says.
    pub(crate) fn issuer_of(&self, serial: u64) -> Result<Option<NodeId>, AuthorityError> {
        Ok(register::read_file(&self.register)?.issuer_of(serial))
    }

    fn seal<T: Signable>(&self, value: &T) -> Result<Signed<T>, AuthorityError> {
        Signed::seal(&self.key, &self.mesh.id, value).map_err(|error: VerifyError| refused(error))
    }
}

fn refused(error: impl std::fmt::Display) -> AuthorityError {
    AuthorityError::Issue(error.to_string())
}

#[cfg(test)]
mod tests;
