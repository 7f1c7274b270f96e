//! The contract suites over the real servers: OpenBao with PostgreSQL as source and ledger, kube-apiserver as identity and
//! leadership.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use anyhow::Result;
use e2e::{Cluster, Component, DatabaseAccess, OpenBao, openbao::is_vault};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use kube::{Api, api::PostParams};
use serde_json::json;
use vdbi_core::{
    credential::{CredentialRequest, Issued},
    identity::PodIdentity,
    kubernetes::TokenRequestIdentity,
    metrics::Registry,
    pod::PodRef,
    secret::Secret,
    testing,
    vault::{
        Account, Authentication, Issuing, KvFolder, Login, Settings, VaultClient, VaultLedger, VaultSource,
    },
};
use vdbi_lifecycle::election::{self, BoottimeClock, Identity, LeaseElection, LeaseRef};

const AUDIENCE: &str = "vault";

/// A login role with the policies of all three components: a contract suite issues, renews and revokes.
const EVERYTHING: &str = "everything";

struct World {
    cluster: Cluster,
    access: DatabaseAccess,
}

impl World {
    async fn start(access: DatabaseAccess) -> Result<Self> {
        let cluster = Cluster::builder().kubernetes().openbao(OpenBao::dev()).postgres().start().await?;
        cluster.configure_database_access(&access).await?;
        let role = json!({
            "bound_service_account_names": access.component_service_account(Component::Injector),
            "bound_service_account_namespaces": access.system_namespace,
            "audience": access.audience,
            "token_policies": Component::ALL.map(|component| access.component_role(component)),
            "token_period": "10m",
            "token_no_default_policy": true,
        });
        cluster.openbao().root().write(&format!("auth/kubernetes/role/{EVERYTHING}"), &role).await?;
        Ok(Self { cluster, access })
    }

    async fn session(&self) -> Result<Login> {
        let settings = Settings::new(self.cluster.openbao().url());
        let client = VaultClient::new(&settings, &Registry::disabled())?;
        let token_file = self.cluster.component_token_file(&self.access, Component::Injector).await?;
        let account = Account { auth_path: "kubernetes".into(), role: EVERYTHING.into(), token_file };
        Ok(Login::new(client, account))
    }

    fn identity(&self) -> TokenRequestIdentity {
        let audiences = vec![AUDIENCE.to_owned()];
        TokenRequestIdentity::new(self.cluster.kubernetes().admin(), audiences, Duration::from_secs(600))
    }

    async fn source(
        &self,
        authentication: Authentication<TokenRequestIdentity>,
    ) -> Result<VaultSource<TokenRequestIdentity>> {
        let mut issuing = Issuing::default();
        issuing.token_period = Duration::from_secs(7200);
        Ok(VaultSource::new(self.session().await?, "kubernetes", authentication, issuing))
    }

    fn request(&self, role: &str, service_account: &str) -> CredentialRequest {
        CredentialRequest {
            pod: PodRef {
                namespace: self.access.namespace.clone(),
                name: Some("web".into()),
                service_account: service_account.into(),
                ..PodRef::default()
            },
            database: "main".into(),
            engine: self.access.engine.clone(),
            role: role.into(),
        }
    }
}

struct Source<'a> {
    world: &'a World,
    source: VaultSource<TokenRequestIdentity>,
}

impl testing::credential_source::Fixture for Source<'_> {
    type Source = VaultSource<TokenRequestIdentity>;

    fn source(&self) -> &Self::Source {
        &self.source
    }

    fn allowed(&self) -> CredentialRequest {
        self.world.request("app", "app1")
    }

    fn refused(&self) -> CredentialRequest {
        self.world.request("app", "stranger")
    }

    fn unknown_role(&self) -> CredentialRequest {
        self.world.request("nosuch", "app1")
    }

    async fn opens_session(&self, issued: &Issued) -> bool {
        self.world.cluster.postgres().can_login(&issued.username, issued.password.expose()).await.unwrap()
    }

    async fn users(&self) -> Option<BTreeSet<String>> {
        Some(self.world.cluster.postgres().roles_like("v-").await.unwrap().into_iter().collect())
    }

    async fn remaining(&self, issued: &Issued) -> Option<Duration> {
        let user = &issued.username;
        let seconds = format!(
            "SELECT extract(epoch FROM rolvaliduntil - now())::float8 FROM pg_roles WHERE rolname = '{user}'"
        );
        let rows = self.world.cluster.postgres().query(&seconds).await.unwrap();
        Some(Duration::from_secs_f64(rows.first()?.get(0)))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_is_the_one_that_was_asked_for() -> Result<()> {
    let cluster = Cluster::builder().openbao(OpenBao::dev()).start().await?;
    let health = cluster.openbao().root().read_answer("sys/health").await?.unwrap_or_default();
    // OpenBao began with version 2 where it left Vault.
    let version = health["version"].as_str().unwrap_or_default();
    assert!(version.starts_with(if is_vault() { "1." } else { "2." }), "{health}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn openbao_keeps_the_contract_of_a_source_in_legacy_mode() -> Result<()> {
    for token_role in [Some("dbi-pod".to_owned()), None] {
        let access = DatabaseAccess { create_orphan: token_role.is_none(), ..DatabaseAccess::default() };
        let world = World::start(access).await?;
        let source = world.source(Authentication::Legacy { token_role }).await?;
        testing::credential_source::run(&Source { world: &world, source }).await;
    }
    Ok(())
}

/// Whether the pod may log in is OpenBao's to say, when it does: `authorize` has nothing to compare.
#[tokio::test(flavor = "multi_thread")]
async fn openbao_keeps_the_contract_of_a_source_in_projected_mode_but_for_what_authorize_denies() -> Result<()>
{
    let world = World::start(DatabaseAccess::default()).await?;
    world.cluster.kubernetes().create_service_account("shop", "stranger").await?;
    let source = world.source(Authentication::Projected(world.identity())).await?;
    let broken = testing::credential_source::broken(&Source { world: &world, source }).await;
    let clauses: Vec<&str> = broken.iter().map(|broken| broken.clause).collect();
    let expected = ["authorize_denies_who_is_not_bound", "an_unknown_role_is_not_worth_another_try"];
    assert_eq!(clauses, expected, "{broken:#?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn openbao_keeps_the_contract_of_a_ledger() -> Result<()> {
    let world = World::start(DatabaseAccess::default()).await?;
    let folder = KvFolder { mount: world.access.mount.clone(), prefix: world.access.prefix.clone() };
    let ledger = VaultLedger::new(world.session().await?, folder);
    testing::ledger::run(&Books { world: &world, ledger }).await;
    Ok(())
}

struct Books<'a> {
    world: &'a World,
    ledger: VaultLedger,
}

impl Books<'_> {
    fn path(&self, what: &str, key: &str) -> String {
        let DatabaseAccess { mount, prefix, .. } = &self.world.access;
        format!("{mount}/{what}/{prefix}/{key}")
    }
}

impl testing::ledger::Fixture for Books<'_> {
    type Ledger = VaultLedger;

    fn ledger(&self) -> &VaultLedger {
        &self.ledger
    }

    async fn put(&self, key: &str, fields: &BTreeMap<String, String>) -> bool {
        let root = self.world.cluster.openbao().root();
        root.write(&self.path("data", key), &json!({ "data": fields })).await.unwrap();
        true
    }

    async fn remove(&self, key: &str) {
        self.world.cluster.openbao().root().delete(&self.path("metadata", key)).await.unwrap();
    }
}

struct Tokens<'a> {
    world: &'a World,
    identity: TokenRequestIdentity,
}

impl testing::pod_identity::Fixture for Tokens<'_> {
    type Identity = TokenRequestIdentity;

    fn identity(&self) -> &TokenRequestIdentity {
        &self.identity
    }

    fn pods(&self) -> Vec<PodRef> {
        ["app1", "app2"].map(|account| self.world.request("app", account).pod).into()
    }

    fn unknown(&self) -> Option<PodRef> {
        Some(self.world.request("app", "nosuch").pod)
    }

    async fn verify(&self, token: &Secret) -> Option<(String, String)> {
        let spec =
            TokenReviewSpec { token: token.expose().to_owned(), audiences: Some(vec![AUDIENCE.to_owned()]) };
        let review = TokenReview { spec, ..TokenReview::default() };
        let reviews: Api<TokenReview> = Api::all(self.world.cluster.kubernetes().admin());
        let status = reviews.create(&PostParams::default(), &review).await.unwrap().status?;
        let user = status.user.filter(|_| status.authenticated == Some(true))?.username?;
        let (namespace, name) = user.strip_prefix("system:serviceaccount:")?.split_once(':')?;
        Some((namespace.to_owned(), name.to_owned()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn token_requests_keep_the_contract_of_a_pods_identity() -> Result<()> {
    let world = World::start(DatabaseAccess::default()).await?;
    world.cluster.kubernetes().create_service_account("shop", "app2").await?;
    let identity = world.identity();
    assert!(identity.token(&world.request("app", "app1").pod).await.is_ok());
    testing::pod_identity::run(&Tokens { world: &world, identity }).await;
    Ok(())
}

struct Elections {
    client: kube::Client,
}

impl testing::leadership::Fixture for Elections {
    type Leadership = LeaseElection;

    fn contender(&self, lock: &str, identity: &str) -> LeaseElection {
        // A lease's name is a DNS name, a clause's is not.
        let lease = lock.replace('_', "-");
        let mut settings = election::Settings::new(
            LeaseRef { namespace: "vdbi-system".into(), name: lease },
            Identity::new(identity).with_uid(identity),
        )
        .scaled_to(Duration::from_secs(2));
        settings.drain_timeout = Duration::from_secs(2);
        let clock = Arc::new(BoottimeClock);
        LeaseElection::new(self.client.clone(), settings, clock, &Registry::disabled()).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_keep_the_contract_of_leadership() -> Result<()> {
    let cluster = Cluster::builder().kubernetes().start().await?;
    cluster.kubernetes().create_namespace("vdbi-system").await?;
    testing::leadership::run(&Elections { client: cluster.kubernetes().admin() }).await;
    Ok(())
}
