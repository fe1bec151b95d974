//! What is known of the instances of an image, in files that outlive them.
//!
//! ```text
//! $XDG_STATE_HOME/fim/instances/IMAGE/     flock(2): registering, renaming and archiving
//! ├── next                                 the id that is given next; begins anew when no instance lives
//! ├── KEY/                                 a living instance: its name, or its id
//! │   ├── state.json                       mode 0600, replaced by rename
//! │   ├── out.log  err.log                 of background instances
//! │   └── logs/                            those of the instance's directory, once it has ended
//! └── KEY@MILLISECONDS/                    one that has ended, called by its start; the last 20 are kept
//! ```
//!
//! IMAGE is the image's identity with that of its data directory: copies used elsewhere never mix. A record is archived
//! by its instance, or by whoever finds that the process it names is gone for certain.

mod record;
mod registry;

pub use record::{End, Name, State, VERSION};
pub use registry::{Found, Registered, Registry, StateError, all_images, base};
