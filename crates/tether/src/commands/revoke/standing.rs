//! Which of the first key's revocations are to stand when it is gone: what the register says, decided.

use crate::authority::register::RevocationEntry;
use std::collections::BTreeMap;
use tether_wire::NodeId;
use tether_wire::control::Target;
use tether_wire::grant::Mesh;
use tether_wire::membership::MAX_REVOKED;

/// Most that are signed anew: what a mesh keeps of one key, but the first key itself. [T-CTL-6]
const MAX_ANEW: usize = MAX_REVOKED - 1;

/// Which revocations of the first key are to stand when it is gone, the oldest first and each once.
///
/// Not among them: its own serials, which fall with it; its own key, which is what is revoked; and the
/// recovery key, which nobody revokes. Of two revocations of a key the stricter counts. [T-CTL-7]
pub(super) fn standing(entries: Vec<RevocationEntry>, mesh: Mesh) -> Vec<RevocationEntry> {
    let first = mesh.id.operator();
    let stands = |target: &Target| match target {
        Target::Key(key) => *key != first && Some(*key) != mesh.recovery,
        Target::Serial { issuer, .. } => *issuer != first,
    };
    let mut kept: BTreeMap<(NodeId, Option<u64>), RevocationEntry> = BTreeMap::new();
    for entry in entries.into_iter().filter(|entry| stands(&entry.target)) {
        let known = kept.get(&entry.number());
        if known.is_none_or(|known| known.keeps_issued && !entry.keeps_issued) {
            kept.insert(entry.number(), entry);
        }
    }
    let mut kept: Vec<_> = kept.into_values().collect();
    kept.sort_by_key(|entry| entry.issued_ms);
    kept
}

/// The newest of them, as many as a mesh keeps, and how many are left out.
pub(super) fn newest(mut standing: Vec<RevocationEntry>) -> (Vec<RevocationEntry>, usize) {
    let left_out = standing.len().saturating_sub(MAX_ANEW);
    standing.drain(..left_out);
    (standing, left_out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tether_wire::MeshId;
    use tether_wire::grant::Access;

    const FIRST: NodeId = NodeId([1; 32]);
    const RECOVERY: NodeId = NodeId([2; 32]);
    const OTHER: NodeId = NodeId([3; 32]);

    fn mesh() -> Mesh {
        Mesh {
            id: MeshId(FIRST.0),
            recovery: Some(RECOVERY),
            access: Access::Open,
        }
    }

    fn entry(target: Target, keeps_issued: bool, issued_ms: u64) -> RevocationEntry {
        RevocationEntry {
            target,
            keeps_issued,
            reason: String::new(),
            issued_ms,
        }
    }

    fn key(n: u8, keeps_issued: bool, issued_ms: u64) -> RevocationEntry {
        entry(Target::Key(NodeId([n; 32])), keeps_issued, issued_ms)
    }

    fn serial(issuer: NodeId, serial: u64) -> RevocationEntry {
        entry(Target::Serial { issuer, serial }, false, serial)
    }

    #[test]
    fn keys_and_the_serials_of_others_stand_and_what_falls_with_the_key_is_left() {
        let entries = vec![
            serial(OTHER, 9),
            key(9, false, 3),
            serial(FIRST, 4),
            serial(RECOVERY, 5),
            entry(Target::Key(FIRST), true, 6),
            entry(Target::Key(RECOVERY), false, 7),
        ];
        let expected = [key(9, false, 3), serial(RECOVERY, 5), serial(OTHER, 9)];
        assert_eq!(standing(entries, mesh()), expected);
    }

    #[test]
    fn of_two_revocations_of_one_key_the_stricter_is_signed_whichever_came_first() {
        let (loose, strict) = (key(9, true, 1), key(9, false, 2));
        for entries in [[&loose, &strict], [&strict, &loose]] {
            let entries = entries.map(Clone::clone).to_vec();
            assert_eq!(standing(entries, mesh()), vec![strict.clone()]);
        }
        let twice = vec![loose.clone(), key(9, true, 8)];
        assert_eq!(standing(twice, mesh()), [loose]);
    }

    #[test]
    fn of_more_than_a_mesh_keeps_the_newest_are_signed_and_the_rest_counted() {
        let count = MAX_ANEW as u64 + 3;
        let entries = (0..count).map(|n| serial(OTHER, n)).collect();
        let (kept, left_out) = newest(standing(entries, mesh()));
        assert_eq!((kept.len(), left_out), (MAX_ANEW, 3));
        assert_eq!(kept[0].issued_ms, 3);
    }
}
