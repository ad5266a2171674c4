//! On which processors the processes of an engine run. Pure.

/// Where the processes of one engine run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// Where the processors of the first one begin, counted from those that the worker may use, and
    /// beyond the last of them from the first again. Those of the next follow. Nothing means that
    /// the system's scheduler spreads them.
    pub first_processor: Option<u32>,
}

impl Layout {
    /// Where the processors of a process begin, each of which has so many threads.
    pub(super) fn first_processor(self, threads: u32, process: u32) -> Option<u32> {
        let before = process.saturating_mul(threads);
        self.first_processor.map(|it| it.saturating_add(before))
    }
}

/// As many of the `allowed` processors as there are threads, from the one at `first` on; nothing where
/// there are no more of them than that.
#[cfg(any(target_os = "linux", test))]
pub(super) fn processors(allowed: &[usize], first: u32, threads: u32) -> Option<Vec<usize>> {
    let (first, threads) = (first as usize, threads as usize);
    (1..allowed.len()).contains(&threads).then(|| {
        let from = allowed.iter().cycle().skip(first % allowed.len());
        from.take(threads).copied().collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn processes_of_one_engine_share_no_processor_while_there_are_some_for_all() {
        // What a container was left of a machine.
        let allowed = [2, 3, 5, 7, 8, 9, 12, 13, 14];
        for first in [0, 1, 7, 8, 40_000] {
            for (processes, threads) in [(3, 3), (4, 2), (1, 4)] {
                let layout = Layout {
                    first_processor: Some(first),
                };
                let mut taken = BTreeSet::new();
                for process in 0..processes {
                    let first = layout.first_processor(threads, process).expect("pinned");
                    let those = processors(&allowed, first, threads).expect("fewer");
                    assert_eq!(those.len(), threads as usize);
                    for it in those {
                        assert!(taken.insert(it), "{it} twice, from {first}");
                        assert!(allowed.contains(&it));
                    }
                }
            }
        }
    }

    #[test]
    fn engines_begin_where_they_were_told_to() {
        let allowed: Vec<usize> = (0..8).collect();
        let first = |first| processors(&allowed, first, 2).expect("fewer");
        assert_eq!(first(0), [0, 1]);
        assert_eq!(first(7), [7, 0]);
        assert_eq!(first(11), [3, 4]);
        assert_eq!(processors(&allowed, 3, 8), None, "all of them anyway");
        assert_eq!(processors(&allowed, 3, 0), None, "as many as they like");
        assert_eq!(processors(&[], 3, 1), None);
    }

    #[test]
    fn what_is_not_told_where_to_run_runs_anywhere() {
        let layout = Layout::default();
        assert!((0..4).all(|process| layout.first_processor(3, process).is_none()));
    }
}
