//! Locks, atomics and threads: the only door to them, so that a model checker can take their place in tests.

pub use parking_lot::{
    Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockUpgradableReadGuard, RwLockWriteGuard,
};
pub use std::sync::{Arc, LazyLock, OnceLock, Weak, atomic};
pub use std::thread;
