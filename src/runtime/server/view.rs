//! The second mount of a server: each layer by itself, read-only.
//!
//! It is there from the start, since an instance copies the mounts once; what it shows is made when somebody looks.

use std::ffi::OsStr;

use crate::{
    causes::one_line,
    fuse::{self, Notices},
    overlay::LayersView,
    runtime::stack::MountStack,
    sync::Arc,
    sys::{
        fuse_dev,
        mount::{self, Access, FuseMount, Unmount, Visitors},
        users::effective_ids,
    },
};

use super::Place;

/// The view while it is mounted.
pub(super) struct View {
    /// What it shows.
    pub layers: Arc<LayersView>,
    session: fuse::Serving,
}

impl View {
    /// Mounts the layers of `stack` at `place`; the error is the sentence for the front.
    pub(super) fn mount(
        place: &Place,
        stack: &MountStack,
        source: &OsStr,
        options: fuse::Options,
    ) -> Result<Self, String> {
        let (uid, gid) = effective_ids();
        let device = fuse_dev::open().map_err(|error| format!("cannot open /dev/fuse: {error}"))?;
        let target = place.layers();
        let fuse_mount = FuseMount {
            target: &target,
            source,
            access: Access::ReadOnly,
            visitors: Visitors::All,
            devices: false,
            set_id: false,
        };
        mount::mount_fuse(&fuse_mount, std::os::fd::AsFd::as_fd(&device), uid, gid)
            .map_err(|errno| format!("cannot mount the view of the layers: {errno}"))?;
        let notices = Notices::new();
        let layers = Arc::new(LayersView::new(Arc::clone(&stack.overlay), Arc::clone(&notices) as _));
        let session = fuse::serve(Arc::clone(&layers) as _, device, options, notices)
            .map_err(|error| one_line(&error))?;
        Ok(Self { layers, session })
    }

    /// Unmounts it under whoever still looks: nothing can be lost.
    pub(super) fn end(self, place: &Place) {
        let unmounted = mount::unmount(&place.layers(), Unmount::Abort);
        // Without that the session would not end.
        match unmounted {
            Ok(()) => {
                if let Err(error) = self.session.wait() {
                    tracing::warn!(error = one_line(&error), "the view of the layers");
                }
            }
            Err(errno) => tracing::warn!(%errno, "cannot unmount the view of the layers"),
        }
    }
}
