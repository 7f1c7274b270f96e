//! The contract suite of leaderships.

use std::sync::Arc;

use vdbi_core::{
    clock::TokioClock,
    memory::kubernetes::KubernetesApi,
    metrics::Registry,
    testing::leadership::{self as suite, Fixture},
};
use vdbi_lifecycle::election::{Identity, LeaseElection, LeaseRef, Settings};

struct Elections(KubernetesApi);

impl Fixture for Elections {
    type Leadership = LeaseElection;

    fn contender(&self, lock: &str, identity: &str) -> LeaseElection {
        let lease = LeaseRef { namespace: "vdbi".into(), name: lock.into() };
        let settings = Settings::new(lease, Identity::new(identity).with_uid(identity));
        let (client, clock) = (self.0.connect(identity).client(), Arc::new(TokioClock::new()));
        LeaseElection::new(client, settings, clock, &Registry::disabled()).unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn leases_keep_the_contract_of_leadership() {
    suite::run(&Elections(KubernetesApi::new())).await;
}
