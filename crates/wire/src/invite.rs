//! Invites: how a provider joins without the operator at hand. (PRE-6) [T-INV-1] to [T-INV-4]
//!
//! The operator signs an invite, which says who may come; the token that a provider is given holds
//! it beside a secret and the mesh's address. Only the secret's digest is in the invite, so that the
//! invite can be shown to anyone, and the secret is told to proven orchestrators alone.

use crate::codec::{self, CodecError, check_field, check_len};
use crate::envelope::{Signable, Signed, Verified};
use crate::grant::chain::Chain;
use crate::grant::{Access, Grant, GrantError, MAX_GRANT_LIFE_MS, Mesh, Role, Tier};
use crate::id::{Digest, MeshId, NodeId, Region};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// Longest time in which an invite can be used: 90 days. [T-INV-1]
pub const MAX_INVITE_LIFE_MS: u64 = 90 * 86_400_000;
/// Most workers that one invite lets in. [T-INV-1]
pub const MAX_USES: u32 = 10_000;
/// Most bytes of a token, as text. [T-INV-4]
pub const MAX_TOKEN_BYTES: usize = 4_096;
/// Most bootstrap nodes in a token. [T-INV-4]
pub const MAX_TOKEN_BOOTSTRAP: usize = 16;
/// How a token begins, so that one is known when it is found where it should not be.
pub const TOKEN_PREFIX: &str = "tether-join-1-";
/// What the digest of a secret is made of besides the secret.
const SECRET_CONTEXT: &[u8] = b"tether/invite-secret/1\0";

/// Who may come as a worker, when, and how many.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invite {
    /// Where the workers stand.
    pub region: Region,
    /// How far they may be believed at most.
    #[serde(default)]
    pub tier: Tier,
    /// Unix milliseconds from which it can be used.
    pub not_before_ms: u64,
    /// Unix milliseconds from which it can no longer be used; grants made by then go on.
    pub expires_ms: u64,
    /// Workers that it lets in.
    pub uses: u32,
    /// How long the grant of each lasts, from when it came.
    pub grant_life_ms: u64,
    /// Number given by the issuer, by which it can be revoked.
    pub serial: u64,
    /// Digest of the secret that who comes must know.
    pub secret: Digest,
    /// The issuer's own sealed [`Grant`], where it is an operator of a region.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "serde_bytes")]
    pub issuer: Option<Vec<u8>>,
}

impl Signable for Invite {
    const WHAT: &'static str = "invite";
    const DOMAIN: &'static str = "tether/invite/1";
    const MAX_BYTES: usize = 2_048;

    fn check(&self, _: &NodeId) -> Result<(), CodecError> {
        let what = Self::WHAT;
        let life = self.expires_ms.saturating_sub(self.not_before_ms);
        check_field(
            what,
            "expires_ms",
            (1..=MAX_INVITE_LIFE_MS).contains(&life),
            || "is not within 90 days after not_before_ms".to_owned(),
        )?;
        check_field(what, "uses", (1..=MAX_USES).contains(&self.uses), || {
            format!("is not 1 to {MAX_USES}")
        })?;
        check_field(
            what,
            "grant_life_ms",
            (1..=MAX_GRANT_LIFE_MS).contains(&self.grant_life_ms),
            || "is not within two years".to_owned(),
        )
    }
}

impl Invite {
    /// The digest by which an invite knows a secret.
    #[must_use]
    pub fn digest_of(secret: &[u8; 32]) -> Digest {
        Digest::of(&[SECRET_CONTEXT, secret].concat())
    }
}

impl Signed<Invite> {
    /// Verifies signature and issuer, not the time. The second value is what the issuer's right
    /// rests on. [T-INV-2]
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn verify_invite(
        &self,
        mesh: &Mesh,
    ) -> Result<(Verified<Invite>, Vec<Verified<Grant>>), GrantError> {
        let invite = self.verify(&mesh.id)?;
        let signer = invite.signer();
        if mesh.is_root(&signer) {
            return Ok((invite, Vec::new()));
        }
        let refuse = |why| Err(GrantError::Issuer { signer, why });
        let Some(own) = &invite.issuer else {
            return refuse("it is not the operator of this mesh");
        };
        let chain = Chain::verify(&Signed::from_bytes(own.as_slice()), mesh)?;
        let own = chain.leaf();
        if own.subject != signer || own.role != Role::Operator {
            return refuse("its own grant does not make it an operator");
        }
        if own.region.as_ref().is_some_and(|it| *it != invite.region) {
            return refuse("it is operator of another region");
        }
        if invite.expires_ms > own.expires_ms || invite.not_before_ms < own.not_before_ms {
            return refuse("the invite outlives its issuer's own grant");
        }
        Ok((invite, chain.grants().to_vec()))
    }
}

/// What a worker asks of an orchestrator over the method `join`. [T-INV-3]
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Join {
    /// The secret that belongs to the invite in its greeting.
    #[serde(with = "serde_bytes")]
    pub secret: [u8; 32],
}

impl std::fmt::Debug for Join {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Join(secret)")
    }
}

/// The answer: the worker is in. [T-INV-3]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    /// Its sealed [`Grant`].
    #[serde(with = "serde_bytes")]
    pub grant: Vec<u8>,
}

/// All that a provider needs to join: text that is pasted once. Whoever has it can use the invite.
/// [T-INV-4]
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// The mesh.
    pub mesh: MeshId,
    /// See [`Mesh::recovery`].
    #[serde(default)]
    pub recovery: Option<NodeId>,
    /// Who may come.
    pub access: Access,
    /// HyperDHT bootstrap nodes.
    pub bootstrap: Vec<SocketAddr>,
    /// The sealed [`Invite`].
    #[serde(with = "serde_bytes")]
    pub invite: Vec<u8>,
    /// The secret.
    #[serde(with = "serde_bytes")]
    pub secret: [u8; 32],
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Token(mesh {})", self.mesh)
    }
}

impl Token {
    /// The mesh that it leads to.
    #[must_use]
    pub fn mesh(&self) -> Mesh {
        Mesh {
            id: self.mesh,
            recovery: self.recovery,
            access: self.access,
        }
    }

    /// The text that is handed over.
    #[must_use]
    pub fn to_text(&self) -> String {
        format!("{TOKEN_PREFIX}{}", hex::encode(codec::encode(self)))
    }

    /// Reads a token and checks its limits, not its invite.
    ///
    /// # Errors
    /// What is wrong with the text; the secret in it is never quoted.
    pub fn from_text(text: &str) -> Result<Self, CodecError> {
        let what = "token";
        let malformed = |why: &str| CodecError::Malformed {
            what,
            why: why.to_owned(),
        };
        check_len(what, "text", text.len(), MAX_TOKEN_BYTES)?;
        let digits = (text.trim().strip_prefix(TOKEN_PREFIX))
            .ok_or_else(|| malformed("it does not begin with `tether-join-1-`"))?;
        let bytes = hex::decode(digits)
            .map_err(|_| malformed("it is cut off, or has characters that are no hex digits"))?;
        let token: Self = codec::decode("token", &bytes, MAX_TOKEN_BYTES)?;
        let bootstrap = token.bootstrap.len();
        check_len(what, "bootstrap", bootstrap, MAX_TOKEN_BOOTSTRAP)?;
        check_len(what, "invite", token.invite.len(), Invite::MAX_BYTES)?;
        Ok(token)
    }
}

#[cfg(test)]
mod tests;
