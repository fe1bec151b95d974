//! How long work shows itself: a bar with rate and remaining time on a terminal, nothing but warnings elsewhere.

use std::io::{self, IsTerminal as _, Write as _};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::{
    dwarfs::write::{Phase, Progress},
    runtime::create::Report,
    sync::Mutex,
};

/// Times a second that the bar is drawn.
const RATE: u8 = 10;
const BYTES: &str =
    "{msg:<18} {wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} eta {eta}";
const COUNT: &str = "{msg:<18} {spinner} {human_pos} entries {elapsed}";

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
        let bar = ProgressBar::with_draw_target(None, target);
        Self { bar, phase: Mutex::new(Phase::Scan) }
    }
}

impl Default for Terminal {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

impl Progress for Terminal {
    fn begin(&self, phase: Phase, _files: u64, bytes: u64) {
        *self.phase.lock() = phase;
        self.bar.reset();
        let template = if bytes == 0 { COUNT } else { BYTES };
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style);
        }
        self.bar.set_length(bytes);
        self.bar.set_message(match phase {
            Phase::Scan => "scanning",
            Phase::Hash => "comparing",
            Phase::Compress => "packing",
            Phase::Finish => "finishing",
        });
    }

    fn files(&self, count: u64) {
        if *self.phase.lock() == Phase::Scan {
            self.bar.inc(count);
        }
    }

    fn bytes_in(&self, count: u64) {
        self.bar.inc(count);
    }
}

impl Report for Terminal {
    fn step(&self, text: &str) {
        self.bar.set_message(text.to_owned());
        self.bar.tick();
    }

    fn warn(&self, text: &str) {
        self.bar.suspend(|| {
            // whoever closed stderr does not want to know
            let _ = writeln!(io::stderr().lock(), "fim: warning: {text}");
        });
    }
}
