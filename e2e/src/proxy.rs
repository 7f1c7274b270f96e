//! What lies between a component and OpenBao: a load balancer that answers for a server which cannot.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use anyhow::Result;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

/// More than a request to OpenBao has.
const REQUEST: usize = 16 << 10;

/// A loopback port that leads to a server, until it is told to answer in its place.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    answer: watch::Sender<Option<String>>,
    answered: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    /// One that passes everything on to a server.
    ///
    /// # Errors
    ///
    /// When no port is free.
    pub async fn start(server: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (answer, answers) = watch::channel(None);
        let answered = Arc::<AtomicUsize>::default();
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, server, answers, answered.clone()));
        Ok(Self { address, answer, answered, _tasks: tasks })
    }

    /// Its own address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers every request like this from now on; connections that are open are cut.
    pub fn answer(&self, status: u16, content_type: &str, body: &str) {
        let length = body.len();
        let head =
            format!("HTTP/1.1 {status} Fault\r\ncontent-type: {content_type}\r\ncontent-length: {length}");
        self.answer.send_replace(Some(format!("{head}\r\nconnection: close\r\n\r\n{body}")));
    }

    /// Passes everything on again.
    pub fn pass(&self) {
        self.answer.send_replace(None);
    }

    /// How many requests it has answered itself.
    #[must_use]
    pub fn answered(&self) -> usize {
        self.answered.load(Ordering::Relaxed)
    }
}

async fn accept(
    listener: TcpListener,
    server: SocketAddr,
    mut answers: watch::Receiver<Option<String>>,
    answered: Arc<AtomicUsize>,
) {
    let mut connections = JoinSet::new();
    while let Ok((mut client, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        let answer = answers.borrow_and_update().clone();
        let (mut answers, answered) = (answers.clone(), answered.clone());
        connections.spawn(async move {
            let Some(answer) = answer else {
                let Ok(mut server) = TcpStream::connect(server).await else { return };
                tokio::select! {
                    _ = copy_bidirectional(&mut client, &mut server) => {}
                    _ = answers.changed() => {}
                }
                return;
            };
            // A request to OpenBao is small and comes in one piece.
            if matches!(client.read(&mut vec![0; REQUEST]).await, Ok(1..)) {
                answered.fetch_add(1, Ordering::Relaxed);
                if client.write_all(answer.as_bytes()).await.is_ok() && client.shutdown().await.is_ok() {
                    // Closed while something is unread it would take the answer away again.
                    let _ = client.read(&mut vec![0; REQUEST]).await;
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_answers_in_place_of_the_server_for_as_long_as_it_is_told_to() {
        crate::cluster::install_crypto();
        let behind = Proxy::start(([127, 0, 0, 1], 1).into()).await.unwrap();
        behind.answer(200, "text/plain", "server");
        let proxy = Proxy::start(behind.address()).await.unwrap();
        let get = async || {
            let answer = reqwest::get(format!("http://{}/", proxy.address())).await.unwrap();
            (answer.status().as_u16(), answer.text().await.unwrap())
        };
        assert_eq!(get().await, (200, "server".into()));
        proxy.answer(503, "application/json", "{}");
        assert_eq!(get().await, (503, "{}".into()));
        proxy.pass();
        assert_eq!(get().await, (200, "server".into()));
        assert_eq!((proxy.answered(), behind.answered()), (1, 2));
    }
}
