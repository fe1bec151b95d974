//! Kernel overlayfs as what merges the upper with the layers, in place of the engine.
//!
//! ```text
//!   FUSE, read-only: the merged layers          mounted at {KEY}/mount
//!   overlay: lower = that mount, upper, work    over it, at the same place
//! ```
//!
//! Programs write to the upper without us; only what they read of the layers for the first time is a message. The
//! upper is locked all the same, and holds what every overlay understands: what the engine has left in it of its own is
//! turned into plain files first. All of it needs to be undone by nobody: the mounts go with the namespace.

use std::{
    ffi::OsStr,
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use crate::{
    causes::one_line,
    layer::HostUpper,
    runtime::{
        export::make_plain,
        stack::{StackPlan, UpperPlan},
    },
    sys::{
        beneath,
        errno::Errno,
        mount::{self, Unmount},
        overlay_mount::{OverlayMount, mount_overlay},
        users::effective_ids,
    },
};

/// An upper that kernel overlayfs may have.
pub(super) struct NativeUpper {
    path: PathBuf,
    root: OwnedFd,
    work: OwnedFd,
    /// Nobody else writes to it meanwhile.
    _lock: OwnedFd,
}

impl NativeUpper {
    /// Locks the upper of `stack`, and makes it plain where it is not. The error is a sentence.
    pub(super) fn claim(stack: &StackPlan) -> Result<Self, String> {
        let Some(plan) = &stack.upper else { return Err("there is no upper directory".to_owned()) };
        let upper = open(plan)?;
        // A mount that is refused because of our notes says nothing of others.
        let upper = match upper.is_plain() {
            true => upper,
            false => {
                drop(upper);
                tracing::info!(upper = %plan.root.display(), "what kernel overlayfs does not know becomes plain files");
                make_plain(stack, &mut || ()).map_err(|error| one_line(&error))?;
                open(plan)?
            }
        };
        let (path, work) = (plan.root.clone(), open_directory(&plan.work)?);
        Ok(Self { root: open_directory(&path)?, work, path, _lock: upper.into_lock() })
    }

    /// Finds out whether the kernel takes the upper, by a mount at `target`, which is taken away again. That costs a sync
    /// of the upper's file system.
    pub(super) fn probe(&self, target: &Path) -> Result<(), String> {
        // Anything will do as what is below: the upper is what the kernel is particular about.
        self.mount(target, OsStr::new("fim"))?;
        mount::unmount(target, Unmount::Unused).map_err(|errno| format!("cannot unmount: {errno}"))
    }

    /// Mounts it at `target`, over what is mounted there. The error is a sentence.
    pub(super) fn mount(&self, target: &Path, source: &OsStr) -> Result<(), String> {
        let below = open_directory(target)?;
        self.mount_over(&below, target, source).map_err(|errno| refusal(&self.path, errno))
    }

    fn mount_over(&self, below: &OwnedFd, target: &Path, source: &OsStr) -> Result<(), Errno> {
        let is_root = effective_ids().0 == 0;
        mount_overlay(&OverlayMount {
            target,
            source,
            lower: below.as_fd(),
            upper: self.root.as_fd(),
            work: self.work.as_fd(),
            devices: is_root,
            set_id: is_root,
        })
    }
}

fn open(plan: &UpperPlan) -> Result<HostUpper, String> {
    HostUpper::open(&plan.root, &plan.work).map_err(|error| one_line(&error))
}

fn open_directory(path: &Path) -> Result<OwnedFd, String> {
    beneath::open_directory(path).map_err(|errno| format!("cannot open {}: {errno}", path.display()))
}

fn refusal(upper: &Path, errno: Errno) -> String {
    let upper = upper.display();
    let why = match errno {
        Errno::EINVAL | Errno::EROFS => {
            "the kernel, or the file system there (NFS, FUSE, vfat, another overlay), does not allow it"
        }
        Errno::EPERM | Errno::EACCES => "mounting it in a user namespace is not permitted here",
        Errno::ENODEV => "the kernel has no overlayfs",
        errno => errno.desc(),
    };
    format!("cannot mount kernel overlayfs over {upper}: {why} ({errno:?})")
}
