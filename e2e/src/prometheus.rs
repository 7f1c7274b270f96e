//! Prometheus, which scrapes what a test tells it to and evaluates the rules of a file.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use percent_encoding::{NON_ALPHANUMERIC, PercentEncode, utf8_percent_encode};
use serde_json::{Value, json};

use crate::{
    installed::Installed,
    ports::with_free_ports,
    process::{Program, Server},
};

const START: Duration = Duration::from_secs(30);

/// A running Prometheus with a data directory of its own.
#[derive(Debug)]
pub struct Prometheus {
    // Only to be dropped.
    _server: Server,
    url: String,
    http: reqwest::Client,
}

/// What is scraped: an address, and the labels that every series from there gets.
#[derive(Clone, Debug)]
pub struct Target {
    /// Host and port of the metrics.
    pub address: String,
    /// The labels, as Kubernetes' service discovery would give them.
    pub labels: BTreeMap<&'static str, String>,
}

/// The points of one series, each a time in seconds since 1970 and a value.
#[derive(Clone, Debug)]
pub struct Series {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its points, those that are numbers.
    pub points: Vec<(f64, f64)>,
}

impl Prometheus {
    /// Starts it; it scrapes and evaluates the rules once a second.
    ///
    /// # Errors
    ///
    /// When it does not get ready; the error carries the end of its log.
    pub async fn start(directory: &Path, targets: &[Target], rules: &str) -> Result<Self> {
        let directory = directory.join("prometheus");
        fs::create_dir(&directory)?;
        fs::write(directory.join("rules.yaml"), rules)?;
        let static_configs: Vec<_> = targets
            .iter()
            .map(|Target { address, labels }| json!({ "targets": [address], "labels": labels }))
            .collect();
        let configuration = json!({
            "global": { "scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s" },
            "rule_files": [directory.join("rules.yaml")],
            "scrape_configs": [{ "job_name": "vdbi", "static_configs": static_configs }],
        });
        // JSON is YAML.
        let file = directory.join("prometheus.yaml");
        fs::write(&file, serde_json::to_vec_pretty(&configuration)?)?;
        let path = Installed::Prometheus.path()?;
        with_free_ports(async |[port]: [u16; 1]| {
            let program = Program::new(&path, &directory)
                .arg(format!("--config.file={}", file.display()))
                .arg(format!("--storage.tsdb.path={}", directory.join("data").display()))
                .arg(format!("--web.listen-address=127.0.0.1:{port}"));
            let mut server = Server::start("prometheus", program, &directory).await?;
            let (http, url) = (reqwest::Client::new(), format!("http://127.0.0.1:{port}"));
            let ready = format!("{url}/-/ready");
            let check = async || {
                http.get(&ready).send().await?.error_for_status()?;
                Ok(())
            };
            server.ready(START, check).await?;
            Ok(Self { _server: server, url, http })
        })
        .await
    }

    /// What `/api/v1/<path>` answers.
    ///
    /// # Errors
    ///
    /// What Prometheus says against it.
    pub async fn get(&self, path: &str) -> Result<Value> {
        let url = format!("{}/api/v1/{path}", self.url);
        let answer: Value = self.http.get(url).send().await?.json().await?;
        ensure!(answer["status"] == "success", "{answer}");
        Ok(answer["data"].clone())
    }

    /// What an expression yields now.
    ///
    /// # Errors
    ///
    /// What Prometheus says against it.
    pub async fn query(&self, expression: &str) -> Result<Vec<Series>> {
        self.series(&format!("query?query={}", encode(expression)), "value").await
    }

    /// What an expression yields in a time, with this many seconds between two points.
    ///
    /// # Errors
    ///
    /// What Prometheus says against it.
    pub async fn query_range(
        &self,
        expression: &str,
        (from, to): (f64, f64),
        step: f64,
    ) -> Result<Vec<Series>> {
        let query = encode(expression);
        self.series(&format!("query_range?query={query}&start={from}&end={to}&step={step}"), "values").await
    }

    async fn series(&self, path: &str, key: &str) -> Result<Vec<Series>> {
        let data = self.get(path).await?;
        let all = data["result"].as_array().context("a result is a list")?;
        all.iter().map(|series| read(series, key)).collect()
    }
}

fn read(series: &Value, key: &str) -> Result<Series> {
    let labels = serde_json::from_value(series["metric"].clone()).context("a series has labels")?;
    let points = if key == "value" {
        vec![series[key].clone()]
    } else {
        series[key].as_array().cloned().unwrap_or_default()
    };
    let point = |point: &Value| Some((point[0].as_f64()?, point[1].as_str()?.parse::<f64>().ok()?));
    let points = points.iter().filter_map(point).filter(|(_, value)| value.is_finite()).collect();
    Ok(Series { labels, points })
}

fn encode(text: &str) -> PercentEncode<'_> {
    utf8_percent_encode(text, NON_ALPHANUMERIC)
}
