//! The orchestrator over real links on loopback: a real DHT, a gateway's node, scripted workers.
#![allow(unreachable_pub, reason = "the modules of a test are no library")]

mod admin;
mod directory;
mod disk;
mod dispatch;
mod explain;
mod fleets;
mod keys;
mod membership;
mod mesh;
mod policy;
mod policy_documents;
mod presence;
mod refusals;
mod relay;
mod script;
mod shutdown;
mod spread;
mod starved;
mod survive;
mod unreachable;
