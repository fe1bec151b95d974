//! A safe binding to the reader library of upstream DwarFS, for archives that are read only.
//!
//! ```text
//! Archive (safe, this file) -> ffi (bindgen) -> shim.h, shim.cpp (extern "C") -> dwarfs::reader::filesystem_v2_lite
//! ```
//!
//! Every call is independent of every other and may come from any thread. What the library throws arrives as an
//! [`Error`]; what it takes for a broken promise of its own ends the process (its assertions call `abort`).

mod ffi;

use std::{
    error,
    ffi::{CStr, CString},
    fmt,
    mem::MaybeUninit,
    os::unix::ffi::OsStrExt as _,
    path::Path,
    ptr::{self, NonNull},
};

/// An open archive.
pub struct Archive {
    raw: NonNull<ffi::shim_archive>,
}

// SAFETY: the shim's object owns all it refers to (its path, log and files are members of it), and the library binds
// nothing to the thread that opened it: its own driver opens in one thread and serves from others.
unsafe impl Send for Archive {}
// SAFETY: shim.h promises that all functions but shim_close may run at the same time; they call const members of
// filesystem_v2_lite only, which the library synchronizes for its own multi-threaded driver. shim_close is called by
// Drop alone, which has the archive for itself.
unsafe impl Sync for Archive {}

/// An object inside one archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Inode(u32);

/// Where an archive begins in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offset {
    /// It is looked for.
    Auto,
    /// Here.
    At(u64),
}

/// How to open an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Where it begins.
    pub offset: Offset,
    /// How long it is; without it, up to the end of the file.
    pub size: Option<u64>,
    /// Bound of decoded blocks in memory, in bytes.
    pub cache_bytes: u64,
    /// Threads that decode; 0: as many as there are processors.
    pub workers: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { offset: Offset::At(0), size: None, cache_bytes: 256 << 20, workers: 2 }
    }
}

/// A point in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Time {
    /// Seconds since the epoch.
    pub seconds: i64,
    /// Nanoseconds forward from there.
    pub nanos: u32,
}

/// Attributes of an object, as the library tells them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Its inode number in the archive.
    pub ino: u64,
    /// Kind and permissions (`st_mode`).
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Number of hard links; 1 for all but regular files.
    pub nlink: u64,
    /// Device number as `st_rdev`.
    pub rdev: u64,
    /// Length in bytes; of a directory its number of entries.
    pub size: u64,
    /// Space in units of 512 bytes.
    pub blocks: u64,
    /// Last access.
    pub atime: Time,
    /// Last change of content.
    pub mtime: Time,
    /// Last change of attributes.
    pub ctime: Time,
}

/// Figures of an archive as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figures {
    /// Unit of `blocks` in bytes.
    pub block_size: u64,
    /// Space.
    pub blocks: u64,
    /// Inodes.
    pub files: u64,
    /// Longest name.
    pub name_max: u64,
}

/// One entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: Vec<u8>,
    /// The object.
    pub inode: Inode,
    /// Kind and permissions of the object.
    pub mode: u32,
}

/// What [`Archive::seek`] looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seek {
    /// The next data.
    Data,
    /// The next hole, or the end.
    Hole,
}

/// What the library said: an errno and its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    code: i32,
    text: String,
}

impl Archive {
    /// Opens the archive in the file at `path`.
    ///
    /// # Errors
    ///
    /// What the library says of the file or the archive.
    pub fn open(path: &Path, options: &Options) -> Result<Self, Error> {
        let path = CString::new(path.as_os_str().as_bytes())
            .map_err(|_| Error::new(libc::EINVAL, "a path with a NUL"))?;
        let offset = match options.offset {
            Offset::Auto => i64::from(ffi::SHIM_OFFSET_AUTO),
            Offset::At(offset) => length(offset)?,
        };
        let options = ffi::shim_options {
            offset,
            size: options.size.map_or(Ok(-1), length)?,
            cache_bytes: options.cache_bytes,
            workers: options.workers,
        };
        let mut raw = ptr::null_mut();
        call(|error| {
            // SAFETY: `path` ends with NUL and, as `options`, outlives the call, which keeps no reference to either;
            // `raw` and `error` can be written to.
            unsafe { ffi::shim_open(path.as_ptr(), &raw const options, &raw mut raw, error) }
        })?;
        let raw = NonNull::new(raw).ok_or_else(|| Error::new(libc::EIO, "no archive"))?;
        Ok(Self { raw })
    }

    /// The root directory.
    ///
    /// # Errors
    ///
    /// What the library said.
    pub fn root(&self) -> Result<Inode, Error> {
        let mut inode = 0;
        call(|error| {
            // SAFETY: `raw` is a live archive of shim_open; `inode` and `error` can be written to.
            unsafe { ffi::shim_root(self.raw.as_ptr(), &raw mut inode, error) }
        })?;
        Ok(Inode(inode))
    }

    /// Finds `name` in `directory`.
    ///
    /// # Errors
    ///
    /// `ENOTDIR`, `ENOENT` for an inode that is not there, else what the library said.
    pub fn find(&self, directory: Inode, name: &[u8]) -> Result<Option<Inode>, Error> {
        let mut inode = 0;
        let found = call(|error| {
            // SAFETY: as in `root`; `name` is readable for its length during the call.
            unsafe {
                let name = (name.as_ptr().cast(), name.len());
                ffi::shim_find(self.raw.as_ptr(), directory.0, name.0, name.1, &raw mut inode, error)
            }
        })?;
        Ok(found.then_some(Inode(inode)))
    }

    /// Attributes.
    ///
    /// # Errors
    ///
    /// `ENOENT` for an inode that is not there, else what the library said.
    pub fn stat(&self, inode: Inode) -> Result<Stat, Error> {
        let mut stat = MaybeUninit::uninit();
        call(|error| {
            // SAFETY: as in `root`; `stat` has room for a shim_stat.
            unsafe { ffi::shim_getattr(self.raw.as_ptr(), inode.0, stat.as_mut_ptr(), error) }
        })?;
        // SAFETY: shim_getattr returned SHIM_OK (it never returns SHIM_NONE) and then has filled `stat`.
        let stat: ffi::shim_stat = unsafe { stat.assume_init() };
        Ok(Stat {
            ino: stat.ino,
            mode: stat.mode,
            uid: stat.uid,
            gid: stat.gid,
            nlink: stat.nlink,
            rdev: stat.rdev,
            size: stat.size,
            blocks: stat.blocks,
            atime: time(stat.atime),
            mtime: time(stat.mtime),
            ctime: time(stat.ctime),
        })
    }

    /// The entry at `position` of a directory, without `.` and `..`; `None` behind the last.
    ///
    /// # Errors
    ///
    /// As [`find`](Self::find).
    pub fn entry(&self, directory: Inode, position: u64) -> Result<Option<Entry>, Error> {
        let mut entry = MaybeUninit::<ffi::shim_entry>::uninit();
        let found = call(|error| {
            // SAFETY: as in `root`; `entry` has room for a shim_entry.
            unsafe { ffi::shim_readdir(self.raw.as_ptr(), directory.0, position, entry.as_mut_ptr(), error) }
        })?;
        if !found {
            return Ok(None);
        }
        let entry = entry.as_ptr();
        // SAFETY: after SHIM_OK the shim has filled all fields but the end of `name`, of which `name_len` bytes
        // (at most SHIM_MAX_NAME) are written; only those are read, and no reference to the others is made.
        let (inode, mode, name) = unsafe {
            let len = usize::try_from((*entry).name_len).unwrap_or_default();
            let name = std::slice::from_raw_parts((&raw const (*entry).name).cast::<u8>(), len);
            ((*entry).inode, (*entry).mode, name.to_vec())
        };
        Ok(Some(Entry { name, inode: Inode(inode), mode }))
    }

    /// The target of a symlink.
    ///
    /// # Errors
    ///
    /// `EINVAL` where `inode` is no symlink, else what the library said.
    pub fn read_link(&self, inode: Inode) -> Result<Vec<u8>, Error> {
        let mut target = vec![0_u8; usize::try_from(ffi::SHIM_MAX_TARGET).unwrap_or_default()];
        let mut len = target.len();
        call(|error| {
            // SAFETY: as in `root`; `target` has room for `len` bytes.
            unsafe {
                let target = target.as_mut_ptr().cast();
                ffi::shim_readlink(self.raw.as_ptr(), inode.0, target, &raw mut len, error)
            }
        })?;
        target.truncate(len);
        Ok(target)
    }

    /// Reads into `buffer` from `offset` of a regular file, and returns how much; fewer only at its end.
    ///
    /// # Errors
    ///
    /// `EINVAL` where `inode` is no regular file, `EIO` where a block is damaged, else what the library said.
    pub fn read(&self, inode: Inode, offset: u64, buffer: &mut [u8]) -> Result<usize, Error> {
        let mut len = buffer.len();
        call(|error| {
            // SAFETY: as in `root`; `buffer` has room for `len` bytes, and nobody else sees it during the call.
            unsafe {
                let buffer = buffer.as_mut_ptr().cast();
                ffi::shim_read(self.raw.as_ptr(), inode.0, offset, buffer, &raw mut len, error)
            }
        })?;
        Ok(len.min(buffer.len()))
    }

    /// Finds the next data or hole at or behind `offset`; `None` behind the end, or where no data follows.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub fn seek(&self, inode: Inode, offset: u64, whence: Seek) -> Result<Option<u64>, Error> {
        let whence = match whence {
            Seek::Data => ffi::SHIM_SEEK_DATA,
            Seek::Hole => ffi::SHIM_SEEK_HOLE,
        };
        let whence = i32::try_from(whence).unwrap_or_default();
        let mut place = 0;
        let found = call(|error| {
            // SAFETY: as in `root`; `place` can be written to.
            unsafe { ffi::shim_seek(self.raw.as_ptr(), inode.0, offset, whence, &raw mut place, error) }
        })?;
        Ok(found.then_some(place))
    }

    /// Figures of the archive as a whole.
    ///
    /// # Errors
    ///
    /// What the library said.
    pub fn figures(&self) -> Result<Figures, Error> {
        let mut figures = MaybeUninit::uninit();
        call(|error| {
            // SAFETY: as in `root`; `figures` has room for a shim_figures.
            unsafe { ffi::shim_statvfs(self.raw.as_ptr(), figures.as_mut_ptr(), error) }
        })?;
        // SAFETY: shim_statvfs returned SHIM_OK (it never returns SHIM_NONE) and then has filled `figures`.
        let figures: ffi::shim_figures = unsafe { figures.assume_init() };
        Ok(Figures {
            block_size: figures.block_size,
            blocks: figures.blocks,
            files: figures.files,
            name_max: figures.name_max,
        })
    }
}

impl Drop for Archive {
    fn drop(&mut self) {
        // SAFETY: `raw` came from shim_open, is closed nowhere else, and nobody refers to it any more.
        unsafe { ffi::shim_close(self.raw.as_ptr()) }
    }
}

impl fmt::Debug for Archive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Archive").finish_non_exhaustive()
    }
}

impl Inode {
    /// Wraps a number.
    #[must_use]
    pub const fn new(raw: u32) -> Self {
        Self(raw)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl Error {
    fn new(code: i32, text: &str) -> Self {
        Self { code, text: text.to_owned() }
    }

    /// The errno.
    #[must_use]
    pub const fn code(&self) -> i32 {
        self.code
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl error::Error for Error {}

/// Calls a function of the shim: whether it found what was asked for, or its error.
fn call(function: impl FnOnce(*mut ffi::shim_error) -> i32) -> Result<bool, Error> {
    let mut error = ffi::shim_error { code: libc::EIO, text: [0; _] };
    match u32::try_from(function(&raw mut error)) {
        Ok(ffi::SHIM_OK) => Ok(true),
        Ok(ffi::SHIM_NONE) => Ok(false),
        _ => {
            let text = error.text.map(|byte| byte.to_ne_bytes()[0]);
            let text = CStr::from_bytes_until_nul(&text).unwrap_or_default();
            Err(Error { code: error.code, text: text.to_string_lossy().into_owned() })
        }
    }
}

fn length(value: u64) -> Result<i64, Error> {
    i64::try_from(value).map_err(|_| Error::new(libc::EINVAL, "an offset behind the end of any file"))
}

const fn time(time: ffi::shim_time) -> Time {
    Time { seconds: time.seconds, nanos: time.nanos }
}
