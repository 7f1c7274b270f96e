//! The secrets backend of vdbi-core over a real kube-apiserver, OpenBao and PostgreSQL, with the least-privilege policies of
//! each component.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::{Cluster, Component, DatabaseAccess, OpenBao};
use serde_json::{Value, json};
use vdbi_core::{
    credential::{CredentialRequest, CredentialSource, Issued, Lease, SourceError, TokenHandle},
    kubernetes::TokenRequestIdentity,
    ledger::{Entry, EntryId, Ledger, LedgerError, Owner, Stored},
    metrics::Registry,
    pod::PodRef,
    secret::Secret,
    vault::{
        Account, Authentication, Issuing, KvFolder, Login, LoginStatus, Settings, VaultClient, VaultLedger,
        VaultSource,
    },
};

const TEN_MINUTES: Duration = Duration::from_secs(600);
const PERIOD: Duration = Duration::from_secs(3600);

type Source = VaultSource<TokenRequestIdentity>;

struct Scene {
    cluster: Cluster,
    access: DatabaseAccess,
    injector: Login,
    renewer: Login,
    revoker: Login,
}

impl Scene {
    async fn start(access: DatabaseAccess) -> Result<Self> {
        let cluster = Cluster::builder().kubernetes().openbao(OpenBao::dev()).postgres().start().await?;
        cluster.configure_database_access(&access).await?;
        let settings = Settings::new(cluster.openbao().url());
        let client = VaultClient::new(&settings, &Registry::disabled())?;
        let login = async |component| -> Result<Login> {
            let file = cluster.component_token_file(&access, component).await?;
            let role = access.component_role(component);
            let account = Account { auth_path: "kubernetes".into(), role, token_file: file };
            Ok(Login::new(client.clone(), account))
        };
        let (injector, renewer, revoker) = (
            login(Component::Injector).await?,
            login(Component::Renewer).await?,
            login(Component::Revoker).await?,
        );
        Ok(Self { injector, renewer, revoker, access, cluster })
    }

    fn source(&self, login: &Login, authentication: Authentication<TokenRequestIdentity>) -> Source {
        let mut issuing = Issuing::default();
        (issuing.token_period, issuing.store_raw_token) = (PERIOD, true);
        VaultSource::new(login.clone(), "kubernetes", authentication, issuing)
    }

    fn token_role(&self) -> Authentication<TokenRequestIdentity> {
        Authentication::Legacy { token_role: Some(self.access.token_role.clone()) }
    }

    fn projected(&self, audience: &str) -> Authentication<TokenRequestIdentity> {
        let client = self.cluster.kubernetes().admin();
        Authentication::Projected(TokenRequestIdentity::new(client, vec![audience.to_owned()], TEN_MINUTES))
    }

    fn request(&self) -> CredentialRequest {
        CredentialRequest {
            pod: PodRef {
                namespace: self.access.namespace.clone(),
                service_account: self.access.service_account.clone(),
                name: Some("web-0".into()),
                ..PodRef::default()
            },
            database: "main".into(),
            engine: self.access.engine.clone(),
            role: self.access.role.clone(),
        }
    }

    async fn can_login(&self, issued: &Issued) -> Result<bool> {
        self.cluster.postgres().can_login(&issued.username, issued.password.expose()).await
    }

    /// The live tokens that have the application's policy.
    async fn tokens(&self) -> Result<Vec<Value>> {
        self.cluster.openbao().root().tokens_with_policy(&self.access.role).await
    }

    async fn nothing_remains(&self) -> Result<()> {
        let tokens = self.tokens().await?;
        ensure!(tokens.is_empty(), "{tokens:?}");
        // A token's end queues that of its leases.
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        loop {
            let users = self.cluster.postgres().roles_like("v-").await?;
            if users.is_empty() {
                return Ok(());
            }
            ensure!(tokio::time::Instant::now() < deadline, "{users:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test]
async fn a_credential_is_issued_renewed_and_revoked_in_every_mode() -> Result<()> {
    let scene = Scene::start(DatabaseAccess { create_orphan: true, ..DatabaseAccess::default() }).await?;
    let request = scene.request();
    let renewer = scene.source(&scene.renewer, scene.token_role());
    let revoker = scene.source(&scene.revoker, scene.token_role());
    // The token lives for the token role's period, for ours, and for the auth role's.
    let modes = [
        ("token role", scene.token_role(), 7200),
        ("create-orphan", Authentication::Legacy { token_role: None }, 3600),
        ("projected", scene.projected("vault"), 7200),
    ];
    for (mode, authentication, period) in modes {
        let source = scene.source(&scene.injector, authentication);
        source.authorize(&request).await.context(mode)?;
        let issued = source.issue(&request).await.context(mode)?;
        ensure!(scene.can_login(&issued).await?, "{mode}");
        ensure!(issued.ttl == Duration::from_secs(3600), "{mode}: {:?}", issued.ttl);
        let [token] = &scene.tokens().await?[..] else { anyhow::bail!("{mode}: not one token") };
        ensure!(token["creation_ttl"] == period && token["orphan"] == true, "{mode}: {token}");
        if mode != "projected" {
            let meta = json!({ "namespace": "shop", "service_account": "app1", "pod": "web-0" });
            ensure!(token["meta"] == meta && token["display_name"] == "token-vdbi-pod", "{mode}: {token}");
        }

        let renewed = renewer.renew(&issued.lease).await.context(mode)?;
        ensure!(renewed.ttl == Duration::from_secs(3600) && !renewed.capped, "{mode}: {renewed:?}");
        let token = renewer.renew_token(&issued.lease).await.context(mode)?.context(mode)?;
        ensure!(token.ttl == Duration::from_secs(period), "{mode}: {token:?}");
        revoker.revoke(&issued.lease).await.context(mode)?;
        ensure!(!scene.can_login(&issued).await?, "{mode}: it still opens a session");
        revoker.revoke(&issued.lease).await.context("a second time")?;
        let renewal = renewer.renew(&issued.lease).await;
        ensure!(matches!(renewal, Err(SourceError::Gone(_))), "{mode}: {renewal:?}");
        scene.nothing_remains().await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_raw_token_of_the_go_product_is_renewed_and_revoked_with_the_same_policies() -> Result<()> {
    let scene = Scene::start(DatabaseAccess { create_orphan: true, ..DatabaseAccess::default() }).await?;
    let source = scene.source(&scene.injector, Authentication::Legacy { token_role: None });
    let renewer = scene.source(&scene.renewer, scene.token_role());
    let revoker = scene.source(&scene.revoker, scene.token_role());
    let issued = source.issue(&scene.request()).await?;
    let raw = issued.token.clone().context("the raw token was asked for")?;
    let lease = Lease { token: TokenHandle::Raw(raw), ..issued.lease.clone() };
    renewer.renew(&lease).await?;
    renewer.renew_token(&lease).await?;
    revoker.revoke(&lease).await?;
    ensure!(!scene.can_login(&issued).await?);
    revoker.revoke(&lease).await.context("a second time")?;
    ensure!(matches!(renewer.renew(&lease).await, Err(SourceError::Gone(_))));
    ensure!(matches!(renewer.renew_token(&lease).await, Err(SourceError::Gone(_))));
    scene.nothing_remains().await
}

#[tokio::test]
async fn while_the_database_is_down_a_credential_is_neither_lost_nor_given_up() -> Result<()> {
    let mut scene = Scene::start(DatabaseAccess::default()).await?;
    let source = scene.source(&scene.injector, scene.token_role());
    let renewer = scene.source(&scene.renewer, scene.token_role());
    let revoker = scene.source(&scene.revoker, scene.token_role());
    let issued = source.issue(&scene.request()).await?;
    scene.cluster.postgres_mut().stop().await?;
    for outcome in [renewer.renew(&issued.lease).await.map(drop), revoker.revoke(&issued.lease).await] {
        ensure!(
            matches!(&outcome, Err(SourceError::Unavailable(text)) if text.contains("database")),
            "{outcome:?}"
        );
    }
    scene.cluster.postgres_mut().start_again().await?;
    renewer.renew(&issued.lease).await?;
    revoker.revoke(&issued.lease).await?;
    scene.nothing_remains().await
}

#[tokio::test]
async fn a_component_whose_token_was_revoked_logs_in_again_and_lacking_rights_are_named() -> Result<()> {
    let scene = Scene::start(DatabaseAccess::default()).await?;
    let root = scene.cluster.openbao().root();
    let source = scene.source(&scene.injector, scene.token_role());
    let own = scene.injector.token().await?;
    root.write("auth/token/revoke", &json!({ "token": own.expose() })).await?;
    // A token that is seconds old is not given up at once: a standby server may not know it yet.
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while let Err(error) = source.authorize(&scene.request()).await {
        ensure!(tokio::time::Instant::now() < deadline, "{error}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    ensure!(scene.injector.token().await?.expose() != own.expose());
    ensure!(matches!(*scene.injector.status().borrow(), LoginStatus::LoggedIn { .. }));
    let issued = source.issue(&scene.request()).await?;

    // The renewer has no business with the revoker's requests, and the other way round.
    let logins = scene.cluster.openbao().count_requests("auth/kubernetes/login")?;
    for (login, renews) in [(&scene.renewer, false), (&scene.revoker, true)] {
        login.token().await?;
        let source = scene.source(login, scene.token_role());
        let (outcome, path) = match renews {
            true => (source.renew_token(&issued.lease).await.map(drop), "auth/token/renew-accessor"),
            false => (source.revoke(&issued.lease).await, "auth/token/revoke-accessor"),
        };
        let Err(SourceError::Misconfigured(text)) = outcome else { anyhow::bail!("{outcome:?}") };
        ensure!(text.contains(path) && text.contains("update"), "{text}");
    }
    let logins = scene.cluster.openbao().count_requests("auth/kubernetes/login")? - logins;
    ensure!(logins == 2, "one for each, as a denial by policy leads to none: {logins}");
    Ok(())
}

#[tokio::test]
async fn the_ledger_compares_and_swaps_and_forgets() -> Result<()> {
    let scene = Scene::start(DatabaseAccess::default()).await?;
    let DatabaseAccess { mount, prefix, .. } = &scene.access;
    let folder = |prefix: &str| KvFolder { mount: mount.clone(), prefix: prefix.to_owned() };
    let ledger = |login: &Login| VaultLedger::new(login.clone(), folder(prefix));
    let (writer, reader, eraser) = (ledger(&scene.injector), ledger(&scene.renewer), ledger(&scene.revoker));
    let root = scene.cluster.openbao().root();
    ensure!(reader.list().await?.is_empty(), "an empty prefix");

    let (id, deleted) = (EntryId::random(), EntryId::random());
    let entry = entry();
    writer.record(id, &entry).await?;
    ensure!(matches!(writer.record(id, &entry).await, Err(LedgerError::Conflict(_))));
    let Stored { entry: read, version } = reader.read(id).await?.context("it was recorded")?;
    ensure!(read.pod == entry.pod && read.owner == entry.owner && read.lease.id == entry.lease.id);
    let moved = Entry { pod: PodRef { node: Some("node-1".into()), ..entry.pod.clone() }, ..entry.clone() };
    writer.update(id, &moved, version).await?;
    ensure!(matches!(writer.update(id, &entry, version).await, Err(LedgerError::Conflict(_))));
    let Stored { entry: read, version: later } = reader.read(id).await?.context("it was updated")?;
    ensure!(read.pod == moved.pod && later > version);

    writer.record(deleted, &entry).await?;
    root.delete(&format!("{mount}/data/{prefix}/{deleted}")).await?;
    ensure!(reader.read(deleted).await?.is_none(), "soft-deleted");
    root.write(&format!("{mount}/data/{prefix}/notes"), &json!({ "data": { "a": "b" } })).await?;
    root.write(&format!("{mount}/data/{prefix}/folder/x"), &json!({ "data": { "a": "b" } })).await?;
    let mut listed = reader.list().await?;
    listed.sort();
    let mut expected = [id, deleted];
    expected.sort();
    ensure!(listed == expected, "{listed:?}");

    for id in [id, deleted, id] {
        eraser.forget(id).await?;
    }
    ensure!(reader.list().await?.is_empty() && reader.read(id).await?.is_none());
    ensure!(
        matches!(writer.update(id, &entry, later).await, Err(LedgerError::Conflict(_))),
        "it is not revived"
    );

    for outcome in [reader.record(id, &entry).await, reader.forget(id).await, writer.list().await.map(drop)] {
        let Err(LedgerError::Denied(text)) = outcome else { anyhow::bail!("{outcome:?}") };
        ensure!(text.contains("dbi/") && text.contains("kubernetes/"), "{text}");
    }
    let elsewhere = VaultLedger::new(scene.renewer.clone(), folder("another"));
    ensure!(matches!(elsewhere.list().await, Err(LedgerError::Denied(_))));
    scene.cluster.openbao().seal().await?;
    let sealed = reader.list().await;
    ensure!(matches!(&sealed, Err(LedgerError::Unavailable(text)) if text.contains("sealed")), "{sealed:?}");
    Ok(())
}

fn entry() -> Entry {
    Entry {
        lease: Lease { id: "databases/creds/app/1".into(), token: TokenHandle::Accessor("acc".into()) },
        owner: Some(Owner { cluster: "c1".into(), release: "vdbi".into() }),
        pod: PodRef { namespace: "shop".into(), service_account: "app1".into(), ..PodRef::default() },
        database: "main".into(),
        role: "app".into(),
        issued_at: None,
        ttl: None,
        raw_token: Some(Secret::new("s.raw")),
    }
}
