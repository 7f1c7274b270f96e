use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::{Cluster, OpenBao, Program, Server};

#[tokio::test]
async fn a_server_that_fails_is_reported_with_the_end_of_its_log() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let program = Program::new("/bin/sh", directory.path()).args(["-c", "echo the disk is full >&2; exit 3"]);
    let mut server = Server::start("broken", program, directory.path()).await?;
    let error = server.ready(Duration::from_secs(10), async || anyhow::bail!("not yet")).await;
    let error = format!("{:#}", error.err().context("it was ready")?);
    assert!(error.contains("the disk is full") && error.contains("exit status: 3"), "{error}");
    Ok(())
}

#[tokio::test]
async fn a_process_ends_and_pauses_as_it_is_told() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let program = Program::new("/bin/sh", directory.path())
        .args(["-c", "trap 'exit 7' TERM; echo started; while :; do sleep 0.05; done"]);
    let mut server = Server::start("shell", program, directory.path()).await?;
    server.logged("started", Duration::from_secs(10)).await?;
    server.stop()?;
    eventually(|| state_of(server.pid()) == Some('T'))?;
    server.cont()?;
    eventually(|| matches!(state_of(server.pid()), Some('S' | 'R')))?;
    assert_eq!(server.terminate(Duration::from_secs(10)).await?.code(), Some(7));
    server.restart().await?;
    let pid = server.pid();
    drop(server);
    assert_eq!(state_of(pid), None);
    Ok(())
}

#[test]
fn servers_die_with_a_killed_test_process() -> Result<()> {
    // What is killed cannot clean up, so that its files are put where this test does.
    let files = tempfile::tempdir()?;
    fs::set_permissions(files.path(), Permissions::from_mode(0o711))?;
    let mut test = Command::new(std::env::current_exe()?)
        .args(["--exact", "--ignored", "--nocapture", "process::helper_that_starts_servers_and_waits"])
        .env("TMPDIR", files.path())
        .stdout(Stdio::piped())
        .spawn()?;
    let output = BufReader::new(test.stdout.take().context("no output")?);
    let pids = output.lines().find_map(|line| Some(line.ok()?.split_once("servers: ")?.1.to_owned()));
    let pids: Vec<u32> =
        pids.context("the helper started no server")?.split(' ').map(str::parse).collect::<Result<_, _>>()?;
    assert!(pids.len() == 2 && pids.iter().all(|&pid| state_of(pid).is_some()));

    test.kill()?;
    test.wait()?;
    for pid in pids {
        eventually(|| matches!(state_of(pid), None | Some('Z')))?;
    }
    Ok(())
}

#[tokio::test]
#[ignore = "started, and killed, by servers_die_with_a_killed_test_process"]
async fn helper_that_starts_servers_and_waits() -> Result<()> {
    // PostgreSQL is the one that runs as another user, and a change of user could lose the signal.
    let mut cluster = Cluster::builder().openbao(OpenBao::dev()).postgres().start().await?;
    println!(
        "servers: {} {}",
        cluster.openbao_mut().server_mut().pid(),
        cluster.postgres_mut().server_mut().pid()
    );
    tokio::time::sleep(Duration::from_secs(60)).await;
    Ok(())
}

/// As in proc(5); none when there is no such process.
fn state_of(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

fn eventually(condition: impl Fn() -> bool) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        ensure!(Instant::now() < deadline, "it did not happen within ten seconds");
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}
