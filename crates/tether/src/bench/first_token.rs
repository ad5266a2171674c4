//! From starting the binary, with an empty data folder, to the first token through its own gateway.

use super::mesh::Mesh;
use super::report::{Report, median, range};
use anyhow::Context;
use serde_json::json;
use std::time::Instant;

pub(super) async fn measure(runs: u32) -> anyhow::Result<Report> {
    let (mut first, mut ready) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        let begin = Instant::now();
        let mesh = Mesh::start().await?;
        ready.push(begin.elapsed().as_secs_f64() * 1e3);
        let measured = mesh.ready("first_token_ms")?.as_f64();
        first.push(measured.context("`first_token_ms` is a number")?);
        mesh.stop().await?;
    }
    let row = |what: &str, samples: &[f64]| {
        let (low, high) = range(samples);
        format!(
            "| {what} | {:.0} | {low:.0} | {high:.0} |\n",
            median(samples)
        )
    };
    let table = [
        "| from the start of the binary, ms | median | least | most |\n|---|---|---|---|\n"
            .to_owned(),
        row("first token of the first answer", &first),
        row("ready line, the whole answer included", &ready),
    ]
    .concat();
    let samples = json!({"first_token_ms": first, "ready_ms": ready});
    Ok(Report::new("first-token", runs, table, samples))
}
