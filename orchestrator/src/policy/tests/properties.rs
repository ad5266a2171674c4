//! What holds whatever the rules are.

use super::*;
use crate::policy::rules::{HedgeAfter, Rules};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use tether_wire::directory::{ModelRule, ModelSelector};

const MODELS: [&str; 6] = ["a@1.0", "a@1.1", "ab@1.0", "b@1.0", "b@2.0", "c@1.0"];
const REGIONS: [&str; 3] = ["eu", "uk", "us"];

fn selector() -> impl Strategy<Value = ModelSelector> {
    let texts = ["*", "a*", "a", "b", "ab", "a@1.0", "b@2.0", "c*", "d"];
    prop::sample::select(texts.to_vec()).prop_map(|text| text.parse().expect("valid"))
}

fn rule() -> impl Strategy<Value = ModelRule> {
    let lists = (option::of(vec(selector(), 0..4)), vec(selector(), 0..3));
    lists.prop_map(|(allow, deny)| ModelRule { allow, deny })
}

fn named() -> impl Strategy<Value = NamedModel> {
    let texts = ["a", "b", "c", "ab", "a@1.0", "b@2.0"];
    prop::sample::select(texts.to_vec()).prop_map(|text| text.parse().expect("valid"))
}

prop_compose! {
    fn rules()(
        models in rule(),
        regions in option::of(vec(prop::sample::select(REGIONS.to_vec()), 1..3)),
        max_output_tokens in option::of(1..20_u32),
        max_prompt_bytes in option::of(1..20_u64),
        priority in option::of(prop::sample::select(Priority::ALL.to_vec())),
        weight in option::of(1..9_u32),
        degrade in btree_map(named(), option::of(named()), 0..3),
        hedge in option::of(option::of(20..60_000_u32)),
    ) -> Rules {
        let regions = regions.map(|names| names.into_iter().map(region).collect());
        let hedge_after_ms = hedge.map(|ms| ms.map_or(HedgeAfter::Never, HedgeAfter::Ms));
        Rules {
            models,
            regions,
            max_output_tokens,
            max_prompt_bytes,
            priority,
            weight,
            degrade,
            hedge_after_ms,
        }
    }
}

fn ask<'a>() -> impl Strategy<Value = Ask<'a>> {
    let models = prop::sample::select(vec!["a", "b", "ab", "c", "a@1.0", "a@1.1", "b@2.0"]);
    let regions = prop::sample::select(REGIONS.to_vec());
    (models, regions, option::of(0..25_u32), 0..25_u64).prop_map(
        |(model, region, max_tokens, prompt_bytes)| Ask {
            tenant: "acme",
            model,
            region,
            max_tokens,
            prompt_bytes,
        },
    )
}

fn policy(global: &Rules, own: &Rules) -> Policy {
    let tenants = BTreeMap::from([(id("acme"), own.clone())]);
    Policy::new(global.clone(), Rules::default(), tenants)
}

proptest! {
    /// The strictest wins: a section of a tenant's own narrows what holds for all.
    #[test]
    fn no_section_of_a_tenant_lets_it_have_what_is_forbidden_to_all(
        global in rules(), own in rules(), ask in ask(),
    ) {
        let both = policy(&global, &own);
        let nothing = Rules::default();
        let (only_global, only_own) = (policy(&global, &nothing), policy(&nothing, &own));
        let granted = ask.of(&both);
        prop_assert_eq!(
            granted.is_ok(),
            ask.of(&only_global).is_ok() && ask.of(&only_own).is_ok()
        );
        let acme = both.of(&id("acme"));
        for text in MODELS {
            let model = model(text);
            let may = global.models.permits(&model) && own.models.permits(&model);
            prop_assert_eq!(acme.permits(&model), may);
        }
        for name in REGIONS {
            let region = region(name);
            let names = |rules: &Rules| rules.regions.as_ref().is_none_or(|it| it.contains(&region));
            let may = acme.regions().is_none_or(|it| it.contains(&region));
            prop_assert_eq!(may, names(&global) && names(&own));
            prop_assert_eq!(acme.keeps_out_of(&region).is_none(), may);
        }
        if let Ok(Granted { limit: Some(limit) }) = granted {
            let limits = [global.max_output_tokens, own.max_output_tokens];
            prop_assert_eq!(Some(limit), limits.into_iter().flatten().min());
        }
    }

    /// The most specific wins.
    #[test]
    fn what_a_tenant_prefers_is_its_own_wherever_it_says_anything(
        global in rules(), own in rules(), asked in named(),
    ) {
        let both = policy(&global, &own);
        let acme = both.of(&id("acme"));
        prop_assert_eq!(acme.weight().map(|it| it.value), own.weight.or(global.weight));
        prop_assert_eq!(acme.priority().map(|it| it.value), own.priority.or(global.priority));
        let hedge = acme.hedge_after().map(|it| it.value);
        prop_assert_eq!(hedge, own.hedge_after_ms.or(global.hedge_after_ms));
        if let Some(said) = own.degrade.get(&asked) {
            let smaller = acme.smaller(&asked).map(|it| it.value);
            prop_assert!(smaller.is_none() || smaller == said.as_ref());
        }
        if let Some(smaller) = acme.smaller(&asked) {
            prop_assert!(acme.forbids(smaller.value).is_none());
        }
    }

    /// A name that is refused has no version that could be used, so that no refusal is wrong; and
    /// what may be used by its version is not refused by its name.
    #[test]
    fn a_bare_name_is_refused_only_where_no_version_may_be_used(global in rules(), own in rules()) {
        let both = policy(&global, &own);
        let acme = both.of(&id("acme"));
        for text in MODELS {
            let model = model(text);
            if acme.permits(&model) {
                let mut bare = NamedModel::from(&model);
                prop_assert!(acme.forbids(&bare).is_none());
                bare.version = None;
                prop_assert!(acme.forbids(&bare).is_none());
            }
        }
    }

    /// What gateways are told shows exactly what may be used.
    #[test]
    fn gateways_show_what_may_be_used(global in rules(), own in rules()) {
        let both = policy(&global, &own);
        let (told, acme) = (both.model_rules(), id("acme"));
        let number = both.model_rule(&acme) as usize;
        for text in MODELS {
            let model = model(text);
            let shown = told.is_empty() || (told[0].permits(&model) && told[number].permits(&model));
            prop_assert_eq!(shown, both.of(&acme).permits(&model), "{}", text);
        }
    }

    /// Whatever is read ends: a smaller model of a smaller model is never the first one again.
    #[test]
    fn what_is_read_has_no_circles(entries in btree_map(named(), named(), 0..5)) {
        let text = serde_json::json!({"global": {"degrade": entries
            .iter()
            .map(|(from, to)| (from.to_string(), to.to_string()))
            .collect::<BTreeMap<_, _>>()}});
        if let Ok(policy) = Policy::read(&text.to_string()) {
            let rules = policy.of(&id("acme"));
            for from in MODELS {
                let mut at = NamedModel::from(&model(from));
                let mut steps = 0;
                while let Some(next) = rules.smaller(&at) {
                    at = next.value.clone();
                    steps += 1;
                    prop_assert!(steps <= entries.len(), "{}", text);
                }
            }
        }
    }

    /// Whatever stands in the file, it is read or refused with a place in it.
    #[test]
    fn any_text_is_read_or_refused_at_a_place_that_is_there(text in "[{}\\[\\]\",: \\n0-9a-z]{0,60}") {
        if let Err(mistake) = Policy::read(&text) {
            prop_assert!(mistake.line >= 1 && mistake.line <= text.matches('\n').count() + 1);
        }
    }
}
