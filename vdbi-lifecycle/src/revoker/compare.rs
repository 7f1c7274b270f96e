//! Which credentials have outlived their pods: decisions without a clock, a server or a task.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use vdbi_core::{
    ledger::{Entry, EntryId, Owner},
    pod::PodRef,
};

use crate::pods::{Claimant, Claims};

/// What the comparison of one entry with the live pods says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Finding {
    /// Its pod lives.
    Live,
    /// It is too young to judge: its pod may be on its way through admission.
    Young,
    /// Another cluster or release wrote it.
    Foreign,
    /// Its pod is done.
    Gone,
}

/// How an entry came to be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Occasion {
    /// A pod in the entry's namespace that listed it was seen to end, so that it is not one on its way.
    PodEnded,
    /// The regular comparison of the whole ledger.
    Sweep,
}

/// When a pod counts as done: made by [`Rules::new`], and changed field by field.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Rules {
    /// Which entries are ours.
    pub owner: Owner,
    /// How old an entry has to be before the absence of its pod means anything: 60 s. It covers an admission that the API server has not
    /// stored yet, and clocks that differ.
    pub grace_period: Duration,
    /// A sweep that finds a larger share of our entries gone, between 0 and 1, is not believed: 0.5 ...
    pub brake_share: f64,
    /// ... where that is more than this many: 20.
    pub brake_minimum: usize,
    /// Up to then every sweep is believed: for whoever has ended most pods on purpose. By default none is.
    pub brake_override_until: Option<Timestamp>,
}

impl Rules {
    /// The defaults of the configuration, which the fields tell.
    pub fn new(owner: Owner) -> Self {
        Self {
            owner,
            grace_period: Duration::from_secs(60),
            brake_share: 0.5,
            brake_minimum: 20,
            brake_override_until: None,
        }
    }

    /// Judges one entry by pods that were listed *after* the entry was read.
    pub(crate) fn judge(
        &self,
        id: EntryId,
        entry: &Entry,
        claims: &Claims,
        occasion: Occasion,
        now: Timestamp,
    ) -> Finding {
        // An entry of the Go product names no owner: only a pod of this cluster that is seen to end speaks for it.
        let ours = match &entry.owner {
            Some(owner) => *owner == self.owner,
            None => occasion == Occasion::PodEnded,
        };
        if !ours {
            Finding::Foreign
        } else if claims.hold(id, entry) {
            Finding::Live
        } else if occasion == Occasion::Sweep && self.is_young(entry, now) {
            Finding::Young
        } else {
            Finding::Gone
        }
    }

    /// Whether a sweep that found `gone` of `ours` entries gone is too much to be true: a wrong label or an empty list of
    /// pods would end every credential at once.
    pub(crate) fn brake(&self, gone: usize, ours: usize, now: Timestamp) -> bool {
        let overridden = self.brake_override_until.is_some_and(|until| now < until);
        !overridden && gone > self.brake_minimum && gone as f64 > self.brake_share * ours as f64
    }

    /// What the entry becomes once its pod is known: bound to the pod's name and uid, so that no other pod can ever speak for it, and
    /// ours, where it is the Go product's. `None` when there is nothing to bind, or it is not this pod's.
    pub(crate) fn bind(&self, entry: &Entry, namespace: &str, claimant: &Claimant) -> Option<Entry> {
        let foreign = entry.owner.as_ref().is_some_and(|owner| *owner != self.owner);
        let bound = entry.owner.is_some() && entry.pod.uid.is_some();
        if foreign || bound || entry.pod.namespace != namespace || !claimant.may_be(&entry.pod) {
            return None;
        }
        let Claimant { name, uid } = claimant.clone();
        let pod = PodRef { name: Some(name), uid: Some(uid), ..entry.pod.clone() };
        Some(Entry { pod, owner: Some(self.owner.clone()), ..entry.clone() })
    }

    fn is_young(&self, entry: &Entry, now: Timestamp) -> bool {
        let grace = SignedDuration::try_from(self.grace_period).unwrap_or(SignedDuration::MAX);
        entry.issued_at.is_some_and(|issued_at| now.duration_since(issued_at) < grace)
    }
}

#[cfg(test)]
mod tests {
    use kube::core::ObjectMeta;
    use vdbi_core::{
        credential::{Lease, TokenHandle},
        pod::{PodRef, UUID_ANNOTATION},
    };

    use super::*;
    use crate::pods::Sighting;

    fn owner(release: &str) -> Owner {
        Owner { cluster: "c".into(), release: release.into() }
    }

    fn rules() -> Rules {
        Rules { brake_minimum: 10, ..Rules::new(owner("prod")) }
    }

    fn entry() -> Entry {
        Entry {
            lease: Lease { id: "l".into(), token: TokenHandle::Accessor("a".into()) },
            owner: Some(owner("prod")),
            pod: PodRef { namespace: "shop".into(), service_account: "app1".into(), ..PodRef::default() },
            database: "main".into(),
            role: "app".into(),
            issued_at: Some(Timestamp::from_second(1_000).unwrap()),
            ttl: None,
            raw_token: None,
        }
    }

    fn pod(namespace: &str, name: &str, id: EntryId) -> Sighting {
        ObjectMeta {
            namespace: Some(namespace.into()),
            name: Some(name.into()),
            uid: Some(format!("uid-of-{name}")),
            annotations: Some([(UUID_ANNOTATION.to_owned(), id.to_string())].into()),
            ..ObjectMeta::default()
        }
        .into()
    }

    fn judge(entry: &Entry, pods: &[(&str, &str)], occasion: Occasion, age: i64) -> Finding {
        let id = EntryId::random();
        let mut claims = Claims::default();
        pods.iter().for_each(|(namespace, name)| claims.insert(&pod(namespace, name, id)));
        rules().judge(id, entry, &claims, occasion, Timestamp::from_second(1_000 + age).unwrap())
    }

    #[test]
    fn an_entry_lives_with_a_pod_of_its_namespace_that_lists_it() {
        assert_eq!(judge(&entry(), &[("shop", "web")], Occasion::Sweep, 3_600), Finding::Live);
        assert_eq!(judge(&entry(), &[("shop", "web")], Occasion::PodEnded, 0), Finding::Live);
    }

    #[test]
    fn a_pod_of_another_namespace_keeps_nothing_alive() {
        assert_eq!(judge(&entry(), &[("evil", "web")], Occasion::Sweep, 3_600), Finding::Gone);
    }

    #[test]
    fn another_pod_that_lists_the_id_keeps_nothing_alive() {
        let mut named = entry();
        named.pod.name = Some("web-0".into());
        assert_eq!(judge(&named, &[("shop", "thief")], Occasion::Sweep, 3_600), Finding::Gone);
        assert_eq!(
            judge(&named, &[("shop", "thief"), ("shop", "web-0")], Occasion::Sweep, 3_600),
            Finding::Live
        );
        named.pod.uid = Some("uid-of-an-earlier-web-0".into());
        assert_eq!(judge(&named, &[("shop", "web-0")], Occasion::Sweep, 3_600), Finding::Gone);
    }

    #[test]
    fn a_young_entry_waits_for_its_pod_unless_the_pod_was_seen_to_end() {
        assert_eq!(judge(&entry(), &[], Occasion::Sweep, 59), Finding::Young);
        assert_eq!(judge(&entry(), &[], Occasion::Sweep, 60), Finding::Gone);
        assert_eq!(judge(&entry(), &[], Occasion::PodEnded, 0), Finding::Gone);
    }

    #[test]
    fn entries_of_another_release_or_cluster_are_never_touched() {
        for occasion in [Occasion::Sweep, Occasion::PodEnded] {
            let foreign = Entry { owner: Some(owner("dev")), ..entry() };
            assert_eq!(judge(&foreign, &[], occasion, 3_600), Finding::Foreign);
            let foreign = Entry { owner: Some(Owner { cluster: "d".into(), ..owner("prod") }), ..entry() };
            assert_eq!(judge(&foreign, &[], occasion, 3_600), Finding::Foreign);
        }
    }

    #[test]
    fn an_entry_of_the_go_product_is_ended_only_when_its_pod_is_seen_to_end() {
        let unowned = Entry { owner: None, issued_at: None, ..entry() };
        assert_eq!(judge(&unowned, &[], Occasion::Sweep, 3_600), Finding::Foreign);
        assert_eq!(judge(&unowned, &[], Occasion::PodEnded, 3_600), Finding::Gone);
    }

    #[test]
    fn the_brake_stops_a_sweep_that_would_end_most_credentials() {
        let (rules, now) = (rules(), Timestamp::from_second(1_000).unwrap());
        assert!(rules.brake(11, 20, now));
        assert!(!rules.brake(10, 20, now), "half is believed");
        assert!(!rules.brake(10, 10, now), "so are a few");
        assert!(!rules.brake(0, 0, now));
    }

    #[test]
    fn an_override_of_the_brake_ends_by_itself() {
        let until = Timestamp::from_second(1_000).unwrap();
        let rules = Rules { brake_override_until: Some(until), ..rules() };
        assert!(!rules.brake(20, 20, until - SignedDuration::from_secs(1)));
        assert!(rules.brake(20, 20, until));
    }

    fn claimant(name: &str) -> Claimant {
        Claimant { name: name.into(), uid: format!("uid-of-{name}") }
    }

    #[test]
    fn an_entry_is_bound_to_the_first_pod_that_shows_it_and_to_no_other_after() {
        let bound = rules().bind(&entry(), "shop", &claimant("web-0")).unwrap();
        assert_eq!(bound.pod.name.as_deref(), Some("web-0"));
        assert_eq!(bound.pod.uid.as_deref(), Some("uid-of-web-0"));
        for other in ["web-0", "thief"] {
            assert!(rules().bind(&bound, "shop", &claimant(other)).is_none());
        }
        assert_eq!(judge(&bound, &[("shop", "thief")], Occasion::Sweep, 3_600), Finding::Gone);
        assert_eq!(judge(&bound, &[("shop", "web-0")], Occasion::Sweep, 3_600), Finding::Live);
    }

    #[test]
    fn a_pod_of_another_namespace_or_name_and_an_entry_of_another_release_are_not_bound() {
        assert!(rules().bind(&entry(), "evil", &claimant("web-0")).is_none());
        let mut named = entry();
        named.pod.name = Some("web-0".into());
        assert!(rules().bind(&named, "shop", &claimant("thief")).is_none());
        let foreign = Entry { owner: Some(owner("dev")), ..entry() };
        assert!(rules().bind(&foreign, "shop", &claimant("web-0")).is_none());
    }

    #[test]
    fn an_entry_of_the_go_product_becomes_ours_with_its_pod() {
        let unowned = Entry { owner: None, issued_at: None, ..entry() };
        let bound = rules().bind(&unowned, "shop", &claimant("web-0")).unwrap();
        assert_eq!(bound.owner, Some(owner("prod")));
        assert_eq!(
            judge(&bound, &[], Occasion::Sweep, 0),
            Finding::Gone,
            "from then on a sweep may speak for it"
        );
    }

    #[test]
    fn of_two_pods_that_list_an_entry_neither_is_taken_for_its_own() {
        let (id, mut claims) = (EntryId::random(), Claims::default());
        claims.insert(&pod("shop", "web-0", id));
        assert_eq!(claims.sole_holder(id, &entry()), Some(&claimant("web-0")));
        claims.insert(&pod("shop", "thief", id));
        assert_eq!(claims.sole_holder(id, &entry()), None);
        assert!(claims.hold(id, &entry()), "and it lives");
    }
}
