//! Making the model: lessons, tokenizer, training, export and the exam.
//!
//! Behind the feature `train`, the only part that needs a tensor library.

pub mod check;
pub mod corpus;
pub mod export;
pub mod lesson;
pub mod model;
pub mod tokenizer;
pub mod trainer;
