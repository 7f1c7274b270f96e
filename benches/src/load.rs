use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::task::JoinSet;

/// What a number of clients saw, over one or more slices of time.
#[derive(Debug, Clone, Default)]
pub(crate) struct Samples {
    latencies: Vec<Duration>,
    elapsed: Duration,
}

impl Samples {
    pub(crate) fn add(&mut self, slice: Self) {
        self.latencies.extend(slice.latencies);
        self.elapsed += slice.elapsed;
    }

    pub(crate) fn count(&self) -> usize {
        self.latencies.len()
    }

    pub(crate) fn per_second(&self) -> f64 {
        match self.elapsed.is_zero() {
            true => 0.0,
            false => self.count() as f64 / self.elapsed.as_secs_f64(),
        }
    }

    /// In milliseconds, by the nearest rank; 0 without samples.
    pub(crate) fn percentile(&self, percent: usize) -> f64 {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() * percent).div_ceil(100).max(1);
        sorted.get(rank - 1).map_or(0.0, |latency| latency.as_secs_f64() * 1000.0)
    }
}

impl FromIterator<Duration> for Samples {
    /// Taken apart from each other: there is no rate.
    fn from_iter<I: IntoIterator<Item = Duration>>(latencies: I) -> Self {
        Self { latencies: latencies.into_iter().collect(), elapsed: Duration::ZERO }
    }
}

/// Does something for each number below `count`, so many at once, and returns what came of it in any order.
///
/// # Errors
///
/// The first error.
pub(crate) async fn each<T, F>(
    count: usize,
    at_once: usize,
    operation: impl Fn(usize) -> F + Clone + Send + 'static,
) -> Result<Vec<T>>
where
    T: Send + 'static,
    F: Future<Output = Result<T>> + Send + 'static,
{
    let next = Arc::new(AtomicUsize::new(0));
    let mut running = JoinSet::new();
    for _ in 0..at_once {
        let (operation, next) = (operation.clone(), Arc::clone(&next));
        running.spawn(async move {
            let mut outcomes = Vec::new();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= count {
                    return anyhow::Ok(outcomes);
                }
                outcomes.push(operation(index).await?);
            }
        });
    }
    let mut outcomes = Vec::with_capacity(count);
    while let Some(finished) = running.join_next().await {
        outcomes.extend(finished??);
    }
    Ok(outcomes)
}

/// A closed loop: each client asks again once it has its answer, until the time is over or `most` have been asked.
///
/// # Errors
///
/// The first error of an operation ends all of it: a figure with failures in it means nothing.
pub(crate) async fn closed_loop<F>(
    clients: usize,
    time: Duration,
    most: usize,
    operation: impl Fn() -> F + Clone + Send + 'static,
) -> Result<Samples>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let asked = Arc::new(AtomicUsize::new(0));
    let started = Instant::now();
    let mut running = JoinSet::new();
    for _ in 0..clients {
        let (operation, asked) = (operation.clone(), Arc::clone(&asked));
        running.spawn(async move {
            let mut latencies = Vec::new();
            while started.elapsed() < time && asked.fetch_add(1, Ordering::Relaxed) < most {
                let asked = Instant::now();
                operation().await?;
                latencies.push(asked.elapsed());
            }
            anyhow::Ok(latencies)
        });
    }
    let mut samples = Samples::default();
    while let Some(client) = running.join_next().await {
        samples.latencies.extend(client??);
    }
    // The last answers count, so their time does.
    samples.elapsed = started.elapsed();
    Ok(samples)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_number_has_its_turn_once() {
        let mut numbers = each(100, 7, |index| async move { Ok(index) }).await.unwrap();
        numbers.sort_unstable();
        assert_eq!(numbers, (0..100).collect::<Vec<_>>());
    }

    fn of(latencies: impl IntoIterator<Item = u64>) -> Samples {
        let latencies = latencies.into_iter().map(Duration::from_millis).collect();
        Samples { latencies, elapsed: Duration::from_secs(2) }
    }

    #[test]
    fn percentiles_are_by_the_nearest_rank() {
        let samples = of((1..=100).rev());
        assert_eq!((samples.percentile(50), samples.percentile(99)), (50.0, 99.0));
        assert_eq!((of([7]).percentile(50), of([7]).percentile(99)), (7.0, 7.0));
        assert_eq!((of([]).percentile(50), of([]).per_second()), (0.0, 0.0));
    }

    #[test]
    fn slices_add_up() {
        let mut samples = of([1, 2]);
        samples.add(of([3, 4]));
        assert_eq!((samples.count(), samples.per_second()), (4, 1.0));
    }

    #[tokio::test]
    async fn no_more_than_the_most_are_asked() {
        let samples = closed_loop(4, Duration::from_secs(60), 10, async || Ok(())).await.unwrap();
        assert_eq!(samples.count(), 10);
    }

    #[tokio::test]
    async fn a_failure_ends_the_measurement() {
        let outcome = closed_loop(2, Duration::from_secs(60), 10, async || anyhow::bail!("refused")).await;
        assert_eq!(outcome.unwrap_err().to_string(), "refused");
    }
}
