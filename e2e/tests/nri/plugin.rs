use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Result, anyhow, ensure};
use e2e::{Containerd, scene::eventually};
use tokio::{sync::watch, task::JoinSet};
use vdbi_core::metrics::Registry;
use vdbi_nri::stub::{
    Adjustment, Container, ContainerInjector, Creation, Pod, Refused, Runtime, Settings, Status, Stub,
};

const PATIENCE: Duration = Duration::from_secs(30);

/// What a plugin sets the variable `SECRET` to.
pub(crate) const SECRET: &str = "of the plugin";

/// How many variables it sets for a container named `large`, and how long each is.
pub(crate) const LARGE: (usize, usize) = (30, 100_000);

/// A plugin in this process.
pub(crate) struct Plugin {
    actor: Arc<Actor>,
    status: watch::Receiver<Status>,
    // Only to be dropped: with it the plugin dies.
    _tasks: JoinSet<()>,
}

/// Does what the name of the container says.
#[derive(Default)]
struct Actor {
    synchronized: Mutex<Vec<Vec<Container>>>,
}

impl Plugin {
    /// Connects it, and waits until containerd asks it about containers.
    pub(crate) async fn connect(containerd: &Containerd, name: &str, index: &str) -> Result<Self> {
        let mut settings = Settings::new(name, index)?;
        settings.socket = containerd.nri_socket().to_owned();
        let actor = Arc::new(Actor::default());
        let stub = Stub::new(settings, Arc::clone(&actor), &Registry::disabled());
        let status = stub.status();
        let mut tasks = JoinSet::new();
        tasks.spawn(stub.run(std::future::pending()));
        let plugin = Self { actor, status, _tasks: tasks };
        plugin.synchronized().await?;
        Ok(plugin)
    }

    /// Waits until containerd asks it about containers.
    async fn synchronized(&self) -> Result<()> {
        eventually(PATIENCE, async || {
            let status = self.status.borrow().clone();
            status.ready().map_err(|why| anyhow!("the plugin is not asked: {why}"))
        })
        .await
    }

    /// Waits until it is synchronized for the so manieth time, and returns what containerd told then.
    pub(crate) async fn synchronization(&self, number: usize) -> Result<Vec<Container>> {
        eventually(PATIENCE, async || {
            ensure!(self.synchronizations() >= number, "it was not synchronized so often");
            Ok(())
        })
        .await?;
        self.synchronized().await?;
        let told = self.actor.synchronized.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(told[number - 1].clone())
    }

    /// How often it was synchronized: once for each connection.
    pub(crate) fn synchronizations(&self) -> usize {
        self.actor.synchronized.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

impl ContainerInjector for Actor {
    async fn create(&self, creation: Creation<'_>) -> Result<Adjustment, Refused> {
        let mut adjustment = Adjustment::default();
        match creation.container.name.as_str() {
            "refuse" => return Err(Refused::new("as the test asks")),
            "hang" => std::future::pending().await,
            "panic" => panic!("as the test asks"),
            "large" => {
                for number in 0..LARGE.0 {
                    adjustment.set_env(format!("LARGE_{number}"), "x".repeat(LARGE.1))?;
                }
            }
            _ => adjustment.set_env("SECRET", SECRET.to_owned())?,
        }
        Ok(adjustment)
    }

    async fn synchronize(&self, _pods: Vec<Pod>, containers: Vec<Container>, _runtime: &Runtime) {
        self.synchronized.lock().unwrap_or_else(PoisonError::into_inner).push(containers);
    }
}
