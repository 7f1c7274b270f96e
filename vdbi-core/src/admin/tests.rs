//! Over sockets on loopback.

use std::{
    error::Error as _,
    io::{Read, Write},
    net::{Ipv4Addr, TcpStream},
};

use super::*;
use crate::health::Probe;

const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

fn server(health: &Health) -> AdminServer {
    let (_, page) = prometheus().unwrap();
    AdminServer::bind(Addresses { admin: ANY, metrics: ANY }, health.clone(), page).unwrap()
}

/// Status and whole answer, over a blocking socket: the server needs no runtime of the caller's.
fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    (answer[9..12].parse().unwrap(), answer)
}

#[test]
fn every_liveness_path_answers_the_same() {
    let health = Health::new();
    let server = server(&health);
    for path in ["/livez", "/healthz", "/live"] {
        let (status, answer) = get(server.admin_addr(), path);
        assert_eq!(status, 200, "{path}");
        assert!(answer.contains("content-type: application/json"), "{answer}");
        assert!(answer.contains(r#""status":"healthy""#), "{answer}");
    }
    health.register("stuck", Probe::Live);
    for path in ["/livez", "/healthz", "/live", "/live/stuck"] {
        let (status, answer) = get(server.admin_addr(), path);
        assert_eq!(status, 503, "{path}");
        assert!(answer.contains(r#""status":"unhealthy""#), "{answer}");
    }
}

#[test]
fn readiness_follows_its_checks() {
    let health = Health::new();
    let server = server(&health);
    let login = health.register("vault-login", Probe::Ready);
    let (status, answer) = get(server.admin_addr(), "/readyz?verbose");
    assert_eq!(status, 503);
    assert!(answer.contains("content-type: text/plain; charset=utf-8"), "{answer}");
    assert!(
        answer.ends_with("[+]shutdown ok\n[-]vault-login failed: reason withheld\nreadyz check failed\n")
    );
    assert_eq!(get(server.admin_addr(), "/readyz?exclude=vault-login").0, 200);
    login.pass();
    assert_eq!(get(server.admin_addr(), "/readyz").0, 200);
    health.shutting_down();
    assert_eq!(get(server.admin_addr(), "/readyz").0, 503);
    assert_eq!(get(server.admin_addr(), "/livez").0, 200);
}

#[test]
fn one_check_can_be_asked_for() {
    let health = Health::new();
    let server = server(&health);
    health.register("vault-login", Probe::Ready);
    assert_eq!(get(server.admin_addr(), "/readyz/shutdown").0, 200);
    assert_eq!(get(server.admin_addr(), "/readyz/vault-login").0, 503);
    assert_eq!(get(server.admin_addr(), "/readyz/ping").0, 404);
    assert_eq!(get(server.admin_addr(), "/healthz/ping").0, 200);
    assert_eq!(get(server.admin_addr(), "/").0, 404);
}

#[test]
fn any_path_of_the_metrics_port_is_the_page() {
    let server = server(&Health::new());
    for path in ["/", "/metrics", "/anything/else?x=y"] {
        let (status, answer) = get(server.metrics_addr(), path);
        assert_eq!(status, 200, "{path}");
        assert!(answer.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{answer}");
        assert!(answer.contains("# TYPE process_threads gauge"), "{answer}");
    }
}

#[test]
fn a_taken_port_is_named_with_its_key() {
    let server = server(&Health::new());
    let (_, page) = prometheus().unwrap();
    let taken = server.admin_addr();
    let error =
        AdminServer::bind(Addresses { admin: taken, metrics: ANY }, Health::new(), page.clone()).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot listen on {taken} (adminAddress)"));
    assert!(error.source().is_some());
    let error = AdminServer::bind(Addresses { admin: ANY, metrics: taken }, Health::new(), page).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot listen on {taken} (metricsAddress)"));
}

#[test]
fn a_stopped_server_has_closed_its_ports_even_for_whoever_says_nothing() {
    let server = server(&Health::new());
    let mut silent = TcpStream::connect(server.admin_addr()).unwrap();
    assert_eq!(get(server.admin_addr(), "/livez").0, 200);
    server.stop();
    server.stop();
    assert!(TcpStream::connect(server.admin_addr()).is_err());
    assert!(TcpStream::connect(server.metrics_addr()).is_err());
    silent.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    assert!(matches!(silent.read(&mut [0]), Ok(0)));
}
