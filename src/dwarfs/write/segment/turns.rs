//! The order in which the blocks of several streams follow each other.
//!
//! ```text
//! seats      0: stream 0      1: stream 1      2: stream 2
//! turns      block 0          block 1          block 2
//!            block 3          block 4          (ends) stream 3: block 5
//!            block 6          block 7          block 8
//! ```
//!
//! Some streams at a time have a seat. Each hands on one block when it is its turn, and then it is the next one's; a
//! stream that has ended gives its seat, at its turn, to the first stream that has none yet. So the order depends on
//! what the streams hold and on nothing else. Who is ahead waits with one full block in hand: no more than that is
//! under way for the sake of order.

use super::super::{category::Category, compress::BlockSink, error::WriteError};
use crate::sync::{Condvar, Mutex, thread};

/// Streams at a time. It decides on the order of blocks, so it depends on nothing.
pub(in super::super) const MOST_SEATS: usize = 4;

/// Whose turn it is.
pub(super) struct Turns {
    state: Mutex<State>,
    changed: Condvar,
    streams: usize,
}

struct State {
    /// Whether a stream has the seat.
    seats: Vec<bool>,
    turn: usize,
    next_stream: usize,
    /// The category of each block that was handed on.
    categories: Vec<Category>,
    is_aborted: bool,
}

impl Turns {
    /// So many streams; the first ones have the seats.
    pub(super) fn new(streams: usize) -> Self {
        let seats = streams.min(MOST_SEATS);
        let state = State {
            seats: vec![true; seats],
            turn: 0,
            next_stream: seats,
            categories: Vec::new(),
            is_aborted: false,
        };
        Self { state: Mutex::new(state), changed: Condvar::new(), streams }
    }

    pub(super) fn seats(&self) -> usize {
        self.streams.min(MOST_SEATS)
    }

    pub(super) fn seat<'a>(&'a self, seat: usize, sink: &'a dyn BlockSink) -> Seat<'a> {
        Seat { turns: self, seat, sink }
    }

    /// The stream at a seat has ended: waits for its turn and returns the stream that comes next there. `None`: there
    /// is none, or everything is coming to an end.
    pub(super) fn next_stream(&self, seat: usize) -> Option<usize> {
        let mut state = self.state.lock();
        while state.turn != seat && !state.is_aborted {
            self.changed.wait(&mut state);
        }
        if state.is_aborted {
            return None;
        }
        if state.next_stream < self.streams {
            state.next_stream += 1;
            return Some(state.next_stream - 1);
        }
        if let Some(has_stream) = state.seats.get_mut(seat) {
            *has_stream = false;
        }
        state.pass();
        self.changed.notify_all();
        None
    }

    /// Somebody failed: nobody waits for a turn any more.
    pub(super) fn abort(&self) {
        self.state.lock().is_aborted = true;
        self.changed.notify_all();
    }

    /// Aborts if the thread that has this panics.
    pub(super) const fn abort_on_unwind(&self) -> AbortOnUnwind<'_> {
        AbortOnUnwind(self)
    }

    /// The category of each block.
    pub(super) fn into_categories(self) -> Vec<Category> {
        std::mem::take(&mut self.state.lock().categories)
    }
}

/// Aborts when it is dropped by a panic.
pub(super) struct AbortOnUnwind<'a>(&'a Turns);

impl Drop for AbortOnUnwind<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.abort();
        }
    }
}

impl State {
    /// It is the turn of the next seat that has a stream.
    fn pass(&mut self) {
        let count = self.seats.len();
        let next = (1..=count).map(|step| (self.turn + step) % count.max(1));
        let mut next = next.filter(|seat| self.seats.get(*seat).copied().unwrap_or(false));
        self.turn = next.next().unwrap_or(self.turn);
    }
}

/// One seat: where its stream's blocks go.
#[derive(Clone, Copy)]
pub(super) struct Seat<'a> {
    turns: &'a Turns,
    seat: usize,
    sink: &'a dyn BlockSink,
}

impl Seat<'_> {
    /// A buffer for a block. `None`: everything is coming to an end.
    pub(super) fn buffer(&self, len: usize) -> Option<Vec<u8>> {
        self.sink.buffer(len)
    }

    /// Waits for the turn, hands a block on and returns its number. `None`: everything is coming to an end.
    pub(super) fn block(
        &self,
        buffer: Vec<u8>,
        len: usize,
        category: Category,
    ) -> Result<Option<u32>, WriteError> {
        let mut state = self.turns.state.lock();
        while state.turn != self.seat && !state.is_aborted {
            self.turns.changed.wait(&mut state);
        }
        if state.is_aborted {
            return Ok(None);
        }
        // The number behind the last block stands for holes.
        let number = u32::try_from(state.categories.len()).ok().filter(|number| *number < u32::MAX);
        let number = number.ok_or(WriteError::TooMany { what: "blocks" })?;
        state.categories.push(category);
        // Never waits: who has a block holds the buffer that it counts for.
        self.sink.block(number, buffer, len, category);
        state.pass();
        self.turns.changed.notify_all();
        Ok(Some(number))
    }
}

#[cfg(test)]
mod tests {
    use std::{thread, time::Duration};

    use super::*;

    /// Notes of which stream each block is.
    #[derive(Default)]
    struct Noted(Mutex<Vec<u8>>);

    impl BlockSink for Noted {
        fn buffer(&self, len: usize) -> Option<Vec<u8>> {
            Some(vec![0; len])
        }

        fn block(&self, number: u32, buffer: Vec<u8>, _len: usize, _category: Category) {
            let mut noted = self.0.lock();
            assert_eq!(number as usize, noted.len());
            noted.push(buffer[0]);
        }
    }

    /// The order of blocks of streams with so many blocks each; each thread takes its time as `pace` says.
    fn order(lengths: &[usize], pace: fn(usize, usize) -> u64) -> Vec<u8> {
        let (turns, noted) = (Turns::new(lengths.len()), Noted::default());
        thread::scope(|scope| {
            for seat in 0..turns.seats() {
                let (turns, noted) = (&turns, &noted);
                scope.spawn(move || {
                    let mut next = Some(seat);
                    while let Some(stream) = next {
                        for block in 0..lengths[stream] {
                            thread::sleep(Duration::from_micros(pace(seat, block)));
                            let buffer = vec![u8::try_from(stream).unwrap()];
                            let number = turns.seat(seat, noted).block(buffer, 1, Category::Default);
                            assert!(number.unwrap().is_some());
                        }
                        next = turns.next_stream(seat);
                    }
                });
            }
        });
        assert_eq!(turns.into_categories().len(), lengths.iter().sum::<usize>());
        noted.0.into_inner()
    }

    #[test]
    fn blocks_take_turns_whoever_is_faster() {
        let lengths = [3, 1, 2, 0, 2, 0, 1];
        let expected = [0, 1, 2, 4, 0, 6, 2, 4, 0];
        for pace in [
            |_, _| 0,
            |seat, _| 500 * seat as u64,
            |seat, _| 2_000 / (seat as u64 + 1),
            |seat, block| (seat * 7 + block * 3) as u64 % 5 * 300,
        ] {
            assert_eq!(order(&lengths, pace), expected);
        }
        assert!(order(&[], |_, _| 0).is_empty());
        assert_eq!(order(&[2], |_, _| 0), [0, 0]);
    }

    #[test]
    fn nobody_waits_for_one_who_failed() {
        let (turns, noted) = (Turns::new(2), Noted::default());
        thread::scope(|scope| {
            let waiting = scope.spawn(|| turns.seat(1, &noted).block(vec![1], 1, Category::Default).unwrap());
            thread::sleep(Duration::from_millis(5));
            turns.abort();
            assert_eq!(waiting.join().unwrap(), None);
        });
        assert_eq!(turns.next_stream(0), None);
    }
}
