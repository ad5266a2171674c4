//! A sealed grant in a file: hex with a comment, so that it can be read, mailed and pasted.
//!
//! A file holds one grant; while a node's key is replaced it holds two for a moment, of the new key
//! and of the old, so that whichever key is there finds its own ([`super::rotation`]).

use super::{AuthorityError, read_text};
use crate::files;
use std::path::Path;
use tether_wire::grant::chain::MAX_DEPTH;
use tether_wire::{Grant, MeshId, NodeId, Signable, Signed, Verified};

/// Most grants of one file.
const MAX_GRANTS: usize = 2;
/// Most bytes of a grant file: the hex of the largest grants, and comments.
const MAX_GRANT_FILE_BYTES: u64 = MAX_GRANTS as u64 * (2 * Grant::MAX_BYTES as u64 + 2_048);

/// Writes a grant, also over an old one. It is no secret, but nobody else's business either.
pub(crate) fn write(
    path: &Path,
    sealed: &Signed<Grant>,
    grant: &Grant,
) -> Result<(), AuthorityError> {
    files::replace_private(path, text(sealed, grant).as_bytes())
        .map_err(AuthorityError::io("cannot write grant", path))
}

/// Writes a grant and, after it, the one that it takes the place of.
pub(super) fn write_both(
    path: &Path,
    new: (&Signed<Grant>, &Grant),
    old: (&Signed<Grant>, &Grant),
) -> Result<(), AuthorityError> {
    let both = text(new.0, new.1) + &text(old.0, old.1);
    files::replace_private(path, both.as_bytes())
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

/// Reads a grant without judging it; of two the one that is to stay.
pub(crate) fn read(path: &Path) -> Result<Signed<Grant>, AuthorityError> {
    Ok(read_all(path)?.swap_remove(0))
}

/// Reads the grant of a key without judging it; where none is for that key, another one.
pub(crate) fn read_of(path: &Path, subject: &NodeId) -> Result<Signed<Grant>, AuthorityError> {
    let mut all = read_all(path)?;
    let at = all
        .iter()
        .position(|sealed| unverified(sealed).is_some_and(|grant| grant.subject == *subject));
    Ok(all.swap_remove(at.unwrap_or(0)))
}

/// The grants of a file: one at least.
fn read_all(path: &Path) -> Result<Vec<Signed<Grant>>, AuthorityError> {
    let text = read_text(path, MAX_GRANT_FILE_BYTES)?;
    let malformed = |why: String| AuthorityError::Malformed {
        path: path.to_owned(),
        what: "a grant made by `tether grant issue`",
        why,
    };
    let grants = super::payloads(&text)
        .map(|line| hex::decode(line).map(Signed::from_bytes))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| malformed(error.to_string()))?;
    match grants.len() {
        0 => Err(malformed("it is empty".to_owned())),
        1..=MAX_GRANTS => Ok(grants),
        _ => Err(malformed(
            "it has more lines than grants besides comments".to_owned(),
        )),
    }
}

/// What a grant says, whoever signed it.
fn unverified(sealed: &Signed<Grant>) -> Option<Grant> {
    let body = sealed.as_bytes().get(tether_wire::envelope::HEADER_LEN..)?;
    tether_wire::codec::decode(Grant::WHAT, body, Grant::MAX_BYTES).ok()
}

/// The mesh in which the grant's signature holds: that of the operator whose grant it rests on. For
/// people who look at a grant without knowing whose it is. What rests on a mesh's recovery key names
/// its mesh nowhere.
pub(crate) fn inspect(sealed: &Signed<Grant>) -> Option<(MeshId, Verified<Grant>)> {
    let mut above = sealed.clone();
    for _ in 0..MAX_DEPTH {
        let mesh = MeshId(above.claimed_signer()?.0);
        if let Ok(grant) = sealed.verify(&mesh) {
            return Some((mesh, grant));
        }
        above = Signed::from_bytes(unverified(&above)?.issuer?);
    }
    None
}
