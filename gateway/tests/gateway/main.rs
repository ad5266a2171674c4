//! A real gateway, real HTTP, a real mesh; the orchestrator plays a script.

mod answers;
mod bounds;
mod chat;
mod choices;
mod output;
mod policy;
mod presence;
mod refusals;
mod survive;
mod world;
