//! W3C trace context in and out, and spans whose times are known only afterwards.
//!
//! Source: W3C Trace Context, Recommendation of 23 November 2021.

use opentelemetry::trace::{
    Span as _, SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState, Tracer,
};
use opentelemetry::{Context, KeyValue};
use std::time::{Duration, SystemTime};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

pub use opentelemetry::Value;

/// Bytes of a `traceparent` of version 00.
const TRACEPARENT_LEN: usize = 55;
/// Most bytes that are looked at: later versions may append fields.
const MAX_TRACEPARENT_LEN: usize = 256;

/// `traceparent` of the current span, to be sent along; nothing outside of a trace.
#[must_use]
pub fn current_traceparent() -> Option<String> {
    traceparent(&Span::current())
}

/// `traceparent` of a span.
#[must_use]
pub fn traceparent(span: &Span) -> Option<String> {
    let context = span.context();
    let span = context.span();
    let span = span.span_context();
    span.is_valid().then(|| {
        format!(
            "00-{}-{}-{:02x}",
            span.trace_id(),
            span.span_id(),
            span.trace_flags() & TraceFlags::SAMPLED
        )
    })
}

/// Makes `span` the child of the span that a caller named. Call it before the span is entered.
/// What is not a valid `traceparent` is ignored, as the recommendation wants it.
pub fn set_parent(span: &Span, traceparent: Option<&str>) {
    if let Some(parent) = traceparent.and_then(parse) {
        // It fails only for a span that nobody records, whose parent nobody asks for.
        let _ = span.set_parent(Context::new().with_remote_span_context(parent));
    }
}

/// The trace that a span belongs to, as 32 hex digits.
#[must_use]
pub fn trace_id(span: &Span) -> Option<String> {
    let context = span.context();
    let span = context.span();
    let span = span.span_context();
    span.is_valid().then(|| span.trace_id().to_string())
}

/// Whether a text is a valid `traceparent`.
#[must_use]
pub fn is_traceparent(text: &str) -> bool {
    parse(text).is_some()
}

/// Records a span below the current one whose times were measured elsewhere, such as
/// `engine.prefill` by the engine's process. Times are Unix nanoseconds.
pub fn record_finished(
    name: &'static str,
    start_unix_ns: u64,
    end_unix_ns: u64,
    attributes: &[(&'static str, Value)],
) {
    let parent = Span::current().context();
    if !parent.span().span_context().is_valid() {
        return;
    }
    let tracer = opentelemetry::global::tracer("tether");
    let at = |ns: u64| SystemTime::UNIX_EPOCH + Duration::from_nanos(ns);
    let mut span = tracer
        .span_builder(name)
        .with_start_time(at(start_unix_ns))
        .with_attributes(
            attributes
                .iter()
                .map(|(key, value)| KeyValue::new(*key, value.clone())),
        )
        .start_with_context(&tracer, &parent);
    span.end_with_timestamp(at(end_unix_ns.max(start_unix_ns)));
}

/// Reads a `traceparent`.
fn parse(text: &str) -> Option<SpanContext> {
    if text.len() > MAX_TRACEPARENT_LEN || !text.is_ascii() {
        return None;
    }
    let fields = text.get(..TRACEPARENT_LEN)?;
    let mut parts = fields.split('-');
    let (version, trace, span, flags) =
        (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let lower_hex = |part: &str, len: usize| {
        part.len() == len
            && part
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let well_formed = parts.next().is_none()
        && lower_hex(version, 2)
        && lower_hex(trace, 32)
        && lower_hex(span, 16)
        && lower_hex(flags, 2)
        && version != "ff";
    let tail_fits = text.len() == TRACEPARENT_LEN
        || (version != "00" && text.as_bytes().get(TRACEPARENT_LEN) == Some(&b'-'));
    if !(well_formed && tail_fits) {
        return None;
    }
    let context = SpanContext::new(
        TraceId::from_hex(trace).ok()?,
        SpanId::from_hex(span).ok()?,
        TraceFlags::new(u8::from_str_radix(flags, 16).ok()?) & TraceFlags::SAMPLED,
        true,
        TraceState::default(),
    );
    context.is_valid().then_some(context)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_good_traceparent_is_read() {
        let context = parse(GOOD).expect("valid");
        assert_eq!(
            context.trace_id().to_string(),
            "4bf92f3577b34da6a3ce929d0e0e4736"
        );
        assert!(context.is_sampled() && context.is_remote());
        assert!(is_traceparent(&format!("01{}-extra", &GOOD[2..])));
    }

    #[test]
    fn everything_else_is_ignored() {
        for bad in [
            "",
            "00",
            &GOOD[..54],
            &format!("{GOOD}-extra"),
            &GOOD.to_uppercase(),
            &format!("ff{}", &GOOD[2..]),
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            &"é".repeat(40),
            &format!("01{}-{}", &GOOD[2..], "x".repeat(300)),
        ] {
            assert!(parse(bad).is_none(), "{bad}");
        }
    }
}
