//! Reads data and splits it into what a recent block has and what none has.

use std::{collections::VecDeque, io, ops::Range};

use super::{
    recent::{Current, Match, Recent, Sought, common_prefix},
    rolling::Rolling,
    stream::{Blocks, Pieces},
};
use crate::dwarfs::write::{options::Segmentation, progress::Progress, source::Contents};

/// Bytes read at a time.
const READ: usize = 256 << 10;

/// Bytes looked at before what is settled is put away.
const STRIDE: usize = 4 << 10;

/// A window whose bytes are on their way into a block.
#[derive(Clone, Copy, Debug)]
struct Window {
    /// Where it begins in the input.
    start: usize,
    hash: u64,
}

/// Splits data.
///
/// ```text
/// input   [ put away |  literal  [ window ]][ not read into the hash ]
///            ^run    ^literal             ^at                         ^len
/// ```
///
/// From `run` to `literal` the input lies in one piece at the end of the current block.
pub(super) struct Scanner {
    segmentation: Segmentation,
    recent: Recent,
    input: Vec<u8>,
    literal: usize,
    /// End of the last window that was looked at, with this hash; without a hash, of the first one to look at.
    at: usize,
    hash: Option<Rolling>,
    run: usize,
    /// Windows to be remembered once their last byte is in a block, in their order.
    windows: VecDeque<Window>,
    /// Where the next one that is to be remembered ends.
    next_window: usize,
    /// Where the last match ends in its block, if it ended with the input: it may go on.
    open: Option<Open>,
}

/// A match that may go on.
#[derive(Clone, Copy, Debug)]
struct Open {
    block: u32,
    end: usize,
}

impl Scanner {
    pub(super) fn new(block_size: u32, segmentation: Segmentation) -> Self {
        Self {
            segmentation,
            recent: Recent::new(block_size, segmentation),
            input: Vec::new(),
            literal: 0,
            at: 0,
            hash: None,
            run: 0,
            windows: VecDeque::new(),
            next_window: 0,
            open: None,
        }
    }

    /// Whether so many bytes can hold a window.
    pub(super) const fn is_worth(&self, len: u64) -> bool {
        len >= self.segmentation.window() as u64
    }

    pub(super) const fn recent(&mut self) -> &mut Recent {
        &mut self.recent
    }

    /// Reads a range and puts it away; false if the file ended early, or everything is coming to an end.
    pub(super) fn scan(
        &mut self,
        contents: &dyn Contents,
        range: Range<u64>,
        blocks: &mut Blocks<'_>,
        pieces: &mut Pieces<'_>,
        progress: &dyn Progress,
    ) -> io::Result<bool> {
        self.input.clear();
        self.restart(0);
        let mut from = range.start;
        while from < range.end {
            let want = usize::try_from(range.end - from).unwrap_or(usize::MAX).min(READ);
            let read = self.read(contents, from, want)?;
            if read == 0 {
                return Ok(false);
            }
            progress.bytes_in(read as u64);
            from += read as u64;
            self.go_on(blocks, pieces);
            self.look(blocks, pieces)?;
            if blocks.is_aborted() {
                return Ok(false);
            }
            self.forget();
        }
        self.put(self.input.len(), blocks, pieces)?;
        Ok(!blocks.is_aborted())
    }

    fn read(&mut self, contents: &dyn Contents, from: u64, want: usize) -> io::Result<usize> {
        let old = self.input.len();
        self.input.resize(old + want, 0);
        let read = contents.read_at(self.input.get_mut(old..).unwrap_or_default(), from)?;
        self.input.truncate(old + read);
        Ok(read)
    }

    /// Begins anew at a place: everything before it has been put away.
    fn restart(&mut self, at: usize) {
        let first = at + self.segmentation.window();
        (self.literal, self.run, self.at, self.next_window) = (at, at, first, first);
        self.hash = None;
        self.windows.clear();
        self.open = None;
    }

    /// Takes over a match that begins at the first byte that is in no piece.
    fn take(&mut self, found: Match, pieces: &mut Pieces<'_>) {
        pieces.matched(found.block, found.offset, found.len);
        self.restart(self.literal + found.len);
        if self.literal == self.input.len() {
            self.open = Some(Open { block: found.block, end: found.offset + found.len });
        }
    }

    /// Extends a match that ended where the input did before more was read.
    fn go_on(&mut self, blocks: &Blocks<'_>, pieces: &mut Pieces<'_>) {
        let Some(Open { block, end }) = self.open.take() else { return };
        let current = blocks.current();
        let known = if block == current.number { Some(current.bytes) } else { self.recent.past(block) };
        let behind = known.and_then(|bytes| bytes.get(end..)).unwrap_or_default();
        let len = common_prefix(self.input.get(self.literal..).unwrap_or_default(), behind);
        if len > 0 {
            self.take(Match { block, offset: end, before: 0, len }, pieces);
        }
    }

    /// Looks for matches in all of the input. What has been looked at long ago is put away meanwhile: it may match
    /// what follows.
    fn look(&mut self, blocks: &mut Blocks<'_>, pieces: &mut Pieces<'_>) -> io::Result<()> {
        while !blocks.is_aborted() {
            let until = self.input.len().min(self.at + STRIDE);
            if let Some(found) = self.next_match(until, blocks.current()) {
                self.put(self.at - self.segmentation.window() - found.before, blocks, pieces)?;
                self.take(found, pieces);
                continue;
            }
            let settled = self.at.saturating_sub(self.segmentation.window() + self.segmentation.step());
            self.put(settled, blocks, pieces)?;
            if until == self.input.len() {
                break;
            }
        }
        Ok(())
    }

    /// The next match, of the window that ends at `at` then; `None` if there is none that ends before `until`.
    fn next_match(&mut self, until: usize, current: Current<'_>) -> Option<Match> {
        let window = self.segmentation.window();
        let mut hash = match self.hash {
            Some(hash) => hash,
            None if self.at > until => return None,
            None => {
                let hash = Rolling::of(self.input.get(self.at - window..self.at)?);
                if let Some(found) = self.examine(hash, current) {
                    return Some(found);
                }
                hash
            }
        };
        while self.at < until {
            let end = self.next_window.min(until);
            let old = self.input.get(self.at - window..end - window)?;
            let new = self.input.get(self.at..end)?;
            let hit = old.iter().zip(new).position(|(old, new)| {
                hash.roll(*old, *new);
                self.recent.may_have(hash.value())
            });
            self.at = hit.map_or(end, |passed| self.at + passed + 1);
            if let Some(found) = self.examine(hash, current) {
                return Some(found);
            }
        }
        self.hash = Some(hash);
        None
    }

    /// Looks for the window that ends at `at`; one that is not found may have to be remembered.
    fn examine(&mut self, hash: Rolling, current: Current<'_>) -> Option<Match> {
        let start = self.at - self.segmentation.window();
        if self.recent.may_have(hash.value()) {
            let (before, from_window) = (self.input.get(self.literal..start)?, self.input.get(start..)?);
            let found = self.recent.find(Sought { before, from_window, hash: hash.value() }, current);
            if found.is_some() {
                return found;
            }
        }
        if self.at == self.next_window {
            self.windows.push_back(Window { start, hash: hash.value() });
            self.next_window += self.segmentation.step();
        }
        None
    }

    /// Puts literals into blocks, up to a place in the input.
    fn put(&mut self, end: usize, blocks: &mut Blocks<'_>, pieces: &mut Pieces<'_>) -> io::Result<()> {
        while self.literal < end {
            let Some(space) = blocks.space(end - self.literal) else { return Ok(()) };
            let from = self.input.get(self.literal..).unwrap_or_default();
            let len = space.len().min(from.len());
            space.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
            pieces.data(blocks.number(), blocks.fill(), len);
            blocks.advance(len);
            self.literal += len;
            self.remember(blocks.fill());
            if blocks.is_full() {
                self.recent.turn(blocks.current());
                self.run = self.literal;
                blocks.flush().map_err(io::Error::other)?;
            }
        }
        Ok(())
    }

    /// Remembers the windows that are in the current block as a whole now.
    fn remember(&mut self, fill: usize) {
        while let Some(window) = self.windows.front().copied() {
            if window.start >= self.run {
                if window.start + self.segmentation.window() > self.literal {
                    break;
                }
                self.recent.insert(window.hash, fill - (self.literal - window.start));
            }
            self.windows.pop_front();
        }
    }

    /// Drops from the input what nobody needs any more.
    fn forget(&mut self) {
        let gone = self.literal.saturating_sub(self.segmentation.window());
        self.input.drain(..gone);
        self.literal -= gone;
        self.at -= gone;
        self.next_window -= gone;
        self.run = self.run.saturating_sub(gone);
        self.windows.iter_mut().for_each(|window| window.start -= gone);
    }
}
