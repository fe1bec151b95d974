//! How many cores this process may use.

use std::num::NonZeroUsize;

use crate::sync::{OnceLock, thread};

/// The number of cores: those that the process may run on, as far as its control groups let it. It is asked for once,
/// since the answer takes a dozen system calls.
#[must_use]
pub fn count() -> NonZeroUsize {
    static COUNT: OnceLock<NonZeroUsize> = OnceLock::new();
    *COUNT.get_or_init(|| thread::available_parallelism().unwrap_or(NonZeroUsize::MIN))
}
