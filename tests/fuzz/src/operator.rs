//! Files that an operator writes for orchestrators: whatever stands in them, the mistake is told with
//! its line.

use crate::Verdict;
use std::path::Path;
use tether_orchestrator::placement::{self, PlacementError};
use tether_orchestrator::policy::{Facts, Policy, dry_run};
use tether_wire::{Region, TenantId};

/// Longest message of a mistake, beyond what is repeated of the file.
const MAX_WORDS_BYTES: usize = 4_096;

fn lines(text: &str) -> usize {
    text.matches('\n').count() + 1
}

/// Rules of who may use what. Those that are accepted decide about any request.
pub(crate) fn policy(bytes: &[u8]) -> Verdict {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return Verdict::Refused;
    };
    let policy = match Policy::read(text) {
        Ok(policy) => policy,
        Err(mistake) => {
            assert!((1..=lines(text)).contains(&mistake.line), "{mistake}");
            assert!(mistake.column >= 1, "{mistake}");
            assert!(
                mistake.why.len() <= MAX_WORDS_BYTES + text.len(),
                "{mistake}"
            );
            return Verdict::Refused;
        }
    };
    let region = Region::new("local").expect("valid");
    for tenant in ["acme", "nobody"] {
        let tenant = TenantId::new(tenant).expect("valid");
        for model in ["tether-tiny", "tether-tiny@1.0", "Not A Name@"] {
            let decided = dry_run(
                &policy,
                &Facts {
                    tenant: &tenant,
                    region: &region,
                    model,
                    max_tokens: Some(8),
                    prompt_bytes: 1 << 20,
                },
            );
            assert_eq!(decided.allowed, decided.refused.is_none());
        }
    }
    Verdict::Accepted
}

/// How requests are placed.
pub(crate) fn placement(bytes: &[u8]) -> Verdict {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return Verdict::Refused;
    };
    match placement::parse(Path::new("placement.toml"), text) {
        Ok(read) => {
            assert_eq!(read.check(), Ok(()));
            Verdict::Accepted
        }
        Err(PlacementError::Mistake { line, why, .. }) => {
            assert!((1..=lines(text)).contains(&line), "{line}: {why}");
            Verdict::Refused
        }
        Err(error) => panic!("a text is not read from a file: {error}"),
    }
}
