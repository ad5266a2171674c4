//! Whether a copy that was refused is itself to blame, so that another one of the same artifact would be
//! right. Pure. (ART-4)

use crate::error::ArtifactError;
use rustix::io::Errno;

/// Whether another copy would pass. `is_manifest_right` says that the manifest that lies there is the
/// very one of the artifact's digest: what is refused for its words is refused in every copy.
pub(crate) fn is_damage(error: &ArtifactError, is_manifest_right: bool) -> bool {
    match error {
        // A sector that cannot be read; whatever else the file system refuses may pass.
        ArtifactError::Io { error, .. } => error.raw_os_error() == Some(Errno::IO.raw_os_error()),
        error if error.is_of_files() => true,
        error => !is_manifest_right && !error.is_passing(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::path::Path;
    use tether_wire::NodeId;

    #[test]
    fn a_copy_is_to_blame_for_its_bytes_and_not_for_what_its_publisher_said() {
        let corrupt = ArtifactError::CorruptFile("weights".to_owned());
        let untrusted = ArtifactError::UntrustedPublisher(NodeId([1; 32]));
        assert!(is_damage(&corrupt, true) && is_damage(&corrupt, false));
        assert!(!is_damage(&untrusted, true), "a copy would say the same");
        assert!(is_damage(&untrusted, false), "a flipped bit in the signer");
        assert!(!is_damage(&ArtifactError::Cancelled, false));
    }

    #[test]
    fn a_sector_that_cannot_be_read_is_damage_and_a_permission_is_not() {
        let refused = |errno: Errno| {
            let error = io::Error::from_raw_os_error(errno.raw_os_error());
            is_damage(&ArtifactError::io(Path::new("weights"), error), true)
        };
        assert!(refused(Errno::IO));
        assert!(!refused(Errno::ACCESS) && !refused(Errno::MFILE));
    }
}
