//! The trees that are packed and changed. Always the same ones: a size and a seed decide everything.
//!
//! ```text
//! base/usr/lib/dNN/fNNN      mixed sizes, log-uniform from 128 bytes to 256 KiB
//! base/usr/lib/dNN/sNNN      symbolic links; hNNN hard links
//! base/usr/libexec/big       one large file
//! work/fim-bench/small/NNNN  4-16 KiB: copied up one by one
//! work/fim-bench/share/…     many little files in many directories: removed as a whole
//! work/fim-bench/big         copied up as a whole
//! ```
//!
//! `base` is read; the writable stack has `base` and `work` as its two lowers. `--tree` replaces `base`.

use std::{
    fs::{self, File},
    io::{BufWriter, Write as _},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use crate::{
    cleanup,
    content::{Kind, Vocabulary},
    failure::{Result, cannot},
    rng::Rng,
};

/// The folder of the work tree, which the rows that read everything leave out.
pub const WORK: &str = "fim-bench";

/// How much there is of everything.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// Files of mixed sizes in the base tree.
    pub mixed: usize,
    /// Bytes of the large file in the base tree.
    pub big: usize,
    /// Files for the copy-up of small ones.
    pub small: usize,
    /// Files in the tree that is removed.
    pub share: usize,
    /// Bytes of the file for the copy-up of a large one.
    pub huge: usize,
}

const MIB: usize = 1 << 20;

impl Sizes {
    /// The sizes of a full run.
    pub const FULL: Self = Self { mixed: 2_000, big: 64 * MIB, small: 1_000, share: 8_000, huge: 512 * MIB };
    /// The sizes of a quick run.
    pub const QUICK: Self = Self { mixed: 400, big: 16 * MIB, small: 200, share: 800, huge: 64 * MIB };
}

/// Makes the base tree.
pub fn make_base(root: &Path, sizes: Sizes) -> Result<()> {
    let (vocabulary, mut rng) = (Vocabulary::default(), Rng::new(1));
    for at in 0..sizes.mixed {
        let folder = root.join(format!("usr/lib/d{:02}", at % 40));
        make_folder(&folder)?;
        let scale = 1 << (7 + rng.below(11));
        let size = scale + rng.below(scale);
        let file = folder.join(format!("f{at:04}"));
        write(&file, &vocabulary.bytes(Kind::choose(&mut rng), size, &mut rng))?;
        if at % 10 == 3 {
            let link = folder.join(format!("s{at:04}"));
            symlink(format!("f{at:04}"), &link).map_err(cannot("make", &link))?;
        }
        if at % 20 == 7 {
            let link = folder.join(format!("h{at:04}"));
            fs::hard_link(&file, &link).map_err(cannot("make", &link))?;
        }
    }
    write_large(&root.join("usr/libexec/big"), sizes.big, &vocabulary, &mut rng)
}

/// Makes the tree that is changed.
pub fn make_work(root: &Path, sizes: Sizes) -> Result<()> {
    let (vocabulary, mut rng) = (Vocabulary::default(), Rng::new(2));
    for at in 0..sizes.small {
        let size = 4_096 + rng.below(12_289);
        write(&root.join(small_file(at)), &vocabulary.bytes(Kind::Prose, size, &mut rng))?;
    }
    for at in 0..sizes.share {
        let file = root.join(share()).join(format!("p{:03}/{}/f{at:05}", at / 40, at % 3));
        let size = 200 + rng.below(3_000);
        write(&file, &vocabulary.bytes(Kind::Prose, size, &mut rng))?;
    }
    write_large(&root.join(huge()), sizes.huge, &vocabulary, &mut rng)
}

/// The small file with a number, relative to the root.
pub fn small_file(at: usize) -> PathBuf {
    Path::new(WORK).join(format!("small/{at:04}"))
}

/// The tree that is removed, relative to the root.
pub fn share() -> PathBuf {
    Path::new(WORK).join("share")
}

/// The large file that is copied up, relative to the root.
pub fn huge() -> PathBuf {
    Path::new(WORK).join("big")
}

/// What a tree holds, found out by walking it.
#[derive(Debug, Clone)]
pub struct Census {
    /// Everything below the root.
    pub entries: u64,
    /// Regular files.
    pub files: u64,
    /// Bytes in them, hard links counted again.
    pub bytes: u64,
    /// The first regular file in the order of names: shows that a mount answers.
    pub first: PathBuf,
    /// The largest file.
    pub largest: PathBuf,
    /// A number that changes with names, sizes and times.
    pub fingerprint: u64,
}

/// Walks a tree on the host, in the order of names.
pub fn census(root: &Path) -> Result<Census> {
    let nothing = PathBuf::new();
    let mut census =
        Census { entries: 0, files: 0, bytes: 0, first: nothing.clone(), largest: nothing, fingerprint: 0 };
    let (mut pending, mut largest) = (vec![root.to_owned()], 0);
    while let Some(folder) = pending.pop() {
        let list = fs::read_dir(&folder).map_err(cannot("list", &folder))?;
        let mut entries = list.collect::<std::io::Result<Vec<_>>>().map_err(cannot("list", &folder))?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let path = entry.path();
            let data = entry.metadata().map_err(cannot("stat", &path))?;
            census.entries += 1;
            let time = data.modified().ok().and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
            let mark = data.len() ^ time.map_or(0, |time| time.as_secs()) ^ hash(&path);
            census.fingerprint = Rng::new(census.fingerprint ^ mark).bits();
            if data.is_dir() {
                pending.push(path);
            } else if data.is_file() {
                census.files += 1;
                census.bytes += data.len();
                let relative = path.strip_prefix(root).unwrap_or(&path).to_owned();
                if census.first.as_os_str().is_empty() {
                    census.first.clone_from(&relative);
                }
                if data.len() > largest {
                    largest = data.len();
                    census.largest = relative;
                }
            }
        }
    }
    Ok(census)
}

fn hash(path: &Path) -> u64 {
    path.as_os_str().as_encoded_bytes().iter().fold(0, |hash, byte| Rng::new(hash ^ u64::from(*byte)).bits())
}

fn make_folder(folder: &Path) -> Result<()> {
    cleanup::folder(folder)
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    path.parent().map_or(Ok(()), make_folder)?;
    let mut file = File::create(path).map_err(cannot("make", path))?;
    file.write_all(bytes).and_then(|()| file.set_modified(fixed_time())).map_err(cannot("write", path))
}

fn write_large(path: &Path, size: usize, vocabulary: &Vocabulary, rng: &mut Rng) -> Result<()> {
    path.parent().map_or(Ok(()), make_folder)?;
    let mut file = BufWriter::new(File::create(path).map_err(cannot("make", path))?);
    let mut left = size;
    while left > 0 {
        let part = left.min(MIB);
        // One part in eight is noise: libraries carry compressed resources, too.
        let kind = if rng.below(8) == 0 { Kind::Noise } else { Kind::Prose };
        file.write_all(&vocabulary.bytes(kind, part, rng)).map_err(cannot("write", path))?;
        left -= part;
    }
    let file = file.into_inner().map_err(|error| cannot("write", path)(error.into_error()))?;
    file.set_modified(fixed_time()).map_err(cannot("write", path))
}

/// All files are of one time, so that two runs make the same archives.
fn fixed_time() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)
}
