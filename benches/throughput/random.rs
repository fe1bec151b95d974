//! Random access to one file: how much a second, and how long one access takes.

use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::FileExt as _,
    path::Path,
    thread,
    time::Instant,
};

use rustix::fs::{Advice, fadvise};

use crate::{
    failure::{Failure, Result, cannot},
    figures::percentile,
    rng::Rng,
    work::join,
};

/// Bytes of a random access.
const PAGE: usize = 4096;

/// Whether pages are read or written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// `pread(2)`.
    Read,
    /// `pwrite(2)`.
    Write,
}

/// What random access has shown.
#[derive(Debug, Clone, Copy)]
pub struct Found {
    /// Accesses a second, of all jobs together.
    pub rate: f64,
    /// Half of them took no longer than this, in seconds.
    pub p50: f64,
    /// Of a hundred of them one took longer.
    pub p99: f64,
}

/// Reads or writes pages of a file in random order, each at most once; every job has its own stretch of the file.
pub fn access(path: &Path, operations: usize, jobs: usize, mode: Mode) -> Result<Found> {
    let size = fs::metadata(path).map_err(cannot("stat", path))?.len();
    let pages = usize::try_from(size).unwrap_or(usize::MAX) / PAGE;
    let stretch = pages / jobs;
    let share = (operations / jobs).min(stretch);
    if share == 0 {
        return Err(Failure::new(format!(
            "{} is too small for random access by {jobs} jobs",
            path.display()
        )));
    }
    let orders: Vec<Vec<usize>> = (0..jobs).map(|job| order(job * stretch, stretch, share)).collect();
    let start = Instant::now();
    let times = thread::scope(|scope| {
        let running: Vec<_> =
            orders.iter().map(|order| scope.spawn(move || job(path, order, mode))).collect();
        running.into_iter().map(join).collect::<Result<Vec<_>>>()
    })?;
    let seconds = start.elapsed().as_secs_f64();
    let times = times.concat();
    let done = f64::from(u32::try_from(times.len()).unwrap_or(u32::MAX));
    let share = |share| percentile(&times, share).unwrap_or_default();
    Ok(Found { rate: done / seconds, p50: share(0.5), p99: share(0.99) })
}

/// Takes the file out of the kernel's page cache; what its server keeps stays.
pub fn drop_pages(path: &Path) -> Result<()> {
    let file = File::open(path).map_err(cannot("open", path))?;
    fadvise(&file, 0, None, Advice::DontNeed).map_err(cannot("drop the pages of", path))
}

/// The seconds of each access.
fn job(path: &Path, order: &[usize], mode: Mode) -> Result<Vec<f64>> {
    let file =
        OpenOptions::new().read(true).write(mode == Mode::Write).open(path).map_err(cannot("open", path))?;
    let mut page = [0xa5; PAGE];
    let mut times = Vec::with_capacity(order.len());
    let mut before = Instant::now();
    for number in order {
        let at = u64::try_from(number * PAGE).unwrap_or(0);
        match mode {
            Mode::Read => file.read_exact_at(&mut page, at).map_err(cannot("read", path))?,
            Mode::Write => file.write_all_at(&page, at).map_err(cannot("write", path))?,
        }
        let now = Instant::now();
        times.push((now - before).as_secs_f64());
        before = now;
    }
    Ok(times)
}

/// `share` different pages of a stretch in random order.
fn order(first: usize, stretch: usize, share: usize) -> Vec<usize> {
    let mut pages: Vec<usize> = (first..first + stretch).collect();
    Rng::new(u64::try_from(first).unwrap_or(0) + 11).shuffle(&mut pages);
    pages.truncate(share);
    pages
}
