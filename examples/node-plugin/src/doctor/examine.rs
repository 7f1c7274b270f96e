//! What the node says of itself.

use std::{io, os::unix::fs::FileTypeExt, path::Path, path::PathBuf, time::Duration};

use containerd_client::{
    Client,
    services::v1::{Plugin, PluginsRequest, VersionResponse},
};
use tokio::{net::UnixStream, time::timeout};

/// A containerd that works answers in milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);

/// What was found on a node.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) containerd: PathBuf,
    pub(super) nri_socket: PathBuf,
    pub(super) answers: Answers,
    pub(super) nri: Result<(), Closed>,
}

/// What containerd answers.
#[derive(Debug)]
pub(super) enum Answers {
    /// There is no connection to it.
    Unreachable(Closed),
    /// It does not say what it is, for this reason.
    Mute(String),
    /// Its version, and its plugins or why it does not tell them.
    Known { version: String, plugins: Result<Vec<Extension>, String> },
}

/// A plugin of containerd's own, as introspection shows it: whether it is disabled by its own configuration is not in it.
#[derive(Debug)]
pub(super) struct Extension {
    pub(super) kind: String,
    pub(super) id: String,
    /// Why it did not start.
    pub(super) failure: Option<String>,
}

/// Why a socket takes no connection.
#[derive(Debug)]
pub(super) enum Closed {
    /// Something else has its name.
    NotASocket,
    /// It cannot be connected to.
    Unconnected(io::Error),
}

/// Asks the containerd behind `containerd`, and connects to its NRI socket without registering.
///
/// # Errors
///
/// This process can make no connection of any kind.
pub(super) fn node(containerd: PathBuf, nri_socket: PathBuf) -> io::Result<Facts> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let answers = match connect(&containerd).await {
            Ok(()) => ask(&containerd).await,
            Err(closed) => Answers::Unreachable(closed),
        };
        // Closed at once: containerd goes back to waiting for plugins.
        let nri = connect(&nri_socket).await;
        Ok(Facts { containerd, nri_socket, answers, nri })
    })
}

async fn connect(socket: &Path) -> Result<(), Closed> {
    // Connecting to another kind of file is refused as if nobody listened.
    let kind = std::fs::metadata(socket).map_err(Closed::Unconnected)?.file_type();
    if !kind.is_socket() {
        return Err(Closed::NotASocket);
    }
    match timeout(PATIENCE, UnixStream::connect(socket)).await {
        Ok(connected) => connected.map(drop).map_err(Closed::Unconnected),
        Err(_) => Err(Closed::Unconnected(io::ErrorKind::TimedOut.into())),
    }
}

async fn ask(socket: &Path) -> Answers {
    let client = match timeout(PATIENCE, Client::from_path(socket)).await {
        Ok(Ok(client)) => client,
        Ok(Err(error)) => return Answers::Mute(error.to_string()),
        Err(_) => return Answers::Mute(no_answer()),
    };
    let version = match timeout(PATIENCE, client.version().version(())).await {
        Ok(Ok(response)) => response.into_inner(),
        Ok(Err(status)) => return Answers::Mute(status.message().to_owned()),
        Err(_) => return Answers::Mute(no_answer()),
    };
    let VersionResponse { version, revision: _ } = version;
    let everything = PluginsRequest { filters: Vec::new() };
    let plugins = match timeout(PATIENCE, client.introspection().plugins(everything)).await {
        Ok(Ok(response)) => Ok(response.into_inner().plugins.into_iter().map(Extension::from).collect()),
        Ok(Err(status)) => Err(status.message().to_owned()),
        Err(_) => Err(no_answer()),
    };
    Answers::Known { version, plugins }
}

fn no_answer() -> String {
    format!("no answer within {PATIENCE:?}")
}

impl From<Plugin> for Extension {
    fn from(plugin: Plugin) -> Self {
        let failure = plugin.init_err.map(|status| status.message);
        Self { kind: plugin.r#type, id: plugin.id, failure }
    }
}
