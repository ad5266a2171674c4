//! Trains, examines and writes small models: `tether-tiny-model train|check|random-hf`.
#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use tether_tiny_model::reference::Reference;
use tether_tiny_model::shape::Shape;
use tether_tiny_model::template::{generation_config, prompt, tokenizer_config};
use tether_tiny_model::train::{check, export, tokenizer, trainer};
use tether_tiny_model::{GGUF_FILE, write_random_hf};
use tokenizers::Tokenizer;

/// Right answers in percent below which `check` fails.
const PASS_PERCENT: f64 = 99.0;
/// Failures shown for each setting.
const SHOWN_FAILURES: usize = 12;

const LICENCE: &str = "tether-tiny was trained from scratch, from templates in this repository, by the makers of Tether.
The weights and the tokenizer are under the licence of the code beside them: MIT OR Apache-2.0.
";

#[derive(Parser)]
#[command(about = "Makes and examines Tether's small model", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Train the small model and write its files
    Train {
        /// Folder to write to
        #[arg(long)]
        out: PathBuf,
        /// Seed of every draw
        #[arg(long, default_value_t = 7)]
        seed: u64,
        /// Training steps
        #[arg(long, default_value_t = 2400)]
        steps: usize,
    },
    /// Ask a model every question of the exam; exit 1 below 99 percent
    Check {
        /// Folder with the model's files
        folder: PathBuf,
    },
    /// Ask a model one question
    Ask {
        /// Folder with the model's files
        folder: PathBuf,
        /// The question
        question: String,
    },
    /// Write a random, untrained model in Hugging Face layout
    RandomHf {
        /// Folder to write to
        out: PathBuf,
        /// Seed of the weights
        #[arg(long, default_value_t = 0)]
        seed: u64,
    },
}

fn main() -> anyhow::Result<ExitCode> {
    match Cli::parse().command {
        Command::Train { out, seed, steps } => train(&out, seed, steps)?,
        Command::Check { folder } => return examine(&folder),
        Command::Ask { folder, question } => {
            let (model, tokenizer) = load(&folder)?;
            let (answer, tokens) = check::answer(&model, &tokenizer, &prompt(&question))?;
            println!("{answer}\n({tokens} tokens)");
        }
        Command::RandomHf { out, seed } => write_random_hf(&out, seed)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn train(out: &Path, seed: u64, steps: usize) -> anyhow::Result<()> {
    fs::create_dir_all(out)?;
    let shape = Shape::TINY;
    let tokenizer = tokenizer::build(shape.vocabulary)?;
    println!("{} parameters, {} steps", shape.parameters(), steps);
    let bar = bar(steps as u64, "training")?;
    let mut losses = [f32::NAN; 4];
    let model = trainer::train(&shape, &tokenizer, seed, steps, |progress| {
        losses[progress.kind as usize] = progress.loss;
        let [short, dialogue, far, farthest] = losses;
        bar.set_position(progress.step as u64);
        bar.set_message(format!(
            "loss: short {short:.4}, dialogue {dialogue:.4}, counts {far:.4} and {farthest:.4}"
        ));
        if bar.is_hidden() && progress.step % 50 == 0 {
            println!("{} {}", progress.step, bar.message());
        }
    })?;
    bar.finish();
    let pretty = |value: &serde_json::Value| format!("{value:#}\n");
    let written = [
        (GGUF_FILE, export::gguf(&model, &tokenizer)?),
        (
            "tokenizer.json",
            tokenizer
                .to_string(false)
                .map_err(anyhow::Error::msg)?
                .into_bytes(),
        ),
        (
            "tokenizer_config.json",
            pretty(&tokenizer_config(shape.context_tokens)).into_bytes(),
        ),
        (
            "generation_config.json",
            pretty(&generation_config()).into_bytes(),
        ),
        (
            "config.json",
            pretty(&shape.hugging_face_config()).into_bytes(),
        ),
        ("LICENSE", LICENCE.as_bytes().to_vec()),
    ];
    for (name, bytes) in written {
        println!("{:>9} {name}", bytes.len());
        fs::write(out.join(name), bytes).with_context(|| format!("writing {name}"))?;
    }
    Ok(())
}

fn examine(folder: &Path) -> anyhow::Result<ExitCode> {
    let (model, tokenizer) = load(folder)?;
    let mut passed = true;
    for (index, (name, render)) in check::SETTINGS.iter().enumerate() {
        let questions = check::questions_of(index);
        let bar = bar(questions.len() as u64, name)?;
        let score = check::ask_all(&model, &tokenizer, &questions, render, || bar.inc(1))?;
        bar.finish_and_clear();
        let right = score.asked - score.failures.len();
        println!(
            "{name}: {right} of {} right, {:.1} %",
            score.asked,
            score.percent()
        );
        for failure in score.failures.iter().take(SHOWN_FAILURES) {
            println!(
                "  {}\n    wanted {:?}\n    got    {:?}",
                failure.prompt, failure.expected, failure.answer
            );
        }
        passed &= index > 0 || score.percent() >= PASS_PERCENT;
    }
    Ok(if passed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn load(folder: &Path) -> anyhow::Result<(Reference, Tokenizer)> {
    let path = folder.join(GGUF_FILE);
    let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    let tokenizer =
        Tokenizer::from_file(folder.join("tokenizer.json")).map_err(anyhow::Error::msg)?;
    Ok((Reference::from_gguf(&bytes)?, tokenizer))
}

fn bar(length: u64, message: &str) -> anyhow::Result<ProgressBar> {
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {eta} left  {msg}")?;
    Ok(ProgressBar::new(length)
        .with_style(style)
        .with_message(message.to_owned()))
}
