//! Between the caller's terminal and the one inside.
//!
//! ```text
//!  keyboard ──> caller's terminal (raw) ──> to_inside ──> master ══ terminal inside ══ program
//!  screen   <── caller's terminal       <── to_screen <── master
//! ```
//!
//! The terminal inside is a whole one: Ctrl-C and Ctrl-Z are its own business. The caller's is raw only while we are in
//! its foreground, and gets its modes back whenever we stop or end.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use crate::sys::{
    pty::{self, Moved, RawMode},
    ready::{Interest, Ready},
};

/// Bytes that wait in one direction before the other side is no longer read.
const BUFFER: usize = 64 << 10;
/// Bytes written at once to a screen that could only be opened in blocking mode: it never waits longer for these than
/// the terminal needs to show them.
const CAUTIOUS: usize = 256;

/// The two terminals, connected.
pub(super) struct Relay<'a> {
    /// Inside; none once everybody inside has let go of it.
    master: Option<OwnedFd>,
    /// The caller's, for size and modes.
    terminal: BorrowedFd<'a>,
    /// Where keys come from: stdin, if it is the terminal.
    keyboard: Option<BorrowedFd<'a>>,
    screen: OwnedFd,
    screen_blocks: bool,
    raw: Option<RawMode>,
    to_inside: Vec<u8>,
    to_screen: Vec<u8>,
}

impl<'a> Relay<'a> {
    /// Connects `master` with the caller's `terminal`; `keyboard` is its stdin, if that is the terminal. The terminal
    /// inside gets size and modes of the caller's.
    pub(super) fn new(
        master: OwnedFd,
        terminal: BorrowedFd<'a>,
        keyboard: Option<BorrowedFd<'a>>,
    ) -> io::Result<Self> {
        pty::copy_modes(terminal, master.as_fd())?;
        pty::copy_size(terminal, master.as_fd())?;
        if keyboard.is_none() {
            // The caller's terminal never becomes raw then, and does the work on line ends itself.
            pty::pass_output(master.as_fd())?;
        }
        pty::set_nonblocking(master.as_fd())?;
        let reopened = pty::reopen_without_blocking(terminal).ok();
        let screen_blocks = reopened.is_none();
        let screen = reopened.map_or_else(|| terminal.try_clone_to_owned(), Ok)?;
        let mut relay = Self {
            master: Some(master),
            terminal,
            keyboard,
            screen,
            screen_blocks,
            raw: None,
            to_inside: Vec::new(),
            to_screen: Vec::new(),
        };
        relay.resume();
        Ok(relay)
    }

    /// Takes the keyboard, if we are in the foreground. To be called again after every stop.
    pub(super) fn resume(&mut self) {
        self.resize();
        if self.keyboard.is_none() || self.raw.is_some() || !pty::in_foreground(self.terminal) {
            return;
        }
        self.raw = RawMode::enter(self.terminal)
            .inspect_err(|error| tracing::warn!(%error, "cannot switch the terminal to raw mode"))
            .ok();
    }

    /// Gives the terminal back to the caller's shell.
    pub(super) fn suspend(&mut self) {
        self.raw = None;
    }

    /// The caller's terminal has another size.
    pub(super) fn resize(&self) {
        if let Some(master) = &self.master
            && let Err(error) = pty::copy_size(self.terminal, master.as_fd())
        {
            tracing::debug!(%error, "cannot pass the size of the terminal on");
        }
    }

    /// Whether everything that was written inside is on the screen, and nothing more can come.
    pub(super) fn is_done(&self) -> bool {
        self.master.is_none() && self.to_screen.is_empty()
    }

    /// What to wait for: master, keyboard, screen. A place without interest waits for its end only.
    pub(super) fn interests(&self) -> [Option<(BorrowedFd<'_>, Interest)>; 3] {
        let master = self.master.as_ref().and_then(|master| {
            let interest = match (self.to_screen.len() < BUFFER, !self.to_inside.is_empty()) {
                (true, true) => Interest::ReadWrite,
                (true, false) => Interest::Read,
                (false, true) => Interest::Write,
                (false, false) => return None,
            };
            Some((master.as_fd(), interest))
        });
        let listening = self.raw.is_some() && self.master.is_some() && self.to_inside.len() < BUFFER;
        let keyboard = self.keyboard.filter(|_| listening).map(|keyboard| (keyboard, Interest::Read));
        let screen = (!self.to_screen.is_empty()).then(|| (self.screen.as_fd(), Interest::Write));
        [master, keyboard, screen]
    }

    /// Moves bytes; `ready` answers [`interests`](Self::interests).
    pub(super) fn advance(&mut self, ready: [Ready; 3]) {
        let [master, keyboard, screen] = ready;
        if keyboard.read {
            self.read_keyboard();
        }
        if master.write {
            self.write_inside();
        }
        if master.read {
            self.read_inside();
        }
        if screen.write {
            self.write_screen();
        }
    }

    fn read_keyboard(&mut self) {
        let Some(keyboard) = self.keyboard else { return };
        if fill(&mut self.to_inside, keyboard) == Moved::HungUp {
            // The caller's terminal is gone: hang up the one inside as well.
            self.raw = None;
            self.keyboard = None;
            self.master = None;
            self.to_screen.clear();
        }
    }

    fn read_inside(&mut self) {
        let Some(master) = &self.master else { return };
        if fill(&mut self.to_screen, master.as_fd()) == Moved::HungUp {
            self.master = None;
        }
    }

    fn write_inside(&mut self) {
        let Some(master) = &self.master else { return };
        match pty::write(master.as_fd(), &self.to_inside) {
            Moved::Bytes(count) => drop(self.to_inside.drain(..count)),
            Moved::Nothing => {}
            Moved::HungUp => self.to_inside.clear(),
        }
    }

    fn write_screen(&mut self) {
        let most = if self.screen_blocks { CAUTIOUS } else { BUFFER };
        let bytes = self.to_screen.get(..most).unwrap_or(&self.to_screen);
        match pty::write(self.screen.as_fd(), bytes) {
            Moved::Bytes(count) => drop(self.to_screen.drain(..count)),
            Moved::Nothing => {}
            Moved::HungUp => self.to_screen.clear(),
        }
    }
}

/// Reads once into `buffer`.
fn fill(buffer: &mut Vec<u8>, from: BorrowedFd<'_>) -> Moved {
    let mut bytes = [0; 16 << 10];
    let moved = pty::read(from, &mut bytes);
    if let Moved::Bytes(count) = moved {
        buffer.extend_from_slice(bytes.get(..count).unwrap_or_default());
    }
    moved
}
