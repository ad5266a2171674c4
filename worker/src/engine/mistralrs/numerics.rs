//! The numerics class: answers of one seed are bit equal only between engines that compute alike.

use crate::device::{Compute, Device};
use crate::engine::protocol::Load;
use tether_wire::manifest::Format;

/// Name and version of the engine, as in its card.
pub(super) const ENGINE: &str = "mistralrs-0.8.1";

/// How tokens are drawn from logits; grows with each change of [`crate::text::sampler`].
const DRAW: u32 = 1;

/// Engine, architecture and system (its mathematical functions), instruction set (chosen when built,
/// and what kernels find at run time), format, dtype, device, how the arithmetic was compiled, whether an
/// adapter was added to the weights, how many sequences are computed at once, and how tokens are drawn.
/// Of an accelerator its class, in place of the processor's instruction sets. With more than one sequence
/// the shapes depend on neighbours, so that even within one class nothing is promised. The weights' own
/// dtype belongs to the model's digest. The number of threads is not in it: `tether bench continuation`
/// compares answers of one thread and of two to the last bit, and its figures are in
/// `docs/benchmarks.md`.
pub(super) fn class(load: &Load) -> String {
    let Compute {
        device,
        class,
        sequences,
    } = &load.compute;
    let format = match load.format {
        Format::Gguf => "gguf",
        // Whose base is in safetensors, and adding is arithmetic, too.
        Format::Safetensors if load.has_adapter => "lora",
        Format::Safetensors => "safetensors",
        Format::Unknown => "unknown",
    };
    let profile = if cfg!(debug_assertions) {
        "dev"
    } else {
        "release"
    };
    let (arch, os) = (std::env::consts::ARCH, std::env::consts::OS);
    let machine = format!("{ENGINE}/{arch}-{os}");
    let rest = format!("seq={sequences}/draw={DRAW}");
    match device {
        Device::Cpu => format!(
            "{machine}/built={}/runs={}/{format}/f32/cpu/{profile}/{rest}",
            built(),
            runs(),
        ),
        Device::Cuda(_) => format!("{machine}/{format}/cuda/{rest}/{class}"),
        Device::Metal => format!("{machine}/{format}/metal/{rest}/{class}"),
    }
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

    fn load(format: Format, compute: Compute) -> Load {
        let json = serde_json::json!({
            "kind": "mistralrs", "root": "/", "weights": "w", "format": format,
            "context_tokens": 1, "threads": 1, "slots": 1, "model_name": "m", "compute": compute,
        });
        serde_json::from_value(json).expect("a load")
    }

    #[test]
    fn accelerators_are_told_apart_by_class_and_batches_by_size() {
        let on = |device, class: &str, sequences| {
            let class = class.to_owned();
            super::class(&load(
                Format::Safetensors,
                Compute {
                    device,
                    class,
                    sequences,
                },
            ))
        };
        let class = on(Device::Cuda(0), &"x".repeat(32), 256);
        assert!(
            class.len() <= 96 && class.contains("/cuda/seq=256/"),
            "{class}"
        );
        assert_eq!(
            class,
            on(Device::Cuda(1), &"x".repeat(32), 256),
            "which one does not matter"
        );
        assert_ne!(class, on(Device::Cuda(0), "h100", 256));
        assert_ne!(on(Device::Metal, "m3", 1), on(Device::Metal, "m3", 2));
    }

    #[test]
    fn a_class_fits_its_card_and_names_what_bits_depend_on() {
        for format in [Format::Gguf, Format::Safetensors, Format::Unknown] {
            let mut load = load(format, Compute::default());
            let class = super::class(&load);
            assert!(
                class.starts_with(ENGINE) && class.contains("/draw="),
                "{class}"
            );
            assert!(class.contains(std::env::consts::OS) && class.contains("/seq=1/"));
            // The bound of a card's field; the longest instruction sets are taken into account.
            let spare = "avx512".len() - built().len() + "avx2+fma".len() - runs().len();
            assert!(class.len() + spare <= 96, "{class}");
            load.has_adapter = true;
            let adapted = super::class(&load);
            let is_other = adapted != class && adapted.contains("/lora/");
            assert_eq!(is_other, format == Format::Safetensors, "{adapted}");
            assert!(adapted.len() <= class.len());
        }
    }
}
