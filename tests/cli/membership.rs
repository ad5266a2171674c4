//! Invites, rotations, revocations: who belongs to a mesh. What needs a mesh that runs is in
//! tests/membership/.

mod access;
mod invites;
mod joining;
mod keys;
mod recovery;
mod revocations;

use crate::operator::{Operator, text};
use crate::support::Tether;
use serde_json::Value;

/// Nobody listens there.
const NOWHERE: &str = "127.0.0.1:9";

impl Operator {
    /// A token for workers of `eu`, and the serial of its invite.
    fn invite(&self, more: &[&str]) -> (String, u64) {
        let mesh = self.path("mesh");
        let mut args = vec!["invite", "new", "--operator", text(&mesh), "--json"];
        args.extend(["--region", "eu", "--bootstrap", NOWHERE]);
        args.extend(more);
        let made: Value = serde_json::from_str(&Tether::ok(&args)).expect("JSON");
        let token = made["token"].as_str().expect("a token").to_owned();
        (token, made["serial"].as_u64().expect("a serial"))
    }

    fn recovery(&self) -> String {
        Tether::ok(&["keys", "show", text(&self.path("mesh/recovery.key"))])
    }
}

fn id(n: u8) -> String {
    format!("{n:02x}").repeat(32)
}
