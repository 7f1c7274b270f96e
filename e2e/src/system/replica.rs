use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{process::Server, setup::Component};

/// One running process of a release.
#[derive(Debug)]
pub struct Replica {
    /// Its process, to end or freeze it.
    pub server: Server,
    /// Where the webhook answers.
    pub admission_address: Option<SocketAddr>,
    admin: String,
    metrics: String,
    http: reqwest::Client,
}

impl Replica {
    pub(super) fn new(component: Component, server: Server, configuration: &Value) -> Result<Self> {
        let address = |key: &str| {
            configuration[key].as_str().map(str::to_owned).with_context(|| format!("{key} is configured"))
        };
        let admission = address("admissionAddress")?.parse()?;
        Ok(Self {
            server,
            admission_address: (component == Component::Injector).then_some(admission),
            admin: address("adminAddress")?,
            metrics: address("metricsAddress")?,
            http: reqwest::Client::new(),
        })
    }

    /// Waits until `/readyz` answers 200.
    ///
    /// # Errors
    ///
    /// When it does not in time; the error carries the end of the log.
    pub async fn ready(&mut self, within: Duration) -> Result<()> {
        let (http, url) = (self.http.clone(), format!("http://{}/readyz?verbose", self.admin));
        let check = async || {
            let answer = http.get(&url).send().await?;
            let (status, text) = (answer.status(), answer.text().await?);
            ensure!(status.is_success(), "{text}");
            Ok(())
        };
        self.server.ready(within, check).await
    }

    /// Where `/readyz` is.
    #[must_use]
    pub fn readiness(&self) -> String {
        format!("http://{}/readyz", self.admin)
    }

    /// What a health endpoint answers: its status and its text.
    ///
    /// # Errors
    ///
    /// When it does not answer.
    pub async fn health(&self, path: &str) -> Result<(u16, String)> {
        let answer = self.http.get(format!("http://{}{path}", self.admin)).send().await?;
        Ok((answer.status().as_u16(), answer.text().await?))
    }

    /// Where Prometheus scrapes it.
    #[must_use]
    pub fn metrics_address(&self) -> &str {
        &self.metrics
    }

    /// The metrics page.
    ///
    /// # Errors
    ///
    /// When it does not answer.
    pub async fn metrics(&self) -> Result<String> {
        Ok(self.http.get(format!("http://{}/metrics", self.metrics)).send().await?.text().await?)
    }

    /// The sum of a metric's series whose text contains all of `labels`; 0 where there is none.
    ///
    /// # Errors
    ///
    /// When the page does not answer or a value is no number.
    pub async fn metric(&self, name: &str, labels: &[&str]) -> Result<f64> {
        metric(&self.metrics().await?, name, labels)
    }

    /// Whether this replica leads.
    ///
    /// # Errors
    ///
    /// When the page does not answer.
    pub async fn leads(&self) -> Result<bool> {
        Ok(self.metric("vdbi_is_leader", &[]).await? > 0.0)
    }
}

/// The sum of a metric's series on a metrics page whose text contains all of `labels`; 0 where there is none.
///
/// # Errors
///
/// When a value is no number.
pub fn metric(page: &str, name: &str, labels: &[&str]) -> Result<f64> {
    let mut sum = 0.0;
    for line in page.lines() {
        let Some(rest) = line.strip_prefix(name) else { continue };
        if !(rest.starts_with('{') || rest.starts_with(' '))
            || !labels.iter().all(|label| rest.contains(label))
        {
            continue;
        }
        let (_, value) = rest.rsplit_once(' ').context("a series has a value")?;
        sum += value.parse::<f64>().with_context(|| line.to_owned())?;
    }
    Ok(sum)
}
