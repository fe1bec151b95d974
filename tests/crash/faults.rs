//! File systems that are full, over quota, broken or read-only: whoever waits for stable storage hears of it, what was
//! there stays, and when the trouble is over everything works again.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{FileExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use fuser::Errno;
use nix::mount::{MsFlags, mount};

use crate::{
    disk::Disk,
    history::dump,
    machine::{Fim, Volume, can_crash, check_swept, format, has, run, scratch, succeed, text},
    needs::skip,
    rng::Rng,
};

/// Length of the large file of the layer.
const BIG: usize = 6 << 20;

/// An upper on a file system of its own, over a small layer.
struct Bench {
    fim: Option<Fim>,
    volume: Option<Volume>,
    /// What the volume is on, where the test serves it.
    disk: Option<Disk>,
    scratch: tempfile::TempDir,
}

impl Bench {
    fn new(scratch: tempfile::TempDir, image: &Path, kind: &str, options: &str) -> nix::Result<Self> {
        let at = |name: &str| scratch.path().join(name);
        fs::create_dir_all(at("lower/dir")).unwrap();
        fs::write(at("lower/big"), big()).unwrap();
        for name in ["lower/small", "lower/dir/a", "lower/dir/b"] {
            fs::write(at(name), name).unwrap();
        }
        let volume = Volume::try_mount(image, &at("volume"), kind, options)?;
        for dir in ["upper", "work"] {
            fs::create_dir(volume.join(dir)).unwrap();
        }
        let mut bench = Self { fim: None, volume: Some(volume), disk: None, scratch };
        bench.start();
        Ok(bench)
    }

    fn start(&mut self) {
        let upper = self.at("volume/upper");
        self.fim = Some(Fim::mount(&self.at("lower"), &upper, &self.at("mount")));
        check_swept(&upper);
    }

    fn at(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn shown(&self, name: &str) -> PathBuf {
        self.at("mount").join(name)
    }

    /// Starts again; what is to be seen stays.
    fn again(&mut self) {
        let before = dump(&self.at("mount"));
        self.fim = None;
        self.start();
        assert!(dump(&self.at("mount")) == before, "another start shows the same");
    }

    /// Checks that the layer is as it was, and that everything works.
    fn end(mut self) {
        self.again();
        fs::write(self.shown("dir/new"), "new").unwrap();
        fs::write(self.shown("dir/a"), "changed").unwrap();
        File::open(self.shown("dir/a")).unwrap().sync_all().unwrap();
        self.again();
        assert_eq!(fs::read(self.shown("dir/a")).unwrap(), b"changed");
        assert!(fs::read(self.at("lower/big")).unwrap() == big());
        for name in ["lower/small", "lower/dir/a", "lower/dir/b"] {
            assert_eq!(fs::read_to_string(self.at(name)).unwrap(), name);
        }
    }
}

fn big() -> Vec<u8> {
    Rng::new(77).bytes(BIG)
}

fn plain_image(scratch: &Path, len: u64, words: &[&str]) -> PathBuf {
    let path = scratch.join("image");
    fs::write(&path, format(scratch, len, words)).unwrap();
    path
}

fn errno<T: std::fmt::Debug>(result: io::Result<T>) -> i32 {
    result.unwrap_err().raw_os_error().unwrap()
}

/// Writes to `path` and waits for stable storage, until that fails.
fn fill(path: &Path) -> i32 {
    let mut file = File::create(path).unwrap();
    for _ in 0..10_000 {
        if let Err(error) = file.write_all(&[b'x'; 64 << 10]).and_then(|()| file.sync_all()) {
            return error.raw_os_error().unwrap();
        }
    }
    panic!("nothing is ever full");
}

/// Changes a byte of a file and waits for stable storage.
fn change(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    file.write_all_at(b"!", 5)?;
    file.sync_all()
}

#[test]
fn a_full_file_system_refuses_what_does_not_fit_and_nothing_else() {
    if !can_crash() {
        return;
    }
    let scratch = scratch();
    let image = plain_image(scratch.path(), 16 << 20, &["-J", "size=4", "-m", "0"]);
    let mut bench = Bench::new(scratch, &image, "ext4", "").unwrap();
    assert_eq!(fill(&bench.shown("filler")), libc::ENOSPC);
    // The last of it goes to small files.
    let _ = fill(&bench.shown("filler2"));

    let big_file = bench.shown("big");
    assert_eq!(
        errno(OpenOptions::new().write(true).open(&big_file).unwrap().set_len(BIG as u64 / 2)),
        libc::ENOSPC
    );
    assert!(fs::read(&big_file).unwrap() == big(), "a truncation that failed changes nothing");
    assert_eq!(errno(change(&big_file)), libc::ENOSPC, "fsync hears of it");
    bench.fim = None;
    bench.start();
    assert!(fs::read(&big_file).unwrap() == big(), "a copy that failed half-way is none");
    // What needs no room goes on.
    fs::remove_file(bench.shown("small")).unwrap();
    fs::rename(bench.shown("dir/a"), bench.shown("dir/c")).unwrap();
    fs::rename(bench.shown("dir/c"), bench.shown("dir/a")).unwrap();
    bench.again();
    assert!(!bench.shown("small").exists());

    fs::remove_file(bench.shown("filler")).unwrap();
    change(&big_file).unwrap();
    let mut changed = big();
    changed[5] = b'!';
    assert!(fs::read(&big_file).unwrap() == changed);
    bench.end();
}

#[test]
fn without_inodes_nothing_is_made_and_names_still_go() {
    if !can_crash() {
        return;
    }
    let scratch = scratch();
    let image = plain_image(scratch.path(), 16 << 20, &["-J", "size=4", "-N", "64"]);
    let mut bench = Bench::new(scratch, &image, "ext4", "").unwrap();
    let mut made = Vec::new();
    let error = loop {
        let path = bench.shown(&format!("dir/{}", made.len()));
        match made.len() % 3 {
            0 => match fs::create_dir(&path) {
                Err(error) => break error,
                Ok(()) => made.push(path),
            },
            _ => match File::create_new(&path) {
                Err(error) => break error,
                Ok(_) => made.push(path),
            },
        }
        assert!(made.len() < 1000);
    };
    assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
    let listed = fs::read_dir(bench.shown("dir")).unwrap().count();
    assert_eq!(listed, made.len() + 2, "what could not be made is not there");
    // Neither can a file be copied up.
    let chmod = fs::set_permissions(bench.shown("dir/b"), fs::Permissions::from_mode(0o600));
    assert_eq!(errno(chmod), libc::ENOSPC);
    bench.again();
    for path in made {
        match path.is_dir() {
            true => fs::remove_dir(path).unwrap(),
            false => fs::remove_file(path).unwrap(),
        }
    }
    // What is removed is freed when the kernel has forgotten it, which it says a little later.
    let mut patience = 500;
    while let Err(error) = fs::remove_file(bench.shown("dir/b")) {
        assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
        assert!(patience > 0, "the inodes of what was removed are not free");
        patience -= 1;
        std::thread::sleep(Duration::from_millis(10));
    }
    bench.end();
}

/// On btrfs: its limits bind everybody, root's server as well, which those of ext4 and xfs do not.
#[test]
fn over_quota_everybody_who_waits_hears_of_it() {
    if !can_crash() {
        return;
    }
    if !has("mkfs.btrfs") || !has("btrfs") {
        return skip("mkfs.btrfs and btrfs");
    }
    let scratch = scratch();
    let image = scratch.path().join("image");
    File::create(&image).unwrap().set_len(256 << 20).unwrap();
    succeed("mkfs.btrfs", &["-q", text(&image)]);
    let Ok(mut bench) = Bench::new(scratch, &image, "btrfs", "") else { return skip("btrfs in the kernel") };
    let volume = bench.at("volume");
    let btrfs = |words: &[&str]| succeed("btrfs", &[words, &[text(&volume)]].concat());
    btrfs(&["quota", "enable"]);
    btrfs(&["qgroup", "limit", "8m"]);

    assert_eq!(fill(&bench.shown("filler")), libc::EDQUOT);
    assert_eq!(errno(change(&bench.shown("big"))), libc::EDQUOT, "a copy-up hears of it");
    let big_file = bench.shown("big");
    let shorter = OpenOptions::new().write(true).open(&big_file).unwrap().set_len(BIG as u64 / 2);
    assert_eq!(errno(shorter), libc::EDQUOT);
    bench.fim = None;
    bench.start();
    assert!(fs::read(&big_file).unwrap() == big(), "a copy that failed half-way is none");
    assert_eq!(errno(fs::rename(bench.shown("dir/a"), bench.shown("dir/c"))), libc::EDQUOT);
    assert_eq!(fs::read_to_string(bench.shown("dir/a")).unwrap(), "lower/dir/a");
    // What needs no room goes on.
    fs::remove_file(bench.shown("filler")).unwrap();
    // What was removed counts until the kernel has forgotten it and btrfs has written that.
    let patience = Instant::now() + Duration::from_secs(20);
    while let Err(error) = change(&big_file) {
        assert_eq!(error.raw_os_error(), Some(libc::EDQUOT));
        assert!(Instant::now() < patience, "the room of what was removed is not free");
        btrfs(&["filesystem", "sync"]);
    }
    bench.end();
}

#[test]
fn a_broken_disk_is_never_called_stable_storage() {
    if !can_crash() {
        return;
    }
    let scratch = scratch();
    let disk = Disk::serve(&scratch.path().join("disk"), format(scratch.path(), 64 << 20, &["-J", "size=4"]));
    let image = disk.path();
    let mut bench = Bench::new(scratch, &image, "ext4", "errors=remount-ro").unwrap();
    bench.disk = Some(disk);
    fs::write(bench.shown("kept"), "kept").unwrap();
    File::open(bench.shown("kept")).unwrap().sync_all().unwrap();
    change(&bench.shown("big")).unwrap();

    let fail = |bench: &Bench, errno| bench.disk.as_ref().unwrap().fail(errno);
    fail(&bench, Some(Errno::EIO));
    let broken = [libc::EIO, libc::EROFS];
    let mut refused = 0;
    for round in 0..5 {
        for name in ["kept", "dir/a", "new"] {
            let path = bench.shown(name);
            // Nothing that waits succeeds; what does not wait may.
            let result =
                OpenOptions::new().write(true).create(true).truncate(false).open(&path).and_then(|file| {
                    file.write_all_at(b"lost", 0)?;
                    file.sync_all()
                });
            assert!(broken.contains(&errno(result)), "round {round}, {name}");
            refused += 1;
        }
        let synced = File::open(bench.shown("dir")).and_then(|dir| {
            fs::write(bench.shown("dir/more"), "")?;
            dir.sync_all()
        });
        assert!(broken.contains(&errno(synced)), "round {round}");
    }
    assert_eq!(refused, 15);
    assert_eq!(fs::read_to_string(bench.shown("small")).unwrap(), "lower/small", "layers are read as ever");

    // Somebody repairs the disk.
    bench.fim = None;
    bench.volume = None;
    fail(&bench, None);
    bench.volume = Some(Volume::mount(&image, &bench.at("volume"), "ext4", ""));
    bench.start();
    let kept = fs::read_to_string(bench.shown("kept")).unwrap();
    assert!(kept == "kept" || kept == "lost", "{kept:?}");
    let mut changed = big();
    changed[5] = b'!';
    assert!(fs::read(bench.shown("big")).unwrap() == changed, "what had been synced");
    bench.end();
}

#[test]
fn a_file_system_that_becomes_read_only_is_read() {
    if !can_crash() {
        return;
    }
    let scratch = scratch();
    let image = plain_image(scratch.path(), 64 << 20, &["-J", "size=4"]);
    let mut bench = Bench::new(scratch, &image, "ext4", "").unwrap();
    fs::write(bench.shown("kept"), "kept").unwrap();
    File::open(bench.shown("kept")).unwrap().sync_all().unwrap();
    // As ext4 does by itself when it finds that it is damaged.
    let none = None::<&str>;
    mount(none, &bench.at("volume"), none, MsFlags::MS_REMOUNT, Some("abort")).unwrap();

    let at = |name: &str| bench.shown(name);
    assert_eq!(errno(File::create_new(at("new"))), libc::EROFS);
    assert_eq!(errno(fs::create_dir(at("dir/new"))), libc::EROFS);
    assert_eq!(errno(fs::remove_file(at("small"))), libc::EROFS);
    assert_eq!(errno(fs::remove_file(at("kept"))), libc::EROFS);
    assert_eq!(errno(fs::rename(at("small"), at("dir/a"))), libc::EROFS);
    assert_eq!(errno(fs::rename(at("dir"), at("directory"))), libc::EROFS);
    assert_eq!(errno(fs::set_permissions(at("big"), fs::Permissions::from_mode(0o600))), libc::EROFS);
    assert_eq!(errno(OpenOptions::new().write(true).open(at("dir/a")).unwrap().set_len(0)), libc::EROFS);
    assert_eq!(errno(change(&at("dir/b"))), libc::EROFS);
    assert_eq!(fs::read_to_string(at("kept")).unwrap(), "kept");
    assert_eq!(fs::read_to_string(at("small")).unwrap(), "lower/small");
    assert!(!at("new").exists() && at("dir").exists());

    bench.fim = None;
    bench.volume = None;
    let repaired = run("e2fsck", &["-fp", text(&image)]);
    assert!(repaired.status.code().is_some_and(|code| code < 4), "{repaired:?}");
    bench.volume = Some(Volume::mount(&image, &bench.at("volume"), "ext4", ""));
    bench.start();
    assert_eq!(fs::read_to_string(bench.shown("dir/b")).unwrap(), "lower/dir/b");
    bench.end();
}
