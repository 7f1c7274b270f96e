use kube::{Client, client::Body};

/// A client that reports, at each request for a watch, whether the API server has begun one. The watcher itself says nothing
/// when it goes on after a failure.
pub(super) fn reporting(client: &Client, report: impl Fn(bool) + Clone + Send + Sync + 'static) -> Client {
    let inner = client.clone();
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let mut parameters = request.uri().query().unwrap_or_default().split('&');
        let watches = parameters.any(|parameter| ["watch=true", "watch=1"].contains(&parameter));
        let (client, report) = (inner.clone(), report.clone());
        async move {
            let outcome = client.send(request).await;
            if watches {
                report(outcome.as_ref().is_ok_and(|response| response.status().is_success()));
            }
            outcome
        }
    });
    Client::new(service, client.default_namespace())
}
