//! The numerics class: answers of one seed are bit equal only between engines that compute alike.

use tether_wire::manifest::Format;

/// Name and version of the engine, as in its card.
pub(super) const ENGINE: &str = "mistralrs-0.8.1";

/// How tokens are drawn from logits; grows with each change of [`crate::text::sampler`].
const DRAW: u32 = 1;

/// Engine, architecture and system (its mathematical functions), instruction set (chosen when built,
/// and what kernels find at run time), format, dtype, device, how the arithmetic was compiled, how many
/// sequences are computed at once, and how tokens are drawn. The weights' own dtype belongs to the
/// model's digest. The number of threads is not in it: `tether bench continuation` compares answers of
/// one thread and of two to the last bit, and its figures are in `docs/benchmarks.md`.
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
        "{ENGINE}/{}-{}/built={}/runs={}/{format}/f32/cpu/{profile}/seq={}/draw={DRAW}",
        std::env::consts::ARCH,
        std::env::consts::OS,
        built(),
        runs(),
        super::SEQUENCES,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_fits_its_card_and_names_what_bits_depend_on() {
        for format in [Format::Gguf, Format::Safetensors, Format::Unknown] {
            let class = class(format);
            assert!(
                class.starts_with(ENGINE) && class.contains("/draw="),
                "{class}"
            );
            assert!(class.contains(std::env::consts::OS) && class.contains("/seq=1/"));
            // The bound of a card's field; the longest instruction sets are taken into account.
            let spare = "avx512".len() - built().len() + "avx2+fma".len() - runs().len();
            assert!(class.len() + spare <= 96, "{class}");
        }
    }
}
