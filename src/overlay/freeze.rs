//! Standing still for a commit.

use super::Overlay;
use crate::{
    sync::{Arc, RwLockWriteGuard},
    vfs::{Errno, Error, Layer, Result},
};

/// While this lives nothing changes.
#[derive(Debug)]
pub struct FreezeGuard<'a> {
    _gate: RwLockWriteGuard<'a, ()>,
}

impl Overlay {
    /// Waits until running changes have ended, and holds back others.
    ///
    /// # Errors
    ///
    /// What syncing the upper gave.
    pub fn freeze(&self) -> Result<FreezeGuard<'_>> {
        let gate = self.gate.write();
        self.upper()?.sync_all()?;
        Ok(FreezeGuard { _gate: gate })
    }

    /// Takes `added`, which holds what the upper holds, as the highest layer, and empties the upper.
    ///
    /// # Errors
    ///
    /// The stack is as it was.
    pub fn rebase(&self, _freeze: FreezeGuard<'_>, _added: Arc<dyn Layer>) -> Result<()> {
        Err(Error::new(Errno::ENOSYS, "empty the upper"))
    }
}
