//! The stock components over another backend: accounts in files, without OpenBao.

use std::{
    fs,
    path::Path,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, ensure};
use e2e::{
    Cluster, DatabaseAccess, Release, System, binary,
    scene::{Login, Scene, always, eventually, login},
    system::AnotherProgram,
};
use tokio::time::Instant;

/// Short, so that an account which nobody renews has ended within the test.
const TTL: Duration = Duration::from_secs(6);

#[tokio::test(flavor = "multi_thread")]
async fn the_stock_components_over_accounts_in_files_issue_renew_and_revoke() -> Result<()> {
    let cluster = Cluster::builder().kubernetes().start().await?;
    let files = cluster.directory().join("files");
    for name in ["roles", "accounts", "ledger"] {
        fs::create_dir_all(files.join(name))?;
    }
    let access = DatabaseAccess::default();
    fs::write(files.join("roles/app"), format!("{}/{}\n", access.namespace, access.service_account))?;
    cluster.configure_kubernetes(&access).await?;
    let program = AnotherProgram {
        path: tokio::task::spawn_blocking(|| binary("custom-source", "custom-source")).await??,
        environment: vec![
            ("FILES_DIRECTORY", files.display().to_string()),
            ("FILES_TTL", format!("{}s", TTL.as_secs())),
        ],
    };
    let release = Release { program: Some(program), ..Release::default() };
    let system = System::start(&cluster, &access, &release).await?;
    let mut scene = Scene { system, cluster, access };

    scene
        .is_denied(&[("main.role", "unknown")], &["role unknown cannot be read from the file roles/unknown"])
        .await?;
    let pod = scene.create("web", &[("main.role", "app")]).await?;
    let login = login(&pod, "DBUSER", "DBPASSWORD")?;
    ensure!(accepted(&files, &login)?, "the account does not work");
    assert_eq!(entries(&files.join("ledger"))?, 1, "one pod, one entry");

    let issued = Instant::now();
    always(issued, 2 * TTL, async || {
        ensure!(accepted(&files, &login)?, "the account ended");
        Ok(())
    })
    .await?;

    scene.delete("web").await?;
    eventually(Duration::from_secs(5), async || {
        ensure!(!accepted(&files, &login)?, "the account still works");
        ensure!(entries(&files.join("ledger"))? == 0, "the ledger still has its entry");
        Ok(())
    })
    .await?;
    assert_eq!(scene.denied_requests()?, [""; 0], "the least privileges suffice");
    for replica in scene.system.replicas_mut() {
        let status = replica.server.terminate(Duration::from_secs(10)).await?;
        ensure!(status.success(), "{status}: {}", replica.server.log_tail(20));
    }
    Ok(())
}

/// As a server that reads the files would see it.
fn accepted(files: &Path, login: &Login) -> Result<bool> {
    let account = files.join("accounts").join(&login.user);
    if !account.exists() {
        return Ok(false);
    }
    let ends = fs::metadata(&account)?.modified()?;
    Ok(ends > SystemTime::now() && fs::read_to_string(account)? == login.password)
}

/// Without what is on its way into the ledger, whose name begins with a dot.
fn entries(ledger: &Path) -> Result<usize> {
    let names = fs::read_dir(ledger).with_context(|| ledger.display().to_string())?;
    let names = names.map(|entry| Ok(entry?.file_name())).collect::<Result<Vec<_>>>()?;
    Ok(names.iter().filter(|name| !name.as_encoded_bytes().starts_with(b".")).count())
}
