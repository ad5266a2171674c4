//! Memory on several devices at once: a model on an accelerator takes some of the machine's, too.

use std::fmt;

/// Bytes on each device. The first is the machine's own memory; the others are the accelerators of the
/// configuration, in its order. Devices that are not named have nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Amount(Vec<u64>);

impl Amount {
    /// Of the machine's memory, and of each accelerator's.
    pub(crate) fn new(machine: u64, accelerators: impl IntoIterator<Item = u64>) -> Self {
        Self(std::iter::once(machine).chain(accelerators).collect())
    }

    /// Bytes on one device.
    pub(crate) fn on(&self, device: usize) -> u64 {
        self.0.get(device).copied().unwrap_or(0)
    }

    /// The same with so many bytes on one device.
    #[must_use]
    pub(crate) fn with(mut self, device: usize, bytes: u64) -> Self {
        if self.0.len() <= device {
            self.0.resize(device + 1, 0);
        }
        self.0[device] = bytes;
        self
    }

    /// All devices together.
    pub(crate) fn total(&self) -> u64 {
        self.0.iter().fold(0, |sum, it| sum.saturating_add(*it))
    }

    /// So many times as much of each device.
    #[must_use]
    pub(crate) fn times(&self, count: u32) -> Self {
        let all = self.0.iter();
        Self(all.map(|it| it.saturating_mul(count.into())).collect())
    }

    /// One of so many equal parts.
    pub(super) fn part(&self, parts: usize) -> Self {
        let parts = u64::try_from(parts).unwrap_or(u64::MAX).max(1);
        Self(self.0.iter().map(|it| it / parts).collect())
    }

    /// How many times it holds `one`, on each device of which that takes some.
    pub(super) fn holds(&self, one: &Self) -> u32 {
        let times = one.devices().map(|at| self.on(at) / one.on(at)).min();
        u32::try_from(times.unwrap_or(u64::MAX)).unwrap_or(u32::MAX)
    }

    pub(super) fn plus(&self, other: &Self) -> Self {
        self.each(other, u64::saturating_add)
    }

    /// What of it `other` does not cover.
    pub(super) fn beyond(&self, other: &Self) -> Self {
        self.each(other, u64::saturating_sub)
    }

    /// On each device the more of both.
    pub(super) fn or_more(&self, other: &Self) -> Self {
        self.each(other, u64::max)
    }

    /// On each device the less of both.
    pub(super) fn at_most(&self, other: &Self) -> Self {
        self.each(other, u64::min)
    }

    pub(super) fn is_nothing(&self) -> bool {
        self.total() == 0
    }

    /// Whether there is a device of which both take some.
    pub(super) fn meets(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).any(|(a, b)| *a > 0 && *b > 0)
    }

    /// The devices of which it has something.
    pub(super) fn devices(&self) -> impl Iterator<Item = usize> {
        (0..self.0.len()).filter(|device| self.0[*device] > 0)
    }

    fn each(&self, other: &Self, of: impl Fn(u64, u64) -> u64) -> Self {
        let devices = 0..self.0.len().max(other.0.len());
        Self(devices.map(|at| of(self.on(at), other.on(at))).collect())
    }
}

/// Of the machine's memory alone.
impl From<u64> for Amount {
    fn from(bytes: u64) -> Self {
        Self(vec![bytes])
    }
}

/// What a model takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Room {
    /// What is certain: by the estimate, or as it was seen since it was loaded.
    pub(crate) least: Amount,
    /// What it may come to, since it once did.
    pub(crate) most: Amount,
}

impl Room {
    /// So many times as much.
    #[must_use]
    pub(crate) fn times(&self, count: u32) -> Self {
        Self {
            least: self.least.times(count),
            most: self.most.times(count),
        }
    }
}

impl From<Amount> for Room {
    fn from(amount: Amount) -> Self {
        Self {
            least: amount.clone(),
            most: amount,
        }
    }
}

impl From<u64> for Room {
    fn from(bytes: u64) -> Self {
        Amount::from(bytes).into()
    }
}

/// Bytes for people.
pub(crate) struct Mib(pub(crate) u64);

impl fmt::Display for Mib {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MiB", self.0.div_ceil(1024 * 1024))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_counted_apart() {
        let both = Amount::new(3, [5]);
        let machine = Amount::from(4);
        assert_eq!(both.plus(&machine), Amount::new(7, [5]));
        assert_eq!(machine.beyond(&both), Amount::new(1, [0]));
        assert!(both.beyond(&Amount::new(3, [5, 9])).is_nothing());
        assert_eq!(both.total(), 8);
        assert_eq!(both.or_more(&machine), Amount::new(4, [5]));
        assert_eq!(both.at_most(&Amount::new(9, [1])), Amount::new(3, [1]));
        assert_eq!(both.times(3), Amount::new(9, [15]));
        assert_eq!(Amount::new(9, [15]).part(2), Amount::new(4, [7]));
        assert_eq!(Amount::new(9, [15]).holds(&Amount::new(2, [5])), 3);
        assert_eq!(Amount::new(9, [4]).holds(&both), 0);
        assert_eq!(Amount::new(9, [4]).holds(&machine), 2);
        assert_eq!(
            Amount::default().with(2, 7).devices().collect::<Vec<_>>(),
            [2]
        );
        assert!(both.meets(&machine) && !machine.meets(&Amount::default().with(1, 1)));
        let huge = Amount::new(u64::MAX, [u64::MAX]);
        assert_eq!(huge.plus(&huge).total(), u64::MAX);
        assert_eq!(Mib((1 << 20) + 1).to_string(), "2 MiB");
    }
}
