//! How long work shows itself: a bar with rate and remaining time on a terminal, nothing but warnings elsewhere.

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::{
    causes::one_line,
    dwarfs::write::{Phase, Progress, WriteError},
    runtime::create::Report,
    sync::Mutex,
};

/// Times a second that the bar is drawn.
const RATE: u8 = 10;
const BYTES: &str =
    "{msg:<18} {wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} eta {eta}";
const COUNT: &str = "{msg:<18} {spinner} {human_pos} entries {elapsed}";
/// Where nobody knows how much there is to do.
const OPEN: &str = "{msg} {spinner} {elapsed}";
/// Between two turns of the spinner, while nothing is heard of the work.
const TURN: Duration = Duration::from_millis(100);

/// A report on stderr.
#[derive(Debug)]
pub(super) struct Terminal {
    bar: ProgressBar,
    phase: Mutex<Phase>,
}

impl Terminal {
    /// A bar where stderr is a terminal, else warnings only.
    #[must_use]
    pub(super) fn new() -> Self {
        let target = if io::stderr().is_terminal() {
            ProgressDrawTarget::stderr_with_hz(RATE)
        } else {
            ProgressDrawTarget::hidden()
        };
        let terminal =
            Self { bar: ProgressBar::with_draw_target(None, target), phase: Mutex::new(Phase::Scan) };
        terminal.show_as(OPEN);
        terminal
    }

    fn show_as(&self, template: &str) {
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style);
        }
    }
}

impl Default for Terminal {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.done();
    }
}

impl Progress for Terminal {
    fn begin(&self, phase: Phase, _files: u64, bytes: u64) {
        *self.phase.lock() = phase;
        // the new word first: each of these steps may draw
        self.bar.set_message(match phase {
            Phase::Scan => "scanning",
            Phase::Hash => "comparing",
            Phase::Compress => "packing",
            Phase::Finish => "finishing",
        });
        self.show_as(match phase {
            Phase::Scan => COUNT,
            _ if bytes > 0 => BYTES,
            _ => OPEN,
        });
        self.bar.set_length(bytes);
        self.bar.reset();
    }

    fn files(&self, count: u64) {
        if *self.phase.lock() == Phase::Scan {
            self.bar.inc(count);
        }
    }

    fn bytes_in(&self, count: u64) {
        self.bar.inc(count);
    }

    fn left_out(&self, error: &WriteError) {
        self.warn(&format!("left out: {}", one_line(error)));
    }
}

impl Report for Terminal {
    fn step(&self, text: &str) {
        self.bar.set_message(text.to_owned());
        self.bar.enable_steady_tick(TURN);
    }

    fn warn(&self, text: &str) {
        self.bar.suspend(|| {
            // whoever closed stderr does not want to know
            let _ = writeln!(io::stderr().lock(), "fim: warning: {text}");
        });
    }

    fn done(&self) {
        self.bar.finish_and_clear();
    }
}
