use super::*;

/// The Go product counted its attempts over the whole life of the process, and gave up after five.
#[tokio::test(start_paused = true)]
async fn a_plugin_comes_back_at_once_however_often_it_was_disconnected() {
    let mut world = World::start();
    world.synchronized().await;
    for _ in 0..50 {
        let lost = Instant::now();
        let (at, mut connection) = world.connected().await;
        assert!(at - lost <= Duration::from_millis(100), "{:?}", at - lost);
        connection.start("2.2.9").await.unwrap();
        world.until(|status| status.ready().is_ok()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_plugin_waits_for_its_runtime_as_long_as_it_takes() {
    let mut world = World::with_errors([io::ErrorKind::ConnectionRefused; 1000]);
    let mut connection = world.synchronized().await;
    connection.create(&pod("web"), &container("app")).await.unwrap();
    assert_eq!(world.metrics.of("vdbi_nri_reconnect_total attempted"), 1000);
    drop(connection);
    connection = world.synchronized().await;
    connection.create(&pod("web"), &container("app")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn waits_grow_to_two_seconds_and_start_over_after_a_success() {
    let mut world = World::with_errors([io::ErrorKind::NotFound; 20]);
    let start = Instant::now();
    let (at, mut connection) = world.connected().await;
    // 0.1, 0.2, 0.4, 0.8, 1.6 and fifteen times 2 seconds, or half of that.
    let waited = (at - start).as_secs_f64();
    assert!((16.5..=33.1).contains(&waited), "{waited}");
    connection.start("2.2.9").await.unwrap();
    world.until(|status| status.ready().is_ok()).await;
    let lost = Instant::now();
    drop(connection);
    let (at, _) = world.connected().await;
    assert!(at - lost <= Duration::from_millis(100));
}

/// The Go product counted a success before it had registered.
#[tokio::test(start_paused = true)]
async fn a_reconnection_succeeds_with_the_synchronization_and_not_before() {
    let mut world = World::start();
    let figures = |world: &World| {
        ["attempted", "succeeded", "failed"]
            .map(|result| world.metrics.of(&format!("vdbi_nri_reconnect_total {result}")))
    };
    drop(world.synchronized().await);
    let (_, mut connection) = world.connected().await;
    connection.registered().await.unwrap();
    connection.configure("2.2.9").await.unwrap();
    assert_eq!(figures(&world), [1, 0, 0]);
    drop(connection);
    let (_, mut connection) = world.connected().await;
    assert_eq!(figures(&world), [2, 0, 1]);
    connection.start("2.2.9").await.unwrap();
    world.until(|status| status.ready().is_ok()).await;
    assert_eq!(figures(&world), [2, 1, 1]);
    drop(connection);
    world.until(|status| status.ready().is_err()).await;
    assert_eq!(figures(&world), [2, 1, 1]);
    assert_eq!(world.metrics.gauge("vdbi_nri_connected"), 0.0);
}

#[tokio::test(start_paused = true)]
async fn the_status_says_why_there_is_no_connection_and_what_to_do() {
    let mut world = World::with_errors([
        io::ErrorKind::NotFound,
        io::ErrorKind::ConnectionRefused,
        io::ErrorKind::PermissionDenied,
    ]);
    for part in ["is NRI enabled", "nobody listens", "run as root"] {
        let says = |status: &Status| status.ready().is_err_and(|reason| reason.contains(part));
        let reason = world.until(says).await.ready().unwrap_err();
        assert!(reason.contains("/var/run/nri/nri.sock"), "{reason}");
    }
    drop(world.synchronized().await);
    let closed = |status: &Status| {
        status.ready().is_err_and(|reason| reason == "the other side closed the connection")
    };
    world.until(closed).await;
}

#[tokio::test(start_paused = true)]
async fn requests_of_a_lost_connection_do_not_hinder_the_next() {
    let mut world = World::start();
    let connection = world.synchronized().await;
    let request = async {
        let (pod, container) = (pod("web"), container("never"));
        let asking = connection.create(&pod, &container);
        tokio::time::timeout(Duration::from_millis(10), asking).await.unwrap_err();
    };
    request.await;
    drop(connection);
    let connection = world.synchronized().await;
    connection.create(&pod("web"), &container("app")).await.unwrap();
}
