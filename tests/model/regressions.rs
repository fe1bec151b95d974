//! Failures that the generator found, and rules that it does not reach.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
    sync::Arc,
};

use fim::{
    layer::HostDir,
    overlay::{Overlay, OverlayOptions, Squash},
    vfs::{
        Caller, DeviceId, Errno, FileKind, FileSystem as _, Ino, Layer, Lookup, NoInvalidate, RenameFlags,
        SeekWhence, SetAttr, SetTime, XattrFlags,
    },
};

use crate::{
    fixture::{Fixture, USER, dir, errno, file, is_whiteout, mount, name, path, xattr},
    ops::Op,
    ours::ROOT,
    random::run,
    tree::{OLD, Tree},
};

#[test]
fn regression_a_directory_is_not_renamed_over_its_parent() {
    let lower = dir([("a", dir([("b", file(b""))]))]);
    run(
        &[lower],
        &[
            Op::Rename(path("a/b"), path("a"), 0),
            Op::Mkdir(path("c"), 0o755),
            Op::Rename(path("c"), path("c/b"), 0),
        ],
    );
}

#[test]
fn regression_a_failing_link_copies_nothing_up() {
    let fixture = Fixture::new(&dir([("a", dir([("b", file(b"x"))]))]));
    let linked = fixture.fs.link(fixture.ino("a/b"), Ino::ROOT, name("a"));
    assert_eq!(errno(linked), Errno::EEXIST);
    assert_eq!(
        errno(fixture.fs.rename(Ino::ROOT, name("a"), Ino::ROOT, name("none"), RenameFlags::EXCHANGE)),
        Errno::ENOENT
    );
    assert_eq!(fs::read_dir(fixture.upper("")).unwrap().count(), 0);
}

#[test]
fn regression_a_copied_up_symlink_is_listed_with_the_number_it_has() {
    let lower = dir([("a", Tree::Symlink("x".to_owned()))]);
    run(
        &[lower],
        &[Op::Check, Op::Rename(path("a"), path("a"), 0), Op::Check, Op::Link(path("a"), path("b"))],
    );
}

#[test]
fn regression_what_a_commit_turned_into_a_layer_is_listed_with_the_number_it_has() {
    let ops = [
        Op::Mkdir(path("a"), 0o755),
        Op::Hold(0, path("a")),
        Op::Commit,
        Op::Check,
        Op::Release(0),
        Op::Check,
    ];
    run(&[dir([])], &ops);
}

#[test]
fn whiteouts_are_made_where_a_layer_has_the_name_and_nowhere_else() {
    let fixture = Fixture::new(&dir([("old", file(b"")), ("d", dir([("e", file(b""))]))]));
    fixture.create(ROOT, "", "new", 0o644);
    fixture.fs.unlink(Ino::ROOT, name("new")).unwrap();
    fixture.fs.unlink(Ino::ROOT, name("old")).unwrap();
    fixture.fs.unlink(fixture.ino("d"), name("e")).unwrap();
    fixture.fs.rmdir(Ino::ROOT, name("d")).unwrap();
    let left: BTreeMap<_, _> = fs::read_dir(fixture.upper(""))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_owned(), is_whiteout(&path)))
        .collect();
    assert_eq!(left, BTreeMap::from([("d".into(), true), ("old".into(), true)]));
    assert!(fixture.work_is_clean());
}

#[test]
fn a_directory_over_a_whiteout_is_opaque_and_shows_nothing_from_below() {
    let fixture = Fixture::new(&dir([("d", dir([("e", file(b""))]))]));
    fixture.fs.unlink(fixture.ino("d"), name("e")).unwrap();
    fixture.fs.rmdir(Ino::ROOT, name("d")).unwrap();
    fixture.fs.mkdir(ROOT, Ino::ROOT, name("d"), 0o755).unwrap();
    assert_eq!(xattr(&fixture.upper("d"), "user.overlay.opaque").as_deref(), Some(&b"y"[..]));
    assert_eq!(fixture.fs.lookup(fixture.ino("d"), name("e")).unwrap(), Lookup::Absent);
    // What is not below a directory any more needs no whiteout in it.
    fixture.create(ROOT, "d", "e", 0o644);
    fixture.fs.unlink(fixture.ino("d"), name("e")).unwrap();
    assert_eq!(fs::read_dir(fixture.upper("d")).unwrap().count(), 0);
    assert!(fixture.work_is_clean());
}

#[test]
fn renaming_leaves_a_whiteout_and_moving_back_removes_it() {
    let fixture = Fixture::new(&dir([("a", file(b"content"))]));
    let rename =
        |from, to| fixture.fs.rename(Ino::ROOT, name(from), Ino::ROOT, name(to), RenameFlags::NOREPLACE);
    rename("a", "b").unwrap();
    assert!(is_whiteout(&fixture.upper("a")));
    assert_eq!(fs::read(fixture.upper("b")).unwrap(), b"content");
    rename("b", "a").unwrap();
    assert_eq!(fs::read(fixture.upper("a")).unwrap(), b"content");
    assert!(!fixture.upper("b").exists(), "nothing to delete below");
    assert_eq!(
        errno(fixture.fs.rename(Ino::ROOT, name("a"), Ino::ROOT, name("c"), RenameFlags::WHITEOUT)),
        Errno::EINVAL
    );
}

#[test]
fn a_copy_up_brings_everything_along() {
    const LEN: u64 = 4 << 20;
    let fixture = Fixture::with(OverlayOptions::default(), |root| {
        fs::create_dir(root.join("d")).unwrap();
        let path = root.join("d/sparse");
        fs::write(&path, b"start").unwrap();
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, b"middle", LEN / 2).unwrap();
        file.set_len(LEN).unwrap();
        drop(file);
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(&path, "user.note", b"kept", flags).unwrap();
        std::os::unix::fs::chown(&path, Some(1), Some(2)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o4751)).unwrap();
        dir([]).write(&root.join("d"));
    });
    let ino = fixture.ino("d/sparse");
    let before = fixture.attr("d/sparse");
    fixture.fs.setxattr(ROOT, ino, b"user.other", b"new", XattrFlags::empty()).unwrap();
    let after = fixture.attr("d/sparse");
    assert_eq!((after.ino, after.perm, after.uid, after.gid), (before.ino, 0o4751, 1, 2));
    assert_eq!((after.mtime.seconds, after.mtime.nanos), (OLD as i64, 5));
    assert_eq!(fixture.fs.getxattr(ino, b"user.note").unwrap(), b"kept");
    assert_eq!(fixture.fs.read(ino, LEN / 2, 6).unwrap().contiguous().as_ref(), b"middle");
    assert_eq!(fixture.fs.seek(ino, 100_000, SeekWhence::Data).unwrap(), LEN / 2);
    assert!(fs::metadata(fixture.upper("d/sparse")).unwrap().blocks() < 64, "holes stay holes");
    // The directory was copied up on the way, and its times are still the old ones.
    assert_eq!(fs::metadata(fixture.upper("d")).unwrap().mtime(), OLD as i64);
    assert!(fixture.work_is_clean());
}

#[test]
fn truncating_copies_only_what_stays() {
    let fixture = Fixture::new(&dir([("f", file(&[7; 5000]))]));
    let ino = fixture.ino("f");
    let attr = fixture.fs.setattr(ROOT, ino, &SetAttr { size: Some(3), ..SetAttr::default() }).unwrap();
    assert_eq!(attr.size, 3);
    assert!(attr.mtime.seconds > OLD as i64, "truncating is a change of content");
    assert_eq!(fs::read(fixture.upper("f")).unwrap(), [7; 3]);
}

#[test]
fn regression_times_that_the_kernel_flushes_copy_nothing_up() {
    let fixture = Fixture::new(&dir([("f", file(b"low"))]));
    let ino = fixture.ino("f");
    let attr = fixture.fs.getattr(ino).unwrap();
    let ctime = Some(fim::vfs::Time { seconds: attr.ctime.seconds + 9, nanos: 0 });
    let flushed = SetAttr { mtime: Some(SetTime::At(attr.mtime)), ctime, ..SetAttr::default() };
    fixture.fs.setattr(ROOT, ino, &flushed).unwrap();
    assert!(!fixture.upper("f").exists(), "nothing has changed");
    let other = SetAttr { mtime: Some(SetTime::At(attr.ctime)), ctime, ..SetAttr::default() };
    assert_eq!(fixture.fs.setattr(ROOT, ino, &other).unwrap().mtime, attr.ctime, "another time is kept");
    assert!(fixture.upper("f").exists());
}

#[test]
fn removed_objects_work_until_they_are_forgotten() {
    let fixture = Fixture::new(&dir([("low", file(b"low")), ("d", dir([]))]));
    let (low, d) = (fixture.ino("low"), fixture.ino("d"));
    let up = fixture.create(ROOT, "", "up", 0o644);
    for text in ["low", "up"] {
        fixture.fs.unlink(Ino::ROOT, name(text)).unwrap();
    }
    fixture.fs.rmdir(Ino::ROOT, name("d")).unwrap();
    for ino in [low, up] {
        assert_eq!(fixture.fs.getattr(ino).unwrap().nlink, 0);
        fixture.fs.write(ROOT, ino, 3, b"more", false).unwrap();
        fixture.fs.setattr(ROOT, ino, &SetAttr { size: Some(5), ..SetAttr::default() }).unwrap();
        assert_eq!(fixture.fs.getattr(ino).unwrap().nlink, 0);
        assert_eq!(errno(fixture.fs.link(ino, Ino::ROOT, name("again"))), Errno::ENOENT);
    }
    assert_eq!(fixture.fs.read(low, 0, 9).unwrap().contiguous().as_ref(), b"lowmo");
    assert_eq!(fixture.fs.getattr(d).unwrap().nlink, 0);
    assert_eq!(errno(fixture.fs.mkdir(ROOT, d, name("x"), 0o755)), Errno::ENOENT);
    assert!(fixture.work_is_clean());
    for ino in [low, up, d] {
        fixture.fs.forget(ino, 1);
    }
    assert_eq!(fixture.fs.live_nodes(), 1);
}

#[test]
fn new_objects_belong_to_the_caller_or_inherit_from_a_setgid_directory() {
    let fixture = Fixture::new(&dir([("low", dir([]))]));
    for kind in [FileKind::Regular, FileKind::Fifo, FileKind::Socket] {
        let text = format!("{kind:?}");
        let made = fixture.fs.mknod(USER, Ino::ROOT, name(&text), kind, 0o4751, DeviceId::default()).unwrap();
        assert_eq!((made.attr.uid, made.attr.gid, made.attr.perm), (1234, 5678, 0o4751), "{kind:?}");
    }
    let link = fixture.fs.symlink(USER, Ino::ROOT, name("link"), b"target").unwrap();
    assert_eq!((link.attr.uid, link.attr.gid, link.attr.size), (1234, 5678, 6));
    let low = fixture.ino("low");
    fixture.fs.setattr(ROOT, low, &SetAttr { gid: Some(42), ..SetAttr::default() }).unwrap();
    fixture.fs.setattr(ROOT, low, &SetAttr { perm: Some(0o2775), ..SetAttr::default() }).unwrap();
    let sub = fixture.fs.mkdir(USER, low, name("sub"), 0o750).unwrap();
    assert_eq!((sub.attr.uid, sub.attr.gid, sub.attr.perm), (1234, 42, 0o2750));
    let file =
        fixture.fs.mknod(USER, sub.ino, name("f"), FileKind::Regular, 0o640, DeviceId::default()).unwrap();
    assert_eq!((file.attr.uid, file.attr.gid, file.attr.perm), (1234, 42, 0o640));
    assert!(fixture.work_is_clean());
}

#[test]
fn privileges_go_when_contents_or_owner_change() {
    let fixture = Fixture::new(&dir([("low", Tree::File(b"x".to_vec(), 0o6755))]));
    let low = fixture.ino("low");
    fixture.fs.write(ROOT, low, 0, b"y", false).unwrap();
    assert_eq!(fixture.attr("low").perm, 0o6755, "root may");
    fixture.fs.write(USER, low, 0, b"z", true).unwrap();
    assert_eq!(fixture.attr("low").perm, 0o755);
    let set =
        |perm| fixture.fs.setattr(ROOT, low, &SetAttr { perm: Some(perm), ..SetAttr::default() }).unwrap();
    let group = fixture.attr("low").gid;
    for (caller, left, why) in [
        (Caller { gid: group, ..USER }, 0o2745, "without the group's x it lets nobody run as the group"),
        (USER, 0o745, "who is not in the group must not leave it all the same"),
    ] {
        set(0o6745);
        fixture.fs.setattr(caller, low, &SetAttr { size: Some(0), ..SetAttr::default() }).unwrap();
        assert_eq!(fixture.attr("low").perm, left, "{why}");
    }
    set(0o6755);
    let attr = fixture.fs.setattr(USER, low, &SetAttr { uid: Some(7), ..SetAttr::default() }).unwrap();
    assert_eq!((attr.perm, attr.uid), (0o755, 7));
}

#[test]
fn access_control_lists_are_handed_down_however_an_object_is_made() {
    let fixture = Fixture::new(&dir([("d", dir([("over", file(b"")), ("dir", dir([]))]))]));
    let at = fixture.ino("d");
    // Version 2; owner rwx, user 1000 r-x, group r-x, mask rwx, others r-x.
    let entries =
        [(1_u16, 7_u16, u32::MAX), (2, 5, 1000), (4, 5, u32::MAX), (16, 7, u32::MAX), (32, 5, u32::MAX)];
    let mut list = 2_u32.to_le_bytes().to_vec();
    for (tag, perm, id) in entries {
        list.extend([&tag.to_le_bytes()[..], &perm.to_le_bytes(), &id.to_le_bytes()].concat());
    }
    let (own, handed_down) = (b"system.posix_acl_access", b"system.posix_acl_default");
    fixture.fs.setxattr(ROOT, at, handed_down, &list, XattrFlags::empty()).unwrap();
    fixture.fs.unlink(at, name("over")).unwrap();
    fixture.fs.rmdir(at, name("dir")).unwrap();
    let get = |ino, name: &[u8]| fixture.fs.getxattr(ino, name).map_err(|error| error.errno());
    // At its place, over a whiteout, and staged because it belongs to somebody else.
    let expected = get(fixture.create(ROOT, "d", "plain", 0o640), own).unwrap();
    assert_ne!(expected, list, "the mask is that of the mode");
    for (caller, text) in [(ROOT, "over"), (USER, "others")] {
        let made = fixture.create(caller, "d", text, 0o640);
        assert_eq!(
            (get(made, own).as_ref(), fixture.attr(&format!("d/{text}")).perm),
            (Ok(&expected), 0o640)
        );
        assert_eq!(get(made, handed_down), Err(Errno::ENODATA));
    }
    for (caller, text) in [(ROOT, "dir"), (USER, "dirs")] {
        let made = fixture.fs.mkdir(caller, at, name(text), 0o750).unwrap().ino;
        assert_eq!(get(made, handed_down).as_ref(), Ok(&list), "{text}");
        assert!(get(made, own).is_ok(), "{text}");
    }
}

#[test]
fn the_overlays_own_attributes_are_hidden_and_refused() {
    let fixture = Fixture::new(&dir([("f", file(b""))]));
    let ino = fixture.ino("f");
    fixture.fs.setxattr(ROOT, ino, b"user.mine", b"1", XattrFlags::empty()).unwrap();
    assert!(xattr(&fixture.upper("f"), "user.fim.origin").is_some());
    assert_eq!(fixture.fs.listxattr(ino).unwrap(), b"user.mine\0");
    for text in [&b"user.fim.origin"[..], b"user.overlay.opaque", b"trusted.overlay.opaque"] {
        assert_eq!(errno(fixture.fs.getxattr(ino, text)), Errno::ENODATA);
        assert_eq!(errno(fixture.fs.setxattr(ROOT, ino, text, b"y", XattrFlags::empty())), Errno::EPERM);
        assert_eq!(errno(fixture.fs.removexattr(ROOT, ino, text)), Errno::EPERM);
    }
}

#[test]
fn without_an_upper_nothing_changes() {
    let fixture = Fixture::new(&dir([("f", file(b"x"))]));
    let lower = Arc::new(HostDir::open(&fixture.scratch.path().join("lower")).unwrap()) as Arc<dyn Layer>;
    let fs = Overlay::new(vec![lower], None, OverlayOptions::default(), Arc::new(NoInvalidate)).unwrap();
    assert!(fs.is_read_only());
    let Lookup::Found(entry) = fs.lookup(Ino::ROOT, name("f")).unwrap() else { panic!() };
    assert_eq!(errno(fs.write(ROOT, entry.ino, 0, b"y", false)), Errno::EROFS);
    assert_eq!(errno(fs.unlink(Ino::ROOT, name("f"))), Errno::EROFS);
    assert_eq!(errno(fs.mkdir(ROOT, Ino::ROOT, name("d"), 0o755)), Errno::EROFS);
    assert_eq!(errno(fs.setxattr(ROOT, entry.ino, b"user.x", b"", XattrFlags::empty())), Errno::EROFS);
    assert_eq!(fs.statfs().unwrap().name_max, 255);
    assert_eq!(errno(fs.freeze()), Errno::EROFS);
    assert_eq!(
        errno(Overlay::new(Vec::new(), None, OverlayOptions::default(), Arc::new(NoInvalidate))),
        Errno::EINVAL
    );
}

#[test]
fn ids_that_are_not_mapped_are_the_owners() {
    let squash = Squash { uid: 10, gid: 20, uids: vec![0..=100], gids: vec![0..=100] };
    let options = OverlayOptions { squash: Some(squash), ..OverlayOptions::default() };
    let fixture = Fixture::with(options, |root| {
        fs::write(root.join("f"), b"x").unwrap();
        std::os::unix::fs::chown(root.join("f"), Some(5000), Some(50)).unwrap();
    });
    let attr = fixture.attr("f");
    assert_eq!((attr.uid, attr.gid), (10, 50));
    // A change to what is shown already is none.
    let ino = fixture.ino("f");
    fixture.fs.setattr(ROOT, ino, &SetAttr { uid: Some(10), ..SetAttr::default() }).unwrap();
    assert!(!fixture.upper("f").exists());
}

#[test]
fn a_crash_leaves_only_what_the_next_start_sweeps() {
    let fixture = Fixture::new(&dir([("f", file(b"x"))]));
    let scratch = fixture.scratch;
    drop(fixture.fs);
    let junk = scratch.path().join("work/work");
    fs::create_dir_all(junk.join("#1/deep/er")).unwrap();
    fs::write(junk.join("#1/deep/er/file"), b"").unwrap();
    fs::set_permissions(junk.join("#1/deep"), fs::Permissions::from_mode(0o0)).unwrap();
    fs::write(junk.join("#2"), b"half a copy").unwrap();
    drop(mount(scratch.path(), OverlayOptions::default()));
    assert_eq!(fs::read_dir(junk).unwrap().count(), 0);
}

#[test]
fn a_file_that_is_no_longer_written_can_be_executed() {
    let fixture = Fixture::new(&dir([]));
    let ino = fixture.create(ROOT, "", "run", 0o755);
    fixture.fs.write(ROOT, ino, 0, b"#!/bin/sh\n", false).unwrap();
    let path = fixture.upper("run");
    // execve(2) refuses what anybody has open for writing.
    let deny = || {
        let fds = fs::read_dir("/proc/self/fd").unwrap().map(|entry| entry.unwrap());
        fds.filter(|fd| fs::read_link(fd.path()).is_ok_and(|target| target == path)).any(|fd| {
            let info = Path::new("/proc/self/fdinfo").join(fd.file_name());
            let info = fs::read_to_string(info).unwrap_or_default();
            let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap_or("0").trim();
            i32::from_str_radix(flags, 8).unwrap() & (libc::O_ACCMODE | libc::O_PATH) == libc::O_RDWR
        })
    };
    assert!(deny());
    fixture.fs.close_idle();
    assert!(deny(), "it was written to a moment ago");
    fixture.fs.close_idle();
    let started = std::time::Instant::now();
    while deny() {
        assert!(started.elapsed().as_secs() < 10, "the descriptor stays open");
        std::thread::yield_now();
    }
    fixture.fs.write(ROOT, ino, 10, b"exit 0\n", false).unwrap();
    assert_eq!(fs::read(fixture.upper("run")).unwrap(), b"#!/bin/sh\nexit 0\n");
}

#[test]
fn names_of_other_objects_do_not_come_back_after_a_remount() {
    let fixture = Fixture::new(&dir([("f", file(b"x")), ("d", dir([]))]));
    let ino = fixture.ino("f");
    fixture.fs.setattr(ROOT, ino, &SetAttr { mtime: Some(SetTime::Now), ..SetAttr::default() }).unwrap();
    // A pure upper directory is marked when something copied up is moved into it.
    fixture.fs.mkdir(ROOT, Ino::ROOT, name("new"), 0o755).unwrap();
    fixture.fs.rename(Ino::ROOT, name("f"), fixture.ino("new"), name("g"), RenameFlags::empty()).unwrap();
    assert_eq!(xattr(&fixture.upper("new"), "user.overlay.impure").as_deref(), Some(&b"y"[..]));
    let scratch = fixture.scratch;
    drop(fixture.fs);
    let fs = mount(scratch.path(), OverlayOptions::default());
    let fixture = Fixture { scratch, fs };
    assert_eq!(fixture.ino("new/g"), ino);
}

#[test]
fn a_frozen_stack_waits() {
    let fixture = Fixture::new(&dir([("f", file(b"x"))]));
    let ino = fixture.ino("f");
    let guard = fixture.fs.freeze().unwrap();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| fixture.fs.write(ROOT, ino, 0, b"y", false).unwrap());
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert!(!writer.is_finished());
        assert_eq!(fixture.fs.read(ino, 0, 1).unwrap().contiguous().as_ref(), b"x", "reading goes on");
        drop(guard);
    });
    assert_eq!(fixture.fs.read(ino, 0, 1).unwrap().contiguous().as_ref(), b"y");
}

/// Works with the rights of somebody who has none; only the calling thread does.
struct Powerless;

impl Powerless {
    const ID: u32 = 65_534;

    fn new() -> Self {
        nix::unistd::setfsuid(nix::unistd::Uid::from_raw(Self::ID));
        Self
    }
}

impl Drop for Powerless {
    fn drop(&mut self) {
        nix::unistd::setfsuid(nix::unistd::Uid::from_raw(0));
    }
}

#[test]
fn without_rights_own_objects_work_whatever_their_permissions() {
    let own = Caller { uid: Powerless::ID, gid: 0, pid: 1, umask: 0 };
    let fixture = Fixture::with(OverlayOptions::default(), |lower| {
        let low = Tree::Directory {
            opaque: false,
            perm: 0o555,
            entries: BTreeMap::from([("f".to_owned(), file(b"x"))]),
        };
        dir([("low", low)]).write(lower);
        let root = lower.parent().unwrap();
        for path in ["upper", "work", "lower/low", "lower/low/f"] {
            std::os::unix::fs::chown(root.join(path), Some(Powerless::ID), None).unwrap();
        }
    });
    let staging = fixture.scratch.path().join("work/work");
    std::os::unix::fs::chown(staging, Some(Powerless::ID), None).unwrap();
    let _powerless = Powerless::new();
    // A file that nobody may open, in use by a program that opened it before.
    let made = fixture.create(own, "", "closed", 0);
    fixture.fs.close_idle();
    fixture.fs.close_idle();
    fixture.fs.write(own, made, 0, b"written", false).unwrap();
    assert_eq!(fixture.fs.read(made, 0, 9).unwrap().contiguous().as_ref(), b"written");
    assert_eq!(fixture.attr("closed").perm, 0);
    // A directory without permission to write is copied up, covered by a whiteout, and made again as such.
    fixture
        .fs
        .setattr(own, fixture.ino("low"), &SetAttr { mtime: Some(SetTime::Now), ..SetAttr::default() })
        .unwrap();
    assert_eq!(fixture.attr("low").perm, 0o555);
    fixture
        .fs
        .setattr(own, fixture.ino("low"), &SetAttr { perm: Some(0o755), ..SetAttr::default() })
        .unwrap();
    fixture.fs.unlink(fixture.ino("low"), name("f")).unwrap();
    fixture
        .fs
        .setattr(own, fixture.ino("low"), &SetAttr { perm: Some(0o000), ..SetAttr::default() })
        .unwrap();
    fixture.fs.rmdir(Ino::ROOT, name("low")).unwrap();
    assert!(is_whiteout(&fixture.upper("low")));
    let made = fixture.fs.mkdir(own, Ino::ROOT, name("low"), 0o400).unwrap();
    assert_eq!((made.attr.perm, made.attr.uid), (0o400, Powerless::ID));
    assert_eq!(xattr(&fixture.upper("low"), "user.overlay.opaque").as_deref(), Some(&b"y"[..]));
}
