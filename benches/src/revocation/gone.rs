use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::DatabaseAccess;
use e2e::scene::Scene;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_postgres::{AsyncMessage, Client, NoTls};

/// Tells when database roles are gone: the transaction that drops one says so when it commits, so that nothing polls beside what
/// is measured.
pub(super) struct Gone {
    ended: mpsc::UnboundedReceiver<(String, Instant)>,
    seen: HashMap<String, Instant>,
    _client: Client,
    _connection: JoinSet<()>,
}

impl Gone {
    pub(super) async fn listen(scene: &Scene) -> Result<Self> {
        let DatabaseAccess { engine, role, .. } = &scene.access;
        let (root, path) = (scene.cluster.openbao().root(), format!("{engine}/roles/{role}"));
        let mut definition = root.read(&path).await?.context("the database role is missing")?;
        let statements = definition["revocation_statements"][0].as_str().context("there is one statement")?;
        let drop = r#"DROP ROLE "{{name}}";"#;
        ensure!(statements.contains(drop), "{statements}");
        let saying = format!("{drop} PERFORM pg_notify('gone', '{{{{name}}}}');");
        definition["revocation_statements"] = json!([statements.replace(drop, &saying)]);
        root.write(&path, &definition).await?;

        let (client, mut connection) =
            tokio_postgres::connect(&scene.cluster.postgres().admin_url(), NoTls).await?;
        let (sender, ended) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            while let Some(Ok(message)) =
                std::future::poll_fn(|context| connection.poll_message(context)).await
            {
                if let AsyncMessage::Notification(notification) = message
                    && sender.send((notification.payload().to_owned(), Instant::now())).is_err()
                {
                    return;
                }
            }
        });
        client.batch_execute("LISTEN gone").await?;
        Ok(Self { ended, seen: HashMap::new(), _client: client, _connection: tasks })
    }

    /// When a role ended.
    pub(super) async fn wait(&mut self, user: &str, within: Duration) -> Result<Instant> {
        let ended = async {
            loop {
                if let Some(at) = self.seen.remove(user) {
                    return Ok(at);
                }
                let (name, at) = self.ended.recv().await.context("PostgreSQL ended the connection")?;
                self.seen.insert(name, at);
            }
        };
        timeout(within, ended).await.with_context(|| format!("{user} was not revoked within {within:?}"))?
    }
}
