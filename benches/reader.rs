//! Reads a whole archive in this process, without a mount: what decoding and the block cache cost by themselves.
//!
//! ```text
//! cargo bench --bench reader -- ARCHIVE [CACHE_MIB [ROUNDS]]
//! cargo bench --bench reader --features libdwarfs -- ARCHIVE …     upstream's library beside it
//! ```
//!
//! All regular files are read in the order of a walk, 128 KiB at a time, by 1 and by 2 threads that take the files in
//! turn; one line each with seconds, CPU seconds of the process, MB/s, and of our reader how many blocks were opened
//! (beside how many there are) and the most memory that the cache used. Each line begins with an empty cache of its
//! own; `cold` says that the archive's pages may not be in the page cache yet. The readers take turns. Upstream's
//! library decodes in as many threads as there are readers, ours in those and as many workers.

#![expect(clippy::print_stdout, reason = "the figures are the answer of the program")]

use std::{
    error,
    fs::File,
    io,
    num::NonZeroUsize,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::Instant,
};

use fim::dwarfs::{
    Error,
    read::{Archive, BlockCache, CacheOptions, Inode, Kind, Place},
};
use nix::sys::{
    resource::{UsageWho, getrusage},
    time::TimeValLike as _,
};

/// What the kernel reads ahead in one request, in bytes.
const READ: usize = 128 << 10;

/// The server's default bound of the cache in MiB.
const CACHE_MIB: usize = 512;

/// How often each number of threads is measured.
const ROUNDS: usize = 3;

type Failure = Box<dyn error::Error>;

/// A reader of archives with all files of one of them.
trait Files: Sync {
    /// How many regular files there are.
    fn count(&self) -> usize;

    /// Reads up to [`READ`] bytes of a file and looks at every one of them once, as a server does; returns how many.
    fn read(&self, file: usize, offset: u64) -> io::Result<usize>;

    /// Bytes that the cache uses.
    fn used(&self) -> usize;

    /// What is worth telling besides.
    fn remarks(&self) -> String;
}

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let Some(path) = arguments.next().map(PathBuf::from) else {
        println!("reader: no archive given, nothing is measured");
        return Ok(());
    };
    let mut number = |default| arguments.next().map_or(Ok(default), |number| number.parse::<usize>());
    let (cache, rounds) = (number(CACHE_MIB)? << 20, number(ROUNDS)?);
    let mut heat = "cold";
    for _ in 0..rounds {
        for threads in [1, 2] {
            measure("fim", heat, threads, &Ours::open(&path, cache, threads)?)?;
            #[cfg(feature = "libdwarfs")]
            measure("libdwarfs", heat, threads, &upstream::Theirs::open(&path, cache, threads)?)?;
            heat = "warm";
        }
    }
    Ok(())
}

/// Reads all files and tells how long it took.
fn measure(reader: &str, heat: &str, threads: usize, files: &dyn Files) -> Result<(), Failure> {
    let (start, before) = (Instant::now(), cpu_seconds()?);
    let (bytes, most) = read_all(files, threads)?;
    let (seconds, cpu) = (start.elapsed().as_secs_f64(), cpu_seconds()? - before);
    let mb = bytes / 1_000_000;
    println!(
        "{reader:<9} {heat} {threads} threads: {} files, {mb} MB in {seconds:.3} s, {cpu:.3} s of CPU, {:.0} MB/s, {} MiB in use at most{}",
        files.count(),
        f64::from(u32::try_from(mb)?) / seconds,
        most >> 20,
        files.remarks(),
    );
    Ok(())
}

/// CPU time of this process so far.
fn cpu_seconds() -> Result<f64, Failure> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let micros = (usage.user_time() + usage.system_time()).num_microseconds();
    Ok(f64::from(u32::try_from(micros / 1_000)?) / 1e3)
}

/// Reads all files; returns their bytes and the most that the cache used.
fn read_all(files: &dyn Files, threads: usize) -> io::Result<(u64, usize)> {
    let (next, bytes, most) = (AtomicUsize::new(0), AtomicU64::new(0), AtomicUsize::new(0));
    let work = || {
        loop {
            let file = next.fetch_add(1, Ordering::Relaxed);
            if file >= files.count() {
                return Ok::<(), io::Error>(());
            }
            let mut offset = 0;
            loop {
                let len = files.read(file, offset)?;
                offset += len as u64;
                if len < READ {
                    break;
                }
            }
            bytes.fetch_add(offset, Ordering::Relaxed);
            most.fetch_max(files.used(), Ordering::Relaxed);
        }
    };
    thread::scope(|scope| {
        let readers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        readers
            .into_iter()
            .try_for_each(|reader| reader.join().map_err(|_| io::Error::other("a reader panicked"))?)
    })?;
    Ok((bytes.into_inner(), most.into_inner()))
}

fn look_at(bytes: &[u8]) {
    let sum: u64 =
        bytes.chunks_exact(64).map(|chunk| u64::from(chunk.first().copied().unwrap_or_default())).sum();
    std::hint::black_box(sum);
}

/// Our reader.
struct Ours {
    archive: Archive,
    cache: Arc<BlockCache>,
    files: Vec<Inode>,
}

impl Ours {
    fn open(path: &Path, max_bytes: usize, threads: usize) -> Result<Self, Failure> {
        let cache = BlockCache::with(CacheOptions::serving(max_bytes, NonZeroUsize::new(threads)));
        let archive = Archive::open(Arc::new(File::open(path)?), Place::Auto, &cache)?;
        let mut files = Vec::new();
        walk(&archive, archive.root(), &mut files)?;
        Ok(Self { archive, cache, files })
    }
}

impl Files for Ours {
    fn count(&self) -> usize {
        self.files.len()
    }

    fn read(&self, file: usize, offset: u64) -> io::Result<usize> {
        let Some(inode) = self.files.get(file) else { return Ok(0) };
        let data = self.archive.read(*inode, offset, READ).map_err(io::Error::other)?;
        data.slices().for_each(|slice| look_at(slice.as_bytes()));
        Ok(data.len())
    }

    fn used(&self) -> usize {
        self.cache.used()
    }

    fn remarks(&self) -> String {
        format!(", {} of {} blocks opened", self.cache.figures().opened, self.archive.figures().blocks)
    }
}

/// All regular files in the order of a walk.
fn walk(archive: &Archive, directory: Inode, files: &mut Vec<Inode>) -> Result<(), Error> {
    let mut inner = Vec::new();
    archive.read_dir(directory, 0, &mut |entry| {
        inner.extend(entry.inode.filter(|_| entry.name != b"." && entry.name != b".."));
        ControlFlow::Continue(())
    })?;
    for inode in inner {
        match archive.kind(inode)? {
            Kind::Directory => walk(archive, inode, files)?,
            Kind::Regular => files.push(inode),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(feature = "libdwarfs")]
mod upstream {
    use std::{cell::RefCell, io, path::Path};

    use dwarfs_sys::{Archive, Inode, Offset, Options};

    use super::{Failure, Files, READ, look_at};

    /// Type bits of a mode, and two of their values.
    const TYPE: u32 = 0o170_000;
    const DIRECTORY: u32 = 0o040_000;
    const REGULAR: u32 = 0o100_000;

    thread_local! {
        static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; READ]);
    }

    /// Upstream's reader, which copies what it reads into a buffer.
    pub(super) struct Theirs {
        archive: Archive,
        files: Vec<Inode>,
    }

    impl Theirs {
        pub(super) fn open(path: &Path, cache: usize, threads: usize) -> Result<Self, Failure> {
            let (cache_bytes, workers) = (u64::try_from(cache)?, u32::try_from(threads)?);
            let options = Options { offset: Offset::Auto, size: None, cache_bytes, workers };
            let archive = Archive::open(path, &options)?;
            let mut files = Vec::new();
            walk(&archive, archive.root()?, &mut files)?;
            Ok(Self { archive, files })
        }
    }

    impl Files for Theirs {
        fn count(&self) -> usize {
            self.files.len()
        }

        fn read(&self, file: usize, offset: u64) -> io::Result<usize> {
            let Some(inode) = self.files.get(file) else { return Ok(0) };
            BUFFER.with_borrow_mut(|buffer| {
                let len = self.archive.read(*inode, offset, buffer).map_err(io::Error::other)?;
                look_at(buffer.get(..len).unwrap_or_default());
                Ok(len)
            })
        }

        fn used(&self) -> usize {
            0
        }

        fn remarks(&self) -> String {
            String::from(" (not told)")
        }
    }

    /// All regular files in the order of a walk.
    fn walk(archive: &Archive, directory: Inode, files: &mut Vec<Inode>) -> Result<(), Failure> {
        for position in 0.. {
            let Some(entry) = archive.entry(directory, position)? else { break };
            match entry.mode & TYPE {
                DIRECTORY => walk(archive, entry.inode, files)?,
                REGULAR => files.push(entry.inode),
                _ => {}
            }
        }
        Ok(())
    }
}
