//! Where metrics are registered and from where they are read.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry as Inner, Unit};
use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};

/// The metrics of a process or of one role in it. Cheap to clone.
///
/// Each kind of metrics is registered once; who asks again is given the same ones, so that a name
/// never appears twice in the text.
#[derive(Clone, Default)]
pub struct Registry {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    inner: Inner,
    known: HashMap<TypeId, Arc<dyn Any + Send + Sync>>,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Registry")
    }
}

impl Registry {
    /// An empty registry.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// All metrics in OpenMetrics text, see [`super::CONTENT_TYPE`].
    #[must_use]
    pub fn encode(&self) -> String {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::with_capacity(8 * 1024);
        prometheus_client::encoding::text::encode(&mut text, &state.inner)
            .expect("writing text to a String cannot fail");
        text
    }

    /// The metrics of this type, made and registered at the first call.
    pub(crate) fn once<T: Send + Sync + 'static>(
        &self,
        make: impl FnOnce(&mut Declare<'_>) -> T,
    ) -> Arc<T> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { inner, known } = &mut *state;
        let entry = known
            .entry(TypeId::of::<T>())
            .or_insert_with(|| Arc::new(make(&mut Declare { inner })));
        entry
            .clone()
            .downcast()
            .expect("entries are stored under their own type")
    }
}

/// Declares metrics: name, help, unit.
pub(crate) struct Declare<'a> {
    inner: &'a mut Inner,
}

impl Declare<'_> {
    pub(crate) fn add<M: Metric + Clone>(&mut self, name: &str, help: &str, metric: M) -> M {
        self.inner.register(name, help, metric.clone());
        metric
    }

    pub(crate) fn add_in<M: Metric + Clone>(
        &mut self,
        name: &str,
        help: &str,
        unit: Unit,
        metric: M,
    ) -> M {
        self.inner
            .register_with_unit(name, help, unit, metric.clone());
        metric
    }

    /// A counter; `_total` is appended by the text form.
    pub(crate) fn counter(&mut self, name: &str, help: &str) -> Counter {
        self.add(name, help, Counter::default())
    }

    /// A gauge.
    pub(crate) fn gauge(&mut self, name: &str, help: &str) -> Gauge {
        self.add(name, help, Gauge::default())
    }

    /// A gauge from 0 to 1.
    pub(crate) fn ratio(&mut self, name: &str, help: &str) -> Ratio {
        self.add(name, help, Ratio::default())
    }
}

/// A gauge from 0 to 1.
pub(crate) type Ratio = Gauge<f64, AtomicU64>;

/// A family of histograms with one set of buckets.
pub(crate) type Histograms<L> = Family<L, Histogram, Buckets>;

/// Upper bounds of a histogram's buckets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Buckets(pub(crate) &'static [f64]);

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(self.0.iter().copied())
    }
}

/// Seconds of a whole request (OpenTelemetry's advice for `gen_ai.server.request.duration`).
pub(crate) const REQUEST_SECONDS: Buckets = Buckets(&[
    0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92,
]);
/// Seconds to the first token (OpenTelemetry's advice for `gen_ai.server.time_to_first_token`).
pub(crate) const FIRST_TOKEN_SECONDS: Buckets = Buckets(&[
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
]);
/// Seconds per token (OpenTelemetry's advice for `gen_ai.server.time_per_output_token`).
pub(crate) const TOKEN_SECONDS: Buckets = Buckets(&[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5,
]);
/// Seconds of short work: commits, look-ups, calls.
pub(crate) const SHORT_SECONDS: Buckets = Buckets(&[
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
]);
/// Sizes of groups.
pub(crate) const SIZES: Buckets = Buckets(&[
    1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0,
]);
