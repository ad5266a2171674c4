//! The engines of the worker's fixture, where it is used outside the worker's own tests: the built
//! binary's.

use tether_worker::EngineCommand;

pub(crate) fn command(_: &str) -> EngineCommand {
    EngineCommand {
        program: env!("CARGO_BIN_EXE_tether").into(),
        args: vec!["engine".into()],
    }
}
