//! Depth, lengths and numbers.

use std::{
    collections::BTreeSet,
    ffi::{CStr, OsString},
    fs,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
};

use rustix::{
    fs::{
        AtFlags, Mode, OFlags, RawDir, RenameFlags, SeekFrom, mkdirat, open, openat, renameat_with, seek,
        unlinkat,
    },
    io::Errno,
};

use crate::support::on_mount;

/// Ten times as much in an optimized build.
const FACTOR: usize = if cfg!(debug_assertions) { 1 } else { 10 };
const DEPTH: usize = 1_000 * FACTOR;
const MANY: usize = if FACTOR == 1 { 3_000 } else { 100_000 };

fn directory(at: impl rustix::path::Arg) -> OwnedFd {
    open(at, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap()
}

fn inside(dir: &OwnedFd, name: &str) -> OwnedFd {
    openat(dir, name, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap()
}

/// Names and offsets behind them, from where the descriptor stands, `most` at the most.
fn listed(dir: &OwnedFd, most: usize) -> Vec<(OsString, u64)> {
    let mut buffer = Vec::with_capacity(1 << 15);
    let mut raw = RawDir::new(dir.as_fd(), buffer.spare_capacity_mut());
    let mut found = Vec::new();
    while let Some(entry) = raw.next() {
        let entry = entry.unwrap();
        let name: &CStr = entry.file_name();
        found.push((std::ffi::OsStr::from_bytes(name.to_bytes()).to_owned(), entry.next_entry_cookie()));
        if found.len() == most {
            break;
        }
    }
    found
}

on_mount! {
    fn directories_are_as_deep_as_one_likes(at) {
        let top = directory(at);
        mkdirat(&top, "deep", Mode::RWXU).unwrap();
        let mut dir = inside(&top, "deep");
        for _ in 0..DEPTH {
            mkdirat(&dir, "d", Mode::RWXU).unwrap();
            dir = inside(&dir, "d");
        }
        let bottom = dir.try_clone().unwrap();
        fs::write(format!("/proc/self/fd/{}/leaf", std::os::fd::AsRawFd::as_raw_fd(&bottom)), "leaf").unwrap();
        // The top moves to another directory: everything below comes along.
        renameat_with(&top, "deep", inside(&top, "dir"), "moved", RenameFlags::NOREPLACE).unwrap();
        let mut dir = inside(&inside(&top, "dir"), "moved");
        for _ in 0..DEPTH {
            dir = inside(&dir, "d");
        }
        assert_eq!(rustix::fs::fstat(&dir).unwrap().st_ino, rustix::fs::fstat(&bottom).unwrap().st_ino);
        for _ in 0..DEPTH {
            dir = inside(&dir, "..");
        }
        drop((dir, bottom));
        let status = std::process::Command::new("rm").args(["-rf", "dir/moved"]).current_dir(at).status();
        assert!(status.unwrap().success());
        assert!(!at.join("dir/moved").exists());
    }

    fn paths_are_as_long_as_the_kernel_takes_them(at) {
        // 15 names of 255 bytes with their slashes, and one that fills 4,095 bytes.
        let name = "n".repeat(255);
        let mut path = String::new();
        std::env::set_current_dir(at).unwrap();
        for _ in 0..15 {
            path.push_str(&name);
            fs::create_dir(&path).unwrap();
            path.push('/');
        }
        path.push_str(&"f".repeat(4095 - path.len()));
        fs::write(&path, "deep").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "deep");
        fs::rename(&path, "short").unwrap();
        fs::rename("short", &path).unwrap();
        fs::remove_file(&path).unwrap();
        assert_eq!(fs::metadata(format!("{path}f")).unwrap_err().raw_os_error(), Some(libc::ENAMETOOLONG));
    }

    fn names_end_at_255_bytes(at) {
        let (longest, longer) = (at.join("n".repeat(255)), at.join("n".repeat(256)));
        fs::write(&longest, "").unwrap();
        let too_long = |error: std::io::Error| assert_eq!(error.raw_os_error(), Some(libc::ENAMETOOLONG));
        too_long(fs::write(&longer, "").unwrap_err());
        too_long(fs::metadata(&longer).unwrap_err());
        too_long(fs::create_dir(&longer).unwrap_err());
        too_long(fs::rename(&longest, &longer).unwrap_err());
        too_long(fs::hard_link(&longest, &longer).unwrap_err());
        too_long(fs::remove_file(&longer).unwrap_err());
        too_long(fs::read_link(&longer).unwrap_err());
    }

    fn a_directory_has_many_entries_that_come_and_go(at) {
        let path = at.join("empty");
        let start = std::time::Instant::now();
        for number in 0..MANY {
            fs::File::create(path.join(format!("file{number}"))).unwrap();
        }
        let made = start.elapsed();
        let dir = directory(&path);
        let first = listed(&dir, MANY / 2);
        let (_, half) = first.last().unwrap().clone();
        // What has been passed goes, and what is new comes: what stays is seen once.
        let passed: BTreeSet<_> = first.iter().map(|(name, _)| name.clone()).collect();
        let gone: Vec<_> = passed.iter().filter(|name| name.len() > 2).take(100).cloned().collect();
        for name in &gone {
            fs::remove_file(path.join(name)).unwrap();
        }
        fs::write(path.join("late"), "").unwrap();
        seek(&dir, SeekFrom::Start(half)).unwrap();
        let rest: BTreeSet<_> = listed(&dir, usize::MAX).into_iter().map(|(name, _)| name).collect();
        assert!(passed.is_disjoint(&rest), "shown twice");
        let all = passed.len() + rest.len() - usize::from(rest.contains(std::ffi::OsStr::new("late")));
        assert_eq!(all, MANY + 2, "every entry and the two dots");
        seek(&dir, SeekFrom::Start(0)).unwrap();
        let again: Vec<_> = listed(&dir, usize::MAX).into_iter().map(|(name, _)| name).collect();
        assert_eq!(again.len(), MANY + 2 - gone.len() + 1);
        for name in &again {
            match unlinkat(&dir, name.as_os_str(), AtFlags::empty()) {
                Ok(()) | Err(Errno::ISDIR) => {}
                Err(error) => panic!("{}: {error}", name.display()),
            }
        }
        assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
        println!("{MANY} entries: {made:?} to make, {:?} in all", start.elapsed());
    }
}
