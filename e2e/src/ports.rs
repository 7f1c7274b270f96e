use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Context, Result};

const ATTEMPTS: usize = 3;

/// Starts something on free loopback ports, and again on others when one was taken in between.
pub(crate) async fn with_free_ports<const N: usize, T>(
    start: impl AsyncFn([u16; N]) -> Result<T>,
) -> Result<T> {
    let mut attempt = 1;
    loop {
        match start(free()?).await {
            Err(error) if attempt < ATTEMPTS && is_clash(&error) => attempt += 1,
            outcome => return outcome,
        }
    }
}

/// All of them are held until the last is chosen, so that they differ.
fn free<const N: usize>() -> Result<[u16; N]> {
    let mut listeners = Vec::with_capacity(N);
    let mut ports = [0; N];
    for port in &mut ports {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no loopback port is free")?;
        *port = listener.local_addr()?.port();
        listeners.push(listener);
    }
    Ok(ports)
}

/// The servers say it alike: the text is the operating system's. A failed start carries the end of the server's log.
fn is_clash(error: &anyhow::Error) -> bool {
    format!("{error:#}").to_lowercase().contains("address already in use")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_that_are_chosen_together_differ() {
        let mut ports: [u16; 32] = free().unwrap();
        ports.sort_unstable();
        assert!(ports.windows(2).all(|pair| pair[0] != pair[1]));
    }

    #[tokio::test]
    async fn a_taken_port_is_replaced_by_another() {
        let attempts = std::cell::RefCell::new(Vec::new());
        let port = with_free_ports(async |[port]: [u16; 1]| {
            attempts.borrow_mut().push(port);
            anyhow::ensure!(
                attempts.borrow().len() > 1,
                "listen tcp 127.0.0.1:{port}: bind: address already in use"
            );
            Ok(port)
        })
        .await
        .unwrap();
        assert_eq!(attempts.into_inner().last(), Some(&port));
    }
}
