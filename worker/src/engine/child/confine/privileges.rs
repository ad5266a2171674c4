//! No capabilities, none in the bounding set, and no program that could bring any.

use super::Step;
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

/// Drops all of them.
pub(super) fn drop_all() -> Step {
    // While there are capabilities to do it with; without them it is not needed.
    for capability in CapabilitySet::all().iter() {
        let _ = remove_capability_from_bounding_set(capability);
    }
    let _ = clear_ambient_capability_set();
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    let dropped = set_capabilities(None, none).and_then(|()| set_no_new_privs(true));
    match dropped {
        Ok(()) => Step::Done("no capabilities, and no_new_privs".to_owned()),
        Err(error) => Step::Missing(format!("dropping capabilities: {error}")),
    }
}
