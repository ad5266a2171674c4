//! How much each tenant may ask of this worker in a minute. Pure: time is passed in. (WRK-1)
//!
//! Orchestrators hold tenants to their limits over the whole mesh; this guards the one machine.
//! A request is counted when it is taken and its tokens as they come, so that a tenant can run into
//! debt by what is under way, and waits until the debt is paid.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tether_net::TokenBucket;
use tether_wire::TenantId;

/// Tenants that are counted one by one. Those who come while so many are busy share one count.
pub const MAX_TENANTS: usize = 4_096;

/// What one tenant may ask for; 0 is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RateLimits {
    /// Requests in a minute.
    pub requests_per_minute: u32,
    /// Requests at once after a pause; 0 means as many as in a minute.
    pub request_burst: u32,
    /// Tokens of prompts and answers in a minute.
    pub tokens_per_minute: u32,
    /// Tokens at once after a pause; 0 means as many as in a minute.
    pub token_burst: u32,
}

impl RateLimits {
    /// A setting that means nothing, and why, if there is one.
    pub(crate) fn fault(&self) -> Option<(&'static str, &'static str)> {
        if self.request_burst > 0 && self.requests_per_minute == 0 {
            return Some((
                "quota.request_burst",
                "limits nothing without `requests_per_minute`: set that too, or leave both out",
            ));
        }
        if self.token_burst > 0 && self.tokens_per_minute == 0 {
            return Some((
                "quota.token_burst",
                "limits nothing without `tokens_per_minute`: set that too, or leave both out",
            ));
        }
        None
    }
}

/// Which limit was reached, and when there is room again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Over {
    /// What there were too many of.
    pub what: &'static str,
    /// After so many milliseconds a request is taken.
    pub retry_after_ms: u64,
}

/// The counts of all tenants.
#[derive(Debug)]
pub struct Rates {
    limits: RateLimits,
    tenants: BTreeMap<TenantId, Account>,
    /// Of those for whom there was no room.
    others: Account,
}

#[derive(Clone, Copy, Debug)]
struct Account {
    requests: TokenBucket,
    tokens: TokenBucket,
}

impl Account {
    fn full(limits: &RateLimits, now_ms: u64) -> Self {
        let bucket = |per_minute: u32, burst: u32| {
            let burst = if burst == 0 { per_minute } else { burst };
            TokenBucket::per_minute(per_minute, burst, now_ms)
        };
        Self {
            requests: bucket(limits.requests_per_minute, limits.request_burst),
            tokens: bucket(limits.tokens_per_minute, limits.token_burst),
        }
    }
}

impl Rates {
    /// Nobody has asked for anything.
    #[must_use]
    pub fn new(limits: RateLimits, now_ms: u64) -> Self {
        Self {
            limits,
            tenants: BTreeMap::new(),
            others: Account::full(&limits, now_ms),
        }
    }

    /// Whether a tenant may ask now; nothing is counted.
    ///
    /// # Errors
    /// When it asked for too much of late.
    pub fn check(&mut self, tenant: &TenantId, now_ms: u64) -> Result<(), Over> {
        let limits = self.limits;
        if limits == RateLimits::default() {
            return Ok(());
        }
        let account = self.account(tenant, now_ms);
        let over = |what, retry_after_ms| Over {
            what,
            retry_after_ms,
        };
        let mut waits = [
            (
                limits.requests_per_minute,
                "requests",
                &mut account.requests,
            ),
            (limits.tokens_per_minute, "tokens", &mut account.tokens),
        ]
        .into_iter()
        .filter(|(limit, ..)| *limit > 0)
        .map(|(_, what, bucket)| over(what, bucket.wait_ms(now_ms)))
        .collect::<Vec<_>>();
        waits.sort_by_key(|over| over.retry_after_ms);
        match waits.pop() {
            Some(over) if over.retry_after_ms > 0 => Err(over),
            _ => Ok(()),
        }
    }

    /// A request was taken.
    pub fn taken(&mut self, tenant: &TenantId, now_ms: u64) {
        if self.limits.requests_per_minute > 0 {
            self.account(tenant, now_ms).requests.charge(1, now_ms);
        }
    }

    /// Tokens were read or drawn for a tenant.
    pub fn spent(&mut self, tenant: &TenantId, tokens: u32, now_ms: u64) {
        if self.limits.tokens_per_minute > 0 {
            self.account(tenant, now_ms).tokens.charge(tokens, now_ms);
        }
    }

    fn account(&mut self, tenant: &TenantId, now_ms: u64) -> &mut Account {
        if !self.tenants.contains_key(tenant) && self.tenants.len() >= MAX_TENANTS {
            self.tenants.retain(|_, account| {
                !(account.requests.is_full(now_ms) && account.tokens.is_full(now_ms))
            });
            if self.tenants.len() >= MAX_TENANTS {
                return &mut self.others;
            }
        }
        self.tenants
            .entry(tenant.clone())
            .or_insert_with(|| Account::full(&self.limits, now_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};

    fn tenant(n: usize) -> TenantId {
        TenantId::new(format!("t{n}")).expect("valid")
    }

    const LIMITS: RateLimits = RateLimits {
        requests_per_minute: 60,
        request_burst: 2,
        tokens_per_minute: 600,
        token_burst: 0,
    };

    #[test]
    fn who_asks_too_often_is_told_the_very_moment_to_come_again() {
        let mut rates = Rates::new(LIMITS, 0);
        let a = tenant(1);
        for _ in 0..2 {
            rates.check(&a, 0).expect("a burst");
            rates.taken(&a, 0);
        }
        let over = rates.check(&a, 250).expect_err("too often");
        assert_eq!((over.what, over.retry_after_ms), ("requests", 750));
        assert!(rates.check(&a, 999).is_err());
        rates.check(&a, 1_000).expect("the very moment");
        rates.check(&tenant(2), 250).expect("another's affair");
    }

    #[test]
    fn tokens_beyond_the_minutes_are_a_debt_that_is_waited_for() {
        let mut rates = Rates::new(LIMITS, 0);
        let a = tenant(1);
        rates.check(&a, 0).expect("nothing spent");
        rates.spent(&a, 1_000, 0);
        let over = rates.check(&a, 0).expect_err("in debt by 400");
        assert_eq!((over.what, over.retry_after_ms), ("tokens", 40_100));
        rates
            .check(&a, 40_100)
            .expect("paid, and one token is there");
    }

    #[test]
    fn without_limits_nothing_is_counted() {
        let mut rates = Rates::new(RateLimits::default(), 0);
        rates.spent(&tenant(1), u32::MAX, 0);
        rates.taken(&tenant(1), 0);
        rates.check(&tenant(1), 0).expect("no limit");
        assert!(rates.tenants.is_empty());
    }

    #[test]
    fn memory_is_bounded_over_any_number_of_tenants_and_none_escapes_by_being_many() {
        let mut rates = Rates::new(LIMITS, 0);
        let mut taken = 0;
        for n in 0..3 * MAX_TENANTS {
            if rates.check(&tenant(n), 0).is_ok() {
                rates.taken(&tenant(n), 0);
                taken += 1;
            }
        }
        assert_eq!(rates.tenants.len(), MAX_TENANTS);
        assert_eq!(taken, MAX_TENANTS + 2, "those beyond share one burst");
        rates
            .check(&tenant(9_000_000), 60_000)
            .expect("the idle are forgotten");
        assert_eq!(rates.tenants.len(), 1);
    }

    /// Over any time a tenant gets no more than burst and rate, and one that asks when it is told
    /// to is never refused.
    #[test]
    fn simulated_tenants_get_their_rate_and_no_more() {
        for seed in 0..32 {
            let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
            let mut rates = Rates::new(LIMITS, 0);
            let a = tenant(1);
            let (mut now_ms, mut requests) = (0, 0_u64);
            while now_ms < 600_000 {
                match rates.check(&a, now_ms) {
                    Ok(()) => {
                        rates.taken(&a, now_ms);
                        requests += 1;
                        now_ms += rng.random_range(0..1_500);
                    }
                    Err(over) if rng.random_bool(0.5) => {
                        now_ms += over.retry_after_ms;
                        assert!(rates.check(&a, now_ms).is_ok(), "seed {seed} at {now_ms}");
                    }
                    Err(over) => now_ms += rng.random_range(0..=over.retry_after_ms),
                }
                assert!(
                    requests <= 2 + now_ms / 1_000 + 1,
                    "seed {seed} at {now_ms}"
                );
            }
            assert!(requests > 300, "seed {seed}: {requests}");
        }
    }
}
