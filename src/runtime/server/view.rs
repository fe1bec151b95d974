//! The second mount of a server: each layer by itself, read-only.
//!
//! It is mounted from the start, since an instance copies the mounts once. Nobody waits for more than that: a thread
//! agrees with the kernel on the protocol, and a layer is opened when somebody looks at it.

use std::{
    ffi::OsStr,
    io,
    num::NonZeroUsize,
    os::fd::{AsFd as _, OwnedFd},
};

use super::Place;
use crate::{
    causes::one_line,
    fuse::{self, Notices, Serving},
    overlay::LayersView,
    runtime::stack::MountStack,
    sync::{Arc, thread},
    sys::{
        fuse_dev,
        mount::{self, Access, FuseMount, Unmount, Visitors},
        users::effective_ids,
    },
};

/// Most threads: few programs look at single layers.
const THREADS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1);

/// The view while it is mounted.
pub(super) struct View {
    /// What it shows.
    pub layers: Arc<LayersView>,
    session: thread::JoinHandle<Result<Serving, fuse::Error>>,
}

impl View {
    /// Mounts the layers of `stack` at `place`.
    pub(super) fn mount(
        place: &Place,
        stack: &MountStack,
        source: &OsStr,
        options: fuse::Options,
    ) -> io::Result<Self> {
        let device = fuse_dev::open()?;
        mount_device(place, source, &device)?;
        let notices = Notices::new();
        let layers = Arc::new(LayersView::new(Arc::clone(&stack.overlay), Arc::clone(&notices) as _));
        let options = fuse::Options { threads: options.threads.min(THREADS), ..options };
        let shown = Arc::clone(&layers);
        let session = thread::Builder::new()
            .name("fim-layers".to_owned())
            .spawn(move || fuse::serve(shown, device, options, notices))?;
        Ok(Self { layers, session })
    }

    /// Takes it away under whoever still looks, since nothing can be lost; what is left is an end to wait for.
    pub(super) fn unmount(self, place: &Place) -> Option<Ending> {
        match mount::unmount(&place.layers(), Unmount::Abort) {
            Ok(()) => Some(Ending { session: self.session }),
            Err(errno) => {
                tracing::warn!(%errno, "cannot unmount the view of the layers");
                None
            }
        }
    }
}

/// A view that is mounted no more.
pub(super) struct Ending {
    session: thread::JoinHandle<Result<Serving, fuse::Error>>,
}

impl Ending {
    /// Waits until nothing of the stack is used any more.
    pub(super) fn wait(self) {
        let served = self.session.join().map(|serving| serving.and_then(Serving::wait));
        if let Ok(Err(error)) = served {
            tracing::warn!(error = one_line(&error), "the view of the layers breaks off");
        }
    }
}

fn mount_device(place: &Place, source: &OsStr, device: &OwnedFd) -> io::Result<()> {
    let (uid, gid) = effective_ids();
    let target = place.layers();
    let fuse_mount = FuseMount {
        target: &target,
        source,
        access: Access::ReadOnly,
        visitors: Visitors::All,
        devices: false,
        set_id: false,
    };
    Ok(mount::mount_fuse(&fuse_mount, device.as_fd(), uid, gid)?)
}
