//! A credential of the embedded source with the entry that tells of it.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use vdbi_core::{
    credential::{CredentialRequest, CredentialSource, Issued},
    ledger::{Entry, Owner},
    memory::MemorySource,
    pod::PodRef,
};

/// Issues one for a pod of the namespace `shop`; its entry, which nobody has recorded yet, says that this was so long ago.
pub(crate) async fn issue(
    source: &MemorySource,
    owner: Owner,
    name: Option<&str>,
    age: Duration,
) -> (Issued, Entry) {
    let pod = PodRef {
        namespace: "shop".into(),
        name: name.map(Into::into),
        service_account: "app1".into(),
        ..PodRef::default()
    };
    let request = CredentialRequest {
        pod: pod.clone(),
        database: "main".into(),
        engine: "databases".into(),
        role: "app".into(),
    };
    let issued = source.issue(&request).await.unwrap();
    let entry = Entry {
        lease: issued.lease.clone(),
        owner: Some(owner),
        pod,
        database: "main".into(),
        role: "app".into(),
        issued_at: Some(Timestamp::now() - SignedDuration::try_from(age).unwrap()),
        ttl: None,
        raw_token: None,
    };
    (issued, entry)
}
