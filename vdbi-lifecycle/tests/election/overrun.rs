//! In real time: what blocks a thread cannot be paused.

use std::sync::{Arc, mpsc::channel};

use tokio::{sync::mpsc::unbounded_channel, task::JoinSet};
use tokio_util::sync::CancellationToken;
use vdbi_core::{
    leadership::{Leadership, Term},
    memory::kubernetes::KubernetesApi,
    metrics::Registry,
};
use vdbi_lifecycle::election::{BoottimeClock, Identity, LeaseElection, LeaseRef, Settings};

use crate::cluster::{SECOND, shared};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_that_blocks_beyond_its_term_is_called_out() {
    let link = KubernetesApi::new().connect("a");
    let settings = Settings::new(
        LeaseRef { namespace: "vdbi".into(), name: "renewer".into() },
        Identity::new("a").with_uid("a"),
    )
    .scaled_to(SECOND);
    let (call, called) = channel();
    let election =
        LeaseElection::new(link.client(), settings, Arc::new(BoottimeClock), &Registry::disabled())
            .unwrap()
            .on_overrun(move || call.send(()).unwrap_or_default());
    let called = shared(Some(called));
    let (told, mut tell) = unbounded_channel();
    let work = move |term: Term| {
        let (link, called, told) = (link.clone(), called.clone(), told.clone());
        async move {
            let Some(called) = called.lock().unwrap().take() else { return Ok(()) };
            link.cut();
            let overran = called.recv_timeout(20 * SECOND).is_ok();
            told.send((overran, term.check().is_err()))?;
            Ok(())
        }
    };
    let mut runs = JoinSet::new();
    runs.spawn(election.run(work, CancellationToken::new()));
    assert_eq!(tell.recv().await, Some((true, true)));
}
