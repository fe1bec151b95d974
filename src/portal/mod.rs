//! How somebody on one side of a sandbox's wall reaches somebody on the other.
//!
//! ```text
//! FIM_DIR_INSTANCE/portal/
//! ├── daemon/guest.fifo        read by process 1 inside: requests of `fim-instance exec`
//! ├── daemon/host.fifo         read by the host daemon: requests of `fim_portal`, where it is permitted
//! └── dispatcher/{guest,host}/ sockets of those who ask, one a request
//!
//! asks:    listens at dispatcher/WHERE/NAME, announces it on WHERE.fifo, waits        ([`Rendezvous`])
//! serves:  reads announcements, forks; the child connects and hears what is wanted    ([`Announcements`], [`connect`])
//! ```
//!
//! An announcement is one line in one write, with a line end before and behind it: whatever garbage somebody else has
//! written costs only itself. It carries nothing but a name; the request, with its descriptors, travels over the socket,
//! whose other end the kernel vouches for. Both sides take each other for hostile: names are checked, symlinks are not
//! followed, lengths are bounded.

mod announce;
mod rendezvous;

pub use announce::{Announcement, Announcements, announce};
pub use rendezvous::{Rendezvous, Wall, connect};
