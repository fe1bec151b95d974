//! Programs that an image brings along for the engine's own use: bubblewrap with the libraries it needs, a static bash
//! and a static busybox. They lie in an archive of their own, which is never part of the merged root.
//!
//! ```text
//! in the archive                      at run time
//! manifest.json                       FIM_DIR_APP_BIN/tools-DIGEST/ the same tree
//! bin/{bwrap,bash,busybox}            FIM_DIR_APP_BIN/{bwrap,bash,busybox} -> tools-DIGEST/bin/…
//! lib/{ld-linux-x86-64.so.2,…}        FIM_DIR_APP_SBIN/{ls,ps,…} -> ../bin/busybox
//! licences/PACKAGE
//! ```
//!
//! - [`collect`]: finds the programs on this machine when an image is made.
//! - [`provide`]: puts them in place when an image runs. Images of one build share the place; the digest keeps the
//!   sets apart, so that a bubblewrap never meets the libraries of another.
//!
//! bubblewrap is started through its own dynamic loader with its own libraries, so the host's C library, whatever it
//! is, does not matter.

mod collect;
mod manifest;
mod needs;
mod provide;

pub use collect::{Collected, Missing, collect, stage};
pub use manifest::{Manifest, Package, ToolFile};
pub use needs::{Needs, NeedsError, needs};
pub use provide::{ToolPaths, ToolsError, manifest, provide};
