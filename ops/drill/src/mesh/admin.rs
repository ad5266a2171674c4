//! The admin pages of an orchestrator: its fleet and its metrics.

use super::client;
use anyhow::Context;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a page may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Rows of a fleet that are asked for: the most that there may be.
const MAX_ROWS: usize = 100_000;

/// A worker, as `/fleet` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Row {
    pub(crate) id: String,
    pub(crate) state: String,
    #[serde(default)]
    pub(crate) models: Vec<String>,
    #[serde(default)]
    pub(crate) reason: Option<String>,
    /// The number of its run; only what is told of one worker has it.
    #[serde(skip)]
    pub(crate) epoch: Option<u64>,
}

impl Row {
    /// Whether it gets work.
    pub(crate) fn is_routable(&self) -> bool {
        self.state == "serving" && self.reason.is_none() && !self.models.is_empty()
    }
}

/// The admin pages.
#[derive(Clone)]
pub(crate) struct Admin {
    client: reqwest::Client,
    base: String,
    token: String,
}

impl Admin {
    pub(super) fn new(base: String, token: &str) -> anyhow::Result<Self> {
        Ok(Self {
            client: client()?,
            base,
            token: token.to_owned(),
        })
    }

    /// The fleet, by id.
    pub(crate) async fn fleet(&self) -> anyhow::Result<BTreeMap<String, Row>> {
        let text = self.page(&format!("fleet?limit={MAX_ROWS}")).await?;
        let rows: Vec<Row> = serde_json::from_str(&text).context("not a fleet")?;
        Ok(rows.into_iter().map(|row| (row.id.clone(), row)).collect())
    }

    /// The fleet, each worker with its run.
    pub(crate) async fn fleet_in_full(&self) -> anyhow::Result<BTreeMap<String, Row>> {
        let mut fleet = self.fleet().await?;
        for (id, row) in &mut fleet {
            let explained = self.page(&format!("fleet/{id}")).await?;
            let explained: Value = serde_json::from_str(&explained).context("not a worker")?;
            let epoch = explained["beat"]["epoch"].as_u64();
            row.epoch = Some(epoch.context("the run of a worker is not told")?);
        }
        Ok(fleet)
    }

    /// The metrics.
    pub(crate) async fn metrics(&self) -> anyhow::Result<Metrics> {
        Ok(Metrics::parse(&self.page("metrics").await?))
    }

    async fn page(&self, name: &str) -> anyhow::Result<String> {
        let request = self.client.get(format!("{}/{name}", self.base));
        let request = request.bearer_auth(&self.token).timeout(TIMEOUT);
        Ok(request.send().await?.error_for_status()?.text().await?)
    }
}

/// Metrics by name and labels, as they stand in the text.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        Self(
            lines
                .filter_map(|line| {
                    let (name, value) = line.rsplit_once(' ')?;
                    Some((name.to_owned(), value.parse().ok()?))
                })
                .collect(),
        )
    }

    /// The values of all series of a metric with what is in their labels.
    pub(crate) fn series(&self, name: &str) -> impl Iterator<Item = (&str, f64)> {
        self.0.iter().filter_map(move |(series, value)| {
            let labels = series.strip_prefix(name)?;
            let bare = labels.is_empty() || labels.starts_with('{');
            bare.then_some((labels, *value))
        })
    }

    /// The sum over all series of a metric.
    pub(crate) fn sum(&self, name: &str) -> f64 {
        self.series(name).map(|(_, value)| value).sum()
    }

    /// By the value of the only label of a metric, what was added since an earlier look.
    pub(crate) fn added(&self, name: &str, earlier: &Self) -> BTreeMap<String, f64> {
        let before = earlier.labelled(name);
        let now = self.labelled(name).into_iter();
        now.map(|(label, value)| (label.clone(), value - before.get(&label).unwrap_or(&0.0)))
            .filter(|(_, added)| *added > 0.0)
            .collect()
    }

    fn labelled(&self, name: &str) -> BTreeMap<String, f64> {
        (self.series(name))
            .filter_map(|(labels, value)| Some((labels.split('"').nth(1)?.to_owned(), value)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_read_by_name_and_label() {
        let earlier = Metrics::parse("# HELP a_total b\na_total{reason=\"forged\"} 2\n");
        let later = Metrics::parse(
            "a_total{reason=\"forged\"} 5\na_total{reason=\"flood\"} 1\na_total_more 9\nb 0.5\n",
        );
        assert_eq!(later.sum("a_total"), 6.0);
        assert_eq!(later.sum("b"), 0.5);
        let added = later.added("a_total", &earlier);
        assert_eq!(added.get("forged"), Some(&3.0));
        assert_eq!(added.get("flood"), Some(&1.0));
        assert_eq!(added.len(), 2);
    }

    #[test]
    fn a_worker_with_a_reason_gets_no_work() {
        let row = |text| serde_json::from_str::<Row>(text).expect("a row");
        assert!(
            row(r#"{"id":"a","state":"serving","models":["m@1.0"],"reason":null}"#).is_routable()
        );
        assert!(
            !row(r#"{"id":"a","state":"serving","models":["m@1.0"],"reason":"x"}"#).is_routable()
        );
        assert!(!row(r#"{"id":"a","state":"suspect","models":["m@1.0"]}"#).is_routable());
        assert!(!row(r#"{"id":"a","state":"serving"}"#).is_routable());
    }
}
