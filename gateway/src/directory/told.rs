//! What the updates of one subscription come to. Pure.

use super::{Directory, UpdateError};
use tether_wire::directory::DirectoryUpdate;

/// What was told so far. Pieces of a version are taken over one by one, within the limits of a
/// directory, so that nothing is kept beside it; but nobody is shown it before the last one is there:
/// a tenant would be shown models by the rule of another. [T-DIR-2]
#[derive(Debug, Default)]
pub(crate) struct Told {
    directory: Option<Directory>,
    /// Whether there are further pieces of its version.
    more: bool,
}

impl Told {
    /// Takes an update over: the directory after it, where it is whole. Behind an error everything is
    /// to be told anew.
    pub(crate) fn take(
        &mut self,
        update: DirectoryUpdate,
    ) -> Result<Option<&Directory>, UpdateError> {
        let mut next = match self.directory.take() {
            Some(directory) if self.more => {
                let version = directory.version;
                if update.whole || update.version != version {
                    return Err(UpdateError::Pieces { version });
                }
                directory
            }
            _ if update.whole => Directory::default(),
            None => return Err(UpdateError::NotWhole),
            Some(directory) if update.version <= directory.version => {
                let (old, new) = (directory.version, update.version);
                return Err(UpdateError::Order { old, new });
            }
            Some(directory) => directory,
        };
        let more = update.more;
        next.take(update)?;
        self.more = more;
        let next = self.directory.insert(next);
        Ok((!more).then_some(next))
    }
}
