//! The overlay against Linux overlayfs: the same operations on both, and each over what the other wrote.
//!
//! Needs root. The mounts live in a mount namespace of the test's own thread, and go with it.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
};
use proptest::prelude::*;

use crate::{
    dump,
    fixture::path,
    native::Native,
    ops::{Answer, Op, Side as _, op},
    ours::Ours,
    random::try_all,
    tree::{Tree, layer, linked_layer, scratch},
};

/// What the kernel can do that we do as well.
const FEATURES: &str = "redirect_dir=on,index=on,metacopy=on";

/// A mounted kernel overlay.
struct Mounted<'a>(&'a Path);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        umount2(self.0, MntFlags::MNT_DETACH).unwrap();
    }
}

/// Mounts numbered layers of `scratch`, the lowest first, with an upper.
fn kernel_mount<'a>(
    scratch: &Path,
    layers: usize,
    upper: &str,
    work: &str,
    features: &str,
    at: &'a Path,
) -> nix::Result<Mounted<'a>> {
    let lowers: Vec<_> = (0..layers)
        .rev()
        .map(|number| scratch.join(format!("lower{number}")).display().to_string())
        .collect();
    let options = format!(
        "lowerdir={},upperdir={},workdir={},{features}",
        lowers.join(":"),
        scratch.join(upper).display(),
        scratch.join(work).display()
    );
    let source = Some("overlay");
    mount(source, at, Some("overlay"), MsFlags::empty(), Some(options.as_str())).map(|()| Mounted(at))
}

/// A dump without inode numbers: the kernel gives names of one file different ones in some cases.
fn seen(mut dump: dump::Dump) -> dump::Dump {
    dump.values_mut().for_each(|seen| seen.same_as.clear());
    dump
}

/// An answer without links of directories: the kernel shows one for a merged directory that has been removed.
fn without_links(answer: Answer) -> Answer {
    match answer {
        Answer::Stat(libc::S_IFDIR, perm, _, size) => Answer::Stat(libc::S_IFDIR, perm, 0, size),
        other => other,
    }
}

/// Where names of an upper are deleted, and what else is there: directories, whiteouts and the rest.
fn marks(root: &Path) -> BTreeMap<String, &'static str> {
    let mut marks = BTreeMap::new();
    let mut pending = vec![String::new()];
    while let Some(path) = pending.pop() {
        for entry in fs::read_dir(root.join(&path)).unwrap() {
            let entry = entry.unwrap();
            let meta = entry.metadata().unwrap();
            let path = dump::join(&path, entry.file_name().to_str().unwrap());
            let kind = match meta.mode() & libc::S_IFMT {
                libc::S_IFCHR if meta.rdev() == 0 => "whiteout",
                libc::S_IFDIR => "directory",
                _ => "other",
            };
            marks.insert(path.clone(), kind);
            if kind == "directory" {
                pending.push(path);
            }
        }
    }
    marks
}

/// Calls `act` with each of our marks in an upper.
fn each_marked(root: &Path, act: impl Fn(&Path, &str, &[u8])) {
    let mut pending = vec![root.to_owned()];
    while let Some(path) = pending.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        if !meta.is_dir() && !meta.is_file() {
            continue;
        }
        for name in ["user.overlay.opaque", "user.overlay.impure", "user.fim.redirect", "user.fim.metacopy"] {
            let mut value = [0; 4096];
            if let Ok(len) = rustix::fs::lgetxattr(&path, name, &mut value[..]) {
                act(&path, name, &value[..len]);
            }
        }
        if meta.is_dir() {
            pending.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
}

/// Writes our marks as a kernel mount of root's reads them.
fn as_of_root(root: &Path) {
    each_marked(root, |path, name, value| {
        let name = name.replace("user.fim", "trusted.overlay").replace("user.overlay", "trusted.overlay");
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::lsetxattr(path, name.as_str(), value, flags).unwrap();
    });
}

/// The kernel refuses the work directory of an upper that has what it does not know, for every kind of mount. Exported it
/// takes both, and shows what we have shown.
#[test]
fn the_kernel_refuses_an_upper_with_our_marks_until_it_is_exported() {
    if !prepare() {
        return;
    }
    let scratch = scratch();
    let at = |name: &str| scratch.path().join(name);
    for dir in ["lower0/d/e", "upper", "work", "kernel"] {
        fs::create_dir_all(at(dir)).unwrap();
    }
    fs::write(at("lower0/d/f"), b"x").unwrap();
    fs::write(at("lower0/d/gone"), b"x").unwrap();
    fs::write(at("lower0/f"), b"data").unwrap();
    fs::write(at("lower0/one"), b"one").unwrap();
    fs::hard_link(at("lower0/one"), at("lower0/d/two")).unwrap();
    let changes: [(Op, &str); 4] = [
        (Op::Rename(path("d"), path("moved"), 0), "fim-redirect"),
        (Op::Chmod(path("f"), 0o600), "fim-metacopy"),
        (Op::Write(path("one"), 0, b'1', 3), "fim-index"),
        (Op::Unlink(path("moved/gone")), "fim-redirect"),
    ];
    let kernel_at = at("kernel");
    let mounted = |features| kernel_mount(scratch.path(), 1, "upper", "work", features, &kernel_at);
    let mut ours = Ours::new(vec![at("lower0")], at("upper"), at("work"));
    for (change, feature) in &changes {
        ours.apply(change).unwrap();
        assert!(at("work/work/incompat").join(feature).exists(), "{change:?}");
    }
    let tree = seen(dump::ours(&ours).0);
    ours.unmount();
    for features in ["userxattr", "userxattr,index=off,xino=off", "index=off", FEATURES] {
        assert_eq!(mounted(features).map(drop), Err(nix::errno::Errno::EINVAL), "{features}");
    }
    ours.mount();
    ours.fs().export(&mut || ()).unwrap();
    ours.unmount();
    assert!(!at("upper/moved/gone").exists(), "nothing is below it that a whiteout could hide");
    let links = |name: &str| fs::metadata(at(name)).unwrap().ino();
    assert_eq!(links("upper/one"), links("upper/moved/two"));
    for features in ["userxattr,index=off,xino=off", "index=off", "redirect_dir=on,metacopy=on"] {
        let _kernel = mounted(features).unwrap();
        assert_eq!(seen(dump::native(&kernel_at)), tree, "{features}");
    }
}

fn run(layers: &[Tree], ops: &[Op]) {
    let scratch = scratch();
    let at = |name: &str| scratch.path().join(name);
    for (number, tree) in layers.iter().enumerate() {
        tree.write(&at(&format!("lower{number}")));
    }
    for upper in ["upper", "kernel-upper"] {
        Tree::empty().write(&at(upper));
    }
    for dir in ["work", "kernel-work", "kernel", "second", "second-work"] {
        fs::create_dir(at(dir)).unwrap();
    }
    let lowers: Vec<_> = (0..layers.len()).map(|number| at(&format!("lower{number}"))).collect();
    let mut ours = Ours::new(lowers.clone(), at("upper"), at("work"));
    let kernel_at = at("kernel");
    let kernel =
        kernel_mount(scratch.path(), layers.len(), "kernel-upper", "kernel-work", FEATURES, &kernel_at)
            .unwrap();
    let mut native = Native::new(kernel_at.clone());
    for op in ops {
        let mine = ours.apply(op).map(without_links);
        let theirs = native.apply(op).map(without_links);
        if mine == Ok(Answer::Done) && theirs == Err(libc::ESTALE) && matches!(op, Op::Rename(..)) {
            // The kernel takes two names of one copied-up file for two files; to us there is nothing to do.
            continue;
        }
        assert_eq!(mine, theirs, "ours and the kernel at {op:?}");
        if matches!(op, Op::Check) {
            assert_eq!(
                seen(dump::ours(&ours).0),
                seen(dump::native(&kernel_at)),
                "ours and the kernel's tree"
            );
        }
    }
    native.release_all();
    let tree = seen(dump::ours(&ours).0);
    assert_eq!(tree, seen(dump::native(&kernel_at)), "ours and the kernel's tree at the end");
    ours.unmount();
    drop(kernel);
    let (mut mine, mut theirs) = (marks(&at("upper")), marks(&at("kernel-upper")));
    exported(scratch.path(), &lowers, &tree);
    let has_links = layers.iter().any(Tree::has_links);
    // Which of several names a copy gets is everybody's own choice.
    mine.retain(|_, kind| *kind == "whiteout" || !has_links);
    // It copies up before it finds out that an operation fails.
    theirs.retain(|path, kind| *kind == "whiteout" || mine.contains_key(path));
    assert_eq!(mine, theirs, "our upper and the kernel's");
    if has_links {
        // Each has an index of its own, without which the other does not find what belongs together.
        return;
    }
    // The kernel over what we wrote.
    let second_at = at("second");
    as_of_root(&at("upper"));
    let second =
        kernel_mount(scratch.path(), layers.len(), "upper", "second-work", FEATURES, &second_at).unwrap();
    assert_eq!(tree, seen(dump::native(&second_at)), "ours and the kernel over our upper");
    drop(second);
    // And we over what the kernel wrote. To it our marks are attributes like others, which it copies up.
    each_marked(&at("kernel-upper"), |path, name, _| rustix::fs::lremovexattr(path, name).unwrap());
    let mut other = Ours::new(lowers, at("kernel-upper"), at("work"));
    assert_eq!(seen(dump::ours(&other).0), tree, "ours over the kernel's upper");
    other.unmount();
}

/// Exports a copy of our upper: the kernel and we show the same tree over it.
fn exported(scratch: &Path, lowers: &[PathBuf], tree: &dump::Dump) {
    let to = scratch.join("exported");
    fs::create_dir_all(to.join("at")).unwrap();
    // At once: copies in the index have names in the upper.
    let mut copied = Command::new("cp");
    copied.arg("-a").args(["upper", "work"].map(|name| scratch.join(name))).arg(&to);
    assert!(copied.status().unwrap().success());
    let mut ours = Ours::new(lowers.to_vec(), to.join("upper"), to.join("work"));
    ours.fs().export(&mut || ()).unwrap();
    assert_eq!(ours.host_upper.as_ref().map(|upper| upper.is_plain()), Some(true));
    ours.unmount();
    for features in ["userxattr,index=off,xino=off", "index=off"] {
        let at = to.join("at");
        let (upper, work) = ("exported/upper", "exported/work");
        let _kernel = kernel_mount(scratch, lowers.len(), upper, work, features, &at).unwrap();
        assert_eq!(&seen(dump::native(&at)), tree, "the kernel over our exported upper, {features}");
    }
    ours.mount();
    assert_eq!(&seen(dump::ours(&ours).0), tree, "ours over our exported upper");
    ours.unmount();
}

/// Whether the kernel does it too: it stays mounted, does not copy up what has been removed, does not always see that
/// it has no name any more, and gives a file that gets its data another time although nothing is written to it.
fn is_comparable(op: &Op) -> bool {
    match op {
        // Nor does tmpfs turn a range to zeros.
        Op::Allocate(_, mode, ..) if mode & libc::FALLOC_FL_ZERO_RANGE as u32 != 0 => return false,
        Op::Write(.., 0) | Op::CopyRange(..) => return false,
        _ => {}
    }
    !matches!(op, Op::Commit | Op::Remount | Op::HeldWrite(..) | Op::HeldTruncate(..) | Op::HeldStat(..))
}

/// Enters a mount namespace of its own; `false` where that, or mounting an overlay in it, is not permitted.
fn prepare() -> bool {
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    let entered = unshare(CloneFlags::CLONE_NEWNS)
        .and_then(|()| mount(None::<&str>, "/", None::<&str>, private, None::<&str>));
    let mounted = entered.and_then(|()| {
        let scratch = scratch();
        for dir in ["lower0", "upper", "work", "at"] {
            fs::create_dir(scratch.path().join(dir)).unwrap();
        }
        kernel_mount(scratch.path(), 1, "upper", "work", FEATURES, &scratch.path().join("at")).map(drop)
    });
    if let Err(errno) = mounted {
        assert!(std::env::var_os("FIM_TEST_REQUIRE").is_none(), "cannot mount a kernel overlay: {errno}");
        println!("skipped: cannot mount a kernel overlay ({errno})");
    }
    mounted.is_ok()
}

#[test]
fn equals_the_kernels_overlay() {
    if !prepare() {
        return;
    }
    let strategy = (
        prop_oneof![2 => layer(false), 1 => linked_layer()],
        prop::collection::vec(layer(true), 0..3),
        prop::collection::vec(op().prop_filter("the kernel can", is_comparable), 1..60),
    );
    // No forks and no other threads: only this thread is in the namespace.
    try_all("beside the kernel's overlay", &strategy, |(lowest, middle, ops)| {
        let middle = middle.into_iter().filter(|_| !lowest.has_links());
        let layers: Vec<_> = [lowest.clone()].into_iter().chain(middle).collect();
        run(&layers, &ops);
        ops.len()
    });
}
