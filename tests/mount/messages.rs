//! Few messages: what walks and reads of a read-only mount cost, counted by the front.

use std::{
    collections::BTreeMap,
    fs,
    num::NonZeroUsize,
    path::Path,
    process::{Command, Stdio},
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
};

use fim::{
    dwarfs::{
        format::section::SectionKind,
        read::{Archive, BlockCache, CacheOptions, Place},
        write::{DirSource, WriteOptions, write_archive},
    },
    fuse::{Options, Request},
    layer::ArchiveLayer,
    overlay::{Overlay, OverlayOptions},
    sync::Arc,
    vfs::{Layer, NoInvalidate},
};

use crate::support::{Served, can_mount};

/// Directories of a sample tree, each with so many files that they share a reply; the first one has more by far.
const DIRECTORIES: usize = 40;
const FILES: usize = 30;
const LARGE: usize = 2000;
/// Directories that these are in.
const TOPS: usize = 5;

fn make_tree(root: &Path, prefix: &str) {
    for directory in 0..DIRECTORIES {
        let path = root.join(format!("top{}/dir{directory}", directory % TOPS));
        fs::create_dir_all(&path).unwrap();
        for file in 0..FILES {
            fs::write(path.join(format!("{prefix}{file}")), format!("{directory} {file}")).unwrap();
        }
        if directory == 0 {
            for file in 0..LARGE {
                fs::write(path.join(format!("{prefix}file-{file}")), b"").unwrap();
            }
        }
        std::os::unix::fs::symlink("nowhere", path.join(format!("{prefix}link"))).unwrap();
    }
}

/// Archives of the sample tree, whose names begin with one letter or another.
static ARCHIVES: LazyLock<[Vec<u8>; 2]> = LazyLock::new(|| {
    ["a", "b"].map(|prefix| {
        let tree = tempfile::tempdir().unwrap();
        make_tree(tree.path(), prefix);
        let options = WriteOptions { threads: NonZeroUsize::MIN, ..WriteOptions::default() };
        let mut bytes = Vec::new();
        write_archive(&DirSource::open(tree.path()).unwrap(), &options, &mut bytes, &()).unwrap();
        bytes
    })
});

fn layer(bytes: &[u8]) -> Arc<dyn Layer> {
    let place = Place::At { offset: 0, len: None };
    let cache = BlockCache::with(CacheOptions::serving(64 << 20, None));
    let archive = Archive::open(Arc::new(bytes.to_vec()), place, &cache).unwrap();
    Arc::new(ArchiveLayer::new(archive).unwrap())
}

fn serve(layers: usize) -> Served {
    let layers = ARCHIVES.iter().take(layers).map(|bytes| layer(bytes)).collect();
    let overlay = Overlay::new(layers, None, OverlayOptions::default(), Arc::new(NoInvalidate)).unwrap();
    Served::start(Arc::new(overlay), Options::default())
}

/// Names that may be asked for in a walk of the sample tree by who looks at everything.
const QUESTIONS: u64 = 8;

/// Runs a program over the mount and returns the requests that it cost.
fn cost(served: &Served, words: &[&str]) -> BTreeMap<Request, u64> {
    let before: BTreeMap<_, _> = served.requests().counted().collect();
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).current_dir("/").stdout(Stdio::null());
    assert!(command.status().unwrap().success(), "{words:?}");
    let after = served.requests().counted();
    after
        .map(|(request, count)| (request, count - before.get(&request).copied().unwrap_or(0)))
        .filter(|(_, count)| *count > 0)
        .collect()
}

/// A walk that shows attributes, one that does not, and one that shows everything.
const WALKS: [&[&str]; 3] = [&["find"], &["find", "-printf", "%s %T@ %U %m "], &["ls", "-lR"]];

fn walk(served: &Served, words: &[&str]) -> BTreeMap<Request, u64> {
    let mut words = words.to_vec();
    words.insert(1, served.path.to_str().unwrap());
    cost(served, &words)
}

#[test]
fn a_walk_costs_messages_by_directories_and_the_next_one_none() {
    if !can_mount() {
        return;
    }
    for layers in [1, 2] {
        for words in WALKS {
            let served = serve(layers);
            let first = walk(&served, words);
            println!("{} layers, {}: {first:?}", layers, words.join(" "));
            let count = |request| first.get(&request).copied().unwrap_or(0);
            for never in [Request::ReadDir, Request::Open] {
                assert_eq!(count(never), 0, "{words:?}: {first:?}");
            }
            // Who looks at files is asked for it now and then, by a name without attributes.
            let lookups = if words.len() == 1 { 0 } else { QUESTIONS };
            assert!(count(Request::Lookup) <= lookups, "{words:?}: {first:?}");
            for once in [Request::GetAttr, Request::OpenDir, Request::GetXattr, Request::ListXattr] {
                assert!(count(once) <= 1, "{words:?}: {first:?}");
            }
            // A listing ends with an empty reply; a reply holds at least 128 of our entries.
            let entries = layers * (DIRECTORIES * (FILES + 1) + LARGE);
            let directories = DIRECTORIES + TOPS + 1;
            let most = u64::try_from(2 * directories + entries / 128).unwrap();
            assert!(count(Request::ReadDirPlus) <= most, "more than {most}: {first:?}");
            assert_eq!(walk(&served, words), BTreeMap::new(), "{words:?} again");
            served.stop();
        }
    }
}

#[test]
fn one_file_and_one_directory_cost_what_they_need() {
    if !can_mount() {
        return;
    }
    let served = serve(1);
    let path = |below: &str| served.join(below).to_str().unwrap().to_owned();
    let lookups = |cost: &BTreeMap<Request, u64>| cost.get(&Request::Lookup).copied().unwrap_or(0);
    let stat = cost(&served, &["stat", "-c", "%s", &path("top1/dir1/a5")]);
    println!("{stat:?}");
    assert_eq!(lookups(&stat), 3, "a look-up a name: {stat:?}");
    assert!(!stat.contains_key(&Request::ReadDirPlus), "{stat:?}");
    let list = cost(&served, &["ls", "-l", &path("top0/dir0")]);
    println!("{list:?}");
    assert!(lookups(&list) <= 2 + 1, "two directories and a question: {list:?}");
    served.stop();
}

#[test]
fn names_are_listed_bare_until_somebody_looks_at_them() {
    if !can_mount() {
        return;
    }
    let served = serve(1);
    let lookups = |cost: &BTreeMap<Request, u64>| cost.get(&Request::Lookup).copied().unwrap_or(0);
    assert_eq!(lookups(&walk(&served, &["find", "-type", "f"])), 0);
    // Most of the files have no node: nobody asked for them.
    let files = u64::try_from(DIRECTORIES * (FILES + 1)).unwrap();
    let looking = walk(&served, WALKS[1]);
    println!("{looking:?}");
    let asked = lookups(&looking);
    assert!(asked > 0 && asked < files / 2, "{asked} of {files} names asked for: {looking:?}");
    // Listings that were taken back while they were walked are listed once more.
    assert_eq!(lookups(&walk(&served, WALKS[1])), 0, "all is known now");
    assert_eq!(walk(&served, WALKS[1]), BTreeMap::new());
    served.stop();
}

#[test]
fn bare_entries_say_what_the_others_say() {
    use std::os::unix::fs::{DirEntryExt as _, MetadataExt as _};
    if !can_mount() {
        return;
    }
    let served = serve(2);
    walk(&served, WALKS[0]);
    let mut seen = 0;
    let mut pending = vec![served.path.clone()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let entry = entry.unwrap();
            let found = fs::symlink_metadata(entry.path()).unwrap();
            assert_eq!(entry.ino(), found.ino(), "{:?}", entry.path());
            assert_eq!(entry.file_type().unwrap(), found.file_type(), "{:?}", entry.path());
            if found.is_dir() {
                pending.push(entry.path());
            }
            seen += 1;
        }
    }
    assert_eq!(seen, 2 * (DIRECTORIES * (FILES + 1) + LARGE) + DIRECTORIES + TOPS);
    served.stop();
}

#[test]
fn reading_costs_a_message_a_file_and_the_next_time_none() {
    if !can_mount() {
        return;
    }
    let served = serve(2);
    walk(&served, WALKS[1]);
    let script = format!("find '{}' -type f -size +0 -print0 | xargs -0 -n64 cat", served.path.display());
    let first = cost(&served, &["sh", "-c", &script]);
    println!("{first:?}");
    let files = u64::try_from(2 * DIRECTORIES * FILES).unwrap();
    let expected = [(Request::Open, 1), (Request::Read, files), (Request::Flush, 1)];
    assert_eq!(first, BTreeMap::from(expected));
    assert_eq!(cost(&served, &["sh", "-c", &script]), BTreeMap::new());
    served.stop();
}

const PAGE: u64 = 4 << 10;

/// An archive with one `file` of 24 MiB, and what is in that.
static LARGE_FILE: LazyLock<(Vec<u8>, Vec<u8>)> = LazyLock::new(|| {
    let tree = tempfile::tempdir().unwrap();
    // Each page is full of its number.
    let bytes: Vec<u8> = (0..24_u32 << 18).flat_map(|word| (word >> 10).to_le_bytes()).collect();
    fs::write(tree.path().join("file"), &bytes).unwrap();
    let mut archive = Vec::new();
    write_archive(&DirSource::open(tree.path()).unwrap(), &WriteOptions::default(), &mut archive, &())
        .unwrap();
    (archive, bytes)
});

fn serve_bytes(archive: &[u8]) -> Served {
    let overlay =
        Overlay::new(vec![layer(archive)], None, OverlayOptions::default(), Arc::new(NoInvalidate)).unwrap();
    Served::start(Arc::new(overlay), Options::default())
}

/// Sixteen threads read all pages of `file`, each in its own stretch, here and there; `expect` looks at each answer.
fn jump_about(served: &Served, pages: u64, expect: &(dyn Fn(u64, std::io::Result<&[u8]>) + Sync)) {
    use std::os::unix::fs::FileExt as _;
    const JOBS: u64 = 16;
    let stretch = pages / JOBS;
    std::thread::scope(|scope| {
        for job in 0..JOBS {
            scope.spawn(move || {
                let file = fs::File::open(served.join("file")).unwrap();
                let mut page = vec![0; usize::try_from(PAGE).unwrap()];
                for step in 0..stretch {
                    let number = job * stretch + step * 149 % stretch;
                    let outcome = file.read_exact_at(&mut page, number * PAGE);
                    expect(number, outcome.map(|()| &*page));
                }
            });
        }
    });
}

#[test]
fn many_who_jump_about_get_their_pages_with_few_messages() {
    if !can_mount() {
        return;
    }
    let (archive, bytes) = &*LARGE_FILE;
    let served = serve_bytes(archive);
    let pages = (24 << 20) / PAGE;
    jump_about(&served, pages, &|number, page| {
        let start = usize::try_from(number * PAGE).unwrap();
        assert!(page.unwrap() == &bytes[start..start + 4_096], "page {number}");
    });
    let reads = served.requests().counted().find(|(kind, _)| *kind == Request::Read).map_or(0, |(_, n)| n);
    println!("{reads} messages for {pages} pages");
    assert!(reads < pages / 4 * 3, "{reads} messages for {pages} pages");
    served.stop();
}

#[test]
fn pages_of_a_damaged_block_are_errors_and_nobody_waits_for_ever() {
    if !can_mount() {
        return;
    }
    let (mut archive, bytes) = LARGE_FILE.clone();
    let second = {
        let place = Place::At { offset: 0, len: None };
        let archive = Archive::open(Arc::new(archive.clone()), place, &BlockCache::new(1 << 22)).unwrap();
        let blocks = archive.index().sections().iter().filter(|section| section.kind == SectionKind::Block);
        let second = blocks.skip(1).min_by_key(|section| section.offset).unwrap();
        usize::try_from(second.offset.midpoint(second.end)).unwrap()
    };
    archive[second] ^= 1;
    let served = serve_bytes(&archive);
    let errors = AtomicU64::new(0);
    jump_about(&served, (24 << 20) / PAGE, &|number, page| match page {
        Ok(page) => {
            let start = usize::try_from(number * PAGE).unwrap();
            assert!(page == &bytes[start..start + 4_096], "page {number}");
        }
        Err(error) => {
            assert_eq!(error.raw_os_error(), Some(libc::EIO), "page {number}");
            errors.fetch_add(1, Ordering::Relaxed);
        }
    });
    assert_eq!(
        errors.into_inner(),
        (8 << 20) / PAGE,
        "of all pages behind the first 16 MiB, and of no others"
    );
    served.stop();
}

#[test]
fn reads_here_and_there_have_the_rest_handed_over() {
    use std::os::unix::fs::FileExt as _;
    if !can_mount() {
        return;
    }
    let (archive, bytes) = &*LARGE_FILE;
    let served = serve_bytes(archive);
    let file = fs::File::open(served.join("file")).unwrap();
    let reads = || served.requests().counted().find(|(kind, _)| *kind == Request::Read).map_or(0, |(_, n)| n);
    let mut page = vec![0; usize::try_from(PAGE).unwrap()];
    let mut read = |number: u64| {
        file.read_exact_at(&mut page, number * PAGE).unwrap();
        let start = usize::try_from(number * PAGE).unwrap();
        assert!(page == bytes[start..start + page.len()], "page {number}");
    };
    let pages = (24 << 20) / PAGE;
    // Jumps all over the file, each page once.
    let order: Vec<u64> = (0..pages).map(|number| number * 2_741 % pages).collect();
    for number in &order[..64] {
        read(*number);
    }
    std::thread::sleep(std::time::Duration::from_secs(2));
    let before = reads();
    for number in &order[64..] {
        read(*number);
    }
    assert!(reads() - before < 64, "{} messages for {} pages", reads() - before, pages - 64);
}

/// As `fim-overlay set kernel` has it: what the mount is asked by kernel overlayfs over it.
#[test]
fn kernel_overlayfs_over_it_costs_no_opens_and_no_attributes() {
    if !can_mount() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for name in ["u", "w", "m"] {
        fs::create_dir(folder.path().join(name)).unwrap();
    }
    let served = serve(2);
    let over = |script: &str| {
        let script = format!(
            "cd '{}' && mount -t overlay o -o 'lowerdir={},upperdir=u,workdir=w,userxattr,index=off,xino=off' m && {script}",
            folder.path().display(),
            served.path.display()
        );
        cost(&served, &["unshare", "-m", "sh", "-c", &script])
    };
    let walk = over("find m -printf '%s %T@ %U %m ' > /dev/null");
    println!("walk: {walk:?}");
    let read = "find m -type f -size +0 -print0 | xargs -0 -n64 cat";
    let first = over(read);
    println!("read: {first:?}");
    let again = over(read);
    println!("read again: {again:?}");
    let written = over(
        "sh -c 'cd m/top1/dir1 && for i in $(seq 200); do echo x > new$i; done; rm new*; mkdir d; mv d e; rmdir e'",
    );
    println!("write: {written:?}");
    for counted in [&walk, &first, &again, &written] {
        for once in [Request::Open, Request::OpenDir, Request::GetXattr, Request::ListXattr] {
            assert!(counted.get(&once).copied().unwrap_or(0) <= 1, "{once:?}: {counted:?}");
        }
    }
    assert_eq!(first.get(&Request::Read).copied(), u64::try_from(2 * DIRECTORIES * FILES).ok());
    assert_eq!(again.get(&Request::Read), None);
    served.stop();
}
