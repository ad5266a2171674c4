//! The kinds of engines, seen from the process that runs one.

use crate::engine::child::answer::Answer;
use crate::engine::echo::EchoEngine;
use crate::engine::escape::EscapeEngine;
use crate::engine::protocol::{EngineKind, Load, Task};
use futures_util::future::BoxFuture;
use std::sync::Arc;

/// What an engine is, once its model is loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Most tokens of prompt and answer together.
    pub(crate) context_tokens: u32,
    /// Name and version.
    pub(crate) engine: String,
    /// Answers are bit equal only between engines of the same class.
    pub(crate) numerics_class: String,
    /// Most answers that it gives at once.
    pub(crate) sequences: u32,
    /// Most bytes of text that one token stands for.
    pub(crate) max_token_bytes: Option<u32>,
}

/// An engine with its model.
pub(crate) trait Engine: Send + Sync {
    /// What it is.
    fn facts(&self) -> Facts;
    /// Gives one answer. After a cancellation it ends as soon as nothing of the answer occupies the
    /// engine any more.
    fn generate(&self, task: Task, answer: Answer) -> BoxFuture<'static, ()>;
}

/// Why a model is not loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LoadError {
    /// The engine could not; it may be otherwise at the next try.
    Failed(String),
    /// The adapter asks for what is not applied, or does not fit its base.
    #[cfg_attr(
        not(feature = "mistralrs"),
        expect(dead_code, reason = "only mistral.rs has adapters")
    )]
    AdapterUnfit(String),
}

impl From<String> for LoadError {
    fn from(reason: String) -> Self {
        Self::Failed(reason)
    }
}

/// Loads the model that was asked for, by the engine that was asked for.
pub(crate) async fn load(load: &Load) -> Result<Arc<dyn Engine>, LoadError> {
    match load.kind {
        EngineKind::Echo => Ok(Arc::new(EchoEngine::new(load))),
        EngineKind::Escape => Ok(Arc::new(EscapeEngine::new(load))),
        #[cfg(feature = "mistralrs")]
        EngineKind::Mistralrs => Ok(Arc::new(crate::engine::mistralrs::load(load).await?)),
        #[cfg(not(feature = "mistralrs"))]
        EngineKind::Mistralrs => Err("this build has no engine".to_owned().into()),
    }
}
