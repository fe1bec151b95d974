//! Bringing in what a profile names.
//!
//! It begins when the mount has given its first answer, on a thread of its own, and is bounded three times: by the
//! limits of a profile, by a number of pieces of files that are looked at, and by half of the block cache, so that
//! nothing is brought in only to be thrown out again.

use std::{ops::ControlFlow, path::PathBuf};

use hashbrown::HashSet;

use super::store::stored_at;
use crate::{
    dwarfs::{
        Error,
        profile::{FileUse, Part, Profile},
        read::{Archive, Kind},
    },
    layer::ArchiveLayer,
    sync::{Arc, thread},
};

/// Pieces of files that are looked at: a hostile archive may have millions in a file.
const MAX_PIECES: usize = 1 << 20;

/// What a block counts at least, in bytes, whatever its archive says.
const LEAST_BLOCK: u64 = 1 << 10;

/// Where a profile comes from.
#[derive(Debug)]
pub enum Source {
    /// It was read already.
    Given(Profile),
    /// This image, if it has one. Looked for when the prefetching begins.
    Image(PathBuf),
}

/// What is to be brought in, and how much of it.
#[derive(Debug)]
pub struct Prefetcher {
    /// Where the profile comes from.
    pub source: Source,
    /// The archives of the stack, lowest first.
    pub layers: Vec<Arc<ArchiveLayer>>,
    /// Bound of the block cache in bytes.
    pub cache: usize,
}

impl Prefetcher {
    /// Begins, in the background.
    pub fn begin(self) {
        let started = thread::Builder::new().name("fim-profile".to_owned()).spawn(move || self.run());
        if let Err(error) = started {
            tracing::warn!(%error, "cannot start the thread for the access profile");
        }
    }

    fn run(self) {
        let profile = match self.source {
            Source::Given(profile) => profile,
            Source::Image(image) => match stored_at(&image) {
                Ok(Some(profile)) => profile,
                Ok(None) => return,
                Err(error) => {
                    let error = crate::causes::one_line(&error);
                    return tracing::warn!(error, "the access profile is passed over");
                }
            },
        };
        let archives: Vec<&Archive> = self.layers.iter().map(|layer| layer.archive()).collect();
        let plan = plan(&profile, &archives, self.cache / 2);
        tracing::info!(files = profile.files.len(), blocks = plan.len(), "prefetching by the access profile");
        for run in plan.chunk_by(|one, two| one.0 == two.0) {
            let blocks: Vec<u32> = run.iter().map(|(_, block)| *block).collect();
            if let Some(archive) = run.first().and_then(|(at, _)| archives.get(*at)) {
                archive.prefetch(&blocks);
            }
        }
    }
}

/// Which blocks of which archives (lowest first) to bring in, each once, in the order of the profile, within `budget`
/// bytes. What is not there, or damaged, is passed over.
fn plan(profile: &Profile, archives: &[&Archive], budget: usize) -> Vec<(usize, u32)> {
    let mut plan = Plan {
        blocks: Vec::new(),
        seen: HashSet::new(),
        pieces: MAX_PIECES,
        left: u64::try_from(budget).unwrap_or(u64::MAX),
    };
    for file in &profile.files {
        if plan.add(file, archives).is_break() {
            break;
        }
    }
    plan.blocks
}

struct Plan {
    blocks: Vec<(usize, u32)>,
    seen: HashSet<(usize, u32)>,
    /// Pieces that may still be looked at.
    pieces: usize,
    /// Bytes that may still be brought in.
    left: u64,
}

impl Plan {
    /// Adds the blocks of a file, from the highest archive that has its path; breaks when there is enough.
    fn add(&mut self, file: &FileUse, archives: &[&Archive]) -> ControlFlow<()> {
        for (at, archive) in archives.iter().enumerate().rev() {
            match archive.find(&file.path) {
                Ok(None) => {}
                Ok(Some(inode)) if archive.kind(inode).is_ok_and(|kind| kind == Kind::Regular) => {
                    let all = 0..u64::MAX;
                    let ranges = match &file.part {
                        Part::Whole => std::slice::from_ref(&all),
                        Part::Ranges(ranges) => ranges,
                    };
                    let size = archive.block_size().max(LEAST_BLOCK);
                    for range in ranges {
                        let mut flow = ControlFlow::Continue(());
                        // What is damaged is found by whoever reads it.
                        let _: Result<(), Error> = archive.blocks_of(inode, range.clone(), &mut |block| {
                            flow = self.take(at, block, size);
                            flow
                        });
                        flow?;
                    }
                    return ControlFlow::Continue(());
                }
                // A whiteout, something else of that name, or damage: what lies below is not shown.
                Ok(Some(_)) | Err(_) => return ControlFlow::Continue(()),
            }
        }
        ControlFlow::Continue(())
    }

    fn take(&mut self, archive: usize, block: u32, size: u64) -> ControlFlow<()> {
        let (Some(pieces), key) = (self.pieces.checked_sub(1), (archive, block)) else {
            return ControlFlow::Break(());
        };
        self.pieces = pieces;
        if self.seen.contains(&key) {
            return ControlFlow::Continue(());
        }
        let Some(left) = self.left.checked_sub(size) else { return ControlFlow::Break(()) };
        self.left = left;
        self.seen.insert(key);
        self.blocks.push(key);
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, num::NonZeroUsize, time::Duration};

    use super::*;
    use crate::{
        dwarfs::write::{Codec, DirSource, Order, WriteOptions, write_archive},
        runtime::stack::{CachePlan, LayerSource, MountStack, ProfileSource, StackPlan},
    };

    /// Length of a block, and of each file in the archives here.
    const BLOCK: u64 = 64 << 10;

    /// Writes an archive of files of one block each, in the order of their names. A name with a bang is a symlink.
    fn archive(place: &std::path::Path, name: &str, files: &[&str]) -> PathBuf {
        let tree = place.join(format!("{name}.tree"));
        for file in files {
            let path = tree.join(file.trim_end_matches('!'));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            if file.ends_with('!') {
                std::os::unix::fs::symlink("gone", path).unwrap();
            } else {
                let byte = u8::try_from(file.len() % 7).unwrap();
                let mut bytes: Vec<u8> = (0..BLOCK).map(|at| byte + u8::try_from(at % 5).unwrap()).collect();
                bytes[..file.len()].copy_from_slice(file.as_bytes());
                fs::write(path, bytes).unwrap();
            }
        }
        let (data, threads) = (Codec::Zstd { level: 1 }, NonZeroUsize::MIN);
        let options = WriteOptions {
            block_size_bits: 16,
            segmentation: None,
            data,
            order: Order::Path,
            threads,
            ..WriteOptions::default()
        };
        let path = place.join(name);
        let mut output = fs::File::create(&path).unwrap();
        write_archive(&DirSource::open(&tree).unwrap(), &options, &mut output, &()).unwrap();
        path
    }

    fn open(layers: &[PathBuf], profile: Option<ProfileSource>, cache: usize) -> MountStack {
        let layers = layers.iter().cloned().map(LayerSource::Path).collect();
        let cache = CachePlan { max_bytes: Some(cache), threads: None };
        MountStack::open(&StackPlan { layers, profile, cache, ..StackPlan::default() }).unwrap()
    }

    fn planned(stack: MountStack, paths: &[&str], budget: usize) -> Vec<(usize, u32)> {
        let file = |path: &&str| FileUse { path: path.as_bytes().into(), part: Part::Whole };
        let profile = Profile { files: paths.iter().map(file).collect() };
        let layers = stack.prefetcher.unwrap().layers;
        let archives: Vec<&Archive> = layers.iter().map(|layer| layer.archive()).collect();
        plan(&profile, &archives, budget)
    }

    #[test]
    fn the_highest_archive_with_a_path_gives_its_blocks() {
        let place = tempfile::tempdir().unwrap();
        let low = archive(place.path(), "low", &["a", "b", "c", "d/e", "d/ff"]);
        let high = archive(place.path(), "high", &["b", "c!", "d!", "n"]);
        let empty = place.path().join("profile");
        fs::write(&empty, "fim-profile 1\n").unwrap();
        let given = || Some(ProfileSource::File(empty.clone()));
        let stack = || open(&[low.clone(), high.clone()], given(), 1 << 20);
        let all = 1 << 20;
        assert_eq!(planned(stack(), &["n", "b", "a", "n", "b"], all), [(1, 1), (1, 0), (0, 0)]);
        // What is hidden, missing or no file is passed over; nothing leads out of the archive.
        for path in ["c", "d/e", "d", "x", "a/x", "", "..", "../low", "/etc/passwd", "d/../a", "./a"] {
            assert_eq!(planned(stack(), &[path], all), [], "{path}");
        }
        assert_eq!(
            planned(open(std::slice::from_ref(&low), given(), all), &["d/ff", "d/e"], all),
            [(0, 4), (0, 3)]
        );
        // No more than there is room for.
        let budget = usize::try_from(2 * BLOCK).unwrap();
        assert_eq!(planned(stack(), &["n", "n", "b", "a"], budget), [(1, 1), (1, 0)]);
        assert_eq!(planned(stack(), &["n"], 10), []);
    }

    #[test]
    fn what_the_profile_names_is_decoded_and_nothing_else() {
        let place = tempfile::tempdir().unwrap();
        let names: Vec<String> = (10..60).map(|number| format!("f{number}")).collect();
        let layer = archive(place.path(), "layer", &names.iter().map(String::as_str).collect::<Vec<_>>());
        let file = place.path().join("profile");
        fs::write(&file, "fim-profile 1\n/f30\n/f12\t0-1\n/f55\t0-10,70000-80000\n/none\n").unwrap();
        let mut stack = open(&[layer], Some(ProfileSource::File(file)), 16 << 20);
        assert_eq!(stack.cache.used(), 0);
        let prefetcher = stack.prefetcher.take().unwrap();
        let archive = Arc::clone(&prefetcher.layers[0]);
        prefetcher.begin();
        for _ in 0..500 {
            if stack.cache.figures().blocks >= 3 {
                break;
            }
            thread::sleep(Duration::from_millis(10));
        }
        thread::sleep(Duration::from_millis(100));
        let figures = stack.cache.figures();
        assert_eq!((figures.blocks, figures.opened), (3, 3));
        // They are the right ones: reading them brings nothing in, reading another one does.
        for (name, opened) in [("f30", 3), ("f12", 3), ("f55", 3), ("f13", 4)] {
            let inode = archive.archive().find(name.as_bytes()).unwrap().unwrap();
            archive.archive().read(inode, 0, 10).unwrap();
            assert_eq!(stack.cache.figures().opened, opened, "{name}");
        }
    }

    #[test]
    fn a_file_that_is_no_profile_is_refused_before_anything_is_mounted() {
        let place = tempfile::tempdir().unwrap();
        let layer = archive(place.path(), "layer", &["a"]);
        let plan = |profile| StackPlan {
            layers: vec![LayerSource::Path(layer.clone())],
            profile: Some(profile),
            ..StackPlan::default()
        };
        for path in [layer.clone(), place.path().to_owned(), place.path().join("none")] {
            assert!(MountStack::open(&plan(ProfileSource::File(path))).is_err());
        }
        let stack = MountStack::open(&plan(ProfileSource::Image(layer.clone()))).unwrap();
        assert!(stack.prefetcher.is_none(), "an archive that is no image has none");
        assert_eq!(stack.cache.used(), 0);
    }
}
