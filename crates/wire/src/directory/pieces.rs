//! How an update that is too large for a frame is sent, in pieces. [T-DIR-2]

use super::DirectoryUpdate;

/// Most tenants that one piece tells of: with 16 keys each, all models and all rules they stay below
/// [`super::MAX_UPDATE_BYTES`].
pub const MAX_TENANTS_PER_UPDATE: usize = 4_096;

impl DirectoryUpdate {
    /// The pieces in which it is sent, one where it fits: all of its version, the last one alone
    /// without `more`. Models and rules are in the first one.
    #[must_use]
    pub fn pieces(mut self) -> Vec<Self> {
        let tenants = std::mem::take(&mut self.tenants);
        let removed = std::mem::take(&mut self.removed_tenants);
        let most = tenants.len().max(removed.len());
        let count = most.div_ceil(MAX_TENANTS_PER_UPDATE).max(1);
        let (mut tenants, mut removed) = (tenants.into_iter(), removed.into_iter());
        let rest = Self {
            version: self.version,
            ..Self::default()
        };
        std::iter::once(self)
            .chain(std::iter::repeat_n(rest, count - 1))
            .enumerate()
            .map(|(at, piece)| Self {
                tenants: tenants.by_ref().take(MAX_TENANTS_PER_UPDATE).collect(),
                removed_tenants: removed.by_ref().take(MAX_TENANTS_PER_UPDATE).collect(),
                more: at + 1 < count,
                ..piece
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::TenantEntry;
    use crate::id::TenantId;

    fn update(tenants: usize, removed: usize) -> DirectoryUpdate {
        let id = |n: usize| TenantId::new(format!("{n:064}")).expect("valid");
        DirectoryUpdate {
            version: 3,
            whole: true,
            tenants: (0..tenants)
                .map(|n| TenantEntry {
                    id: id(n),
                    key_hashes: Vec::new(),
                    rule: 0,
                })
                .collect(),
            removed_tenants: (0..removed).map(|n| id(tenants + n)).collect(),
            models: Some(Vec::new()),
            rules: Some(Vec::new()),
            more: false,
        }
    }

    #[test]
    fn what_fits_one_update_is_sent_as_it_is() {
        for update in [update(0, 0), update(MAX_TENANTS_PER_UPDATE, 7)] {
            assert_eq!(update.clone().pieces(), [update]);
        }
    }

    /// [T-DIR-2]
    #[test]
    fn what_does_not_fit_comes_in_pieces_that_hold_all_of_it_once_and_say_which_is_the_last() {
        const MOST: usize = MAX_TENANTS_PER_UPDATE;
        for (tenants, removed) in [(MOST + 1, 0), (0, 2 * MOST + 1), (MOST, 3 * MOST)] {
            let update = update(tenants, removed);
            let pieces = update.clone().pieces();
            let more: Vec<bool> = pieces.iter().map(|it| it.more).collect();
            assert!(more.iter().rev().skip(1).all(|more| *more) && !more[more.len() - 1]);
            assert!(pieces.iter().all(|it| it.version == 3));
            assert!(pieces.iter().skip(1).all(|it| !it.whole));
            let mut joined = pieces[0].clone();
            for piece in &pieces {
                assert!(piece.tenants.len() <= MOST && piece.removed_tenants.len() <= MOST);
            }
            for piece in pieces.into_iter().skip(1) {
                assert!(piece.models.is_none() && piece.rules.is_none());
                joined.tenants.extend(piece.tenants);
                joined.removed_tenants.extend(piece.removed_tenants);
            }
            joined.more = false;
            assert_eq!(joined, update);
        }
    }
}
