//! What holds for one tenant: the global section, and the tenant's own or that of the others.

use super::rules::{HedgeAfter, NamedModel, Rules};
use crate::queue::Priority;
use crate::shares::Share;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use tether_wire::directory::{ModelRule, ModelSelector};
use tether_wire::{ModelName, ModelRef, Region, TenantId};

/// Which section a rule stands in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Section {
    /// That of everybody.
    Global,
    /// The tenant's own.
    Tenant,
    /// That of the tenants without one.
    #[default]
    Others,
}

/// Where a rule stands, as people find it in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place<'a> {
    /// The section.
    pub section: Section,
    /// Whose section it is, where it is a tenant's.
    pub tenant: &'a TenantId,
    /// The field in it.
    pub field: &'a str,
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.section {
            Section::Global => write!(f, "global.{}", self.field),
            Section::Others => write!(f, "others.{}", self.field),
            Section::Tenant => write!(f, "tenants.{}.{}", self.tenant, self.field),
        }
    }
}

/// A value, and the section that gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ruled<T> {
    /// The value.
    pub value: T,
    /// Where it stands.
    pub section: Section,
}

/// Why a model may not be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Forbidden {
    /// It is not among those that may.
    NotAllowed,
    /// It is among those that may not, by this selector.
    Denied(ModelSelector),
}

/// What holds for one tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effective {
    global: Arc<Rules>,
    section: Section,
    own: Rules,
    /// Those that both sections name.
    regions: Option<BTreeSet<Region>>,
}

impl Effective {
    /// Of the global section and one more.
    #[must_use]
    pub fn new(global: Arc<Rules>, section: Section, own: Rules) -> Self {
        let named = [&global.regions, &own.regions].into_iter().flatten();
        let regions = named
            .map(|regions| regions.iter().cloned().collect::<BTreeSet<_>>())
            .reduce(|all, own| all.intersection(&own).cloned().collect());
        Self {
            global,
            section,
            own,
            regions,
        }
    }

    /// Both sections, the global one first.
    pub(super) fn sections(&self) -> [(Section, &Rules); 2] {
        [(Section::Global, &*self.global), (self.section, &self.own)]
    }

    /// Whether a model may be used.
    #[must_use]
    pub fn permits(&self, model: &ModelRef) -> bool {
        let mut sections = self.sections().into_iter();
        sections.all(|(_, rules)| rules.models.permits(model))
    }

    /// Why no version of a name may be used, or not this one.
    #[must_use]
    pub fn forbids(&self, model: &NamedModel) -> Option<Ruled<Forbidden>> {
        let sections = self.sections();
        sections.into_iter().find_map(|(section, rules)| {
            let value = match model.reference() {
                Some(model) => forbids(&rules.models, &model)?,
                None => forbids_name(&rules.models, &model.name)?,
            };
            Some(Ruled { value, section })
        })
    }

    /// Regions that a request may be in; nothing for all of them.
    #[must_use]
    pub fn regions(&self) -> Option<&BTreeSet<Region>> {
        self.regions.as_ref()
    }

    /// The section that keeps requests out of a region, if one does.
    #[must_use]
    pub fn keeps_out_of(&self, region: &Region) -> Option<Section> {
        let mut sections = self.sections().into_iter();
        sections.find_map(|(section, rules)| {
            let named = rules.regions.as_ref()?;
            (!named.contains(region)).then_some(section)
        })
    }

    /// Most tokens of an answer.
    #[must_use]
    pub fn max_output_tokens(&self) -> Option<Ruled<u32>> {
        self.least(|rules| rules.max_output_tokens)
    }

    /// Most bytes of a prompt.
    #[must_use]
    pub fn max_prompt_bytes(&self) -> Option<Ruled<u64>> {
        self.least(|rules| rules.max_prompt_bytes)
    }

    fn least<T: Ord + Copy>(&self, limit: impl Fn(&Rules) -> Option<T>) -> Option<Ruled<T>> {
        let ruled = self.sections().into_iter().filter_map(|(section, rules)| {
            let value = limit(rules)?;
            Some(Ruled { value, section })
        });
        ruled.min_by_key(|ruled| ruled.value)
    }

    /// What goes first where requests wait; nothing where no rule says it.
    #[must_use]
    pub fn priority(&self) -> Option<Ruled<Priority>> {
        self.nearest(|rules| rules.priority)
    }

    /// The tenant's share among others that wait; nothing where no rule says it.
    #[must_use]
    pub fn weight(&self) -> Option<Ruled<u32>> {
        self.nearest(|rules| rules.weight)
    }

    /// When a second worker is asked beside the first; nothing where no rule says it.
    #[must_use]
    pub fn hedge_after(&self) -> Option<Ruled<HedgeAfter>> {
        self.nearest(|rules| rules.hedge_after_ms)
    }

    /// The tenant's part of the work, where no rule says more than its own entry in the tenants' file.
    #[must_use]
    pub fn share(&self, entry: Share) -> Share {
        Share {
            weight: self.weight().map_or(entry.weight, |it| it.value),
            priority: self.priority().map_or(entry.priority, |it| it.value),
        }
    }

    /// The model that answers in the place of this one where that has no room, if one may.
    #[must_use]
    pub fn smaller(&self, model: &NamedModel) -> Option<Ruled<&NamedModel>> {
        let named = NamedModel {
            name: model.name.clone(),
            version: None,
        };
        let smaller = self.nearest(|rules| {
            let degrade = &rules.degrade;
            degrade
                .get(model)
                .or_else(|| degrade.get(&named))
                .map(Option::as_ref)
        })?;
        let value = smaller.value?;
        let section = smaller.section;
        (self.forbids(value).is_none()).then_some(Ruled { value, section })
    }

    /// Each step from one model to a smaller one, whether it may be used or not.
    pub(super) fn degrades(&self) -> Vec<(&NamedModel, &NamedModel)> {
        let own = &self.own.degrade;
        let global = self.global.degrade.iter();
        let steps = own
            .iter()
            .chain(global.filter(|(from, _)| !own.contains_key(*from)));
        steps
            .filter_map(|(from, to)| Some((from, to.as_ref()?)))
            .collect()
    }

    /// What the most specific section says.
    fn nearest<'a, T: 'a>(&'a self, of: impl Fn(&'a Rules) -> Option<T>) -> Option<Ruled<T>> {
        self.sections()
            .into_iter()
            .rev()
            .find_map(|(section, rules)| {
                let value = of(rules)?;
                Some(Ruled { value, section })
            })
    }
}

fn forbids(rule: &ModelRule, model: &ModelRef) -> Option<Forbidden> {
    if let Some(by) = rule.deny.iter().find(|it| it.names(model)) {
        return Some(Forbidden::Denied(by.clone()));
    }
    (!rule.permits(model)).then_some(Forbidden::NotAllowed)
}

fn forbids_name(rule: &ModelRule, name: &ModelName) -> Option<Forbidden> {
    if let Some(by) = rule.deny.iter().find(|it| it.names_every(name)) {
        return Some(Forbidden::Denied(by.clone()));
    }
    (!rule.permits_any(name)).then_some(Forbidden::NotAllowed)
}
