//! How many requests of each kind the kernel has sent: what a mount costs, and the proof that it costs no more.

use std::fmt;

use serde_json::{Map, Value};

use crate::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// What the owner of a mount has to say to those who ask for its figures, by name.
pub type Figures = Arc<dyn Fn() -> Map<String, Value> + Send + Sync>;

macro_rules! requests {
    ($($name:ident),+ $(,)?) => {
        /// A kind of request.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[expect(missing_docs, reason = "the names are those of the protocol")]
        pub enum Request {
            $($name),+
        }

        impl Request {
            /// All kinds.
            pub const ALL: &[Self] = &[$(Self::$name),+];
        }
    };
}

requests!(
    Lookup,
    Forget,
    GetAttr,
    SetAttr,
    ReadLink,
    MkNod,
    MkDir,
    Unlink,
    RmDir,
    SymLink,
    Rename,
    Link,
    Create,
    Open,
    OpenDir,
    Read,
    Write,
    Flush,
    FSync,
    ReadDir,
    ReadDirPlus,
    FSyncDir,
    StatFs,
    SetXattr,
    GetXattr,
    ListXattr,
    RemoveXattr,
    Ioctl,
    FAllocate,
    LSeek,
    CopyFileRange,
);

/// Counters, one a kind.
#[derive(Default)]
pub struct Requests {
    counts: [AtomicU64; Request::ALL.len()],
}

impl Requests {
    /// Counts one.
    pub(super) fn note(&self, request: Request) {
        if let Some(count) = self.counts.get(request as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many of this kind there were.
    #[must_use]
    pub fn count(&self, request: Request) -> u64 {
        self.counts.get(request as usize).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// All kinds of which there were any.
    pub fn counted(&self) -> impl Iterator<Item = (Request, u64)> {
        Request::ALL.iter().map(|request| (*request, self.count(*request))).filter(|(_, count)| *count > 0)
    }
}

/// The figures of a mount as text: JSON with what `figures` says and how many requests of each kind there were. Cut to
/// nothing where it is longer than `limit`.
pub(super) fn told(requests: &Requests, figures: Option<&Figures>, limit: usize) -> Vec<u8> {
    let mut all = figures.map(|figures| figures()).unwrap_or_default();
    let counted = requests.counted().map(|(request, count)| (format!("{request:?}"), Value::from(count)));
    all.insert("requests".to_owned(), Value::Object(counted.collect()));
    let text = serde_json::to_vec(&all).unwrap_or_default();
    if text.len() > limit { Vec::new() } else { text }
}

impl fmt::Debug for Requests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.counted()).finish()
    }
}
