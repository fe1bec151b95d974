//! The FUSE front: turns requests of the kernel into calls of a [`FileSystem`](crate::vfs::FileSystem).
//!
//! ```text
//! kernel -- /dev/fuse --> session threads --> front (decode, call, reply) --> vfs::FileSystem
//!    ^                                                                             |
//!    +------ notices thread <----- queue <----- vfs::Invalidate --------------------+
//!    +------ fill thread: pages of read-only mounts that are about to be asked for
//! ```
//!
//! It works by node and not by handle: OPEN, OPENDIR, FLUSH and RELEASE are answered once with `ENOSYS`, after which
//! the kernel opens, closes, re-reads and re-lists without a message. Attributes, names and absent names are valid
//! for ever, since one server owns every change and takes back by a notice what it changes under another name.
//!
//! This is the one place that knows the `fuser` crate (ABI 7.40 and what it lacks, see [`front`]); none of its types
//! leave the folder.

mod bare;
mod convert;
mod fill;
mod front;
mod listing;
mod notify;
mod options;
mod reply;
mod requests;
mod respell;
mod session;

pub use notify::Notices;
pub use options::{Lists, Opens, Options, WriteCache};
pub use requests::{Figures, Request, Requests};
pub use session::{Error, Serving, serve, serve_with};
