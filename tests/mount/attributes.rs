//! Modes, owners, times, extended attributes, special files, names and locks.

use std::{
    fs::{self, File, FileTimes, OpenOptions},
    os::unix::{
        fs::{FileExt as _, FileTypeExt as _, MetadataExt, PermissionsExt as _},
        net::UnixListener,
    },
    process::Command,
    time::{Duration, UNIX_EPOCH},
};

use rustix::{
    fs::{FlockOperation, XattrFlags, flock},
    io::Errno,
};

use crate::support::on_mount;

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

on_mount! {
    fn modes_change(at) {
        for (name, mode) in [("file", 0o4711), ("dir", 0o1770), ("dir/a", 0o000)] {
            fs::set_permissions(at.join(name), fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(fs::metadata(at.join(name)).unwrap().permissions().mode() & 0o7777, mode, "{name}");
        }
    }

    fn attributes_of_a_large_file_cost_no_data(at) {
        let upper = at.parent().unwrap().join("upper");
        let before = fs::read(at.join("big")).unwrap();
        fs::set_permissions(at.join("big"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::rename(at.join("big"), at.join("dir/moved")).unwrap();
        let copy = fs::metadata(upper.join("dir/moved")).unwrap();
        assert_eq!(copy.len(), before.len() as u64);
        assert!(copy.blocks() < 100, "{} blocks", copy.blocks());
        assert!(fs::read(at.join("dir/moved")).unwrap() == before);
        let file = OpenOptions::new().write(true).open(at.join("dir/moved")).unwrap();
        file.write_all_at(b"new", 1_000_000).unwrap();
        file.sync_all().unwrap();
        let mut expected = before;
        expected[1_000_000..][..3].copy_from_slice(b"new");
        assert!(fs::read(at.join("dir/moved")).unwrap() == expected);
        assert!(fs::read(upper.join("dir/moved")).unwrap() == expected);
    }

    fn names_of_one_file_of_a_layer_stay_one(at) {
        fs::write(at.join("hard1"), "changed").unwrap();
        assert_eq!(fs::read_to_string(at.join("hard2")).unwrap(), "changed");
        let shown = ["hard1", "hard2"].map(|name| fs::metadata(at.join(name)).unwrap());
        assert_eq!(shown.each_ref().map(MetadataExt::nlink), [2, 2]);
        assert_eq!(shown[0].ino(), shown[1].ino());
        fs::remove_file(at.join("hard1")).unwrap();
        assert_eq!(fs::metadata(at.join("hard2")).unwrap().nlink(), 1);
    }

    fn owners_change_for_root(at) {
        let changed = std::os::unix::fs::chown(at.join("file"), Some(4711), Some(4712));
        if is_root() {
            changed.unwrap();
            let shown = fs::metadata(at.join("file")).unwrap();
            assert_eq!((shown.uid(), shown.gid()), (4711, 4712));
        } else {
            // EINVAL where the user namespace does not know the id at all.
            assert!(matches!(changed.unwrap_err().raw_os_error(), Some(libc::EPERM | libc::EINVAL)));
        }
        let own = fs::metadata(at).unwrap();
        std::os::unix::fs::chown(at.join("dir"), Some(own.uid()), Some(own.gid())).unwrap();
    }

    fn times_are_kept_to_the_nanosecond(at) {
        for (name, time) in [
            ("file", UNIX_EPOCH + Duration::new(1_234_567_890, 123_456_789)),
            ("dir/a", UNIX_EPOCH - Duration::new(1, 250_000_001)),
            ("dir", UNIX_EPOCH + Duration::new(7, 1)),
        ] {
            let file = File::open(at.join(name)).unwrap();
            file.set_times(FileTimes::new().set_modified(time).set_accessed(time)).unwrap();
            drop(file);
            let shown = fs::metadata(at.join(name)).unwrap();
            assert_eq!((shown.modified().unwrap(), shown.accessed().unwrap()), (time, time), "{name}");
        }
    }

    fn extended_attributes_come_and_go(at) {
        for name in ["file", "dir", "new"] {
            let path = at.join(name);
            if name == "new" {
                fs::write(&path, "").unwrap();
            }
            let get = |name: &str| {
                let mut value = [0; 100];
                rustix::fs::getxattr(&path, name, &mut value).map(|len| value[..len].to_vec())
            };
            let set = |value: &[u8], flags| rustix::fs::setxattr(&path, "user.test", value, flags);
            assert_eq!(get("user.test"), Err(Errno::NODATA));
            assert_eq!(set(b"one", XattrFlags::REPLACE), Err(Errno::NODATA));
            set(b"one", XattrFlags::CREATE).unwrap();
            assert_eq!(set(b"two", XattrFlags::CREATE), Err(Errno::EXIST));
            set(b"two", XattrFlags::empty()).unwrap();
            assert_eq!(get("user.test").unwrap(), b"two");
            let mut names = [0; 200];
            let len = rustix::fs::listxattr(&path, &mut names).unwrap();
            assert_eq!(&names[..len], b"user.test\0", "{name}: private marks are hidden");
            rustix::fs::removexattr(&path, "user.test").unwrap();
            assert_eq!(get("user.test"), Err(Errno::NODATA));
            assert_eq!(rustix::fs::removexattr(&path, "user.test"), Err(Errno::NODATA));
        }
    }

    fn special_files_are_made(at) {
        nix::unistd::mkfifo(&at.join("fifo"), nix::sys::stat::Mode::from_bits_truncate(0o640)).unwrap();
        assert!(fs::metadata(at.join("fifo")).unwrap().file_type().is_fifo());
        drop(UnixListener::bind(at.join("socket")).unwrap());
        assert!(fs::metadata(at.join("socket")).unwrap().file_type().is_socket());
        if is_root() {
            let made = Command::new("mknod").arg(at.join("null")).args(["c", "1", "3"]).status().unwrap();
            assert!(made.success());
            let null = fs::metadata(at.join("null")).unwrap();
            assert!(null.file_type().is_char_device());
            assert_eq!(null.rdev(), 0x103);
            fs::write(at.join("null"), "into nothing").unwrap();
        }
        let whiteout = Command::new("mknod").arg(at.join("whiteout")).args(["c", "0", "0"]).output().unwrap();
        assert!(!whiteout.status.success());
    }

    fn names_may_have_255_bytes_and_be_no_text(at) {
        use std::os::unix::ffi::OsStrExt as _;
        for name in [&[b'n'; 255][..], b"\xff\xfe\x01", b"with\nnewline", b" ", b".wh.not-a-whiteout", b"..."] {
            let path = at.join(std::ffi::OsStr::from_bytes(name));
            fs::write(&path, name).unwrap();
            assert_eq!(fs::read(&path).unwrap(), name);
            assert!(fs::read_dir(at).unwrap().any(|entry| entry.unwrap().file_name().as_bytes() == name));
        }
        let longer = fs::write(at.join("n".repeat(256)), "").unwrap_err();
        assert_eq!(longer.raw_os_error(), Some(libc::ENAMETOOLONG));
    }

    fn locks_exclude_each_other(at) {
        let open = || OpenOptions::new().read(true).write(true).open(at.join("file")).unwrap();
        let (one, two) = (open(), open());
        flock(&one, FlockOperation::LockExclusive).unwrap();
        assert_eq!(flock(&two, FlockOperation::NonBlockingLockShared), Err(Errno::AGAIN));
        flock(&one, FlockOperation::Unlock).unwrap();
        flock(&two, FlockOperation::NonBlockingLockExclusive).unwrap();
        drop(two);
        rustix::fs::fcntl_lock(&one, FlockOperation::LockExclusive).unwrap();
        let script = "import fcntl, sys\nfcntl.lockf(open(sys.argv[1], 'r+'), fcntl.LOCK_EX | fcntl.LOCK_NB)";
        let Ok(other) = Command::new("python3").args(["-c", script]).arg(at.join("file")).output() else {
            return crate::support::skip("python3");
        };
        assert!(String::from_utf8_lossy(&other.stderr).contains("BlockingIOError"));
    }

    /// It changes neither owner nor group, and drops privileges all the same, as on other file systems.
    fn a_chown_to_nobody_else_drops_suid(at) {
        for name in ["file", "hard1"] {
            fs::set_permissions(at.join(name), fs::Permissions::from_mode(0o6755)).unwrap();
            std::os::unix::fs::chown(at.join(name), None, None).unwrap();
            assert_eq!(fs::metadata(at.join(name)).unwrap().mode() & 0o7777, 0o755, "{name}");
        }
    }
}
