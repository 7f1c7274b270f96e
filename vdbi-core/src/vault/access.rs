//! Requests in this component's session.

use tokio::time::sleep;

use super::{
    client::{Reply, VaultClient},
    endpoint::Measured,
    error::Failure,
    login::{Login, SETTLING, SETTLING_PAUSE},
};

/// A client and the session whose token its requests carry.
#[derive(Clone, Debug)]
pub(super) struct Access {
    pub(super) client: VaultClient,
    pub(super) login: Login,
}

impl From<Login> for Access {
    /// At the server where the session is.
    fn from(login: Login) -> Self {
        Self { client: login.client().clone(), login }
    }
}

impl Access {
    /// Makes one request with our token. One whose token is gone has not been carried out: it is repeated once, with a new
    /// token. A denial by policy stays one.
    pub(super) async fn call<E: Measured>(&self, endpoint: &E) -> Result<Reply<E::Response>, Failure> {
        let Self { client, login } = self;
        let session = login.session().await.map_err(Failure::NoSession)?;
        match client.call(endpoint, Some(&session.token)).await {
            Err(Failure::Refused(refusal)) if refusal.token_is_gone() => {
                let session = if session.since.elapsed() < SETTLING {
                    sleep(SETTLING_PAUSE).await;
                    session
                } else {
                    login.invalidate(&session);
                    login.session().await.map_err(Failure::NoSession)?
                };
                client.call(endpoint, Some(&session.token)).await
            }
            outcome => outcome,
        }
    }
}
