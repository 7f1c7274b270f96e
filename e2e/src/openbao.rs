//! OpenBao, in memory or on a disk, with a client that may do anything and a record of every request.
//!
//! With `VDBI_BACKEND=vault` it is HashiCorp Vault in its place, in memory only: `hack/test vault` runs the tests like that.

mod audit;
mod client;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;

pub use audit::Request;
pub use client::{Client, Refused};

use crate::installed::Installed;
use crate::ports::with_free_ports;
use crate::process::{Program, Server};

const ROOT_TOKEN: &str = "root";
const START: Duration = Duration::from_secs(30);

/// Where a server keeps what it stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    /// In memory: ready in a third of a second, empty after a restart.
    Dev,
    /// In a directory, as raft's only node, unsealed by a key beside it: ready in three seconds, and a restart loses nothing.
    Raft,
}

/// A running OpenBao.
#[derive(Debug)]
pub struct OpenBao {
    server: Server,
    storage: Storage,
    root: Client,
    audit: PathBuf,
}

impl OpenBao {
    /// Asks for a server in memory.
    #[must_use]
    pub fn dev() -> Storage {
        Storage::Dev
    }

    /// Asks for a server on a disk, which can be restarted.
    #[must_use]
    pub fn raft() -> Storage {
        Storage::Raft
    }

    pub(crate) async fn start(storage: Storage, address: &str, directory: &Path) -> Result<Self> {
        let is_vault = is_vault();
        ensure!(storage == Storage::Dev || !is_vault, "HashiCorp Vault runs in memory only in these tests");
        let bao = if is_vault { Installed::Vault } else { Installed::OpenBao }.path()?;
        with_free_ports(async |[port, cluster_port]: [u16; 2]| {
            let program = match storage {
                Storage::Dev => dev(&bao, directory, address, port, is_vault)?,
                Storage::Raft => raft(&bao, directory, address, port, cluster_port)?,
            };
            let server = Server::start("openbao", program, directory).await?;
            let root = Client::new(&format!("http://{address}:{port}"), ROOT_TOKEN)?;
            let mut openbao = Self { server, storage, root, audit: directory.join("audit.log") };
            openbao.ready().await?;
            if is_vault {
                let file = json!({ "type": "file", "options": { "file_path": openbao.audit } });
                openbao.root.write("sys/audit/file", &file).await?;
            }
            Ok(openbao)
        })
        .await
    }

    /// Its address, as `http://127.0.0.1:<port>`; in a cluster with nodes, where pods reach it too.
    #[must_use]
    pub fn url(&self) -> &str {
        self.root.url()
    }

    /// A client with the root token.
    #[must_use]
    pub fn root(&self) -> &Client {
        &self.root
    }

    /// A client with a token of the caller's.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Client {
        self.root.with_token(token)
    }

    /// The requests that reached the server so far, in order, from its audit log.
    ///
    /// # Errors
    ///
    /// When the log cannot be read.
    pub fn requests(&self) -> Result<Vec<Request>> {
        audit::requests(&self.audit)
    }

    /// How many requests had a path that begins with this, such as `auth/kubernetes/login`.
    ///
    /// # Errors
    ///
    /// When the audit log cannot be read.
    pub fn count_requests(&self, path: &str) -> Result<usize> {
        Ok(self.requests()?.iter().filter(|request| request.path.starts_with(path)).count())
    }

    /// Seals it: from now on every request is answered with 503.
    ///
    /// # Errors
    ///
    /// When the server refuses.
    pub async fn seal(&self) -> Result<()> {
        self.root.write("sys/seal", &json!({})).await.map(drop)
    }

    /// Unseals it after [`OpenBao::seal`]. One on a disk unseals itself at its start, so that it is restarted for this.
    ///
    /// # Errors
    ///
    /// When it stays sealed.
    pub async fn unseal(&mut self) -> Result<()> {
        match self.storage {
            Storage::Dev => {
                // It answers before it has printed its key, and the token after that.
                self.server.logged("Root Token: ", START).await?;
                let log = self.server.log()?;
                let key = log.lines().find_map(|line| line.strip_prefix("Unseal Key: "));
                let key = key.context("the server has not printed its unseal key")?;
                self.root.write("sys/unseal", &json!({ "key": key.trim() })).await?;
                self.ready().await
            }
            Storage::Raft => self.restart().await,
        }
    }

    /// Ends the server and starts it again on the same address; only one on a disk, as the other would forget everything.
    ///
    /// # Errors
    ///
    /// When it does not get ready again, or is in memory.
    pub async fn restart(&mut self) -> Result<()> {
        ensure!(
            self.storage == Storage::Raft,
            "a server in memory forgets everything: ask for OpenBao::raft() to restart it"
        );
        if self.server.is_running()? {
            self.server.terminate(START).await?;
        }
        self.server.restart().await?;
        self.ready().await
    }

    /// The process, to freeze it or end it.
    pub fn server_mut(&mut self) -> &mut Server {
        &mut self.server
    }

    async fn ready(&mut self) -> Result<()> {
        let (root, storage) = (&self.root, self.storage);
        self.server
            .ready(START, async || {
                let mounts = root.read("sys/mounts").await?.unwrap_or_default();
                // In memory it answers a moment before its first mount is there.
                ensure!(
                    storage == Storage::Raft || mounts.get("secret/").is_some(),
                    "secret/ is not mounted yet"
                );
                Ok(())
            })
            .await
    }
}

/// Whether HashiCorp Vault takes OpenBao's place.
#[must_use]
pub fn is_vault() -> bool {
    std::env::var_os("VDBI_BACKEND").is_some_and(|backend| backend == "vault")
}

fn dev(bao: &Path, directory: &Path, address: &str, port: u16, is_vault: bool) -> Result<Program> {
    let program = Program::new(bao, directory)
        .args(["server", "-dev", "-dev-no-store-token"])
        .arg(format!("-dev-root-token-id={ROOT_TOKEN}"))
        .arg(format!("-dev-listen-address={address}:{port}"));
    if is_vault {
        return Ok(program);
    }
    let configuration = directory.join("openbao.hcl");
    fs::write(&configuration, audit_device(directory))?;
    Ok(program.arg(format!("-config={}", configuration.display())))
}

fn raft(bao: &Path, parent: &Path, address: &str, port: u16, cluster_port: u16) -> Result<Program> {
    // Another attempt on other ports begins anew.
    let directory = parent.join(format!("raft-{port}"));
    let data = directory.join("data");
    fs::create_dir_all(&data)?;
    let key: Vec<u8> = (0..2).flat_map(|_| uuid::Uuid::new_v4().into_bytes()).collect();
    fs::write(directory.join("seal.key"), key)?;
    let own = format!(
        r#"
        storage "raft" {{
          path = "{data}"
          node_id = "n1"
          performance_multiplier = 1
        }}
        listener "tcp" {{
          address = "{address}:{port}"
          tls_disable = true
          cluster_address = "127.0.0.1:{cluster_port}"
        }}
        seal "static" {{
          current_key_id = "k1"
          current_key = "file://{directory}/seal.key"
        }}
        api_addr = "http://{address}:{port}"
        cluster_addr = "https://127.0.0.1:{cluster_port}"
        initialize "boot" {{
          request "root" {{
            operation = "update"
            path = "auth/token/create"
            data = {{
              id = "{ROOT_TOKEN}"
              policies = ["root"]
              no_parent = true
            }}
          }}
        }}
        "#,
        data = data.display(),
        directory = directory.display(),
    );
    let configuration = directory.join("openbao.hcl");
    fs::write(&configuration, own + &audit_device(parent))?;
    Ok(Program::new(bao, parent).arg("server").arg(format!("-config={}", configuration.display())))
}

/// OpenBao makes audit devices only from its configuration, Vault only through its API.
fn audit_device(directory: &Path) -> String {
    format!(
        "audit \"file\" \"file\" {{\n  options = {{ file_path = \"{}/audit.log\" }}\n}}\n",
        directory.display()
    )
}
