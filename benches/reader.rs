//! Reads a whole archive in this process, without a mount: what decoding and the block cache cost by themselves.
//!
//! ```text
//! cargo bench --bench reader -- ARCHIVE [CACHE_MIB]
//! ```
//!
//! All regular files are read in the order of a walk, 128 KiB at a time, by 1 and by 2 threads that take the files in
//! turn; one line each with seconds, MB/s, blocks opened, and the most memory that the cache used. The archive's pages
//! are in the page cache after the first pass; `cold` says that a line is the first. A peer that does about the same
//! is upstream's `dwarfsck --check-integrity` or `dwarfsextract -f null`.

#![expect(clippy::print_stdout, reason = "the figures are the answer of the program")]

use std::{
    fs::File,
    io,
    ops::ControlFlow,
    path::PathBuf,
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

/// What the kernel reads ahead in one request, in bytes.
const READ: usize = 128 << 10;

/// The server's default bound of the cache in MiB.
const CACHE_MIB: usize = 512;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let Some(path) = arguments.next().map(PathBuf::from) else {
        println!("reader: no archive given, nothing is measured");
        return Ok(());
    };
    let cache_mib = arguments.next().map_or(Ok(CACHE_MIB), |number| number.parse())?;
    let file = Arc::new(File::open(&path)?);
    for (round, threads) in ["cold", "warm", "warm", "warm", "warm"].into_iter().zip([1, 1, 2, 1, 2]) {
        let options = CacheOptions::serving(cache_mib << 20, None);
        let cache = BlockCache::with(options);
        let archive = Archive::open(Arc::clone(&file) as _, Place::Auto, &cache)?;
        let mut files = Vec::new();
        walk(&archive, archive.root(), &mut files)?;
        let start = Instant::now();
        let (bytes, most) = read_all(&archive, &files, threads, &cache)?;
        let seconds = start.elapsed().as_secs_f64();
        let opened = cache.figures().opened;
        let (mb, most) = (bytes / 1_000_000, most >> 20);
        let rate = f64::from(u32::try_from(mb)?) / seconds;
        println!(
            "{round} {threads} threads: {} files, {mb} MB in {seconds:.3} s, {rate:.0} MB/s, {opened} blocks opened, {most} MiB in use at most",
            files.len(),
        );
    }
    Ok(())
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

/// Reads all files; returns their bytes and the most that the cache used.
fn read_all(
    archive: &Archive,
    files: &[Inode],
    threads: usize,
    cache: &BlockCache,
) -> io::Result<(u64, usize)> {
    let (next, bytes, most) = (AtomicUsize::new(0), AtomicU64::new(0), AtomicUsize::new(0));
    let work = || {
        while let Some(inode) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
            let mut offset = 0;
            loop {
                let data = archive.read(*inode, offset, READ).map_err(io::Error::other)?;
                // As a server does: every byte is looked at once.
                let sum: u64 = data.slices().map(|slice| checksum(slice.as_bytes())).sum();
                std::hint::black_box(sum);
                offset += data.len() as u64;
                if data.len() < READ {
                    break;
                }
            }
            bytes.fetch_add(offset, Ordering::Relaxed);
            most.fetch_max(cache.used(), Ordering::Relaxed);
        }
        Ok::<(), io::Error>(())
    };
    thread::scope(|scope| {
        let readers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        readers
            .into_iter()
            .try_for_each(|reader| reader.join().map_err(|_| io::Error::other("a reader panicked"))?)
    })?;
    Ok((bytes.into_inner(), most.into_inner()))
}

fn checksum(bytes: &[u8]) -> u64 {
    bytes.chunks_exact(64).map(|chunk| u64::from(chunk.first().copied().unwrap_or_default())).sum()
}
