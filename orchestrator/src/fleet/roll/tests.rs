use super::*;
use crate::fleet::Roster;
use crate::testing::there;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// Distinct views that are made once.
fn views() -> Vec<Arc<WorkerView>> {
    let mut roster = Roster::default();
    for n in 0..200 {
        there(&mut roster, n, |_| ());
    }
    roster.snapshot().workers().cloned().collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_roll_holds_what_was_put_and_a_copy_what_it_held(
        steps in prop::collection::vec((0..200usize, 0..4u8), 0..600)
    ) {
        thread_local!(static VIEWS: Vec<Arc<WorkerView>> = views());
        let views = VIEWS.with(Clone::clone);
        let (mut roll, mut model) = (Roll::default(), BTreeMap::new());
        let mut copies = Vec::new();
        for (at, (n, what)) in steps.into_iter().enumerate() {
            let view = &views[n];
            if what == 0 {
                let (gone, known) = (roll.remove(&view.id()), model.remove(&view.id()));
                prop_assert_eq!(gone.is_some(), known.is_some());
            } else {
                let (old, known) = (roll.put(view.clone()), model.insert(view.id(), n));
                prop_assert_eq!(old.is_some(), known.is_some());
            }
            if at % 100 == 0 {
                copies.push((roll.clone(), model.clone()));
            }
        }
        copies.push((roll, model));
        for (roll, model) in copies {
            prop_assert_eq!(roll.len(), model.len());
            let ids: BTreeSet<_> = roll.iter().map(|view| view.id()).collect();
            prop_assert_eq!(&ids, &model.keys().copied().collect::<BTreeSet<_>>());
            for view in &views {
                prop_assert_eq!(roll.get(&view.id()).is_some(), model.contains_key(&view.id()));
            }
            for random in [0, 1, u64::MAX, 0x1234_5678_9abc_def0] {
                let from: Vec<_> = roll.iter_from(random).map(|view| view.id()).collect();
                prop_assert_eq!(from.len(), model.len(), "each once");
                prop_assert_eq!(&from.into_iter().collect::<BTreeSet<_>>(), &ids);
            }
        }
    }
}
