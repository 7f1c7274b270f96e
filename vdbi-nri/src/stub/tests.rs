//! A plugin over a runtime in memory, so that time can be paused.

use std::{
    collections::VecDeque,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use ::metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use tokio::{
    io::{DuplexStream, duplex},
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use vdbi_core::secret::Secret;

use super::*;
use crate::testing::PluginConnection;

mod reconnect;
mod registration;
mod requests;
mod shutdown;

/// A plugin that does what the container's name says.
#[derive(Debug)]
struct Example {
    proceed: Semaphore,
    /// What the next synchronizations do; when there is nothing, they are done at once.
    synchronizations: Mutex<VecDeque<Synchronization>>,
    synchronized: Mutex<Vec<Told>>,
    removed: Mutex<Vec<String>>,
}

/// What a synchronization told.
type Told = (Vec<Pod>, Vec<Container>, Runtime);

#[derive(Clone, Copy, Debug)]
enum Synchronization {
    Panics,
    NeverEnds,
}

impl ContainerInjector for Example {
    async fn create(&self, creation: Creation<'_>) -> Result<Adjustment, Refused> {
        let mut adjustment = Adjustment::default();
        match creation.container.name.as_str() {
            "refuse" => return Err(Refused::new("no credential for this pod")),
            "panic" => panic!("as asked"),
            "never" => std::future::pending().await,
            "deadline" => {
                sleep_until(creation.deadline).await;
                return Err(Refused::new("OpenBao does not answer"));
            }
            "wait" => self.proceed.acquire().await.unwrap().forget(),
            "long" => adjustment.set_env("LONG", Secret::new("x".repeat(5_000_000)))?,
            "invalid" => adjustment.set_env("-PATH", Secret::new("x"))?,
            _ => adjustment.remove_mount("/proc/uptime"),
        }
        adjustment.set_env("GREETING", Secret::new(format!("hello {}", creation.pod.name)))?;
        Ok(adjustment)
    }

    async fn synchronize(&self, pods: Vec<Pod>, containers: Vec<Container>, runtime: &Runtime) {
        let behaviour = self.synchronizations.lock().unwrap().pop_front();
        match behaviour {
            None => self.synchronized.lock().unwrap().push((pods, containers, runtime.clone())),
            Some(Synchronization::Panics) => panic!("as asked"),
            Some(Synchronization::NeverEnds) => std::future::pending().await,
        }
    }

    async fn pod_removed(&self, pod: &Pod) {
        self.removed.lock().unwrap().push(pod.id.clone());
    }

    async fn container_removed(&self, pod: &Pod, container: &Container) {
        self.removed.lock().unwrap().push(format!("{}/{}", pod.id, container.id));
    }
}

/// A plugin that runs, and the runtime's end of its connections.
struct World {
    plugin: Arc<Example>,
    metrics: Arc<Figures>,
    status: watch::Receiver<Status>,
    connections: mpsc::UnboundedReceiver<(Instant, PluginConnection)>,
    /// What the next attempts to connect end with, instead of a connection.
    errors: Arc<Mutex<VecDeque<io::ErrorKind>>>,
    shutdown: CancellationToken,
    stub: JoinSet<()>,
}

impl World {
    fn start() -> Self {
        Self::with_errors([])
    }

    fn with_errors(errors: impl IntoIterator<Item = io::ErrorKind>) -> Self {
        let plugin = Arc::new(Example {
            proceed: Semaphore::new(0),
            synchronizations: Mutex::default(),
            synchronized: Mutex::default(),
            removed: Mutex::default(),
        });
        let metrics = Arc::new(Figures::default());
        let settings = Settings::new("example", "10").unwrap();
        let stub = Stub::new(settings, plugin.clone(), &Registry::new(metrics.clone()));
        let status = stub.status();
        let (sender, connections) = mpsc::unbounded_channel();
        let errors: Arc<Mutex<VecDeque<_>>> = Arc::new(Mutex::new(errors.into_iter().collect()));
        let shutdown = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let (results, told) = (errors.clone(), shutdown.clone());
        tasks.spawn(async move {
            let connect = || connect(&results, &sender);
            stub.run_over(connect, told.cancelled()).await;
        });
        Self { plugin, metrics, status, connections, errors, shutdown, stub: tasks }
    }

    /// The plugin's next connection, and when it was made.
    async fn connected(&mut self) -> (Instant, PluginConnection) {
        self.connections.recv().await.unwrap()
    }

    /// A connection on which all is done that precedes requests.
    async fn synchronized(&mut self) -> PluginConnection {
        let (_, mut connection) = self.connected().await;
        connection.start("2.2.9").await.unwrap();
        self.until(|status| status.ready().is_ok()).await;
        connection
    }

    async fn until(&mut self, condition: impl FnMut(&Status) -> bool) -> Status {
        self.status.wait_for(condition).await.unwrap().clone()
    }

    async fn ended(&mut self) {
        self.stub.join_next().await.unwrap().unwrap();
    }
}

async fn connect(
    errors: &Mutex<VecDeque<io::ErrorKind>>,
    connections: &mpsc::UnboundedSender<(Instant, PluginConnection)>,
) -> io::Result<DuplexStream> {
    if let Some(error) = errors.lock().unwrap().pop_front() {
        return Err(error.into());
    }
    let (near, far) = duplex(1 << 20);
    connections.send((Instant::now(), PluginConnection::over(far))).unwrap();
    Ok(near)
}

fn pod(name: &str) -> Pod {
    Pod { id: format!("{name}-sandbox"), name: name.to_owned(), ..Pod::default() }
}

fn container(name: &str) -> Container {
    Container { id: format!("{name}-id"), name: name.to_owned(), ..Container::default() }
}

/// Counters and gauges by name and the values of their labels.
#[derive(Default)]
struct Figures(Mutex<Vec<(String, Arc<AtomicU64>)>>);

impl Figures {
    fn of(&self, series: &str) -> u64 {
        let figures = self.0.lock().unwrap();
        let (_, figure) = figures.iter().find(|(name, _)| name == series).unwrap();
        figure.load(Ordering::Acquire)
    }

    fn gauge(&self, series: &str) -> f64 {
        f64::from_bits(self.of(series))
    }

    fn add(&self, key: &Key) -> Arc<AtomicU64> {
        let labels: Vec<_> = key.labels().map(|label| label.value().to_owned()).collect();
        let figure = Arc::new(AtomicU64::new(0));
        let series = [&[key.name().to_owned()], &labels[..]].concat().join(" ");
        self.0.lock().unwrap().push((series, figure.clone()));
        figure
    }
}

impl Recorder for Figures {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.add(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.add(key))
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}
