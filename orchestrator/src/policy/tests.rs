//! What an operator writes and what becomes of it.

mod mistakes;
mod properties;

use super::effective::Ruled;
use super::*;
use crate::queue::Priority;
use crate::shares::Share;
use tether_wire::rpc::{Code, RpcError};
use tether_wire::{ModelRef, Region};

fn read(text: &str) -> Policy {
    Policy::read(text).unwrap_or_else(|mistake| panic!("{mistake}: {text}"))
}

fn id(text: &str) -> TenantId {
    TenantId::new(text).expect("valid")
}

fn region(text: &str) -> Region {
    Region::new(text).expect("valid")
}

fn model(text: &str) -> ModelRef {
    text.parse().expect("valid")
}

/// A request of a tenant for a model, with nothing else about it.
#[derive(Debug)]
struct Ask<'a> {
    tenant: &'a str,
    model: &'a str,
    region: &'a str,
    max_tokens: Option<u32>,
    prompt_bytes: u64,
}

impl Default for Ask<'_> {
    fn default() -> Self {
        Self {
            tenant: "acme",
            model: "tiny",
            region: "eu",
            max_tokens: None,
            prompt_bytes: 10,
        }
    }
}

impl Ask<'_> {
    fn with<T>(&self, look: impl FnOnce(&Facts<'_>) -> T) -> T {
        look(&Facts {
            tenant: &id(self.tenant),
            region: &region(self.region),
            model: self.model,
            max_tokens: self.max_tokens,
            prompt_bytes: self.prompt_bytes,
        })
    }

    fn of(&self, policy: &Policy) -> Result<Granted, Refusal> {
        self.with(|facts| policy.of(facts.tenant).decide(facts))
    }

    fn refused(&self, policy: &Policy) -> Refusal {
        self.of(policy).expect_err("refused")
    }
}

#[test]
fn without_rules_everything_is_allowed() {
    for policy in [Policy::default(), read("{}")] {
        assert_eq!(Ask::default().of(&policy), Ok(Granted { limit: None }));
        assert!(policy.model_rules().is_empty());
        assert_eq!(policy.of(&id("acme")).regions(), None);
    }
}

#[test]
fn a_tenant_uses_what_both_sections_permit_and_is_told_what_it_may_not() {
    let policy = read(
        r#"{"global": {"models": {"deny": ["secret-*"]}},
            "others": {"models": {"allow": ["tiny"]}},
            "tenants": {"acme": {"models": {"allow": ["tiny", "big@2.0", "secret-1"]}}}}"#,
    );
    let code = |tenant, model| {
        let ask = Ask {
            tenant,
            model,
            ..Ask::default()
        };
        ask.of(&policy).err().map(|refusal| refusal.rule)
    };
    assert_eq!(code("acme", "tiny"), None);
    assert_eq!(code("acme", "big"), None, "one of its versions may be");
    assert_eq!(code("acme", "big@2.0"), None);
    let allow = |section: &str| Some(format!("{section}.models.allow"));
    assert_eq!(code("acme", "big@1.0"), allow("tenants.acme"));
    assert_eq!(code("acme", "other"), allow("tenants.acme"));
    assert_eq!(code("beta", "tiny@3.1"), None);
    assert_eq!(code("beta", "big"), allow("others"));
    let denied = "global.models.deny (secret-*)".to_owned();
    assert_eq!(
        code("acme", "secret-1"),
        Some(denied),
        "whatever is allowed"
    );
    assert_eq!(code("beta", "TINY!"), None, "no name: it is not found");
    let refusal = Ask {
        model: "other",
        ..Ask::default()
    }
    .refused(&policy);
    let error = RpcError::from(&refusal);
    assert_eq!(error.code, Code::Forbidden);
    assert_eq!(error.param.as_deref(), Some("model"));
    assert!(
        error
            .message
            .contains("`acme` may not use the model `other`")
    );
    let acme = policy.of(&id("acme"));
    assert!(acme.permits(&model("big@2.0")) && !acme.permits(&model("big@2.1")));
}

#[test]
fn a_request_stays_in_the_regions_that_both_sections_name() {
    let policy = read(
        r#"{"global": {"regions": ["eu", "uk", "us"]},
            "tenants": {"acme": {"regions": ["eu", "ch", "uk"]}}}"#,
    );
    let acme = policy.of(&id("acme")).regions().expect("some");
    assert_eq!(
        acme.iter().map(Region::as_str).collect::<Vec<_>>(),
        ["eu", "uk"]
    );
    let in_region = |tenant, region| Ask {
        tenant,
        region,
        ..Ask::default()
    };
    assert!(in_region("acme", "eu").of(&policy).is_ok());
    assert!(in_region("beta", "us").of(&policy).is_ok());
    let refusal = in_region("acme", "us").refused(&policy);
    assert_eq!((refusal.code, refusal.param), (Code::Forbidden, None));
    assert_eq!(refusal.rule, "tenants.acme.regions");
    assert!(
        refusal
            .message
            .contains("stay in `eu`, `uk`, and this is `us`"),
        "{}",
        refusal.message
    );
    assert_eq!(
        in_region("acme", "ch").refused(&policy).rule,
        "global.regions"
    );
}

#[test]
fn the_smaller_limit_holds_and_fills_in_what_a_request_leaves_open() {
    let policy = read(
        r#"{"global": {"max_output_tokens": 100, "max_prompt_bytes": 1000},
            "tenants": {"acme": {"max_output_tokens": 50, "max_prompt_bytes": 5000},
                        "wide": {"max_output_tokens": 5000}}}"#,
    );
    let tokens = |tenant, max_tokens| Ask {
        tenant,
        max_tokens,
        ..Ask::default()
    };
    assert_eq!(
        tokens("acme", None).of(&policy),
        Ok(Granted { limit: Some(50) })
    );
    assert_eq!(
        tokens("acme", Some(50)).of(&policy),
        Ok(Granted { limit: None })
    );
    let refusal = tokens("acme", Some(51)).refused(&policy);
    assert_eq!(
        (refusal.code, refusal.param),
        (Code::Invalid, Some("max_tokens"))
    );
    assert_eq!(refusal.rule, "tenants.acme.max_output_tokens");
    assert_eq!(
        tokens("wide", Some(101)).refused(&policy).rule,
        "global.max_output_tokens"
    );
    assert_eq!(
        tokens("beta", None).of(&policy),
        Ok(Granted { limit: Some(100) })
    );
    let bytes = |prompt_bytes| Ask {
        prompt_bytes,
        ..Ask::default()
    };
    assert!(bytes(1_000).of(&policy).is_ok());
    let refusal = bytes(1_001).refused(&policy);
    assert_eq!(
        (refusal.code, refusal.param),
        (Code::Invalid, Some("messages"))
    );
    assert_eq!(refusal.rule, "global.max_prompt_bytes");
}

#[test]
fn what_is_preferred_is_the_tenants_own_before_what_is_global() {
    let policy = read(
        r#"{"global": {"priority": "low", "weight": 5, "degrade": {"big": "tiny", "vast@1.0": "big"}},
            "others": {"weight": 2},
            "tenants": {"acme": {"priority": "high", "degrade": {"big": null, "vast": "tiny"}}}}"#,
    );
    let (acme, beta) = (policy.of(&id("acme")), policy.of(&id("beta")));
    let priority = |of: &Effective| of.priority().map(|it| it.value);
    let weight = |of: &Effective| of.weight().map(|it| (it.value, it.section));
    assert_eq!(priority(acme), Some(Priority::High));
    assert_eq!(priority(beta), Some(Priority::Low));
    let entry = Share {
        weight: 7,
        priority: Priority::Normal,
    };
    let ruled = Share {
        weight: 5,
        priority: Priority::High,
    };
    assert_eq!(acme.share(entry), ruled, "more than the tenants' file");
    assert_eq!(Effective::default().share(entry), entry);
    assert_eq!(weight(acme), Some((5, Section::Global)));
    assert_eq!(weight(beta), Some((2, Section::Others)));
    assert_eq!(weight(&Effective::default()), None);
    let smaller = |of: &Effective, model: &str| {
        let model: NamedModel = model.parse().expect("valid");
        of.smaller(&model).map(|it| it.value.to_string())
    };
    assert_eq!(smaller(beta, "big@3.0").as_deref(), Some("tiny"));
    assert_eq!(smaller(beta, "vast@1.0").as_deref(), Some("big"));
    assert_eq!(smaller(beta, "vast@1.1"), None);
    assert_eq!(smaller(acme, "big@3.0"), None, "switched off");
    assert_eq!(smaller(acme, "vast@1.0").as_deref(), Some("tiny"));
}

#[test]
fn a_tenant_says_for_itself_when_a_second_worker_is_asked_or_that_none_is() {
    let policy = read(
        r#"{"global": {"hedge_after_ms": 500},
            "tenants": {"acme": {"hedge_after_ms": 20}, "beta": {"hedge_after_ms": null}, "gamma": {}}}"#,
    );
    let of = |tenant| policy.of(&id(tenant)).hedge_after();
    let ruled = |value, section| Some(Ruled { value, section });
    assert_eq!(of("acme"), ruled(HedgeAfter::Ms(20), Section::Tenant));
    assert_eq!(of("beta"), ruled(HedgeAfter::Never, Section::Tenant));
    assert_eq!(of("gamma"), ruled(HedgeAfter::Ms(500), Section::Global));
    assert_eq!(Effective::default().hedge_after(), None);
    let ask = Ask {
        tenant: "beta",
        ..Ask::default()
    };
    let text = ask.with(|facts| dry_run(&policy, facts)).to_string();
    let line = "  hedge_after_ms     -                    tenants.beta.hedge_after_ms\n";
    assert!(text.contains(line), "{text}");
}

#[test]
fn a_smaller_model_that_a_tenant_may_not_use_does_not_answer_it() {
    let policy = read(
        r#"{"global": {"degrade": {"big": "tiny"}},
            "tenants": {"acme": {"models": {"deny": ["tiny"]}}}}"#,
    );
    let big: NamedModel = "big".parse().expect("valid");
    assert!(policy.of(&id("acme")).smaller(&big).is_none());
    assert!(policy.of(&id("beta")).smaller(&big).is_some());
}

/// [T-DIR-5]
#[test]
fn gateways_are_told_each_rule_about_models_once_and_none_where_there_is_none() {
    let policy = read(
        r#"{"global": {"models": {"deny": ["big"]}}, "others": {"models": {"allow": ["tiny"]}},
            "tenants": {"a": {"models": {"allow": ["tiny"]}}, "b": {"models": {"allow": []}},
                        "c": {"weight": 2}, "d": {"models": {"deny": ["big"]}}}}"#,
    );
    assert_eq!(policy.model_rules().len(), 3);
    let numbers = ["a", "b", "c", "d", "e"].map(|tenant| policy.model_rule(&id(tenant)));
    assert_eq!(numbers, [1, 2, 0, 0, 1]);
    let silent = read(r#"{"tenants": {"a": {"weight": 2}}}"#);
    assert!(silent.model_rules().is_empty());
    assert_eq!(silent.model_rule(&id("a")), 0);
}

#[test]
fn a_dry_run_says_what_holds_and_which_rule_makes_it_so() {
    let policy = read(
        r#"{"global": {"regions": ["eu", "us"], "max_output_tokens": 100},
            "tenants": {"acme": {"regions": ["eu"], "priority": "high",
                                 "models": {"deny": ["secret"]}, "degrade": {"big": "tiny"}}}}"#,
    );
    let run = |model| {
        let ask = Ask {
            model,
            ..Ask::default()
        };
        ask.with(|facts| dry_run(&policy, facts))
    };
    let allowed = run("big");
    assert!(allowed.allowed && allowed.refused.is_none());
    let holds = |what| {
        let found = allowed.holds.iter().find(|it| it.what == what);
        let found = found.unwrap_or_else(|| panic!("{what}"));
        (found.value.to_string(), found.rules.join(" "))
    };
    let of = |value: &str, rules: &str| (value.to_owned(), rules.to_owned());
    assert_eq!(
        holds("regions"),
        of("[\"eu\"]", "global.regions tenants.acme.regions")
    );
    assert_eq!(
        holds("max_output_tokens"),
        of("100", "global.max_output_tokens")
    );
    assert_eq!(holds("max_prompt_bytes"), of("null", ""));
    assert_eq!(holds("priority"), of("\"high\"", "tenants.acme.priority"));
    assert_eq!(holds("weight"), of("null", ""));
    assert_eq!(holds("degrade"), of("\"tiny\"", "tenants.acme.degrade"));
    let text = allowed.to_string();
    assert!(text.starts_with("allowed\n"), "{text}");
    assert!(
        text.contains("weight             -                    the tenants' file\n"),
        "{text}"
    );
    let refused = run("secret");
    assert!(!refused.allowed);
    let text = refused.to_string();
    assert!(
        text.starts_with("refused: the tenant `acme` may not use"),
        "{text}"
    );
    assert!(
        text.contains("by tenants.acme.models.deny (secret)"),
        "{text}"
    );
    let json = serde_json::to_value(&refused).expect("JSON");
    assert_eq!(json["refused"]["code"], "forbidden");
    assert_eq!(json["refused"]["param"], "model");
}

#[test]
fn a_changed_file_is_read_again_and_a_bad_one_told_once() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("policy.json");
    let mut file = PolicyFile::new(path.clone());
    assert!(
        matches!(file.poll(), Err(PolicyError::Read { .. })),
        "missing"
    );
    assert_eq!(file.poll(), Ok(None), "told once");
    std::fs::write(&path, r#"{"global": {"weight": 2}}"#).expect("written");
    assert!(file.poll().expect("read").is_some());
    assert_eq!(file.poll(), Ok(None), "unchanged");
    std::fs::write(&path, "{\n\"golbal\": {}}").expect("written");
    let error = file.poll().expect_err("a mistake").to_string();
    assert!(error.contains("policy.json, line 2, column"), "{error}");
    assert_eq!(file.poll(), Ok(None));
    std::fs::write(&path, " ".repeat(file::MAX_FILE_BYTES as usize + 1)).expect("written");
    let error = file.poll().expect_err("too large").to_string();
    assert!(error.contains("larger than 2097152 bytes"), "{error}");
}
