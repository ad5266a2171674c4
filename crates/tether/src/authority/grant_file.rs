//! A sealed grant in a file: hex with a comment, so that it can be read, mailed and pasted.

use super::{AuthorityError, payload, read_text};
use crate::files;
use std::path::Path;
use tether_wire::{Grant, Signable, Signed, Verified};

/// Most bytes of a grant file: the hex of the largest grant, and comments.
const MAX_GRANT_FILE_BYTES: u64 = 2 * Grant::MAX_BYTES as u64 + 2_048;

/// Writes a grant, also over an old one. It is no secret, but nobody else's business either.
pub(crate) fn write(
    path: &Path,
    sealed: &Signed<Grant>,
    grant: &Grant,
) -> Result<(), AuthorityError> {
    files::replace_private(path, text(sealed, grant).as_bytes())
        .map_err(AuthorityError::io("cannot write grant", path))
}

/// Writes a grant to a new file.
pub(crate) fn create(
    path: &Path,
    sealed: &Signed<Grant>,
    grant: &Grant,
) -> Result<(), AuthorityError> {
    files::create_private(path, text(sealed, grant).as_bytes()).map_err(|error| {
        match error.kind() {
            std::io::ErrorKind::AlreadyExists => exists(path),
            _ => AuthorityError::io("cannot write grant", path)(error),
        }
    })
}

/// Whether [`create`] would find its place taken: asked before a grant is issued for it.
pub(crate) fn require_free(path: &Path) -> Result<(), AuthorityError> {
    match path.symlink_metadata() {
        Ok(_) => Err(exists(path)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(AuthorityError::io("cannot look at", path)(error)),
    }
}

fn exists(path: &Path) -> AuthorityError {
    AuthorityError::Exists {
        path: path.to_owned(),
    }
}

fn text(sealed: &Signed<Grant>, grant: &Grant) -> String {
    let region = grant
        .region
        .as_ref()
        .map_or("every region", |region| region.as_str());
    format!(
        "# Grant {}: {} for {} in {region}, until {} (Unix ms).\n{}\n",
        grant.serial,
        grant.role,
        grant.subject,
        grant.expires_ms,
        hex::encode(sealed.as_bytes())
    )
}

/// Reads a grant without judging it.
pub(crate) fn read(path: &Path) -> Result<Signed<Grant>, AuthorityError> {
    let text = read_text(path, MAX_GRANT_FILE_BYTES)?;
    let malformed = |why: String| AuthorityError::Malformed {
        path: path.to_owned(),
        what: "a grant made by `tether grant issue`",
        why,
    };
    let bytes = hex::decode(payload(&text).map_err(malformed)?)
        .map_err(|error| malformed(error.to_string()))?;
    Ok(Signed::from_bytes(bytes))
}

/// The mesh in which the grant's signature holds: its signer's own, or that of the signer's issuer.
/// For people who look at a grant without knowing whose it is.
pub(crate) fn inspect(sealed: &Signed<Grant>) -> Option<(tether_wire::MeshId, Verified<Grant>)> {
    let signer = tether_wire::MeshId(sealed.claimed_signer()?.0);
    if let Ok(grant) = sealed.verify(&signer) {
        return Some((signer, grant));
    }
    // A regional operator signs for the mesh of whoever made it operator, and that grant is inside.
    let body = sealed.as_bytes().get(tether_wire::envelope::HEADER_LEN..)?;
    let unverified: Grant = tether_wire::codec::decode(Grant::WHAT, body, Grant::MAX_BYTES).ok()?;
    let issuer = Signed::<Grant>::from_bytes(unverified.issuer?);
    let mesh = tether_wire::MeshId(issuer.claimed_signer()?.0);
    Some((mesh, sealed.verify(&mesh).ok()?))
}
