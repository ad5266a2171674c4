//! Why something was dropped. Each reason is a label in the metrics. [T-LIV-9]

/// Why a beat or a card changed nothing, or not what it would have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rejected {
    /// Longer than its kind may be.
    Oversized,
    /// Not rightly signed, or signed for another mesh.
    Forged,
    /// Rightly signed, but its content is outside the specification.
    Malformed,
    /// It came over the link of another node as if it were that node's own.
    WrongNode,
    /// Its card names another region or role than its grant.
    WrongGrant,
    /// Its card shows no grant that holds here and now.
    Ungranted,
    /// Too many in a short time over one link.
    Flood,
    /// A relayed beat is of another order than its sender said.
    Misstated,
    /// Dated further ahead than clocks may differ.
    Future,
    /// Older than a node may be silent.
    Stale,
    /// The very order that was accepted last.
    Replayed,
    /// An order lower than what was seen last.
    Reordered,
    /// Not newer than the goodbye of its node.
    Departed,
    /// Relayed, and made before this process started: its node's next beat will do.
    Unproven,
    /// Of a lower epoch than the node's, and made after that began: two run with one key.
    Cloned,
    /// Of a key that was revoked.
    Revoked,
    /// A card that the node's last beat does not name.
    Unnamed,
    /// More than this machine keeps.
    Full,
}

impl Rejected {
    /// Every reason.
    pub const ALL: [Self; 18] = [
        Self::Oversized,
        Self::Forged,
        Self::Malformed,
        Self::WrongNode,
        Self::WrongGrant,
        Self::Ungranted,
        Self::Flood,
        Self::Misstated,
        Self::Future,
        Self::Stale,
        Self::Replayed,
        Self::Reordered,
        Self::Departed,
        Self::Unproven,
        Self::Cloned,
        Self::Revoked,
        Self::Unnamed,
        Self::Full,
    ];

    /// Its label in the metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Oversized => "oversized",
            Self::Forged => "forged",
            Self::Malformed => "malformed",
            Self::WrongNode => "wrong-node",
            Self::WrongGrant => "wrong-grant",
            Self::Ungranted => "ungranted",
            Self::Flood => "flood",
            Self::Misstated => "misstated",
            Self::Future => "future",
            Self::Stale => "stale",
            Self::Replayed => "replayed",
            Self::Reordered => "reordered",
            Self::Departed => "departed",
            Self::Unproven => "unproven",
            Self::Cloned => "cloned",
            Self::Revoked => "revoked",
            Self::Unnamed => "unnamed",
            Self::Full => "full",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn each_reason_has_a_label_of_its_own() {
        let labels: BTreeSet<_> = Rejected::ALL.iter().map(|it| it.as_str()).collect();
        assert_eq!(labels.len(), Rejected::ALL.len());
    }
}
