use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Config, NoTls, Row};

use crate::installed::Installed;
use crate::ports::with_free_ports;
use crate::process::{Program, Server};

const SUPERUSER: &str = "postgres";
const START: Duration = Duration::from_secs(30);

/// A running PostgreSQL with a data directory of its own.
#[derive(Debug)]
pub struct Postgres {
    server: Server,
    port: u16,
    password: String,
}

impl Postgres {
    pub(crate) async fn start(directory: &Path) -> Result<Self> {
        let owner = Owner::of_the_server()?;
        owner.give(directory)?;
        let password = uuid::Uuid::new_v4().simple().to_string();
        let data = initialize(&owner, directory, &password).await?;
        let postgres = Installed::Postgres.path()?;
        with_free_ports(async |[port]: [u16; 1]| {
            let program = owner
                .runs(Program::new(&postgres, directory))
                .arg("-D")
                .arg(&data)
                .args(["-c", "listen_addresses=127.0.0.1", "-c", &format!("port={port}")])
                .args(["-c", &format!("unix_socket_directories={}", directory.display())])
                .args(["-c", "fsync=off", "-c", "max_connections=200"])
                // SCRAM would make CREATE ROLE ten times dearer.
                .args(["-c", "password_encryption=md5"]);
            let server = Server::start("postgres", program, directory).await?;
            let mut started = Self { server, port, password: password.clone() };
            started.ready().await?;
            Ok(started)
        })
        .await
    }

    /// The port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The superuser's name.
    #[must_use]
    pub fn superuser(&self) -> &str {
        SUPERUSER
    }

    /// The superuser's password.
    #[must_use]
    pub fn password(&self) -> &str {
        &self.password
    }

    /// An address with the superuser's name and password.
    #[must_use]
    pub fn admin_url(&self) -> String {
        format!("postgresql://{SUPERUSER}:{}@127.0.0.1:{}/postgres?sslmode=disable", self.password, self.port)
    }

    /// Whether the server lets this user in: a real login.
    ///
    /// # Errors
    ///
    /// When the server does not decide, because it is down for instance.
    pub async fn can_login(&self, user: &str, password: &str) -> Result<bool> {
        match self.config(user, password).connect(NoTls).await {
            Ok(_) => Ok(true),
            Err(error) => match error.code() {
                Some(code) if is_refused_login(code) => Ok(false),
                _ => Err(error).context("PostgreSQL did not decide on a login"),
            },
        }
    }

    /// The names of the roles that begin with this, in order.
    ///
    /// # Errors
    ///
    /// When the server cannot be asked.
    pub async fn roles_like(&self, prefix: &str) -> Result<Vec<String>> {
        let rows = self
            .query(&format!("SELECT rolname FROM pg_roles WHERE starts_with(rolname, '{prefix}') ORDER BY 1"))
            .await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    /// Runs one statement as the superuser.
    ///
    /// # Errors
    ///
    /// When the server refuses it.
    pub async fn query(&self, statement: &str) -> Result<Vec<Row>> {
        let (client, connection) = self.config(SUPERUSER, &self.password).connect(NoTls).await?;
        tokio::select! {
            rows = client.query(statement, &[]) => rows.with_context(|| format!("PostgreSQL refused: {statement}")),
            ended = connection => {
                ended?;
                bail!("PostgreSQL ended the connection")
            }
        }
    }

    /// Stops the server as an operator would: clients are thrown out, nothing is lost.
    ///
    /// # Errors
    ///
    /// When it does not end.
    pub async fn stop(&mut self) -> Result<()> {
        self.server.signal(Signal::INT)?;
        self.server.wait_exit(START).await.map(drop)
    }

    /// Starts it again on the same port after [`Postgres::stop`].
    ///
    /// # Errors
    ///
    /// When it does not get ready.
    pub async fn start_again(&mut self) -> Result<()> {
        self.server.restart().await?;
        self.ready().await
    }

    /// The process, to freeze it or end it. Each connection has a process of its own, which a frozen server goes on serving.
    pub fn server_mut(&mut self) -> &mut Server {
        &mut self.server
    }

    async fn ready(&mut self) -> Result<()> {
        let config = self.config(SUPERUSER, &self.password);
        self.server.ready(START, async || Ok(config.connect(NoTls).await.map(drop)?)).await
    }

    fn config(&self, user: &str, password: &str) -> Config {
        let mut config = Config::new();
        config.host("127.0.0.1").port(self.port).dbname("postgres").user(user).password(password);
        config.connect_timeout(Duration::from_secs(5));
        config
    }
}

fn is_refused_login(code: &SqlState) -> bool {
    *code == SqlState::INVALID_PASSWORD || *code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION
}

async fn initialize(owner: &Owner, directory: &Path, password: &str) -> Result<PathBuf> {
    let data = directory.join("data");
    let password_file = directory.join("password");
    fs::write(&password_file, password)?;
    owner.give(&password_file)?;
    let initdb = owner
        .runs(Program::new(Installed::Initdb.path()?, directory))
        .arg(format!("--pgdata={}", data.display()))
        .arg(format!("--username={SUPERUSER}"))
        .arg(format!("--pwfile={}", password_file.display()))
        .args(["--auth=md5", "--encoding=UTF8", "--locale=C", "--no-sync"]);
    let mut initdb = Server::start("initdb", initdb, directory).await?;
    let status = initdb.wait_exit(START).await?;
    if !status.success() {
        bail!("initdb ended with {status}\n{}", initdb.log_tail(20));
    }
    Ok(data)
}

/// Who runs the server: PostgreSQL refuses to run as root, so that root hands it to the user of Debian's package.
struct Owner(Option<Account>);

struct Account {
    name: String,
    uid: u32,
    gid: u32,
}

impl Owner {
    fn of_the_server() -> Result<Self> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Self(None));
        }
        let accounts = fs::read_to_string("/etc/passwd")?;
        let account = accounts.lines().find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next().filter(|name| *name == "postgres")?;
            let (uid, gid) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
            Some(Account { name: name.to_owned(), uid, gid })
        });
        let account = account.context(
            "PostgreSQL does not run as root, and the user postgres is missing: run `hack/test-env`",
        )?;
        Ok(Self(Some(account)))
    }

    fn give(&self, path: &Path) -> Result<()> {
        match &self.0 {
            Some(account) => chown(path, Some(account.uid), Some(account.gid))
                .context("PostgreSQL could not be given its directory"),
            None => Ok(()),
        }
    }

    fn runs(&self, program: Program) -> Program {
        match &self.0 {
            Some(account) => program.user(&account.name),
            None => program,
        }
    }
}
