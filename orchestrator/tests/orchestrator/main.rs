//! The orchestrator over real links on loopback: a real DHT, a gateway's node, scripted workers.
#![allow(unreachable_pub, reason = "the modules of a test are no library")]

mod admin;
mod again;
mod breakers;
mod cannot_go_on;
mod cuts;
mod directory;
mod disk;
mod dispatch;
mod explain;
mod fleets;
mod hedges;
mod keys;
mod letters;
mod membership;
mod mesh;
mod placed;
mod policy;
mod policy_documents;
mod presence;
mod refusals;
mod relay;
mod script;
mod shared;
mod shutdown;
mod spread;
mod starved;
mod survive;
mod taken_over;
mod unreachable;
mod waiting;
