//! How long work shows itself: a bar with rate and remaining time on a terminal, nothing but warnings elsewhere.

use std::{
    fmt,
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use crate::{
    causes::one_line,
    dwarfs::write::{Phase, Progress, WriteError},
    runtime::create::Report,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

/// Times a second that the bar is drawn.
const RATE: u8 = 10;
const BYTES: &str =
    "{msg:<10} {wide_bar} {made} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} eta {eta}";
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
    made: Arc<Made>,
}

/// What is done of a phase, besides the bytes of which the bar tells.
#[derive(Debug, Default)]
struct Made {
    files: AtomicU64,
    all_files: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
}

impl Made {
    fn begin(&self, files: u64) {
        self.all_files.store(files, Ordering::Relaxed);
        for count in [&self.files, &self.bytes_in, &self.bytes_out] {
            count.store(0, Ordering::Relaxed);
        }
    }
}

/// Files of all, and what is written: `120/4000 files, 12 MiB out (31 %)`.
impl fmt::Display for Made {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [files, all, read, written] = [&self.files, &self.all_files, &self.bytes_in, &self.bytes_out]
            .map(|count| count.load(Ordering::Relaxed));
        write!(f, "{files}/{all} files")?;
        if let Some(share) = written.saturating_mul(100).checked_div(read).filter(|_| written > 0) {
            write!(f, ", {} out ({share} %)", HumanBytes(written))?;
        }
        Ok(())
    }
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
        let terminal = Self { bar, phase: Mutex::new(Phase::Scan), made: Arc::default() };
        terminal.show_as(OPEN);
        terminal
    }

    fn show_as(&self, template: &str) {
        let made = Arc::clone(&self.made);
        let made = move |_: &ProgressState, out: &mut dyn fmt::Write| {
            // nothing can be done about a terminal that takes no text
            let _ = write!(out, "{made}");
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style.with_key("made", made));
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
    fn begin(&self, phase: Phase, files: u64, bytes: u64) {
        *self.phase.lock() = phase;
        self.made.begin(files);
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
        self.made.files.fetch_add(count, Ordering::Relaxed);
        if *self.phase.lock() == Phase::Scan {
            self.bar.inc(count);
        }
    }

    fn bytes_in(&self, count: u64) {
        self.made.bytes_in.fetch_add(count, Ordering::Relaxed);
        self.bar.inc(count);
    }

    fn bytes_out(&self, count: u64) {
        self.made.bytes_out.fetch_add(count, Ordering::Relaxed);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_the_share_of_what_is_written_are_told() {
        let made = Made::default();
        made.begin(40);
        assert_eq!(made.to_string(), "0/40 files");
        made.files.store(7, Ordering::Relaxed);
        made.bytes_in.store(4 << 20, Ordering::Relaxed);
        made.bytes_out.store(1 << 20, Ordering::Relaxed);
        assert_eq!(made.to_string(), "7/40 files, 1.00 MiB out (25 %)");
        made.begin(3);
        assert_eq!(made.to_string(), "0/3 files");
    }
}
