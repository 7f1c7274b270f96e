//! Real servers: kube-apiserver, etcd, OpenBao and PostgreSQL.

use std::{collections::HashMap, net::SocketAddr};

use anyhow::Result;
use e2e::{Cluster, Component, DatabaseAccess, OpenBao, system::LABEL};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use vdbi_core::{
    kubernetes::TokenRequestIdentity,
    metrics::Registry,
    vault::{
        Account, Authentication, Issuing, KvFolder, Login, Settings, VaultClient, VaultLedger, VaultSource,
    },
};

use crate::{
    narrator::Narrator,
    release::TTL,
    stage::{NAMESPACE, ROLE, SERVICE_ACCOUNT, SYSTEM_NAMESPACE, Stage},
};

pub(crate) struct OpenBaoStage {
    logins: HashMap<&'static str, Login>,
    access: DatabaseAccess,
    // Ends the sessions before the servers.
    _sessions: JoinSet<()>,
    cluster: Cluster,
}

impl OpenBaoStage {
    pub(crate) async fn start(narrator: &Narrator) -> Result<Self> {
        narrator.say("servers", "starting kube-apiserver, etcd, OpenBao and PostgreSQL");
        let ttl = format!("{}s", TTL.as_secs());
        let access = DatabaseAccess {
            namespace: NAMESPACE.into(),
            service_account: SERVICE_ACCOUNT.into(),
            role: ROLE.into(),
            system_namespace: SYSTEM_NAMESPACE.into(),
            default_ttl: ttl.clone(),
            token_period: ttl,
            ..DatabaseAccess::default()
        };
        let cluster = Cluster::builder().kubernetes().openbao(OpenBao::dev()).postgres().start().await?;
        cluster.configure_database_access(&access).await?;
        let settings = Settings::new(cluster.openbao().url());
        let vault = VaultClient::new(&settings, &Registry::disabled())?;
        let (mut logins, mut sessions) = (HashMap::new(), JoinSet::new());
        for component in Component::ALL {
            let token_file = cluster.component_token_file(&access, component).await?;
            let account = Account {
                auth_path: "kubernetes".to_owned(),
                role: access.component_role(component),
                token_file,
            };
            let login = Login::new(vault.clone(), account);
            let session = login.clone();
            sessions.spawn(async move { session.keep_alive(CancellationToken::new()).await });
            logins.insert(component.name(), login);
        }
        Ok(Self { logins, access, _sessions: sessions, cluster })
    }
}

impl Stage for OpenBaoStage {
    type Source = VaultSource<TokenRequestIdentity>;
    type Ledger = VaultLedger;

    fn description(&self) -> &'static str {
        "a real kube-apiserver, OpenBao and PostgreSQL"
    }

    fn client(&self) -> kube::Client {
        self.cluster.kubernetes().admin()
    }

    fn source(&self, component: Component) -> Self::Source {
        let authentication = Authentication::Legacy { token_role: Some(self.access.token_role.clone()) };
        let mut issuing = Issuing::default();
        issuing.token_period = TTL;
        VaultSource::new(self.logins[component.name()].clone(), "kubernetes", authentication, issuing)
    }

    fn ledger(&self, component: Component) -> VaultLedger {
        let (mount, prefix) = (self.access.mount.clone(), self.access.prefix.clone());
        VaultLedger::new(self.logins[component.name()].clone(), KvFolder { mount, prefix })
    }

    async fn install_webhook(&self, address: SocketAddr, ca_pem: &str) -> Result<()> {
        self.cluster.kubernetes().install_webhook(&format!("https://{address}/"), ca_pem, LABEL).await
    }

    async fn opens_a_session(&self, user: &str, password: &str) -> Result<bool> {
        self.cluster.postgres().can_login(user, password).await
    }
}
