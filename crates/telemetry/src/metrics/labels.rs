//! Label sets whose size is bounded.

use prometheus_client::encoding::EncodeLabelSet;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

/// What a value past the bound is called.
pub const OTHER: &str = "other";

/// Text from outside as a label: the first so many values keep their name, later ones are
/// [`OTHER`].
#[derive(Debug)]
pub struct BoundedLabels {
    limit: usize,
    known: Mutex<HashSet<Arc<str>>>,
}

/// Longest label value that is kept.
const MAX_LABEL_BYTES: usize = 128;

impl BoundedLabels {
    /// At most `limit` values.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            known: Mutex::default(),
        }
    }

    /// The label for a value.
    #[must_use]
    pub fn label(&self, value: &str) -> String {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.contains(value) {
            return value.to_owned();
        }
        if known.len() >= self.limit || value.len() > MAX_LABEL_BYTES {
            return OTHER.to_owned();
        }
        known.insert(value.into());
        value.to_owned()
    }
}

macro_rules! label_set {
    ($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
        pub(crate) struct $name { $(pub(crate) $field: $type),+ }
    };
}

label_set!(
    /// One reason.
    Reason { reason: &'static str }
);
label_set!(
    /// One state.
    State { state: &'static str }
);
label_set!(
    /// One role in one state.
    RoleState { role: &'static str, state: &'static str }
);
label_set!(
    /// One kind in one state.
    KindState { kind: &'static str, state: &'static str }
);
label_set!(
    /// One priority.
    ByPriority { priority: &'static str }
);
label_set!(
    /// One code.
    ByCode { code: &'static str }
);
label_set!(
    /// One outcome.
    Outcome { outcome: &'static str }
);
label_set!(
    /// One role.
    ByRole { role: &'static str }
);
label_set!(
    /// One model, in OpenTelemetry's words.
    ByModel { gen_ai_request_model: String }
);
label_set!(
    /// A model and which tokens, in OpenTelemetry's words.
    Tokens { gen_ai_request_model: String, gen_ai_token_type: &'static str }
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_past_the_bound_share_one_label() {
        let labels = BoundedLabels::new(2);
        assert_eq!(labels.label("a"), "a");
        assert_eq!(labels.label("b"), "b");
        assert_eq!(labels.label("c"), OTHER);
        assert_eq!(labels.label("a"), "a");
        assert_eq!(BoundedLabels::new(9).label(&"x".repeat(200)), OTHER);
    }
}
