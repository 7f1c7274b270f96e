use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use http::{Method, StatusCode};
use serde_json::{Value, json};

/// A client of the HTTP API; cheap to clone.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    url: String,
    token: String,
}

/// The server answered, with a refusal; found in an error with `downcast_ref`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The status of the answer.
    pub status: StatusCode,
    /// What the server said.
    pub errors: Vec<String>,
}

impl Client {
    pub(super) fn new(url: &str, token: &str) -> Result<Self> {
        crate::cluster::install_crypto();
        // Long enough for a database server that hangs.
        let http = reqwest::Client::builder().timeout(Duration::from_secs(100)).no_proxy().build()?;
        Ok(Self { http, url: url.to_owned(), token: token.to_owned() })
    }

    /// The address of the server.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The token it uses.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }

    /// The same client with another token.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        Self { token: token.to_owned(), ..self.clone() }
    }

    /// Writes, and returns the whole answer: `data`, `auth`, `lease_id` and the others; null when it has no body.
    ///
    /// # Errors
    ///
    /// [`Refused`] when the server refuses.
    pub async fn write(&self, path: &str, body: &Value) -> Result<Value> {
        self.call(Method::POST, path, Some(body)).await
    }

    /// Reads `data` at a path; `None` when nothing is there.
    ///
    /// # Errors
    ///
    /// [`Refused`] when the server refuses.
    pub async fn read(&self, path: &str) -> Result<Option<Value>> {
        Ok(self.read_answer(path).await?.map(|mut answer| answer["data"].take()))
    }

    /// Reads the whole answer at a path, as the lease is outside of `data`; `None` when nothing is there.
    ///
    /// # Errors
    ///
    /// [`Refused`] when the server refuses.
    pub async fn read_answer(&self, path: &str) -> Result<Option<Value>> {
        missing_is_none(self.call(Method::GET, path, None).await)
    }

    /// Lists the keys below a path; those of folders end with a slash.
    ///
    /// # Errors
    ///
    /// [`Refused`] when the server refuses.
    pub async fn list(&self, path: &str) -> Result<Vec<String>> {
        let list = Method::from_bytes(b"LIST")?;
        let answer = missing_is_none(self.call(list, path, None).await)?.unwrap_or_default();
        let keys = answer["data"]["keys"].as_array().into_iter().flatten();
        Ok(keys.filter_map(|key| key.as_str().map(str::to_owned)).collect())
    }

    /// Deletes.
    ///
    /// # Errors
    ///
    /// [`Refused`] when the server refuses.
    pub async fn delete(&self, path: &str) -> Result<()> {
        self.call(Method::DELETE, path, None).await.map(drop)
    }

    /// Logs a service account in at `auth/<mount>`, and returns a client with the token and the whole answer.
    ///
    /// # Errors
    ///
    /// [`Refused`] when the server refuses.
    pub async fn login(&self, mount: &str, role: &str, jwt: &str) -> Result<(Self, Value)> {
        let anybody = self.with_token("");
        let answer =
            anybody.write(&format!("auth/{mount}/login"), &json!({ "role": role, "jwt": jwt })).await?;
        let token = answer["auth"]["client_token"].as_str().context("the login brought no token")?;
        Ok((self.with_token(token), answer))
    }

    /// Whether a token is alive, by its accessor.
    ///
    /// # Errors
    ///
    /// When the server does not say.
    pub async fn token_exists(&self, accessor: &str) -> Result<bool> {
        Ok(self.lookup_accessor(accessor).await?.is_some())
    }

    /// What is known of the live tokens with this policy.
    ///
    /// # Errors
    ///
    /// [`Refused`] when the server refuses.
    pub async fn tokens_with_policy(&self, policy: &str) -> Result<Vec<Value>> {
        let mut tokens = Vec::new();
        for accessor in self.list("auth/token/accessors").await? {
            // A token may end between the two requests.
            let Some(token) = self.lookup_accessor(&accessor).await? else { continue };
            let mut policies = token["policies"].as_array().into_iter().flatten();
            if policies.any(|of| of == policy) {
                tokens.push(token);
            }
        }
        Ok(tokens)
    }

    async fn lookup_accessor(&self, accessor: &str) -> Result<Option<Value>> {
        match self.write("auth/token/lookup-accessor", &json!({ "accessor": accessor })).await {
            Ok(mut answer) => Ok(Some(answer["data"].take())),
            Err(error) => match error.downcast_ref::<Refused>() {
                // OpenBao goes on listing the accessor of a token whose creation was cut off half-way, and denies it to everybody.
                Some(refused) if refused.says("invalid accessor") || refused.says("permission denied") => {
                    Ok(None)
                }
                _ => Err(error),
            },
        }
    }

    /// The ids of all leases below a prefix, such as `databases/creds/app`.
    ///
    /// # Errors
    ///
    /// [`Refused`] when the server refuses.
    pub async fn lease_ids(&self, prefix: &str) -> Result<Vec<String>> {
        let mut ids = Vec::new();
        let mut folders = vec![prefix.trim_end_matches('/').to_owned()];
        while let Some(folder) = folders.pop() {
            for key in self.list(&format!("sys/leases/lookup/{folder}")).await? {
                match key.strip_suffix('/') {
                    Some(inner) => folders.push(format!("{folder}/{inner}")),
                    None => ids.push(format!("{folder}/{key}")),
                }
            }
        }
        Ok(ids)
    }

    /// The keys of the ledger's entries below `<mount>/metadata/<prefix>`.
    ///
    /// # Errors
    ///
    /// [`Refused`] when the server refuses.
    pub async fn ledger_keys(&self, mount: &str, prefix: &str) -> Result<Vec<String>> {
        self.list(&format!("{mount}/metadata/{prefix}")).await
    }

    async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value> {
        let asked = format!("{method} {path}");
        let mut request = self.http.request(method, format!("{}/v1/{path}", self.url));
        if !self.token.is_empty() {
            request = request.header("X-Vault-Token", &self.token);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.with_context(|| asked.clone())?;
        let status = response.status();
        let text = response.text().await.with_context(|| asked.clone())?;
        let answer: Value = serde_json::from_str(&text).unwrap_or_default();
        if status.is_success() {
            return Ok(answer);
        }
        let errors = answer["errors"].as_array().into_iter().flatten();
        let errors = errors.filter_map(|error| error.as_str().map(str::to_owned)).collect();
        bail!(anyhow::Error::new(Refused { status, errors }).context(asked))
    }
}

fn missing_is_none(answer: Result<Value>) -> Result<Option<Value>> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) => match error.downcast_ref::<Refused>() {
            Some(refused) if refused.status == StatusCode::NOT_FOUND => Ok(None),
            _ => Err(error),
        },
    }
}

impl Refused {
    /// Whether one of the errors contains this.
    #[must_use]
    pub fn says(&self, text: &str) -> bool {
        self.errors.iter().any(|error| error.contains(text))
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.status, self.errors.join("; "))
    }
}

impl std::error::Error for Refused {}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("url", &self.url).finish_non_exhaustive()
    }
}
