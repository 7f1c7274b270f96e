//! A watch on pods that does not hold.

use vdbi_core::memory::kubernetes::Verb;

use super::*;

/// So long that no regular comparison finds what the watch misses.
const NO_SWEEP: Duration = Duration::from_secs(24 * 3600);

#[tokio::test]
async fn a_pod_that_ends_while_the_watch_cannot_be_opened_loses_its_credential_when_it_can() {
    let mut world = World::new();
    let connection = world.kubernetes.connect("revoker");
    let (id, issued) = world.credential("web", OLD, |_| {}).await;
    world.create_pod("web", id).await;
    world.revoke_with(|settings, pods| {
        settings.interval = NO_SWEEP;
        *pods = Pods::new(connection.client(), LABEL);
    });
    world.eventually("the watch", || connection.calls(Verb::Watch, "pods") > 0).await;
    connection.refuse();
    world.pods().delete("web", &DeleteParams::default()).await.unwrap();
    // The watcher has noticed, and has tried again in vain.
    let tried = connection.calls(Verb::Watch, "pods") + connection.calls(Verb::List, "pods");
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(connection.calls(Verb::Watch, "pods") + connection.calls(Verb::List, "pods"), tried);
    assert!(world.works(&issued));
    connection.heal();
    world.eventually("the revocation", || !world.works(&issued)).await;
}

#[tokio::test(start_paused = true)]
async fn watches_that_end_again_and_again_are_opened_once_a_second_at_most() {
    let mut world = World::new();
    let connection = world.kubernetes.connect("revoker");
    world.revoke_with(|settings, pods| {
        settings.interval = NO_SWEEP;
        *pods = Pods::new(connection.client(), LABEL);
    });
    for _ in 0..1000 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        world.kubernetes.close_watches();
    }
    let watches = connection.calls(Verb::Watch, "pods");
    assert!((5..=12).contains(&watches), "{watches} in ten seconds");
}
