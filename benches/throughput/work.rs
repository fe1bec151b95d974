//! The work whose time is taken: walk, read, change. Each function does one thing, does it fully, and returns how
//! much it did, so that a run that did less is noticed and not called fast.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, sync_channel},
    },
    thread,
    time::Instant,
};

use crate::failure::{Failure, Result, cannot};

/// Bytes a file is read or written by in one go, as `cat` and `cp` do.
const CHUNK: usize = 128 * 1024;

/// Runs work and returns its seconds; what it leaves (mounts, say) is dropped after the clock has stopped.
pub fn timed<T>(work: impl FnOnce() -> Result<T>) -> Result<f64> {
    let start = Instant::now();
    let left = work()?;
    let seconds = start.elapsed().as_secs_f64();
    drop(left);
    Ok(seconds)
}

/// Walks everything below `root`, like `find`, and with `stat` asks for each entry's data. Returns the entries.
pub fn walk(root: &Path, stat: bool) -> Result<u64> {
    let mut entries = 0;
    each(root, None, &mut |entry| {
        entries += 1;
        if stat {
            entry.metadata().map_err(cannot("stat", &entry.path()))?;
        }
        Ok(())
    })?;
    Ok(entries)
}

/// Walks and reads every regular file with so many readers beside the walker, as `find | xargs -P cat` does.
/// Leaves out the folder `except` of the root. Returns the bytes.
pub fn read_all(root: &Path, except: Option<&str>, readers: usize) -> Result<u64> {
    let total = AtomicU64::new(0);
    let (sender, receiver) = sync_channel::<Vec<PathBuf>>(64);
    let receiver = Mutex::new(receiver);
    thread::scope(|scope| {
        let readers: Vec<_> = (0..readers).map(|_| scope.spawn(|| read_batches(&receiver, &total))).collect();
        let mut batch = Vec::with_capacity(64);
        let walked = each(root, except, &mut |entry| {
            let path = entry.path();
            if entry.file_type().map_err(cannot("find the type of", &path))?.is_file() {
                batch.push(path);
            }
            if batch.len() == 64 {
                // A reader that failed no longer listens; its own error is reported below.
                let _ = sender.send(std::mem::take(&mut batch));
            }
            Ok(())
        });
        let _ = sender.send(batch);
        drop(sender);
        let outcomes: Vec<Result<()>> = readers.into_iter().map(join).collect();
        walked?;
        outcomes.into_iter().collect::<Result<()>>()
    })?;
    Ok(total.into_inner())
}

/// Reads one file to its end. Returns the bytes.
pub fn read_file(path: &Path) -> Result<u64> {
    let mut buffer = vec![0; CHUNK];
    read_into(path, &mut buffer)
}

/// Writes a new file front to back; with `sync` until it is on the disk.
pub fn write_file(path: &Path, size: usize, sync: bool) -> Result<()> {
    let mut file = File::create(path).map_err(cannot("make", path))?;
    let chunk = vec![0x5a; CHUNK];
    for _ in 0..size / CHUNK {
        file.write_all(&chunk).map_err(cannot("write", path))?;
    }
    if sync { file.sync_all().map_err(cannot("sync", path)) } else { Ok(()) }
}

/// Makes files of 1,000 bytes in a new directory.
pub fn create(folder: &Path, count: usize) -> Result<()> {
    fs::create_dir(folder).map_err(cannot("make", folder))?;
    for path in names(folder, "new", count) {
        let mut file = File::create_new(&path).map_err(cannot("make", &path))?;
        file.write_all(&[b'x'; 1000]).map_err(cannot("write", &path))?;
    }
    Ok(())
}

/// Asks for the data of each of those files.
pub fn stat_each(folder: &Path, count: usize) -> Result<()> {
    names(folder, "new", count)
        .try_for_each(|path| fs::symlink_metadata(&path).map(drop).map_err(cannot("stat", &path)))
}

/// Gives each of those files another name.
pub fn rename_each(folder: &Path, count: usize) -> Result<()> {
    names(folder, "new", count)
        .zip(names(folder, "old", count))
        .try_for_each(|(from, to)| fs::rename(&from, &to).map_err(cannot("rename", &from)))
}

/// Removes each of those files.
pub fn unlink_each(folder: &Path, count: usize) -> Result<()> {
    names(folder, "old", count).try_for_each(|path| fs::remove_file(&path).map_err(cannot("remove", &path)))
}

/// Appends one byte to a file: the least change that needs a copy-up.
pub fn touch(path: &Path) -> Result<()> {
    let mut file = OpenOptions::new().append(true).open(path).map_err(cannot("open for appending", path))?;
    file.write_all(b"+").map_err(cannot("append to", path))
}

/// Packs a tree into a tar, for [`untar`].
pub fn tar(tree: &Path, file: &Path, limit: u64) -> Result<()> {
    let mut builder = tar::Builder::new(File::create(file).map_err(cannot("make", file))?);
    builder.follow_symlinks(false);
    let mut bytes = 0;
    each(tree, None, &mut |entry| {
        let path = entry.path();
        let data = entry.metadata().map_err(cannot("stat", &path))?;
        // The large file alone would make the row a sequential write.
        if !(data.is_file() || data.is_symlink()) || data.len() > limit / 8 || bytes > limit {
            return Ok(());
        }
        bytes += data.len();
        let name = path.strip_prefix(tree).unwrap_or(&path);
        builder.append_path_with_name(&path, name).map_err(cannot("pack", &path))
    })?;
    builder.finish().map_err(cannot("finish", file))
}

/// Unpacks a tar into a new directory.
pub fn untar(file: &Path, folder: &Path) -> Result<()> {
    fs::create_dir(folder).map_err(cannot("make", folder))?;
    let mut archive = tar::Archive::new(File::open(file).map_err(cannot("open", file))?);
    archive.unpack(folder).map_err(cannot("unpack", file))
}

/// Removes a tree.
pub fn remove(tree: &Path) -> Result<()> {
    fs::remove_dir_all(tree).map_err(cannot("remove", tree))
}

fn names<'a>(folder: &'a Path, word: &'a str, count: usize) -> impl Iterator<Item = PathBuf> + 'a {
    (0..count).map(move |at| folder.join(format!("{word}{at:05}")))
}

/// Calls `visit` for everything below `root`, in the order in which directories list it.
fn each(root: &Path, except: Option<&str>, visit: &mut dyn FnMut(&fs::DirEntry) -> Result<()>) -> Result<()> {
    let mut pending = vec![root.to_owned()];
    while let Some(folder) = pending.pop() {
        for entry in fs::read_dir(&folder).map_err(cannot("list", &folder))? {
            let entry = entry.map_err(cannot("list", &folder))?;
            let left_out = folder == root && except.is_some_and(|name| entry.file_name() == name);
            if left_out {
                continue;
            }
            visit(&entry)?;
            if entry.file_type().map_err(cannot("find the type of", &folder))?.is_dir() {
                pending.push(entry.path());
            }
        }
    }
    Ok(())
}

fn read_batches(batches: &Mutex<Receiver<Vec<PathBuf>>>, total: &AtomicU64) -> Result<()> {
    let (mut buffer, mut outcome) = (vec![0; CHUNK], Ok(()));
    loop {
        let next = batches.lock().map_err(|_| Failure::new("another reader panicked"))?.recv();
        let Ok(batch) = next else { return outcome };
        // After an error the batches are still taken: the walker would wait for ever.
        for path in batch {
            if outcome.is_ok() {
                outcome = read_into(&path, &mut buffer).map(|bytes| {
                    total.fetch_add(bytes, Ordering::Relaxed);
                });
            }
        }
    }
}

fn read_into(path: &Path, buffer: &mut [u8]) -> Result<u64> {
    let mut file = File::open(path).map_err(cannot("open", path))?;
    let mut bytes = 0;
    loop {
        match file.read(buffer).map_err(cannot("read", path))? {
            0 => return Ok(bytes),
            read => bytes += u64::try_from(read).unwrap_or(0),
        }
    }
}

/// What a thread of the work has found.
pub fn join<T>(handle: thread::ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    handle.join().unwrap_or_else(|_| Err(Failure::new("a thread of the work panicked")))
}
