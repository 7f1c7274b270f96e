//! Where a replica says that it wants a shard: a Lease of its own, which nobody competes for.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{Api, Client, api::PostParams};
use thiserror::Error;
use tokio::time::{error::Elapsed, timeout};

use super::Settings;

#[derive(Clone)]
pub(super) struct Board {
    leases: Api<Lease>,
    name: String,
    limit: Duration,
}

/// What a replica said last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wish {
    pub(super) replica: String,
    /// It tells one wish from the next.
    pub(super) version: String,
}

#[derive(Debug, Error)]
pub(super) enum BoardError {
    #[error("no answer in time")]
    Timeout(#[from] Elapsed),
    #[error(transparent)]
    Api(#[from] kube::Error),
}

impl Board {
    /// Beside the leases with the prefix that the settings name.
    pub(super) fn new(client: Client, settings: &Settings) -> Self {
        Self {
            leases: Api::namespaced(client, &settings.namespace),
            name: format!("{}-wanted", settings.lease_name),
            limit: settings.request_timeout,
        }
    }

    pub(super) async fn read(&self) -> Result<Option<Wish>, BoardError> {
        let lease = timeout(self.limit, self.leases.get_opt(&self.name)).await??;
        Ok(lease.map(|Lease { metadata, spec }| Wish {
            replica: spec.and_then(|spec| spec.holder_identity).unwrap_or_default(),
            version: metadata.resource_version.unwrap_or_default(),
        }))
    }

    /// Writes over what another one has written: it will write again. Of two at once one fails, and tries again later.
    pub(super) async fn ask(&self, replica: &str) -> Result<(), BoardError> {
        let spec = LeaseSpec {
            holder_identity: Some(replica.to_owned()),
            renew_time: Some(MicroTime(Timestamp::now())),
            ..LeaseSpec::default()
        };
        let write = async {
            match self.leases.get_opt(&self.name).await? {
                Some(lease) => {
                    let lease = Lease { spec: Some(spec), ..lease };
                    self.leases.replace(&self.name, &PostParams::default(), &lease).await
                }
                None => {
                    let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
                    let lease = Lease { metadata, spec: Some(spec) };
                    self.leases.create(&PostParams::default(), &lease).await
                }
            }
        };
        timeout(self.limit, write).await??;
        Ok(())
    }
}
