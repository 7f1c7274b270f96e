use vdbi_core::{
    credential::{Lease, TokenHandle},
    pod::PodRef,
};

use super::*;

const fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A plan, and the pods of two namespaces as it would see them.
struct Shop {
    plan: Plan,
    now: Duration,
    pods: BTreeMap<String, (String, PodFacts)>,
    entries: HashMap<String, (EntryId, Arc<Entry>)>,
    warned: Vec<String>,
    hopeless: Vec<String>,
}

impl Shop {
    fn new(at_once: usize) -> Self {
        Self {
            plan: Plan::new(at_once),
            now: Duration::ZERO,
            pods: BTreeMap::new(),
            entries: HashMap::new(),
            warned: Vec::new(),
            hopeless: Vec::new(),
        }
    }

    /// A ready pod that asks for rotation, of this owner.
    fn pod(&mut self, name: &str, owner: &str) -> &mut PodFacts {
        self.pod_in("shop", name, owner)
    }

    fn pod_in(&mut self, namespace: &str, name: &str, owner: &str) -> &mut PodFacts {
        let id = EntryId::random();
        let pod = PodRef { namespace: namespace.into(), name: Some(name.into()), ..PodRef::default() };
        let entry = Entry {
            lease: Lease { id: "l".into(), token: TokenHandle::Accessor("a".into()) },
            owner: None,
            pod,
            database: "main".into(),
            role: "app".into(),
            issued_at: None,
            ttl: None,
            raw_token: None,
        };
        self.entries.insert(name.into(), (id, Arc::new(entry)));
        let facts = PodFacts {
            name: name.into(),
            uid: format!("uid-{name}"),
            owner: Some(owner.into()),
            rotates: true,
            terminating: false,
            ready: true,
            ids: vec![id],
        };
        self.pods.insert(name.into(), (namespace.into(), facts));
        &mut self.pods.get_mut(name).unwrap().1
    }

    fn fate(&mut self, name: &str, fate: Fate) {
        let (id, entry) = self.entries[name].clone();
        self.plan.note(self.now, Note { task: Task { id, step: Step::Lease }, entry, fate }, 0.0);
    }

    fn ends_in(&mut self, name: &str, seconds: u64) {
        self.fate(name, Fate::EndsIn(at(seconds)));
    }

    /// Lets time pass. What is evicted when, where this is the answer.
    fn until_answering(
        &mut self,
        end: u64,
        mut answer: impl FnMut(&mut Self, &Eviction) -> Outcome,
    ) -> Vec<(u64, String)> {
        let mut evictions = Vec::new();
        while let Some(due) = self.plan.next_due().filter(|due| *due <= at(end)) {
            self.now = self.now.max(due);
            let looks = self.plan.take_due(self.now);
            let seen = looks.into_iter().map(|look| Seen {
                pods: self
                    .pods
                    .values()
                    .filter(|(ns, _)| *ns == look.namespace)
                    .map(|(_, pod)| pod.clone())
                    .collect(),
                namespace: look.namespace,
            });
            let seen = seen.collect();
            for act in self.plan.saw(self.now, seen, vec![]) {
                match act {
                    Act::Evict(eviction) => {
                        let outcome = answer(self, &eviction);
                        evictions.push((self.now.as_secs(), eviction.name.clone()));
                        if self.plan.settle(self.now, &eviction, outcome, 0.0) {
                            self.warned.push(eviction.name);
                        }
                    }
                    Act::NoController(eviction) => self.hopeless.push(eviction.name),
                }
            }
        }
        self.now = at(end);
        evictions
    }

    /// Lets time pass. Evicted pods are gone at once, and nothing comes in their place.
    fn until(&mut self, end: u64) -> Vec<(u64, String)> {
        self.until_answering(end, |shop, eviction| {
            shop.pods.remove(&eviction.name);
            Outcome::Evicted
        })
    }

    /// The same, where another pod comes at once, not ready yet.
    fn until_replaced(&mut self, end: u64) -> Vec<(u64, String)> {
        self.until_answering(end, |shop, eviction| {
            let (_, old) = shop.pods.remove(&eviction.name).unwrap();
            let new = format!("{}-new", eviction.name);
            let owner = old.owner.unwrap();
            shop.pod_in(&eviction.namespace, &new, &owner).ready = false;
            Outcome::Evicted
        })
    }

    fn ready(&mut self, name: &str) {
        self.pods.get_mut(name).unwrap().1.ready = true;
    }
}

fn names(evictions: &[(u64, String)]) -> Vec<&str> {
    evictions.iter().map(|(_, name)| name.as_str()).collect()
}

#[test]
fn a_pod_is_evicted_while_its_credential_has_most_of_its_time_left() {
    let mut shop = Shop::new(5);
    shop.pod("web", "rs");
    shop.ends_in("web", 1800);
    assert_eq!(shop.until(1800), [(1, "web".to_owned())]);
    assert_eq!(shop.plan.waiting(), 0);
}

#[test]
fn the_beginning_is_spread_over_a_quarter_of_what_is_left() {
    let mut shop = Shop::new(5);
    shop.pod("web", "rs");
    let (id, entry) = shop.entries["web"].clone();
    let task = Task { id, step: Step::Lease };
    shop.plan.note(at(0), Note { task, entry, fate: Fate::EndsIn(at(1800)) }, 0.5);
    assert_eq!(shop.until(1800), [(225, "web".to_owned())]);
}

#[test]
fn of_one_owner_one_is_evicted_at_a_time_and_the_next_when_the_one_in_its_place_is_ready() {
    let mut shop = Shop::new(5);
    for name in ["a", "b", "c"] {
        shop.pod(name, "rs");
        shop.ends_in(name, 1800);
    }
    assert_eq!(names(&shop.until_replaced(300)), ["a"], "nothing more while one is not ready");
    shop.ready("a-new");
    assert_eq!(names(&shop.until_replaced(600)), ["b"]);
    shop.ready("b-new");
    assert_eq!(names(&shop.until_replaced(900)), ["c"]);
}

#[test]
fn what_is_missing_is_waited_for_though_all_others_are_ready() {
    let mut shop = Shop::new(5);
    for name in ["a", "b"] {
        shop.pod(name, "rs");
        shop.ends_in(name, 1800);
    }
    assert_eq!(names(&shop.until(600)), ["a"]);
    shop.pod("a-new", "rs");
    assert_eq!(names(&shop.until(700)), ["b"]);
}

#[test]
fn the_earliest_death_goes_first() {
    let mut shop = Shop::new(1);
    for (name, left) in [("a", 1800), ("b", 1200), ("c", 1500)] {
        shop.pod_in(name, name, &format!("rs-{name}"));
        shop.ends_in(name, left);
    }
    let evictions = shop.until_answering(1000, |shop, eviction| {
        shop.pods.remove(&eviction.name);
        shop.pod_in(&eviction.namespace, &format!("{}-new", eviction.name), &format!("rs-{}", eviction.name));
        Outcome::Evicted
    });
    assert_eq!(names(&evictions), ["b", "c", "a"]);
}

#[test]
fn so_many_are_under_way_at_once_in_all_and_a_place_is_free_when_the_pod_is_replaced() {
    let mut shop = Shop::new(2);
    for name in ["a", "b", "c", "d"] {
        shop.pod_in(&format!("ns-{name}"), name, &format!("rs-{name}"));
        shop.ends_in(name, 3600);
    }
    assert_eq!(names(&shop.until_replaced(30)), ["a", "b"]);
    shop.ready("b-new");
    assert_eq!(names(&shop.until_replaced(60)), ["c"]);
    assert_eq!(
        names(&shop.until_replaced(180)),
        ["d"],
        "one that is never replaced gives up its place in the end"
    );
}

#[test]
fn more_are_under_way_at_once_where_some_would_be_too_late() {
    let mut shop = Shop::new(2);
    for index in 0..40 {
        shop.pod(&format!("web-{index:02}"), &format!("rs-{index}"));
        shop.ends_in(&format!("web-{index:02}"), 400);
    }
    let first = shop.until_replaced(2).len();
    assert_eq!(first, 4, "forty of half a minute in five minutes and a half");
    assert_eq!(shop.until_replaced(400).len(), 36);
}

#[test]
fn a_pod_without_a_controller_is_never_evicted_and_is_told_once() {
    let mut shop = Shop::new(5);
    shop.pod("bare", "rs").owner = None;
    for left in [1800, 900, 450] {
        shop.ends_in("bare", left);
        assert_eq!(shop.until(1800 - left + 100), []);
    }
    shop.fate("bare", Fate::Lost);
    assert_eq!(shop.until(3000), []);
    assert_eq!(shop.hopeless, ["bare"]);
    assert!(shop.plan.endings.is_empty() && shop.plan.waiting() == 0);
}

#[test]
fn a_pod_that_does_not_ask_or_that_ends_already_is_left_alone() {
    let mut shop = Shop::new(5);
    shop.pod("silent", "rs").rotates = false;
    shop.pod("ending", "other").terminating = true;
    for name in ["silent", "ending"] {
        shop.ends_in(name, 1800);
    }
    assert_eq!(shop.until(1800), []);
    assert_eq!((shop.plan.waiting(), shop.plan.next_due()), (0, None), "and nobody looks any more");
}

#[test]
fn a_pod_that_claims_what_another_holds_is_not_evicted_for_it() {
    let mut shop = Shop::new(5);
    let id = shop.pod("web", "rs").ids[0];
    let thief = shop.pod("thief", "other");
    thief.ids.push(id);
    shop.ends_in("web", 1800);
    assert_eq!(names(&shop.until(1800)), ["web"]);
}

#[test]
fn a_pod_with_two_credentials_is_evicted_once_by_the_one_that_ends_first() {
    let mut shop = Shop::new(5);
    let id = shop.pod("reports", "other").ids[0];
    let (_, entry) = shop.entries["reports"].clone();
    let entry =
        Entry { pod: PodRef { name: Some("web".into()), ..entry.pod.clone() }, ..Entry::clone(&entry) };
    shop.entries.insert("reports".into(), (id, Arc::new(entry)));
    shop.pods.remove("reports");
    shop.pod("web", "rs").ids.push(id);
    shop.ends_in("web", 1800);
    shop.ends_in("reports", 600);
    let mut left = Vec::new();
    let evictions = shop.until_answering(1800, |shop, eviction| {
        left.push(eviction.left);
        shop.pods.clear();
        Outcome::Evicted
    });
    assert_eq!((evictions.len(), left), (1, vec![at(599)]));
}

#[test]
fn one_that_is_blocked_is_tried_again_with_growing_pauses_and_warned_once_near_the_end() {
    let mut shop = Shop::new(5);
    shop.pod("web", "rs");
    shop.ends_in("web", 600);
    let tries = shop.until_answering(440, |_, _| Outcome::Blocked);
    let pauses: Vec<u64> = tries.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
    assert_eq!(pauses[..6], [2, 4, 8, 16, 32, 60]);
    assert!(pauses.iter().all(|pause| *pause <= 60), "{pauses:?}");
    assert_eq!(shop.warned, [""; 0], "there is time");
    let late = shop.until_answering(599, |_, _| Outcome::Blocked);
    assert!(late.len() >= 5, "none too rarely at the end: {late:?}");
    assert_eq!(shop.warned, ["web"]);
    shop.fate("web", Fate::Lost);
    let dead = shop.until_answering(2400, |_, _| Outcome::Blocked);
    assert!((4..=9).contains(&dead.len()), "it needs another credential all the same: {dead:?}");
    assert_eq!(shop.warned, ["web"]);
}

#[test]
fn one_that_is_blocked_does_not_keep_the_others_of_its_owner_from_trying() {
    let mut shop = Shop::new(5);
    for (name, left) in [("a", 600), ("b", 700)] {
        shop.pod(name, "rs");
        shop.ends_in(name, left);
    }
    let tries = shop.until_answering(20, |_, _| Outcome::Blocked);
    assert_eq!(names(&tries)[..3], ["a", "b", "a"]);
}

#[test]
fn after_refusals_the_earliest_death_goes_first_again() {
    let mut shop = Shop::new(5);
    for (name, left) in [("a", 600), ("b", 700)] {
        shop.pod(name, "rs");
        shop.ends_in(name, left);
    }
    shop.until_answering(20, |_, _| Outcome::Blocked);
    let first = shop.until_replaced(60).remove(0).1;
    let (new, other) = if first == "a" { ("a-new", "b") } else { ("b-new", "a") };
    shop.ready(new);
    shop.ends_in(new, 900);
    assert_eq!(shop.until_replaced(120)[0].1, other);
}

#[test]
fn who_lacks_the_right_is_told_at_once() {
    let mut shop = Shop::new(5);
    shop.pod("web", "rs");
    shop.ends_in("web", 1800);
    let tries = shop.until_answering(60, |_, _| Outcome::Refused);
    assert!(tries.len() > 2);
    assert_eq!(shop.warned, ["web"]);
}

#[test]
fn a_pod_that_vanished_is_forgotten() {
    let mut shop = Shop::new(5);
    shop.pod("web", "rs");
    shop.ends_in("web", 1800);
    let tries = shop.until_answering(1800, |shop, _| {
        shop.pods.clear();
        Outcome::Vanished
    });
    assert_eq!((tries.len(), shop.plan.waiting(), shop.plan.owners.len()), (1, 0, 0));
}

#[test]
fn a_replacement_that_never_comes_is_waited_for_as_long_as_each_pod_can_still_have_its_minute() {
    let mut shop = Shop::new(5);
    for name in ["a", "b", "c"] {
        shop.pod(name, "rs");
        shop.ends_in(name, 1800);
    }
    let evictions = shop.until(1800);
    assert_eq!(evictions, [(1, "a".to_owned()), (1680, "b".to_owned()), (1740, "c".to_owned())]);
}

#[test]
fn where_time_is_short_the_pods_of_an_owner_are_spread_over_it() {
    let mut shop = Shop::new(5);
    for index in 0..10 {
        shop.pod(&format!("web-{index}"), "rs");
        shop.ends_in(&format!("web-{index}"), 120);
    }
    let evictions = shop.until(120);
    assert_eq!(evictions.len(), 10, "all in time: {evictions:?}");
    let pauses = evictions.windows(2).map(|pair| pair[1].0 - pair[0].0);
    assert!(pauses.min() >= Some(8), "and none together: {evictions:?}");
}

#[test]
fn a_new_leader_waits_for_what_ends_and_for_what_is_not_ready() {
    let mut shop = Shop::new(5);
    shop.pod("old", "rs").terminating = true;
    shop.pod("web", "rs");
    shop.ends_in("web", 1800);
    assert_eq!(shop.until(300), []);
    shop.pods.remove("old");
    shop.pod("new", "rs").ready = false;
    assert_eq!(shop.until(600), []);
    shop.ready("new");
    assert_eq!(names(&shop.until(630)), ["web"]);
}

#[test]
fn a_pod_that_is_not_ready_itself_need_not_wait() {
    let mut shop = Shop::new(5);
    shop.pod("web", "rs").ready = false;
    shop.pod("other", "rs");
    shop.ends_in("web", 1800);
    assert_eq!(names(&shop.until(10)), ["web"]);
}

#[test]
fn pods_that_are_not_ready_for_want_of_a_credential_do_not_wait_for_each_other() {
    let mut shop = Shop::new(5);
    for name in ["a", "b"] {
        shop.pod(name, "rs").ready = false;
        shop.fate(name, Fate::Lost);
    }
    assert_eq!(shop.until_replaced(60).len(), 1);
    let new = if shop.pods.contains_key("a-new") { "a-new" } else { "b-new" };
    shop.ready(new);
    assert_eq!(shop.until_replaced(120).len(), 1, "and still one after the other");
}

#[test]
fn a_pod_whose_credential_is_lost_waits_a_quarter_of_an_hour_for_a_replacement_that_does_not_come() {
    let mut shop = Shop::new(5);
    for name in ["a", "b"] {
        shop.pod(name, "rs");
        shop.fate(name, Fate::Lost);
    }
    let evictions = shop.until(3600);
    assert_eq!(evictions.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [1, 901]);
}

#[test]
fn a_raised_maximum_calls_it_off() {
    let mut shop = Shop::new(5);
    shop.pod("web", "rs");
    shop.ends_in("web", 1800);
    shop.until_answering(10, |_, _| Outcome::Blocked);
    assert_eq!(shop.plan.waiting(), 1);
    shop.fate("web", Fate::GoesOn);
    shop.until_answering(20, |_, _| Outcome::Blocked);
    assert_eq!((shop.plan.waiting(), shop.until(1800)), (0, vec![]));
}

#[test]
fn a_token_that_goes_on_does_not_hide_a_lease_that_ends() {
    let mut shop = Shop::new(5);
    shop.pod("web", "rs");
    shop.ends_in("web", 1800);
    let (id, entry) = shop.entries["web"].clone();
    shop.plan.note(at(0), Note { task: Task { id, step: Step::Token }, entry, fate: Fate::GoesOn }, 0.0);
    assert_eq!(names(&shop.until(10)), ["web"]);
}

#[test]
fn a_lost_credential_is_replaced_too_and_is_no_reason_to_hurry_the_others() {
    let mut shop = Shop::new(2);
    for index in 0..20 {
        shop.pod(&format!("web-{index}"), &format!("rs-{index}"));
        shop.fate(&format!("web-{index}"), Fate::Lost);
    }
    assert_eq!(shop.until_replaced(60).len(), 2);
}

#[test]
fn a_look_that_failed_is_repeated_with_growing_pauses() {
    let mut shop = Shop::new(5);
    shop.pod("web", "rs");
    shop.ends_in("web", 1800);
    let mut now = at(1);
    for pause in [2, 4, 8, 16, 32, 60, 60] {
        assert_eq!(shop.plan.next_due(), Some(now));
        let looks = shop.plan.take_due(now);
        assert_eq!(shop.plan.next_due(), None, "one look at a time");
        assert_eq!(shop.plan.saw(now, vec![], vec![looks[0].namespace.clone()]), []);
        now += at(pause);
    }
    shop.now = now;
    assert_eq!(names(&shop.until(1800)), ["web"]);
}

#[test]
fn a_list_of_everything_is_not_asked_for_with_each_piece_of_news() {
    let mut shop = Shop::new(5);
    let mut looks = 0;
    for index in 0..100 {
        let name = format!("web-{index}");
        shop.pod(&name, "rs").rotates = false;
        shop.now = at(0) + Duration::from_millis(100) * index;
        shop.ends_in(&name, 1800);
        if shop.plan.next_due().is_some_and(|due| due <= shop.now) {
            looks += 1;
            let now = shop.now;
            shop.plan.take_due(now);
            shop.plan.saw(now, vec![Seen { namespace: "shop".into(), pods: vec![] }], vec![]);
        }
    }
    assert!((2..=3).contains(&looks), "{looks} in ten seconds");
}
