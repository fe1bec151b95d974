//! The front over a file system in memory: what is answered, what is asked, what is forgotten.

use std::{
    fs::{self, File, FileTimes},
    io::{ErrorKind, Read as _, Write as _},
    os::unix::{
        ffi::OsStrExt as _,
        fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
    },
    path::Path,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use fim::{
    fuse::{Opens, Options, WriteCache},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    vfs::{Ino, Invalidate as _, Time},
};

use crate::{
    memory::Memory,
    support::{Served, can_mount, eventually},
};

fn count(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn serve(memory: Memory, options: Options) -> (Arc<Memory>, Served) {
    let memory = Arc::new(memory);
    let served = Served::start(Arc::clone(&memory) as _, options);
    (memory, served)
}

fn errno(result: std::io::Result<impl Sized>) -> Option<i32> {
    result.err().and_then(|error| error.raw_os_error())
}

#[test]
fn files_come_and_go() {
    if !can_mount() {
        return;
    }
    let (memory, served) = serve(Memory::new(false), Options::default());
    fs::write(served.join("a"), b"hello").unwrap();
    fs::create_dir(served.join("d")).unwrap();
    fs::rename(served.join("a"), served.join("d/b")).unwrap();
    assert_eq!(fs::read(served.join("d/b")).unwrap(), b"hello");
    std::os::unix::fs::symlink("d/b", served.join("s")).unwrap();
    assert_eq!(fs::read_link(served.join("s")).unwrap(), Path::new("d/b"));
    let mut names: Vec<_> =
        fs::read_dir(&served.path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["d", "s"]);
    fs::remove_file(served.join("d/b")).unwrap();
    fs::remove_dir(served.join("d")).unwrap();
    fs::remove_file(served.join("s")).unwrap();
    assert_eq!(fs::read_dir(&served.path).unwrap().count(), 0);
    eventually("the kernel forgets what was deleted", || memory.len() == 1);
    served.stop();
}

#[test]
fn opening_and_reading_again_costs_no_message() {
    if !can_mount() {
        return;
    }
    let memory = Memory::new(true).with_file("a", &[7; 100_000], Time::default());
    let (memory, served) = serve(memory, Options::default());
    let look = || {
        assert_eq!(fs::read(served.join("a")).unwrap(), [7; 100_000]);
        assert_eq!(fs::read_dir(&served.path).unwrap().count(), 1);
        assert_eq!(errno(fs::metadata(served.join("absent"))), Some(libc::ENOENT));
    };
    look();
    // The very first open is answered ENOSYS only then; directory pages are kept from the next listing on.
    look();
    let asked = || {
        let requests = &memory.requests;
        [&requests.lookup, &requests.getattr, &requests.read, &requests.readdir, &requests.getxattr]
            .map(count)
    };
    let before = asked();
    look();
    look();
    assert_eq!(asked(), before, "lookup, getattr, read, readdir, getxattr");
    served.stop();
}

#[test]
fn small_writes_are_gathered_with_writeback_and_not_without() {
    if !can_mount() {
        return;
    }
    for (write_cache, expected) in [(WriteCache::Back, 1..=8), (WriteCache::Through, 256..=256)] {
        let (memory, served) = serve(Memory::new(false), Options { write_cache, ..Options::default() });
        let mut file = File::create(served.join("a")).unwrap();
        for _ in 0..256 {
            file.write_all(&[1; 4096]).unwrap();
        }
        drop(file);
        let writes = count(&memory.requests.write);
        assert!(expected.contains(&writes), "{write_cache:?}: {writes} messages");
        assert!(
            count(&memory.requests.getxattr) <= 1,
            "security.capability is not asked for again and again"
        );
        assert_eq!(fs::metadata(served.join("a")).unwrap().len(), 1 << 20);
        served.stop();
    }
}

#[test]
fn announced_opens_work_as_well() {
    if !can_mount() {
        return;
    }
    let (_, served) = serve(Memory::new(false), Options { opens: Opens::Announced, ..Options::default() });
    fs::write(served.join("a"), b"hello").unwrap();
    assert_eq!(fs::read(served.join("a")).unwrap(), b"hello");
    assert_eq!(fs::read_dir(&served.path).unwrap().count(), 1);
    served.stop();
}

#[test]
fn a_panic_is_an_io_error_and_the_next_request_is_answered() {
    if !can_mount() {
        return;
    }
    let (_, served) = serve(Memory::new(false), Options::default());
    for _ in 0..20 {
        assert_eq!(errno(fs::metadata(served.join("panic"))), Some(libc::EIO));
        assert_eq!(errno(fs::metadata(served.join("eio"))), Some(libc::EIO));
    }
    fs::write(served.join("a"), b"hello").unwrap();
    served.stop();
}

#[test]
fn names_end_at_255_bytes() {
    if !can_mount() {
        return;
    }
    let (_, served) = serve(Memory::new(false), Options::default());
    let (longest, longer) = ("n".repeat(255), "n".repeat(256));
    fs::write(served.join(&longest), b"").unwrap();
    fs::metadata(served.join(&longest)).unwrap();
    for longer in [longer, "n".repeat(4000)] {
        let path = served.join(&longer);
        assert_eq!(errno(fs::metadata(&path)), Some(libc::ENAMETOOLONG));
        assert_eq!(errno(File::create(&path)), Some(libc::ENAMETOOLONG));
        assert_eq!(errno(fs::create_dir(&path)), Some(libc::ENAMETOOLONG));
        assert_eq!(errno(fs::remove_file(&path)), Some(libc::ENAMETOOLONG));
        assert_eq!(errno(fs::remove_dir(&path)), Some(libc::ENAMETOOLONG));
        assert_eq!(errno(fs::rename(served.join(&longest), &path)), Some(libc::ENAMETOOLONG));
        assert_eq!(errno(std::os::unix::fs::symlink("x", &path)), Some(libc::ENAMETOOLONG));
    }
    served.stop();
}

#[test]
fn absent_names_are_remembered_unless_they_must_not_be() {
    if !can_mount() {
        return;
    }
    let (memory, served) = serve(Memory::new(false), Options::default());
    for (name, expected) in [("absent", 1), ("uncached", 10)] {
        let before = count(&memory.requests.lookup);
        for _ in 0..10 {
            assert_eq!(fs::metadata(served.join(name)).unwrap_err().kind(), ErrorKind::NotFound);
        }
        assert_eq!(count(&memory.requests.lookup) - before, expected, "{name}");
    }
    served.stop();
}

#[test]
fn notices_make_the_kernel_ask_again() {
    if !can_mount() {
        return;
    }
    let memory = Memory::new(true).with_file("a", b"one", Time::default());
    let (memory, served) = serve(memory, Options::default());
    let path = served.join("a");
    fs::read(&path).unwrap();
    let (lookups, reads) = (count(&memory.requests.lookup), count(&memory.requests.read));
    served.notices.entry(Ino::ROOT, b"a");
    served.notices.entry(Ino::ROOT, b"never heard of");
    served.notices.inode(Ino::new(2), true);
    let patience = Instant::now() + Duration::from_secs(10);
    while count(&memory.requests.lookup) == lookups || count(&memory.requests.read) == reads {
        assert!(Instant::now() < patience, "the kernel still believes what it was told");
        thread::sleep(Duration::from_millis(1));
        fs::read(&path).unwrap();
    }
    served.stop();
}

#[test]
fn times_before_the_epoch_go_through_both_ways() {
    if !can_mount() {
        return;
    }
    let time = Time { seconds: -2, nanos: 800_000_000 };
    let (memory, served) = serve(Memory::new(false).with_file("a", b"", time), Options::default());
    let shown = fs::metadata(served.join("a")).unwrap();
    assert_eq!((shown.mtime(), shown.mtime_nsec()), (-2, 800_000_000));
    let earlier: SystemTime = UNIX_EPOCH - Duration::from_millis(123_400_250);
    let file = File::options().write(true).open(served.join("a")).unwrap();
    file.set_times(FileTimes::new().set_modified(earlier)).unwrap();
    drop(file);
    assert_eq!(memory.mtime("a"), Time { seconds: -123_401, nanos: 750_000_000 });
    served.stop();
}

#[test]
fn the_umask_is_applied_once() {
    if !can_mount() {
        return;
    }
    let (_, served) = serve(Memory::new(false), Options::default());
    let script = format!(
        "cd '{}'; umask 027; : >file; mkdir dir; mkfifo fifo; mknod null c 1 3",
        served.path.display()
    );
    assert!(std::process::Command::new("sh").args(["-c", &script]).status().unwrap().success());
    for (name, mode) in [("file", 0o640), ("dir", 0o750), ("fifo", 0o640), ("null", 0o640)] {
        assert_eq!(fs::metadata(served.join(name)).unwrap().permissions().mode() & 0o7777, mode, "{name}");
    }
    let device = fs::metadata(served.join("null")).unwrap();
    assert!(device.file_type().is_char_device());
    assert_eq!(device.rdev(), 0x103);
    let mut null = Vec::new();
    File::open(served.join("null")).unwrap().read_to_end(&mut null).unwrap();
    served.stop();
}

#[test]
fn attributes_of_attributes() {
    if !can_mount() {
        return;
    }
    let (_, served) = serve(Memory::new(false), Options::default());
    let root = File::open(&served.path).unwrap();
    let mut small = [0_u8; 10];
    let mut large = vec![0_u8; 2000];
    let get = |buffer: &mut [u8]| rustix::fs::fgetxattr(&root, "user.long", buffer);
    assert_eq!(get(&mut small).err(), Some(rustix::io::Errno::RANGE));
    assert_eq!(get(&mut large), Ok(1000));
    assert_eq!(rustix::fs::fgetxattr_query(&root, "user.long"), Ok(1000));
    let absent = rustix::fs::fgetxattr(&root, "user.absent", &mut large);
    assert_eq!(absent.err(), Some(rustix::io::Errno::NODATA));
    let listed = rustix::fs::flistxattr(&root, &mut large).unwrap();
    assert_eq!(large[..listed], b"user.long\0"[..]);
    drop(root);
    served.stop();
}

#[test]
fn many_entries_are_listed_once_each() {
    if !can_mount() {
        return;
    }
    let (memory, served) = serve(Memory::new(false), Options::default());
    for at in 0..3000 {
        fs::write(served.join(&format!("{at:04}-{}", "x".repeat(at % 200))), b"").unwrap();
    }
    for _ in 0..2 {
        let mut names: Vec<_> = fs::read_dir(&served.path)
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                assert_eq!(entry.metadata().unwrap().ino(), std::os::unix::fs::DirEntryExt::ino(&entry));
                entry.file_name().as_bytes().to_vec()
            })
            .collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 3000);
    }
    assert!(count(&memory.requests.readdir) < 200);
    served.stop();
}
