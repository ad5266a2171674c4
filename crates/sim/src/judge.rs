//! Compares what each orchestrator shows with the truth, at every change.

use crate::found::Found;
use crate::host::{Host, Key};
use crate::machine::How;
use crate::queue::{MS, Us};
use std::collections::{BTreeMap, BTreeSet};

const LIVE: u8 = 1;
const CARDED: u8 = 2;
const SUSPECT: u8 = 4;
/// Its ghost was counted; once for each death.
const GHOST: u8 = 8;
/// It was shown since it came to life.
const APPEARED: u8 = 16;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Death {
    Killed,
    Goodbye,
}

/// Whether a key lives, in truth: whether the process of its highest epoch does.
#[derive(Clone, Debug)]
struct Truth {
    epoch: u64,
    lives: bool,
    changed: Us,
    death: Death,
    /// It never lives again, whatever runs under it.
    is_revoked: bool,
}

/// What one orchestrator shows.
struct View {
    flags: Vec<u8>,
    wrong: usize,
    started: Us,
    /// From its start to the first moment at which it was right about everybody.
    complete_in: Option<Us>,
    joins: bool,
}

/// The judge of a run.
pub(crate) struct Judge {
    truths: Vec<Truth>,
    views: BTreeMap<Host, View>,
    lives: usize,
    wrong: usize,
    right_since: Us,
    cloned: BTreeSet<Key>,
    /// Time after a death from which who still shows it shows a ghost.
    ghost_after: Us,
    pub(crate) found: Found,
}

impl Judge {
    pub(crate) fn new(ghost_after: Us) -> Self {
        Self {
            truths: Vec::new(),
            views: BTreeMap::new(),
            lives: 0,
            wrong: 0,
            right_since: 0,
            cloned: BTreeSet::new(),
            ghost_after,
            found: Found::default(),
        }
    }

    /// A key that never lived.
    pub(crate) fn add_key(&mut self) {
        self.truths.push(Truth {
            epoch: 0,
            lives: false,
            changed: 0,
            death: Death::Killed,
            is_revoked: false,
        });
    }

    pub(crate) fn lives(&self, key: Key) -> bool {
        self.truths[key.at()].lives
    }

    pub(crate) fn epoch(&self, key: Key) -> u64 {
        self.truths[key.at()].epoch
    }

    /// When the key last came to life or died.
    pub(crate) fn changed(&self, key: Key) -> Us {
        self.truths[key.at()].changed
    }

    pub(crate) fn living(&self) -> usize {
        self.lives
    }

    /// A process starts.
    pub(crate) fn started(&mut self, key: Key, epoch: u64, now: Us) {
        let truth = &mut self.truths[key.at()];
        if epoch <= truth.epoch || truth.is_revoked {
            return;
        }
        truth.epoch = epoch;
        if !truth.lives {
            truth.lives = true;
            truth.changed = now;
            self.lives += 1;
            self.turned(key, now);
        }
    }

    /// A process ends; whether its key died with it.
    pub(crate) fn stopped(&mut self, key: Key, epoch: u64, now: Us, death: Death) -> bool {
        let truth = &mut self.truths[key.at()];
        if epoch != truth.epoch || !truth.lives {
            return false;
        }
        truth.lives = false;
        truth.changed = now;
        truth.death = death;
        self.lives -= 1;
        self.turned(key, now);
        true
    }

    /// A key is revoked: from now on it is dead, and its process is a stranger.
    pub(crate) fn revoked(&mut self, key: Key, now: Us) {
        let truth = &mut self.truths[key.at()];
        truth.is_revoked = true;
        if std::mem::replace(&mut truth.lives, false) {
            truth.changed = now;
            self.lives -= 1;
            self.turned(key, now);
        }
    }

    /// An orchestrator that is judged starts, and knows nobody.
    pub(crate) fn view_started(&mut self, host: Host, now: Us, joins: bool) {
        let view = View {
            flags: vec![0; self.truths.len()],
            wrong: self.lives,
            started: now,
            complete_in: None,
            joins,
        };
        self.wrong += view.wrong;
        self.views.insert(host, view);
        self.check(now);
    }

    pub(crate) fn view_stopped(&mut self, host: Host, now: Us) {
        if let Some(view) = self.views.remove(&host) {
            self.wrong -= view.wrong;
            self.check(now);
        }
    }

    /// Whether this view shows the key, and whether it is judged at all.
    pub(crate) fn shows(&self, host: Host, key: Key) -> Option<bool> {
        let flags = *self.views.get(&host)?.flags.get(key.at())?;
        Some(shows(flags))
    }

    pub(crate) fn viewers(&self) -> Vec<Host> {
        self.views.keys().copied().collect()
    }

    /// The node is live in a view. Whether that is a ghost, and news.
    pub(crate) fn live(&mut self, host: Host, key: Key, carded: bool, now: Us) -> bool {
        let set = if carded { LIVE | CARDED } else { LIVE };
        self.set(host, key, set, CARDED | LIVE | SUSPECT, now);
        let truth = &self.truths[key.at()];
        let is_ghost = !truth.lives
            && !truth.is_revoked
            && now.saturating_sub(truth.changed) > self.ghost_after;
        is_ghost && self.count_ghost(host, key)
    }

    pub(crate) fn carded(&mut self, host: Host, key: Key, now: Us) {
        self.set(host, key, CARDED, 0, now);
    }

    pub(crate) fn suspect(&mut self, host: Host, key: Key, suspect: bool, now: Us) {
        self.found.suspicions += u64::from(suspect);
        let truth = &self.truths[key.at()];
        if let Some(view) = self.views.get(&host)
            && suspect
            && !truth.lives
            && truth.death == Death::Killed
            && view.started <= truth.changed
            && view.flags[key.at()] & SUSPECT == 0
        {
            self.found.suspect.add((now - truth.changed) / MS);
        }
        self.set(host, key, if suspect { SUSPECT } else { 0 }, SUSPECT, now);
    }

    /// The node went, in a view.
    pub(crate) fn gone(&mut self, host: Host, key: Key, how: How, now: Us) {
        self.set(host, key, 0, LIVE | CARDED | SUSPECT, now);
        let Some(view) = self.views.get(&host) else {
            return;
        };
        let truth = &self.truths[key.at()];
        if truth.lives || truth.changed < view.started {
            return;
        }
        let took = (now - truth.changed) / MS;
        if truth.is_revoked {
            self.found.revocation.add(took);
            return;
        }
        match (truth.death, how) {
            (Death::Killed, _) => self.found.expiry.add(took),
            (Death::Goodbye, How::Departed) => self.found.goodbye.add(took),
            (Death::Goodbye, _) => self.found.unheard_goodbyes += 1,
        }
    }

    pub(crate) fn cloned(&mut self, host: Host, key: Key) {
        if self.views.contains_key(&host) {
            self.found.clone_reports += 1;
            self.cloned.insert(key);
        }
    }

    /// Whether any judged orchestrator reported a clone of this key.
    pub(crate) fn knows_of_clone(&self, key: Key) -> bool {
        self.cloned.contains(&key)
    }

    /// Which views still show a key that died at this time, long after.
    pub(crate) fn ghosts_of(&mut self, key: Key, died: Us) -> Vec<Host> {
        let truth = &self.truths[key.at()];
        if truth.lives || truth.is_revoked || truth.changed != died {
            return Vec::new();
        }
        let showing: Vec<Host> = (self.views.iter())
            .filter(|(_, view)| view.flags[key.at()] & LIVE != 0)
            .map(|(host, _)| *host)
            .collect();
        showing
            .into_iter()
            .filter(|host| self.count_ghost(*host, key))
            .collect()
    }

    /// Milliseconds from a time until all views were right for good.
    pub(crate) fn converged_ms(&self, after: Us) -> Option<u64> {
        (self.wrong == 0).then(|| self.right_since.saturating_sub(after) / MS)
    }

    pub(crate) fn suspects(&self) -> usize {
        let flags = self.views.values().flat_map(|view| &view.flags);
        flags
            .filter(|&&flags| flags & (SUSPECT | LIVE) == SUSPECT | LIVE)
            .count()
    }

    /// What is wrong now: view, key, and whether it lives in truth.
    pub(crate) fn wrong(&self) -> impl Iterator<Item = (Host, Key, bool)> {
        self.views.iter().flat_map(|(host, view)| {
            let all = view.flags.iter().zip(&self.truths).enumerate();
            all.filter(|(_, (flags, truth))| shows(**flags) != truth.lives)
                .map(|(at, (_, truth))| {
                    let key = Key(u32::try_from(at).unwrap_or(u32::MAX));
                    (*host, key, truth.lives)
                })
        })
    }

    /// Views that join and never were complete.
    pub(crate) fn incomplete_newcomers(&self) -> usize {
        (self.views.values())
            .filter(|view| view.joins && view.complete_in.is_none())
            .count()
    }

    fn count_ghost(&mut self, host: Host, key: Key) -> bool {
        let Some(view) = self.views.get_mut(&host) else {
            return false;
        };
        let flags = &mut view.flags[key.at()];
        let is_new = *flags & GHOST == 0;
        *flags |= GHOST;
        self.found.ghosts += u64::from(is_new);
        is_new
    }

    /// Sets flags of a key in a view, of those that the mask names.
    fn set(&mut self, host: Host, key: Key, set: u8, mask: u8, now: Us) {
        let Some(view) = self.views.get_mut(&host) else {
            return;
        };
        let truth = &self.truths[key.at()];
        let flags = &mut view.flags[key.at()];
        let before = *flags;
        *flags = (before & !mask) | set;
        let (was, is) = (shows(before), shows(*flags));
        if was == is {
            return;
        }
        if is == truth.lives {
            view.wrong -= 1;
            self.wrong -= 1;
        } else {
            view.wrong += 1;
            self.wrong += 1;
        }
        if is && truth.lives && *flags & APPEARED == 0 {
            *flags |= APPEARED;
            if view.started <= truth.changed {
                self.found.appear.add((now - truth.changed) / MS);
            }
        }
        self.check_view(host, now);
        self.check(now);
    }

    /// A key came to life or died: all views are right or wrong about it the other way round.
    fn turned(&mut self, key: Key, now: Us) {
        let lives = self.truths[key.at()].lives;
        for view in self.views.values_mut() {
            let flags = &mut view.flags[key.at()];
            *flags &= !(GHOST | APPEARED);
            // It was back before it was missed: when it is shown again later, that is no start.
            if lives && shows(*flags) {
                *flags |= APPEARED;
            }
            if shows(*flags) == lives {
                view.wrong -= 1;
                self.wrong -= 1;
            } else {
                view.wrong += 1;
                self.wrong += 1;
            }
        }
        self.check(now);
    }

    fn check_view(&mut self, host: Host, now: Us) {
        if let Some(view) = self.views.get_mut(&host)
            && view.wrong == 0
            && view.complete_in.is_none()
        {
            let took = now - view.started;
            view.complete_in = Some(took);
            if view.joins {
                self.found.newcomer.add(took / MS);
            }
        }
    }

    fn check(&mut self, now: Us) {
        if self.wrong > 0 {
            self.right_since = Us::MAX;
        } else if self.right_since == Us::MAX {
            self.right_since = now;
        }
    }
}

fn shows(flags: u8) -> bool {
    flags & (LIVE | CARDED) == LIVE | CARDED
}
