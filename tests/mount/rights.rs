//! Who may run with whose rights, and what writing takes away; files without a name; times; locks.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::Read as _,
    os::{
        fd::AsRawFd as _,
        unix::{
            fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, chown},
            process::CommandExt as _,
        },
    },
    path::Path,
    process::Command,
    thread::sleep,
    time::{Duration, UNIX_EPOCH},
};

use nix::unistd::geteuid;
use rustix::{
    fs::{CWD, FallocateFlags, RenameFlags, XattrFlags, fallocate, fstat, linkat, renameat_with, setxattr},
    io::Errno,
};

use crate::support::on_mount;

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// Runs a shell script as another user, with its first argument.
fn as_user(uid: u32, gid: u32, script: &str, path: &Path) -> bool {
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh"]).arg(path).uid(uid).gid(gid);
    command.output().unwrap().status.success()
}

on_mount! {
    fn writing_takes_set_id_bits_and_capabilities(at) {
        if !geteuid().is_root() {
            return;
        }
        // A capability set: version 2, effective, CAP_NET_RAW.
        let capability = [&0x0200_0001_u32.to_le_bytes()[..], &(1_u32 << 13).to_le_bytes(), &[0; 12]].concat();
        let direct = "dd if=/dev/zero of=\"$1\" bs=4096 count=1 oflag=direct conv=notrunc status=none";
        let cases: [(&str, &str, u32, u32); 7] = [
            ("write", "echo x >>\"$1\"", 0o6777, 0o777),
            ("truncate", "truncate -s 1 \"$1\"", 0o6777, 0o777),
            ("open with O_TRUNC", ": >\"$1\"", 0o6777, 0o777),
            ("fallocate", "fallocate -l 9000 \"$1\"", 0o6777, 0o777),
            ("direct write", direct, 0o6777, 0o777),
            ("write without group execution", "echo x >>\"$1\"", 0o4766, 0o766),
            ("read", "cat \"$1\"", 0o6777, 0o6777),
        ];
        for name in ["file", "new"] {
            let path = at.join(name);
            for (what, script, before, after) in cases {
                fs::write(&path, "text").unwrap();
                set_mode(&path, before);
                setxattr(&path, "security.capability", &capability, XattrFlags::empty()).unwrap();
                assert!(as_user(1234, 1234, script, &path), "{name}: {what}");
                assert_eq!(mode(&path), after, "{name}: {what}");
                let kept = fs::File::open(&path).is_ok_and(|file| {
                    rustix::fs::fgetxattr(file, "security.capability", &mut [0_u8; 64]).is_ok()
                });
                assert_eq!(kept, what == "read", "{name}: {what}");
            }
            set_mode(&path, 0o6755);
            chown(&path, Some(77), Some(77)).unwrap();
            assert_eq!(mode(&path), 0o755, "{name}: chown");
        }
    }

    fn writing_takes_sgid_from_who_is_not_in_the_group(at) {
        if !geteuid().is_root() {
            return;
        }
        // The group may not execute it.
        let scripts = ["echo x >>\"$1\"", "truncate -s 1 \"$1\"", ": >\"$1\"", "fallocate -l 9000 \"$1\""];
        for (name, script) in ["file", "new"].iter().flat_map(|name| scripts.map(|script| (name, script))) {
            let path = at.join(name);
            let changed_by = |uid: &str, groups: &str| {
                fs::write(&path, "text").unwrap();
                chown(&path, Some(1234), Some(500)).unwrap();
                set_mode(&path, 0o6666);
                let mut command = Command::new("setpriv");
                command.args(["--reuid", uid, "--regid", uid, "--groups", groups, "sh", "-c", script, "sh"]);
                assert!(command.arg(&path).status().unwrap().success(), "{name}: {script}");
                mode(&path)
            };
            assert_eq!(changed_by("4321", "77"), 0o666, "{name}: {script}");
            assert_eq!(changed_by("4321", "77,500"), 0o2666, "{name}: {script}");
            assert_eq!(changed_by("0", "0"), 0o6666, "{name}: {script}");
        }
    }

    fn sgid_directories_and_sticky_ones(at) {
        if !geteuid().is_root() {
            return;
        }
        let dir = at.join("empty");
        chown(&dir, Some(0), Some(500)).unwrap();
        set_mode(&dir, 0o2777);
        assert!(as_user(1234, 1234, "mkdir \"$1/sub\" && touch \"$1/file\" && cp /bin/true \"$1/true\"", &dir));
        for name in ["sub", "file"] {
            assert_eq!(fs::metadata(dir.join(name)).unwrap().gid(), 500, "{name}");
        }
        assert_eq!(mode(&dir.join("sub")) & 0o2000, 0o2000);
        // Who is not in the group cannot let a file run with its rights.
        assert!(as_user(1234, 1234, "chmod 2755 \"$1/true\"", &dir));
        assert_eq!(mode(&dir.join("true")), 0o755);
        set_mode(&dir, 0o1777);
        assert!(!as_user(4321, 4321, "rm -f \"$1/file\"", &dir), "sticky");
        assert!(!as_user(4321, 4321, "mv \"$1/file\" \"$1/elsewhere\"", &dir), "sticky");
        assert!(as_user(1234, 1234, "rm \"$1/file\"", &dir), "the owner");
    }

    fn files_without_a_name_live_on(at) {
        for name in ["file", "new"] {
            let path = at.join(name);
            if name == "new" {
                fs::write(&path, "lower file\n").unwrap();
            }
            let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
            fs::remove_file(&path).unwrap();
            assert_eq!(fstat(&file).unwrap().st_nlink, 0, "{name}");
            file.write_all_at(b"LOWER", 0).unwrap();
            file.set_len(7).unwrap();
            set_mode(Path::new(&format!("/proc/self/fd/{}", file.as_raw_fd())), 0o600);
            fallocate(&file, FallocateFlags::empty(), 0, 9).unwrap();
            file.sync_all().unwrap();
            let mut text = Vec::new();
            (&file).read_to_end(&mut text).unwrap();
            assert_eq!(text, b"LOWER f\0\0", "{name}");
            assert_eq!((fstat(&file).unwrap().st_size, fstat(&file).unwrap().st_nlink), (9, 0), "{name}");
            // As on every file system: it had a name once, so it gets none any more.
            let by_descriptor = format!("/proc/self/fd/{}", file.as_raw_fd());
            let linked = linkat(CWD, &by_descriptor, CWD, at.join("again"), rustix::fs::AtFlags::SYMLINK_FOLLOW);
            assert_eq!(linked, Err(Errno::NOENT), "{name}");
        }
        let unnamed = OpenOptions::new().write(true).custom_flags(libc::O_TMPFILE).open(at);
        assert_eq!(unnamed.unwrap_err().raw_os_error(), Some(libc::EOPNOTSUPP));
    }

    fn times_change_as_everywhere(at) {
        let time = |path: &Path| {
            let found = fs::symlink_metadata(path).unwrap();
            ((found.mtime(), found.mtime_nsec()), (found.ctime(), found.ctime_nsec()))
        };
        let dir = at.join("dir");
        let mut before = time(&dir);
        let mut moved = |what: &str| {
            let now = time(&dir);
            assert!(now.0 > before.0 && now.1 > before.1, "{what}: {before:?} {now:?}");
            before = now;
            sleep(Duration::from_millis(20));
        };
        sleep(Duration::from_millis(20));
        fs::write(dir.join("new"), "").unwrap();
        moved("create");
        fs::remove_file(dir.join("a")).unwrap();
        moved("unlink of what a layer has");
        fs::rename(dir.join("b"), at.join("empty/b")).unwrap();
        moved("rename away");
        fs::rename(at.join("empty/b"), dir.join("b")).unwrap();
        moved("rename here");
        fs::hard_link(at.join("hard1"), dir.join("hard")).unwrap();
        moved("link");

        // Before 1970, and with nanoseconds.
        let long_ago = UNIX_EPOCH - Duration::new(1_000_000, 250_000_000);
        for name in ["file", "dir/new"] {
            let file = File::options().write(true).open(at.join(name)).unwrap();
            file.set_times(fs::FileTimes::new().set_modified(long_ago).set_accessed(long_ago)).unwrap();
            drop(file);
            let found = fs::metadata(at.join(name)).unwrap();
            assert_eq!((found.modified().unwrap(), found.accessed().unwrap()), (long_ago, long_ago), "{name}");
        }
    }

    fn names_and_attributes_of_the_overlay_are_free_or_refused(at) {
        fs::write(at.join(".wh.file"), "mine").unwrap();
        fs::write(at.join("dir/.wh..wh..opq"), "mine").unwrap();
        assert_eq!(fs::read_to_string(at.join(".wh.file")).unwrap(), "mine");
        assert_eq!(fs::read_to_string(at.join("file")).unwrap(), "lower file\n");
        assert!(fs::read_dir(at.join("dir")).unwrap().count() == 4);
        let whiteout = renameat_with(CWD, at.join("file"), CWD, at.join("moved"), RenameFlags::WHITEOUT);
        assert_eq!(whiteout, Err(Errno::INVAL));
        assert_eq!(setxattr(at.join("file"), "user.overlay.opaque", b"y", XattrFlags::empty()), Err(Errno::PERM));

        let name = format!("user.{}", "n".repeat(250));
        assert_eq!(setxattr(at.join("file"), &name, b"v", XattrFlags::empty()), Ok(()));
        assert_eq!(setxattr(at.join("file"), format!("{name}n"), b"v", XattrFlags::empty()), Err(Errno::RANGE));
        let huge = vec![0; 65_537];
        assert_eq!(setxattr(at.join("file"), "user.huge", &huge, XattrFlags::empty()), Err(Errno::TOOBIG));
        setxattr(at.join("file"), &name, b"four", XattrFlags::empty()).unwrap();
        assert_eq!(rustix::fs::getxattr(at.join("file"), &name, &mut [0_u8; 3]), Err(Errno::RANGE));
    }

    fn locks_hold_between_processes(at) {
        let path = at.join("file");
        let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive).unwrap();
        let tried = |script: &str| Command::new("flock").args(["-n"]).arg(&path).arg(script).status().unwrap().success();
        assert!(!tried("true"), "another process waits");
        // The copy-up in between does not lose it.
        file.write_all_at(b"LOWER", 0).unwrap();
        assert!(!tried("true"), "another process still waits");
        rustix::fs::flock(&file, rustix::fs::FlockOperation::Unlock).unwrap();
        assert!(tried("true"));
        rustix::fs::fcntl_lock(&file, rustix::fs::FlockOperation::LockExclusive).unwrap();
        let script = "import fcntl,sys; f=open(sys.argv[1],'r+'); fcntl.lockf(f, fcntl.LOCK_EX|fcntl.LOCK_NB)";
        let python = Command::new("python3").args(["-c", script]).arg(&path).output();
        if let Ok(output) = python {
            assert!(!output.status.success(), "another process has no POSIX lock");
        }
    }
}
