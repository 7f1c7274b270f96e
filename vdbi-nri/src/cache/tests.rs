use vdbi_core::credential::TokenHandle;

use super::*;

fn held(password: &str) -> Held {
    let credential = Credential {
        id: EntryId::random(),
        database: "main".into(),
        username: "v-user".into(),
        password: Secret::new(password),
        lease: Lease { id: "databases/creds/app/1".into(), token: TokenHandle::Accessor("accessor".into()) },
        seen_at: Timestamp::now(),
        ttl: Duration::from_secs(3600),
        user_placeholders: [Placeholder::random()].into(),
        password_placeholders: [Placeholder::random()].into(),
    };
    Held { credentials: vec![credential], source: Source::Prewarm }
}

fn files(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn what_was_put_is_there_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let held = held("p\"w\u{e9}\n");
    Cache::open(directory.path()).unwrap().put("u-1", held.clone()).unwrap();

    let again = Cache::open(directory.path()).unwrap();
    let found = again.get("u-1").unwrap();
    let (found_one, one) = (&found.credentials[0], &held.credentials[0]);
    assert_eq!(found.source, Source::Unknown);
    assert_eq!((found_one.id, &found_one.username, found_one.ttl), (one.id, &one.username, one.ttl));
    assert_eq!(found_one.password.expose(), one.password.expose());
    assert_eq!((&found_one.lease.id, found_one.seen_at), (&one.lease.id, one.seen_at));
    let secrets = found.secrets();
    assert_eq!(secrets.len(), 2);
    for placeholder in &one.password_placeholders {
        assert_eq!(secrets[placeholder].expose(), one.password.expose());
    }
}

#[test]
fn only_its_owner_may_read_the_cache() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a/b");
    let cache = Cache::open(&path).unwrap();
    cache.put("u-1", held("p")).unwrap();
    assert_eq!((mode(&path), mode(&path.join("u-1.json"))), (0o700, 0o600));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    Cache::open(&path).unwrap();
    assert_eq!(mode(&path), 0o700);
}

#[test]
fn a_pod_that_is_removed_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::open(directory.path()).unwrap();
    cache.put("u-1", held("p")).unwrap();
    cache.remove("u-1");
    assert!(cache.get("u-1").is_none() && cache.len() == 0);
    assert_eq!(files(directory.path()), [""; 0]);
}

#[test]
fn what_is_no_record_is_removed_and_hides_no_other() {
    let directory = tempfile::tempdir().unwrap();
    Cache::open(directory.path()).unwrap().put("u-1", held("p")).unwrap();
    let whole = fs::read_to_string(directory.path().join("u-1.json")).unwrap();
    fs::write(directory.path().join("u-2.json"), &whole[..whole.len() / 2]).unwrap();
    fs::write(directory.path().join("u-3.json"), whole.replace("\"version\":1", "\"version\":2")).unwrap();
    fs::write(directory.path().join("u-4.json.new"), "").unwrap();
    let again = Cache::open(directory.path()).unwrap();
    assert_eq!(again.uids(), ["u-1"]);
    assert_eq!(files(directory.path()), ["u-1.json"]);
}

#[test]
fn writers_at_once_leave_what_is_in_memory() {
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::open(directory.path()).unwrap();
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let cache = &cache;
            scope.spawn(move || {
                for turn in 0..50 {
                    cache.put("u-1", held(&format!("{writer}-{turn}"))).unwrap();
                }
            });
        }
    });
    let in_memory = cache.get("u-1").unwrap();
    let on_disk = Cache::open(directory.path()).unwrap().get("u-1").unwrap();
    assert_eq!(in_memory.credentials[0].password.expose(), on_disk.credentials[0].password.expose());
    assert_eq!(files(directory.path()), ["u-1.json"]);
}

#[test]
fn an_interrupted_write_does_not_keep_the_next_from_its_place() {
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::open(directory.path()).unwrap();
    fs::write(directory.path().join("u-1.json.new"), "half").unwrap();
    cache.put("u-1", held("p")).unwrap();
    assert_eq!(files(directory.path()), ["u-1.json"]);
}

#[test]
fn a_uid_is_no_path() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cache");
    Cache::open(&path).unwrap().put("../x/y", held("p")).unwrap();
    assert_eq!(files(directory.path()), ["cache"]);
    assert_eq!(files(&path), ["___x_y.json"]);
}

#[test]
fn a_directory_that_cannot_be_made_is_told_with_its_key() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    let error = Cache::open(file).unwrap_err().to_string();
    assert!(error.contains("nri.cachePath") && error.contains("tmpfs"), "{error}");
}

#[test]
fn what_may_have_ended_or_is_not_known_or_is_of_an_earlier_process_has_to_be_looked_at() {
    let held = held("p");
    let now = held.credentials[0].seen_at;
    let environment =
        |placeholder: &Placeholder| vec!["A=1".to_owned(), format!("DSN=x:{placeholder}@y"), "B=".to_owned()];
    let known = environment(held.credentials[0].password_placeholders.first().unwrap());
    assert!(held.covers(&known, now + SignedDuration::from_secs(3599)));
    assert!(
        !held.covers(&known, now + SignedDuration::from_secs(3600)),
        "nobody has renewed it, for all we know"
    );
    assert!(!held.covers(&environment(&Placeholder::random()), now));
    let earlier = Held { source: Source::Unknown, ..held };
    assert!(!earlier.covers(&known, now));
}

#[test]
fn debug_and_errors_show_no_password() {
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::open(directory.path()).unwrap();
    cache.put("u-1", held("hunter2")).unwrap();
    assert!(!format!("{cache:?}").contains("hunter2"));
    let damaged =
        record::decode("{\"version\":1,\"uid\":\"u\",\"credentials\":[{\"password\":\"hunter2\"}]}");
    assert!(!damaged.unwrap_err().contains("hunter2"));
}
