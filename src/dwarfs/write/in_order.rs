//! Does a row of jobs on several threads and takes what comes of them in their order.
//!
//! No job begins that is more than a few turns ahead of the one whose result is taken next: what waits for its turn is
//! bounded, however long one job takes.

use std::collections::BTreeMap;

use super::error::WriteError;
use crate::sync::{Condvar, Mutex, thread};

/// Results that may wait for their turn, beyond one a thread.
const SPARE: usize = 2;

/// What all threads share.
struct Turns<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

struct State<T> {
    /// The job that begins next.
    next: usize,
    /// The job whose result is taken next.
    turn: usize,
    done: BTreeMap<usize, Result<T, WriteError>>,
    workers: usize,
    /// Somebody failed: no further job begins.
    is_over: bool,
}

/// Does the jobs `0..count` on `threads` threads, each with a value of its own that `begin` makes, and hands the results
/// to `take`, which runs on the calling thread.
pub(super) fn in_order<C, T: Send>(
    threads: usize,
    count: usize,
    begin: impl Fn() -> C + Sync,
    work: impl Fn(&mut C, usize) -> Result<T, WriteError> + Sync,
    mut take: impl FnMut(T) -> Result<(), WriteError>,
) -> Result<(), WriteError> {
    let threads = threads.min(count);
    let state = State { next: 0, turn: 0, done: BTreeMap::new(), workers: threads, is_over: false };
    let turns = Turns { state: Mutex::new(state), changed: Condvar::new() };
    let window = threads + SPARE;
    let labour = || {
        let _leaving = Leaving(&turns);
        let mut own = begin();
        while let Some(job) = turns.begin(count, window) {
            turns.finish(job, work(&mut own, job));
        }
    };
    thread::scope(|scope| {
        let mut workers = Vec::with_capacity(threads);
        let mut outcome = Ok(());
        for _ in 0..threads {
            match thread::Builder::new().name("recompress".into()).spawn_scoped(scope, labour) {
                Ok(worker) => workers.push(worker),
                Err(_) => outcome = Err(WriteError::Worker),
            }
        }
        for _ in 0..count {
            if outcome.is_err() {
                break;
            }
            outcome = turns.result().and_then(&mut take);
        }
        turns.end();
        for worker in workers {
            outcome = worker.join().map_err(|_| WriteError::Worker).and(outcome);
        }
        outcome
    })
}

impl<T> Turns<T> {
    /// The next job, as soon as it may begin; `None` where there is none left.
    fn begin(&self, count: usize, window: usize) -> Option<usize> {
        let mut state = self.state.lock();
        while !state.is_over && state.next < count && state.next >= state.turn + window {
            self.changed.wait(&mut state);
        }
        if state.is_over || state.next >= count {
            return None;
        }
        state.next += 1;
        Some(state.next - 1)
    }

    fn finish(&self, job: usize, result: Result<T, WriteError>) {
        self.state.lock().done.insert(job, result);
        self.changed.notify_all();
    }

    /// The result whose turn it is.
    fn result(&self) -> Result<T, WriteError> {
        let mut state = self.state.lock();
        loop {
            let turn = state.turn;
            if let Some(result) = state.done.remove(&turn) {
                state.turn += 1;
                self.changed.notify_all();
                return result;
            }
            // A worker that died took a job with it.
            if state.workers == 0 {
                return Err(WriteError::Worker);
            }
            self.changed.wait(&mut state);
        }
    }

    fn end(&self) {
        self.state.lock().is_over = true;
        self.changed.notify_all();
    }
}

/// Notes that a worker is gone, however it went; one that panics takes the others along.
struct Leaving<'a, T>(&'a Turns<T>);

impl<T> Drop for Leaving<'_, T> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.end();
        }
        self.0.state.lock().workers -= 1;
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn results_come_in_order_and_no_job_runs_far_ahead() {
        let (threads, count) = (4, 200);
        let taken = AtomicUsize::new(0);
        let mut results = Vec::new();
        let work = |_: &mut (), job: usize| {
            assert!(job <= taken.load(Ordering::SeqCst) + threads + SPARE, "job {job} runs ahead");
            if job.is_multiple_of(7) {
                thread::sleep(Duration::from_millis(2));
            }
            Ok(job * 3)
        };
        in_order(
            threads,
            count,
            || (),
            work,
            |result| {
                results.push(result);
                taken.fetch_add(1, Ordering::SeqCst);
                Ok(())
            },
        )
        .unwrap();
        assert_eq!(results, (0..count).map(|job| job * 3).collect::<Vec<_>>());
        in_order(3, 0, || (), |(), _| Ok(()), |()| Ok(())).unwrap();
    }

    #[test]
    fn whoever_fails_ends_it() {
        let bad = || WriteError::TooMany { what: "bad things" };
        let work = |_: &mut (), job: usize| if job == 20 { Err(bad()) } else { Ok(job) };
        assert!(in_order(3, 1_000, || (), work, |_| Ok(())).is_err());
        let take = |job: usize| if job == 5 { Err(bad()) } else { Ok(()) };
        assert!(in_order(3, 1_000, || (), |(), job| Ok(job), take).is_err());
    }
}
