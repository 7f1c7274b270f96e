//! The whole scenario: a database behind OpenBao's database engine, an application that may use it, and the service accounts of
//! vdbi's components with exactly the rights that each needs.

mod policies;
mod rbac;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::openbao::{Client, Refused};

const REVIEWER_LIFETIME: Duration = Duration::from_secs(12 * 60 * 60);
const DATABASE_GROUP: &str = "app_rw";

/// Ends sessions first, and is no error when the user has gone already: a plain `DROP ROLE` would then fail for ever.
const REVOCATION: &str = r#"DO $$ BEGIN IF EXISTS (SELECT FROM pg_roles WHERE rolname='{{name}}') THEN
 PERFORM pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename='{{name}}';
 REASSIGN OWNED BY "{{name}}" TO postgres; DROP OWNED BY "{{name}}"; DROP ROLE "{{name}}"; END IF; END $$;"#;

/// How OpenBao is set up; the defaults are those of the chart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseAccess {
    /// The KV v2 mount of the ledger.
    pub mount: String,
    /// The folder of the ledger in the mount; two releases on one OpenBao have two.
    pub prefix: String,
    /// The mount of the database engine.
    pub engine: String,
    /// What a pod's annotation calls `role`: it names the login role, the policy and the database role.
    pub role: String,
    /// Where the application's pods run.
    pub namespace: String,
    /// The application's service account.
    pub service_account: String,
    /// The lifetime of a credential between two renewals.
    pub default_ttl: String,
    /// The longest lifetime of a credential.
    pub max_ttl: String,
    /// The period of the application's tokens.
    pub token_period: String,
    /// The token role that mints the application's tokens in legacy mode.
    pub token_role: String,
    /// Also lets the injector mint them with `auth/token/create-orphan`, as the Go product does. That takes sudo, with which it
    /// may mint any token but root's.
    pub create_orphan: bool,
    /// The audience of the service account tokens with which pods and components log in.
    pub audience: String,
    /// Where vdbi runs.
    pub system_namespace: String,
    /// The release: the prefix of the components' service accounts.
    pub release: String,
}

impl Default for DatabaseAccess {
    fn default() -> Self {
        Self {
            mount: "dbi".into(),
            prefix: "kubernetes".into(),
            engine: "databases".into(),
            role: "app".into(),
            namespace: "shop".into(),
            service_account: "app1".into(),
            default_ttl: "1h".into(),
            max_ttl: "24h".into(),
            token_period: "2h".into(),
            token_role: "dbi-pod".into(),
            create_orphan: false,
            audience: "vault".into(),
            system_namespace: "vdbi-system".into(),
            release: "vdbi".into(),
        }
    }
}

/// One of vdbi's components, each with a service account, a login role and a policy of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Component {
    /// Issues, or has placeholders written: the webhook.
    Injector,
    /// Keeps alive.
    Renewer,
    /// Takes back.
    Revoker,
    /// Issues on the node: the node plugin.
    Nri,
}

impl Component {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Injector, Self::Renewer, Self::Revoker, Self::Nri];

    /// Its name, which is also that of its login role and of its policy for the release `vdbi`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Injector => "injector",
            Self::Renewer => "renewer",
            Self::Revoker => "revoker",
            Self::Nri => "nri",
        }
    }

    /// Whether its replicas elect a leader.
    #[must_use]
    pub fn elects(self) -> bool {
        matches!(self, Self::Renewer | Self::Revoker)
    }

    /// The package and the name of its program.
    #[must_use]
    pub fn program(self) -> (&'static str, &'static str) {
        match self {
            Self::Injector => ("injector", "vdbi-injector"),
            Self::Renewer => ("renewer", "vdbi-renewer"),
            Self::Revoker => ("revoker", "vdbi-revoker"),
            Self::Nri => ("node-plugin", "vdbi-nri-plugin"),
        }
    }
}

impl DatabaseAccess {
    /// The service account of a component.
    #[must_use]
    pub fn component_service_account(&self, component: Component) -> String {
        format!("{}-{}", self.release, component.name())
    }

    /// The login role of a component, and its policy; another release than `vdbi` has others.
    #[must_use]
    pub fn component_role(&self, component: Component) -> String {
        match self.release.as_str() {
            "vdbi" => component.name().to_owned(),
            _ => self.component_service_account(component),
        }
    }
}

impl Cluster {
    /// Sets all of it up. Called again with another role it adds an application, with another release and prefix a release.
    ///
    /// # Errors
    ///
    /// When one of the servers refuses a step.
    ///
    /// # Panics
    ///
    /// When the cluster lacks one of the three servers.
    pub async fn configure_database_access(&self, access: &DatabaseAccess) -> Result<()> {
        self.configure_servers(access).await?;
        self.configure_rights(access).await
    }

    /// What a release over another backend needs: namespaces, service accounts, and the components' rights in Kubernetes.
    ///
    /// # Errors
    ///
    /// When the API server refuses a step.
    ///
    /// # Panics
    ///
    /// When the cluster has no API server.
    pub async fn configure_kubernetes(&self, access: &DatabaseAccess) -> Result<()> {
        self.configure_namespaces(access).await?;
        self.configure_rights(access).await
    }

    /// As [`Cluster::configure_database_access`], without the components' own service accounts and their rights in Kubernetes, for
    /// a chart that brings these.
    ///
    /// # Errors
    ///
    /// When one of the servers refuses a step.
    ///
    /// # Panics
    ///
    /// When the cluster lacks one of the three servers.
    pub async fn configure_servers(&self, access: &DatabaseAccess) -> Result<()> {
        self.configure_namespaces(access).await?;
        for object in rbac::reviewer(access) {
            self.kubernetes().apply(&object).await?;
        }
        self.configure_database(access).await?;
        self.configure_login(access).await?;
        self.configure_application(access).await?;
        self.configure_components(access).await
    }

    /// What the API server denied to the components of a release: nothing, when their roles suffice.
    ///
    /// # Errors
    ///
    /// When the audit log cannot be read.
    pub fn denied_requests(&self, access: &DatabaseAccess) -> Result<Vec<String>> {
        let user = format!("system:serviceaccount:{}:{}-", access.system_namespace, access.release);
        let denials = self.kubernetes().audit_denials(&user)?;
        Ok(denials.iter().map(|denial| format!("{} {} {}", denial.user, denial.verb, denial.uri)).collect())
    }

    /// A kubeconfig file of a component, for `KUBECONFIG`.
    ///
    /// # Errors
    ///
    /// When it has not been set up.
    pub async fn component_kubeconfig(
        &self,
        access: &DatabaseAccess,
        component: Component,
    ) -> Result<PathBuf> {
        let account = access.component_service_account(component);
        self.kubernetes().kubeconfig_for_service_account(&access.system_namespace, &account).await
    }

    /// A file with the token with which a component logs in to OpenBao.
    ///
    /// # Errors
    ///
    /// When it has not been set up.
    pub async fn component_token_file(
        &self,
        access: &DatabaseAccess,
        component: Component,
    ) -> Result<PathBuf> {
        let account = access.component_service_account(component);
        self.kubernetes()
            .service_account_token_file(&access.system_namespace, &account, &access.audience)
            .await
    }

    async fn configure_namespaces(&self, access: &DatabaseAccess) -> Result<()> {
        for namespace in [&access.namespace, &access.system_namespace] {
            self.kubernetes().create_namespace(namespace).await?;
        }
        self.kubernetes().create_service_account(&access.namespace, &access.service_account).await
    }

    async fn configure_rights(&self, access: &DatabaseAccess) -> Result<()> {
        for object in rbac::components(access) {
            self.kubernetes().apply(&object).await?;
        }
        Ok(())
    }

    async fn configure_database(&self, access: &DatabaseAccess) -> Result<()> {
        let DatabaseAccess { mount, engine, role, .. } = access;
        let (root, postgres) = (self.openbao().root(), self.postgres());
        postgres
            .query(&format!(
                "DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname='{DATABASE_GROUP}') THEN
                 CREATE ROLE {DATABASE_GROUP} NOLOGIN; END IF; END $$"
            ))
            .await?;
        mount_once(
            root,
            &format!("sys/mounts/{mount}"),
            json!({ "type": "kv", "options": { "version": "2" } }),
        )
        .await?;
        write_when_upgraded(root, &format!("{mount}/config"), &json!({ "max_versions": 1 })).await?;
        mount_once(root, &format!("sys/mounts/{engine}"), json!({ "type": "database" })).await?;
        let url = format!(
            "postgresql://{{{{username}}}}:{{{{password}}}}@127.0.0.1:{}/postgres?sslmode=disable",
            postgres.port()
        );
        let connection = json!({
            "plugin_name": "postgresql-database-plugin",
            "allowed_roles": "*",
            "connection_url": url,
            "username": postgres.superuser(),
            "password": postgres.password(),
        });
        root.write(&format!("{engine}/config/pg"), &connection).await?;
        let creation = format!(
            r#"CREATE ROLE "{{{{name}}}}" WITH LOGIN PASSWORD '{{{{password}}}}' VALID UNTIL '{{{{expiration}}}}' IN ROLE {DATABASE_GROUP};"#
        );
        let database_role = json!({
            "db_name": "pg",
            "default_ttl": access.default_ttl,
            "max_ttl": access.max_ttl,
            "creation_statements": creation,
            "revocation_statements": REVOCATION,
        });
        root.write(&format!("{engine}/roles/{role}"), &database_role).await.map(drop)
    }

    async fn configure_login(&self, access: &DatabaseAccess) -> Result<()> {
        let (root, kubernetes) = (self.openbao().root(), self.kubernetes());
        mount_once(root, "sys/auth/kubernetes", json!({ "type": "kubernetes" })).await?;
        let reviewer = kubernetes
            .service_account_token(&access.system_namespace, rbac::REVIEWER, &[], REVIEWER_LIFETIME)
            .await?;
        let config = json!({
            "kubernetes_host": kubernetes.url(),
            "kubernetes_ca_cert": kubernetes.ca_pem(),
            "token_reviewer_jwt": reviewer,
            "disable_local_ca_jwt": true,
        });
        root.write("auth/kubernetes/config", &config).await.map(drop)
    }

    async fn configure_application(&self, access: &DatabaseAccess) -> Result<()> {
        let DatabaseAccess { role, token_role, .. } = access;
        let root = self.openbao().root();
        write_policy(root, role, &policies::application(access)).await?;
        let login = json!({
            "bound_service_account_names": access.service_account,
            "bound_service_account_namespaces": access.namespace,
            "audience": access.audience,
            "token_policies": [role],
            "token_period": access.token_period,
        });
        root.write(&format!("auth/kubernetes/role/{role}"), &login).await?;

        let token_role = format!("auth/token/roles/{token_role}");
        let before = root.read(&token_role).await?.unwrap_or_default();
        let mut allowed: Vec<Value> = before["allowed_policies"].as_array().cloned().unwrap_or_default();
        if !allowed.contains(&json!(role)) {
            allowed.push(json!(role));
        }
        let token = json!({
            "allowed_policies": allowed,
            "orphan": true,
            "renewable": true,
            "token_period": access.token_period,
            "token_no_default_policy": true,
            "token_type": "service",
        });
        root.write(&token_role, &token).await.map(drop)
    }

    async fn configure_components(&self, access: &DatabaseAccess) -> Result<()> {
        let root = self.openbao().root();
        for component in Component::ALL {
            let role = access.component_role(component);
            write_policy(root, &role, &policies::component(access, component)).await?;
            let login = json!({
                "bound_service_account_names": access.component_service_account(component),
                "bound_service_account_namespaces": access.system_namespace,
                "audience": access.audience,
                "token_policies": [role],
                "token_period": "10m",
                "token_no_default_policy": true,
            });
            root.write(&format!("auth/kubernetes/role/{role}"), &login).await?;
        }
        Ok(())
    }
}

async fn write_policy(root: &Client, name: &str, policy: &str) -> Result<()> {
    root.write(&format!("sys/policies/acl/{name}"), &json!({ "policy": policy })).await.map(drop)
}

async fn mount_once(root: &Client, path: &str, mount: Value) -> Result<()> {
    match root.write(path, &mount).await {
        Ok(_) => Ok(()),
        Err(error) => match error.downcast_ref::<Refused>() {
            Some(refused) if refused.says("path is already in use") => Ok(()),
            _ => Err(error),
        },
    }
}

/// A new KV v2 mount refuses everything for a moment, until it has laid out its storage.
async fn write_when_upgraded(root: &Client, path: &str, body: &Value) -> Result<()> {
    let upgraded = async {
        loop {
            match root.write(path, body).await {
                Err(error)
                    if error.downcast_ref::<Refused>().is_some_and(|refused| refused.says("Upgrading")) =>
                {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                outcome => return outcome.map(drop),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), upgraded)
        .await
        .with_context(|| format!("{path} is still upgrading"))?
}
