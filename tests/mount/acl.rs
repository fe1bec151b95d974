//! Access control lists: enforced by the kernel, kept by the upper, handed down by directories.

use std::{
    fs::{self, Permissions},
    os::unix::{
        fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, chown},
        process::CommandExt as _,
    },
    path::Path,
    process::Command,
};

use fim::{
    fuse::{Lists, Options, Request},
    layer::{HostDir, HostUpper},
    overlay::{Overlay, OverlayOptions},
    sync::Arc,
    vfs::{Layer, NoInvalidate},
};
use nix::{
    sys::stat::{Mode, umask},
    unistd::geteuid,
};
use rustix::{
    fs::{XattrFlags, getxattr, removexattr, setxattr},
    io::Errno,
};

use crate::support::{Served, can_mount, on_mount, scratch};

const OWN: &str = "system.posix_acl_access";
const HANDED_DOWN: &str = "system.posix_acl_default";

/// A list `u::OWNER,u:ID:USER,g::GROUP,m::MASK,o::OTHER`.
fn list(id: u32, [owner, user, group, mask, other]: [u16; 5]) -> Vec<u8> {
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    let none = u32::MAX;
    for (tag, perm, id) in
        [(1_u16, owner, none), (2, user, id), (4, group, none), (16, mask, none), (32, other, none)]
    {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(perm.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

fn set(path: &Path, name: &str, value: &[u8]) {
    setxattr(path, name, value, XattrFlags::empty()).unwrap();
}

fn get(path: &Path, name: &str) -> Result<Vec<u8>, Errno> {
    let mut value = [0_u8; 256];
    getxattr(path, name, &mut value).map(|len| value[..len].to_vec())
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

/// An id that can be in a list here: without root the namespace knows one only.
fn some_id() -> u32 {
    if geteuid().is_root() { 1234 } else { geteuid().as_raw() }
}

fn reads(path: &Path, uid: u32, gid: u32) -> bool {
    Command::new("cat").arg(path).uid(uid).gid(gid).output().unwrap().status.success()
}

on_mount! {
    fn lists_are_enforced(at) {
        if !geteuid().is_root() {
            return;
        }
        for name in ["file", "new"] {
            let path = at.join(name);
            if name == "new" {
                fs::write(&path, "new").unwrap();
            }
            fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
            assert!(!reads(&path, 1234, 1), "{name}: before");
            set(&path, OWN, &list(1234, [6, 4, 0, 4, 0]));
            assert_eq!(mode(&path), 0o640, "{name}: the mask is in the mode");
            assert!(reads(&path, 1234, 1), "{name}: who is in the list");
            assert!(!reads(&path, 1235, 1), "{name}: another user");
            assert!(!reads(&path, 1235, 0), "{name}: the group has what the list gives it, not the mask");
            fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
            assert!(!reads(&path, 1234, 1), "{name}: the mask takes it away");
            assert_eq!(get(&path, OWN).unwrap(), list(1234, [6, 4, 0, 0, 0]), "{name}");
            fs::set_permissions(&path, Permissions::from_mode(0o660)).unwrap();
            assert!(reads(&path, 1234, 1), "{name}: and gives it back");
            removexattr(&path, OWN).unwrap();
            assert_eq!(get(&path, OWN), Err(Errno::NODATA));
            assert!(!reads(&path, 1234, 1), "{name}: removed");
        }
    }

    fn lists_of_layers_come_along(at) {
        let lower = at.parent().unwrap().join("lower");
        let id = some_id();
        let (own, handed_down) = (list(id, [6, 6, 0, 6, 0]), list(id, [7, 5, 5, 5, 0]));
        set(&lower.join("dir/a"), OWN, &own);
        set(&lower.join("dir"), HANDED_DOWN, &handed_down);
        assert_eq!(get(&at.join("dir/a"), OWN).unwrap(), own);
        if geteuid().is_root() {
            assert!(reads(&at.join("dir/a"), 1234, 1) && !reads(&at.join("dir/a"), 1235, 1));
        }
        fs::set_permissions(at.join("dir/a"), Permissions::from_mode(0o640)).unwrap();
        assert_eq!(get(&at.join("dir/a"), OWN).unwrap(), list(id, [6, 6, 0, 4, 0]));
        assert_eq!(get(&lower.join("dir/a"), OWN).unwrap(), own, "the layer is untouched");
        fs::write(at.join("dir/new"), "").unwrap();
        assert_eq!(mode(&at.join("dir/new")), 0o640);
        assert_eq!(get(&at.join("dir"), HANDED_DOWN).unwrap(), handed_down);
        fs::rename(at.join("dir"), at.join("moved")).unwrap();
        assert_eq!(get(&at.join("moved"), HANDED_DOWN).unwrap(), handed_down);
        assert_eq!(get(&at.join("moved/a"), OWN).unwrap(), list(id, [6, 6, 0, 4, 0]));
    }

    fn directories_hand_lists_down_in_place_of_the_umask(at) {
        umask(Mode::from_bits_truncate(0o077));
        let id = some_id();
        let open = |name: &str| {
            let mut options = fs::OpenOptions::new();
            options.write(true).create_new(true).mode(0o666).open(at.join(name)).map(drop).unwrap();
        };
        fs::DirBuilder::new().mode(0o777).create(at.join("empty/plain")).unwrap();
        open("empty/plain/file");
        assert_eq!((mode(&at.join("empty/plain")), mode(&at.join("empty/plain/file"))), (0o700, 0o600));

        let handed_down = list(id, [7, 6, 5, 7, 1]);
        for dir in ["empty", "empty/plain"] {
            set(&at.join(dir), HANDED_DOWN, &handed_down);
        }
        open("empty/file");
        open("empty/plain/again");
        for name in ["empty/file", "empty/plain/again"] {
            assert_eq!(mode(&at.join(name)), 0o660, "{name}");
            assert_eq!(get(&at.join(name), OWN).unwrap(), list(id, [6, 6, 5, 6, 0]), "{name}");
        }
        fs::DirBuilder::new().mode(0o777).create(at.join("empty/sub")).unwrap();
        assert_eq!(mode(&at.join("empty/sub")), 0o771);
        assert_eq!(get(&at.join("empty/sub"), HANDED_DOWN).unwrap(), handed_down);
        open("empty/sub/file");
        assert_eq!(mode(&at.join("empty/sub/file")), 0o660);
        // Where a whiteout lies the object is made elsewhere first.
        set(&at.join("dir"), HANDED_DOWN, &handed_down);
        fs::remove_file(at.join("dir/a")).unwrap();
        open("dir/a");
        assert_eq!(mode(&at.join("dir/a")), 0o660);
        assert_eq!(get(&at.join("dir/a"), OWN).unwrap(), list(id, [6, 6, 5, 6, 0]));

        removexattr(at.join("empty"), HANDED_DOWN).unwrap();
        open("empty/last");
        assert_eq!(mode(&at.join("empty/last")), 0o600, "the umask counts again");
    }

    fn what_others_make_gets_the_list_too(at) {
        if !geteuid().is_root() {
            return;
        }
        fs::set_permissions(at.join("empty"), Permissions::from_mode(0o777)).unwrap();
        set(&at.join("empty"), HANDED_DOWN, &list(1234, [7, 6, 5, 7, 1]));
        let script = format!("umask 077; touch {0}/f; mkdir {0}/d; touch {0}/d/f", at.join("empty").display());
        let status = Command::new("sh").args(["-ec", &script]).uid(4321).gid(4321).status().unwrap();
        assert!(status.success());
        for (name, expected) in [("f", 0o660), ("d", 0o771), ("d/f", 0o660)] {
            let path = at.join("empty").join(name);
            assert_eq!((mode(&path), fs::metadata(&path).unwrap().uid()), (expected, 4321), "{name}");
        }
    }

    fn sgid_goes_with_a_list_set_by_who_is_not_in_the_group(at) {
        if !geteuid().is_root() {
            return;
        }
        for (group, expected) in [(4321_u32, 0o2750_u32), (5555, 0o750)] {
            let path = at.join(format!("sgid-{group}"));
            fs::write(&path, "").unwrap();
            chown(&path, Some(4321), Some(group)).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o2755)).unwrap();
            // Another process: the caller's groups are what counts.
            let mut setfacl = Command::new("setfacl");
            setfacl.args(["-m", "u:7:r,g::r-x,m::r-x,o::-"]).arg(&path).uid(4321).gid(4321);
            let Ok(status) = setfacl.status() else { return crate::support::skip("setfacl") };
            assert!(status.success());
            assert_eq!(mode(&path), expected, "group {group}");
        }
    }

    fn lists_are_refused_as_everywhere(at) {
        let id = some_id();
        let refused = |path: &Path, name: &str, value: &[u8]| {
            setxattr(path, name, value, XattrFlags::empty()).unwrap_err()
        };
        assert_eq!(refused(&at.join("file"), HANDED_DOWN, &list(id, [7, 7, 7, 7, 7])), Errno::ACCESS);
        assert_eq!(refused(&at.join("file"), OWN, b"rubbish"), Errno::OPNOTSUPP);
        assert_eq!(get(&at.join("file"), OWN), Err(Errno::NODATA));
    }
}

/// Looks three times whether some files can be read, as a user who owns none of them, and returns the number of
/// questions for attributes.
fn questions(served: &Served, files: usize) -> u64 {
    let count =
        || served.requests().counted().find(|(kind, _)| *kind == Request::GetXattr).map_or(0, |c| c.1);
    let before = count();
    let script =
        format!("cd dir; for round in 1 2 3; do for n in $(seq {files}); do test -r file$n; done; done");
    let mut shell = Command::new("sh");
    shell.args(["-ec", &script]).current_dir(&served.path).uid(1234).gid(1234);
    assert!(shell.status().unwrap().success());
    count() - before
}

#[test]
fn lists_are_asked_for_once_an_object_and_of_others_alone() {
    const FILES: usize = 50;
    // The kernel never remembers the list of a mount's root.
    const ROOT: u64 = 10;
    if !can_mount() {
        return;
    }
    let scratch = scratch();
    for name in ["upper", "work", "lower", "lower/dir"] {
        fs::create_dir(scratch.path().join(name)).unwrap();
    }
    for number in 1..=FILES {
        fs::write(scratch.path().join(format!("lower/dir/file{number}")), "text").unwrap();
    }
    fs::set_permissions(scratch.path(), Permissions::from_mode(0o755)).unwrap();
    let serve = |options| {
        let upper = HostUpper::open(&scratch.path().join("upper"), &scratch.path().join("work")).unwrap();
        let layers: Vec<Arc<dyn Layer>> =
            vec![Arc::new(HostDir::open(&scratch.path().join("lower")).unwrap())];
        let (stack, notices) = (OverlayOptions::default(), Arc::new(NoInvalidate));
        let overlay = Overlay::new(layers, Some(Arc::new(upper)), stack, notices).unwrap();
        Served::start(Arc::new(overlay), options)
    };
    let served = serve(Options::default());
    let asked = questions(&served, FILES);
    assert!((FILES as u64..FILES as u64 + ROOT).contains(&asked), "{asked} questions for {FILES} files");
    let again = questions(&served, FILES);
    assert!(again < ROOT, "{again} questions for what the kernel knows");
    served.stop();

    let served = serve(Options { lists: Lists::Ignored, ..Options::default() });
    assert_eq!(questions(&served, FILES), 0);
    served.stop();
}
