//! How far a worker's models are, while it starts on a terminal. Elsewhere the log says it.

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::time::Duration;
use tether_worker::{ModelReport, ModelStatus};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// How often a bar moves while nothing is counted.
const TICK: Duration = Duration::from_millis(120);

/// Shows a bar for each model until all are served or refused. Nothing where nobody watches, or
/// where a program reads.
pub(super) fn show(
    models: watch::Receiver<Vec<ModelStatus>>,
    json: bool,
) -> Option<AbortOnDropHandle<()>> {
    if json || !std::io::stderr().is_terminal() {
        return None;
    }
    Some(AbortOnDropHandle::new(tokio::spawn(follow(models))))
}

async fn follow(mut models: watch::Receiver<Vec<ModelStatus>>) {
    let bars = MultiProgress::new();
    let mut rows: Vec<(ProgressBar, &'static str)> = Vec::new();
    loop {
        let reports: Vec<ModelReport> = models
            .borrow_and_update()
            .iter()
            .map(ModelStatus::report)
            .collect();
        for (index, report) in reports.iter().enumerate() {
            if rows.len() <= index {
                rows.push((bars.add(ProgressBar::no_length()), ""));
            }
            let (bar, shown) = &mut rows[index];
            draw(bar, shown, report);
        }
        let is_moving = |it: &ModelReport| matches!(it.state, "fetching" | "verifying" | "loading");
        if !reports.iter().any(is_moving) || models.changed().await.is_err() {
            return;
        }
    }
}

fn draw(bar: &ProgressBar, shown: &mut &'static str, report: &ModelReport) {
    let name = (report.model.as_ref()).map_or(report.configured.clone(), ToString::to_string);
    if *shown != report.state {
        *shown = report.state;
        let template = match report.state {
            "fetching" | "verifying" => {
                "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}"
            }
            _ => "{msg} {spinner} {elapsed}",
        };
        let style = ProgressStyle::with_template(template);
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.reset();
        bar.enable_steady_tick(TICK);
    }
    bar.set_message(format!("{} {name}", report.state));
    if let Some((done, total)) = report.progress {
        bar.set_length(total);
        bar.set_position(done);
    }
    match report.state {
        "warm" | "cold" => bar.finish_with_message(format!("{} {name}", report.state)),
        "faulted" => {
            let why = report
                .fault
                .as_ref()
                .map_or("", |(_, reason)| reason.as_str());
            bar.abandon_with_message(format!("{name} is not served: {why}"));
        }
        _ => {}
    }
}
