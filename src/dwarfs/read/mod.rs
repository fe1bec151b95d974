//! Reading archives.
//!
//! ```text
//! Archive --- Tree       names, directories, attributes, chunk lists: out of the metadata, in place
//!    |
//!    +------- Blocks --- BlockCache   decoded blocks of all archives of the process, bounded in bytes
//!               |
//!             Index      where the sections are
//!               |
//!             ReadAt     the file; read by pread, so that a truncated one is an error and not a signal
//! ```

mod archive;
mod blocks;
mod cache;
mod check;
mod chunks;
mod classes;
mod codec;
mod index;
mod links;
mod live;
mod paths;
mod prefetch;
mod raw;
mod read_at;
mod references;
mod stat;
mod tree;

pub use archive::{Archive, BlockFacts, Figures, Seek};
pub use cache::{Background, BlockCache, CacheFigures, CacheOptions};
pub use check::{Depth, Finding, Findings, HitFiles, Part, Report, check};
pub use chunks::Piece;
pub use index::{Index, Place, Section};
pub use paths::VisitPath;
pub use raw::{Stored, VisitPiece};
pub use read_at::ReadAt;
pub use stat::{Kind, Stat, Timestamp};
pub use tree::{DirEntry, Inode};
