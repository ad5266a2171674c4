//! A worker with real sockets and real engine processes. The engine is the echo engine, or one that
//! misbehaves in one way.

mod adapters;
mod draining;
mod engines;
mod fixture;
mod foreign;
mod healing;
mod leaving;
mod metrics;
mod moving;
mod pool;
mod presence;
mod receipts;
mod refusals;
mod remembered;
mod replicas;
mod sandbox;
mod serving;
mod siblings;
mod strain;
mod supervisor;
mod under_way;
