use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Result, anyhow, ensure};
use e2e::{Containerd, scene::eventually};
use tokio::{
    runtime::{Builder, Runtime},
    sync::watch,
    task::JoinSet,
};
use vdbi_core::metrics::Registry;
use vdbi_nri::stub::{
    self, Adjustment, Container, ContainerInjector, Creation, Pod, Refused, Settings, Status, Stub,
};

const PATIENCE: Duration = Duration::from_secs(30);

/// What a plugin sets the variable `SECRET` to.
pub(crate) const SECRET: &str = "of the plugin";

/// How many variables it sets for a container named `large`, and how long each is.
pub(crate) const LARGE: (usize, usize) = (30, 100_000);

/// A plugin in this process, on a thread of its own: what a test does, the end of a machine for instance, must not keep it from
/// answering in time.
pub(crate) struct Plugin {
    actor: Arc<Actor>,
    status: watch::Receiver<Status>,
    tasks: JoinSet<()>,
    runtime: Option<Runtime>,
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
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let mut tasks = JoinSet::new();
        tasks.spawn_on(stub.run(std::future::pending()), runtime.handle());
        let plugin = Self { actor, status, tasks, runtime: Some(runtime) };
        plugin.synchronized().await?;
        Ok(plugin)
    }

    /// Ends it at once, as a crash does.
    pub(crate) async fn end(mut self) {
        self.tasks.shutdown().await;
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

impl Drop for Plugin {
    fn drop(&mut self) {
        // Waiting for its thread is not for the one that drops it.
        self.runtime.take().into_iter().for_each(Runtime::shutdown_background);
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

    async fn synchronize(&self, _pods: Vec<Pod>, containers: Vec<Container>, _runtime: &stub::Runtime) {
        self.synchronized.lock().unwrap_or_else(PoisonError::into_inner).push(containers);
    }
}
