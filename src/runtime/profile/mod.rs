//! Access profiles: recording them, storing them with an image, bringing in at start what they name.
//!
//! ```text
//! fim mount --record FILE, fim-exec --record FILE      Recorder -> FILE, written at the end
//! fim-layer profile set FILE                           FILE -> settings of the image
//! start of a stack                                     profile -> blocks -> BlockCache, behind the first answer
//! fim archive create --order profile:FILE              the files of the profile lie together
//! ```
//!
//! A profile only says what to do earlier. One that is stale, or of another image, costs some memory and work; one in
//! an image that cannot be read is logged and passed over.

mod prefetch;
mod record;
mod store;

use std::{fs::File, io, io::Read as _, path::Path, path::PathBuf};

use crate::{
    config::ConfigError,
    dwarfs::{
        self,
        profile::{MAX_LEN, Profile},
        write::PublishError,
    },
    image::ImageError,
};

pub use prefetch::{Prefetcher, Source};
pub use record::Recording;
pub use store::{clear, set, stored};

/// A profile that cannot be read, written or stored.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// A file that cannot be read.
    #[error("cannot read the access profile {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the host says.
        source: io::Error,
    },
    /// Something else than a profile.
    #[error("cannot use the access profile {}", path.display())]
    Decode {
        /// The file, or the image that holds it.
        path: PathBuf,
        /// What is wrong with it.
        source: dwarfs::profile::ProfileError,
    },
    /// A place where no recording can be put.
    #[error("cannot record to {}", path.display())]
    Place {
        /// The file that was to be made.
        path: PathBuf,
        /// What the host says.
        source: io::Error,
    },
    /// A recording that cannot be put in place.
    #[error("cannot write the access profile")]
    Publish(#[from] PublishError),
    /// A recording that cannot be written.
    #[error("cannot write the access profile {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the host says.
        source: io::Error,
    },
    /// It does not fit the settings of an image.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The image.
    #[error(transparent)]
    Image(#[from] ImageError),
}

/// Reads a profile from a file.
///
/// # Errors
///
/// The file cannot be read, or holds no profile.
pub fn read(path: &Path) -> Result<Profile, ProfileError> {
    let failed = |source| ProfileError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    // One byte more than is read, so that a longer file is refused and not cut.
    File::open(path).map_err(failed)?.take(MAX_LEN as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    Profile::decode(&bytes).map_err(|source| ProfileError::Decode { path: path.to_owned(), source })
}
