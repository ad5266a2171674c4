use super::*;
use tether_wire::codec;
use tether_wire::directory::{MAX_TENANTS_PER_UPDATE, MAX_UPDATE_BYTES};

fn tenant(id: &str, key: u8) -> TenantEntry {
    TenantEntry {
        id: id.parse().expect("valid"),
        key_hashes: vec![Digest([key; 32])],
        rule: 0,
    }
}

fn model(text: &str, availability: Availability) -> ModelEntry {
    ModelEntry {
        model: text.parse().expect("valid"),
        created_ms: 1_000,
        availability,
    }
}

fn whole() -> DirectoryUpdate {
    DirectoryUpdate {
        version: 5,
        whole: true,
        tenants: vec![tenant("a", 1), tenant("b", 2)],
        models: Some(vec![
            model("tiny@1.0", Availability::Available),
            model("tiny@1.10", Availability::Available),
            model("big@2.0", Availability::Unavailable),
        ]),
        ..DirectoryUpdate::default()
    }
}

/// The directory that a subscription begins with.
fn first(update: DirectoryUpdate) -> Directory {
    let mut told = Told::default();
    let first = told.take(update).expect("well");
    first.expect("all of it").clone()
}

fn id(tenant: &str) -> TenantId {
    tenant.parse().expect("valid")
}

fn listed(directory: &Directory, tenant: &str) -> Vec<String> {
    let listed = directory.available(&id(tenant)).into_iter();
    listed.map(|(id, _)| id).collect()
}

fn named(directory: &Directory, tenant: &str, model: &str) -> Option<String> {
    let entry = directory.model(&id(tenant), model)?;
    Some(entry.model.to_string())
}

#[test]
fn a_delta_changes_what_it_names_and_nothing_else() {
    let mut told = Told::default();
    let first = told.take(whole()).expect("well").expect("whole").clone();
    let delta = DirectoryUpdate {
        version: 6,
        tenants: vec![tenant("a", 3)],
        removed_tenants: vec!["b".parse().expect("valid")],
        ..DirectoryUpdate::default()
    };
    let next = told.take(delta).expect("in order").expect("all of it");
    let of = |key: u8| next.tenant(&Digest([key; 32])).map(TenantId::as_str);
    assert_eq!((of(1), of(2), of(3)), (None, None, Some("a")));
    assert_eq!(next.available(&id("a")).len(), 3);
    assert!(
        first.tenant(&Digest([1; 32])).is_some(),
        "readers keep theirs"
    );
}

#[test]
fn updates_out_of_order_or_without_a_beginning_are_refused() {
    let mut told = Told::default();
    told.take(whole()).expect("whole");
    let old = DirectoryUpdate {
        version: 5,
        ..DirectoryUpdate::default()
    };
    let order = UpdateError::Order { old: 5, new: 5 };
    assert_eq!(told.take(old.clone()).expect_err("old"), order);
    assert_eq!(
        told.take(old).expect_err("a delta"),
        UpdateError::NotWhole,
        "everything is to be told anew"
    );
    let mut many = whole();
    many.tenants[0].key_hashes = vec![Digest([9; 32]); MAX_KEYS_PER_TENANT + 1];
    assert!(told.take(many).is_err());
}

/// A key of tenant `n`.
fn key(n: usize) -> Digest {
    Digest::of(&n.to_be_bytes())
}

/// So many tenants of which the n-th may use the model that its `n` with this shift counts to.
fn many(version: u64, tenants: usize, shift: usize) -> DirectoryUpdate {
    const RULES: usize = 3;
    let one = |n: usize| TenantEntry {
        id: id(&format!("t{n}")),
        key_hashes: vec![key(n)],
        rule: u32::try_from(1 + (n + shift) % RULES).expect("small"),
    };
    let only = |n: usize| ModelRule {
        allow: Some(vec![format!("m{n}").parse().expect("valid")]),
        deny: Vec::new(),
    };
    // A policy that changes counts the same rules otherwise.
    let ordered = (0..RULES).map(|n| only((n + RULES - shift % RULES) % RULES));
    DirectoryUpdate {
        version,
        whole: version == 1,
        tenants: (0..tenants).map(one).collect(),
        models: Some(
            (0..RULES)
                .map(|n| model(&format!("m{n}@1.0"), Availability::Available))
                .collect(),
        ),
        rules: Some(
            std::iter::once(ModelRule::default())
                .chain(ordered)
                .collect(),
        ),
        ..DirectoryUpdate::default()
    }
}

/// As it is sent and read.
fn sent(update: DirectoryUpdate) -> impl Iterator<Item = DirectoryUpdate> {
    update.pieces().into_iter().map(|piece| {
        let bytes = codec::encode(&piece);
        codec::decode("directory update", &bytes, MAX_UPDATE_BYTES).expect("within a frame")
    })
}

/// [T-DIR-2]
#[test]
fn tenants_that_do_not_fit_one_update_are_all_known_and_shown_no_model_by_anothers_rule_meanwhile()
{
    const TENANTS: usize = 2 * MAX_TENANTS_PER_UPDATE + 1;
    let mut told = Told::default();
    let mut shown = None;
    // The third has as many rules as the second, which the tenants count otherwise.
    for (version, shift) in [(1, 0), (2, 0), (3, 1)] {
        let pieces: Vec<_> = sent(many(version, TENANTS, shift)).collect();
        assert_eq!(pieces.len(), 3);
        for piece in pieces {
            if let Some(directory) = told.take(piece).expect("in order") {
                assert_eq!(directory.version(), version);
                shown = Some(directory.clone());
            }
            let Some(shown) = &shown else { continue };
            for n in [0, MAX_TENANTS_PER_UPDATE, TENANTS - 1] {
                let tenant = shown.tenant(&key(n)).expect("known");
                assert_eq!(listed(shown, tenant.as_str()), [format!("m{}", n % 3)]);
            }
        }
    }
    assert_eq!(shown.expect("whole").version(), 3);
}

/// [T-DIR-2]
#[test]
fn nothing_comes_between_two_pieces() {
    const TENANTS: usize = MAX_TENANTS_PER_UPDATE + 1;
    for other in [many(1, 1, 0), many(2, 1, 0), many(4, 1, 0)] {
        let mut told = Told::default();
        told.take(many(1, 1, 0)).expect("whole");
        let first = sent(many(3, TENANTS, 0)).next().expect("two of them");
        assert!(told.take(first).expect("in order").is_none());
        let error = told.take(other).expect_err("in between");
        assert_eq!(error, UpdateError::Pieces { version: 3 });
    }
}

#[test]
fn no_more_tenants_are_held_than_there_is_room_for_however_many_pieces_they_come_in() {
    let mut told = Told::default();
    let error = sent(many(1, MAX_TENANTS + 1, 0)).find_map(|piece| told.take(piece).err());
    let (what, limit) = ("tenants", MAX_TENANTS);
    assert_eq!(error, Some(UpdateError::TooMany { what, limit }));
}

#[test]
fn models_are_listed_by_the_names_that_can_be_asked_for() {
    let directory = first(whole());
    assert_eq!(listed(&directory, "a"), ["tiny", "tiny@1.10", "tiny@1.0"]);
    assert_eq!(named(&directory, "a", "tiny").as_deref(), Some("tiny@1.10"));
    assert!(
        named(&directory, "a", "big").is_some(),
        "known, though not available"
    );
    assert!(named(&directory, "a", "none").is_none());
}

/// [T-DIR-5]
#[test]
fn a_tenant_is_shown_what_it_may_use_and_a_bare_name_means_the_newest_of_that() {
    let selectors = |texts: &[&str]| {
        let read = texts.iter().map(|text| text.parse().expect("valid"));
        read.collect::<Vec<_>>()
    };
    let mut update = whole();
    update.tenants[0].rule = 1;
    update.rules = Some(vec![
        ModelRule {
            allow: None,
            deny: selectors(&["big"]),
        },
        ModelRule {
            allow: Some(selectors(&["tiny@1.0", "big"])),
            deny: Vec::new(),
        },
    ]);
    let ruled = first(update.clone());
    assert_eq!(listed(&ruled, "a"), ["tiny"]);
    assert_eq!(named(&ruled, "a", "tiny").as_deref(), Some("tiny@1.0"));
    assert_eq!(named(&ruled, "a", "tiny@1.10"), None);
    assert_eq!(
        named(&ruled, "a", "big"),
        None,
        "the first rule is everyone's"
    );
    assert_eq!(listed(&ruled, "b"), ["tiny", "tiny@1.10", "tiny@1.0"]);
    let free = DirectoryUpdate {
        version: 6,
        rules: Some(Vec::new()),
        ..DirectoryUpdate::default()
    };
    let mut told = Told::default();
    told.take(update.clone()).expect("whole");
    let free = told.take(free).expect("in order").expect("all of it");
    assert!(
        named(free, "a", "big").is_some(),
        "there are no rules any more"
    );
    update.tenants[0].rule = 9;
    let missing = first(update.clone());
    assert!(listed(&missing, "a").is_empty(), "a rule that is missing");
    update.rules = Some(vec![ModelRule::default(); MAX_RULES + 1]);
    assert!(Told::default().take(update).is_err());
}
