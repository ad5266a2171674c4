//! Keeps ARCHITECTURE.md, topics.md and docs/dependencies.md true: the graph of our crates, who
//! knows what, clauses and their citations, licences, links between documents.

mod documents;
mod graph;
mod knowers;
mod licences;
mod repository;
mod specification;
