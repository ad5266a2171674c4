//! The numerics class: answers of one seed are bit equal only between engines that compute alike.

use tether_wire::manifest::Format;

/// Name and version of the engine, as in its card.
pub(super) const ENGINE: &str = "mistralrs-0.8.1";

/// Engine, instruction set (chosen when built, and what kernels find at run time), format, dtype,
/// device, and how the arithmetic was compiled.
pub(super) fn class(format: Format) -> String {
    let format = match format {
        Format::Gguf => "gguf",
        Format::Safetensors => "safetensors",
        Format::Unknown => "unknown",
    };
    let profile = if cfg!(debug_assertions) {
        "dev"
    } else {
        "release"
    };
    format!(
        "{ENGINE}/{}/built={}/runs={}/{format}/f32/cpu/{profile}",
        std::env::consts::ARCH,
        built(),
        runs(),
    )
}

fn built() -> &'static str {
    if cfg!(target_feature = "avx512f") {
        "avx512"
    } else if cfg!(target_feature = "avx2") {
        "avx2"
    } else {
        "base"
    }
}

#[cfg(target_arch = "x86_64")]
fn runs() -> &'static str {
    if std::arch::is_x86_feature_detected!("avx512f") {
        "avx512"
    } else if std::arch::is_x86_feature_detected!("fma") {
        "avx2+fma"
    } else if std::arch::is_x86_feature_detected!("avx2") {
        "avx2"
    } else {
        "base"
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn runs() -> &'static str {
    "base"
}
