//! Listing, making and removing directories.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{DirEntryExt as _, MetadataExt as _},
    path::Path,
    thread,
};

use fim::sys::in_root::{Kind, RootDir};

use crate::support::on_mount;

fn names(dir: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(dir).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(found.insert(name.clone()), "{name} is listed twice");
    }
    found
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

on_mount! {
    fn lower_and_upper_entries_are_listed_together(at) {
        let dir = at.join("dir");
        assert_eq!(names(&dir), set(&["a", "b", "c"]));
        fs::write(dir.join("d"), "d").unwrap();
        fs::write(dir.join("b"), "changed").unwrap();
        fs::remove_file(dir.join("a")).unwrap();
        assert_eq!(names(&dir), set(&["b", "c", "d"]));
        fs::write(dir.join("a"), "again").unwrap();
        assert_eq!(names(&dir), set(&["a", "b", "c", "d"]));
    }

    fn listed_inode_numbers_are_those_of_stat(at) {
        fs::write(at.join("new"), "").unwrap();
        fs::write(at.join("file"), "copied up").unwrap();
        for entry in fs::read_dir(at).unwrap() {
            let entry = entry.unwrap();
            assert_eq!(entry.ino(), entry.metadata().unwrap().ino(), "{:?}", entry.file_name());
        }
    }

    fn inode_numbers_survive_copy_up(at) {
        let before = fs::metadata(at.join("file")).unwrap().ino();
        fs::write(at.join("file"), "copied up").unwrap();
        assert_eq!(fs::metadata(at.join("file")).unwrap().ino(), before);
    }

    fn directories_come_and_go(at) {
        let dir = at.join("x/y/z");
        fs::create_dir_all(&dir).unwrap();
        assert_eq!(fs::remove_dir(at.join("x")).unwrap_err().raw_os_error(), Some(libc::ENOTEMPTY));
        fs::remove_dir_all(at.join("x")).unwrap();
        assert!(!at.join("x").exists());
        fs::remove_dir_all(at.join("dir")).unwrap();
        fs::create_dir(at.join("dir")).unwrap();
        assert_eq!(names(&at.join("dir")), set(&[]), "nothing of the lower directory shines through");
        fs::remove_dir(at.join("empty")).unwrap();
        assert!(!at.join("empty").exists());
    }

    /// Several fronts of one server make the same mount points.
    fn several_make_the_same_directories_at_once(at) {
        let root = RootDir::open(at).unwrap();
        for round in 0..200 {
            let path = format!("/new{round}/b/c");
            thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| root.ensure(Path::new(&path), Kind::Directory, 0o755).unwrap());
                    scope.spawn(|| {
                        root.ensure(&Path::new(&path).with_file_name("f"), Kind::File, 0o644).unwrap()
                    });
                }
            });
        }
    }

    fn many_entries_are_listed_once_each_while_some_go(at) {
        let dir = at.join("dir");
        for number in 0..3000 {
            fs::write(dir.join(format!("{number:04}")), "").unwrap();
        }
        let mut seen = BTreeSet::new();
        for (at, entry) in fs::read_dir(&dir).unwrap().enumerate() {
            let entry = entry.unwrap();
            assert!(seen.insert(entry.file_name()), "{:?} is listed twice", entry.file_name());
            if at % 3 == 0 {
                fs::remove_file(entry.path()).unwrap();
            }
        }
        assert_eq!(seen.len(), 3003);
        assert_eq!(names(&dir).len(), 2002);
    }

    fn seekdir_goes_back_to_an_entry(at) {
        let script = format!("find '{}' | wc -l; rm -r '{0}/dir'; find '{0}' | wc -l", at.display());
        let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "12\n8\n");
    }
}
