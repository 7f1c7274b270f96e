//! Several releases and several clusters on one ledger.

use super::*;

/// The same ledger and the same source, seen by another cluster.
fn another_cluster(world: &World) -> World {
    World { source: world.source.clone(), ledger: world.ledger.clone(), ..World::new() }
}

#[tokio::test]
async fn two_clusters_and_two_releases_on_one_ledger_never_touch_each_others_credentials() {
    let mut ours = World::new();
    let mut theirs = another_cluster(&ours);
    let their_owner = Owner { cluster: "d".into(), ..World::owner() };
    let dev_owner = Owner { release: "dev".into(), ..World::owner() };
    // Entries of three owners. None of their pods exists any more but our own second one.
    let (_, gone) = ours.credential("gone", OLD, |_| {}).await;
    let (live_id, live) = ours.credential("web", OLD, |_| {}).await;
    let (their_id, their_live) =
        ours.credential("web", OLD, |entry| entry.owner = Some(their_owner.clone())).await;
    let (_, their_gone) = ours.credential("gone", OLD, |entry| entry.owner = Some(their_owner.clone())).await;
    let (_, dev_gone) = ours.credential("gone", OLD, |entry| entry.owner = Some(dev_owner)).await;
    ours.create_pod("web", live_id).await;
    theirs.create_pod("web", their_id).await;

    ours.revoke();
    ours.eventually("our revocation", || !ours.works(&gone)).await;
    ours.after_two_sweeps().await;
    for untouched in [&live, &their_live, &their_gone, &dev_gone] {
        assert!(ours.works(untouched));
    }
    theirs.revoke_with(|settings, _| settings.rules.owner = their_owner);
    theirs.eventually("their revocation", || !theirs.works(&their_gone)).await;
    theirs.after_two_sweeps().await;
    for untouched in [&live, &their_live, &dev_gone] {
        assert!(ours.works(untouched));
    }
    // A pod of ours with the namespace, the name and the entry of one of theirs.
    ours.pods().delete("web", &DeleteParams::default()).await.unwrap();
    ours.eventually("our other revocation", || !ours.works(&live)).await;
    ours.create_pod("web", their_id).await;
    ours.after_two_sweeps().await;
    ours.pods().delete("web", &DeleteParams::default()).await.unwrap();
    ours.after_two_sweeps().await;
    assert!(ours.works(&their_live) && ours.works(&dev_gone));
}

#[tokio::test(start_paused = true)]
async fn a_renewer_leaves_the_entries_of_another_release_to_it() {
    let mut world = World::new();
    world
        .source
        .set_lifetimes(Lifetimes { ttl: Duration::from_secs(60), max_ttl: Duration::from_secs(3600) });
    let dev = Owner { release: "dev".into(), ..World::owner() };
    let (_, ours) = world.credential("web", Duration::ZERO, |_| {}).await;
    let (_, theirs) = world.credential("web", Duration::ZERO, |entry| entry.owner = Some(dev.clone())).await;
    world.renew_as(dev);
    tokio::time::sleep(Duration::from_secs(90)).await;
    assert!(world.works(&theirs) && !world.works(&ours));
}
