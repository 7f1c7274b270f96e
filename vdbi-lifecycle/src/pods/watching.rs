use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use kube::{Client, client::Body};
use tokio::time::{Instant, sleep_until};

/// From one watch to the next. The watcher opens another at once when the API server ends one, whatever its reason.
const PAUSE: Duration = Duration::from_secs(1);

/// A client that reports, at each request for a watch, whether the API server has begun one, and that begins no more than one a
/// second. The watcher itself says nothing when it goes on after a failure.
pub(super) fn reporting(client: &Client, report: impl Fn(bool) + Clone + Send + Sync + 'static) -> Client {
    let inner = client.clone();
    let begun: Arc<Mutex<Option<Instant>>> = Arc::default();
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let mut parameters = request.uri().query().unwrap_or_default().split('&');
        let watches = parameters.any(|parameter| ["watch=true", "watch=1"].contains(&parameter));
        let (client, report, begun) = (inner.clone(), report.clone(), begun.clone());
        async move {
            if watches {
                sleep_until(turn(&begun)).await;
            }
            let outcome = client.send(request).await;
            if watches {
                report(outcome.as_ref().is_ok_and(|response| response.status().is_success()));
            }
            outcome
        }
    });
    Client::new(service, client.default_namespace())
}

/// When the next watch may begin; it is taken to begin then.
fn turn(begun: &Mutex<Option<Instant>>) -> Instant {
    let (mut begun, now) = (begun.lock().unwrap_or_else(PoisonError::into_inner), Instant::now());
    let at = begun.map_or(now, |before| now.max(before + PAUSE));
    *begun = Some(at);
    at
}
