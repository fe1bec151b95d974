//! Renaming.

use std::{
    fs::{self, File},
    io::Read as _,
    os::unix::fs::MetadataExt as _,
    path::Path,
};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::support::on_mount;

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap()
}

on_mount! {
    fn files_move_and_leave_nothing(at) {
        fs::rename(at.join("file"), at.join("dir/moved")).unwrap();
        assert_eq!(read(at.join("dir/moved")), "lower file\n");
        assert!(!at.join("file").exists());
        fs::write(at.join("file"), "new").unwrap();
        fs::rename(at.join("file"), at.join("dir/a")).unwrap();
        assert_eq!(read(at.join("dir/a")), "new");
    }

    fn renaming_over_an_open_file_keeps_it_readable(at) {
        let mut open = File::open(at.join("dir/a")).unwrap();
        fs::rename(at.join("dir/b"), at.join("dir/a")).unwrap();
        let mut text = String::new();
        open.read_to_string(&mut text).unwrap();
        assert_eq!(text, "a");
        assert_eq!(open.metadata().unwrap().nlink(), 0);
        assert_eq!(read(at.join("dir/a")), "b");
    }

    fn flags_are_honoured(at) {
        let with = |from: &str, to: &str, flags| renameat_with(CWD, at.join(from), CWD, at.join(to), flags);
        assert_eq!(with("dir/a", "dir/b", RenameFlags::NOREPLACE), Err(rustix::io::Errno::EXIST));
        with("dir/a", "dir/new", RenameFlags::NOREPLACE).unwrap();
        with("dir/b", "dir/c", RenameFlags::EXCHANGE).unwrap();
        assert_eq!((read(at.join("dir/b")), read(at.join("dir/c"))), ("c".to_owned(), "b".to_owned()));
        assert_eq!(with("dir/b", "dir/w", RenameFlags::WHITEOUT), Err(rustix::io::Errno::INVAL));
    }

    fn new_directories_move_with_their_contents(at) {
        fs::create_dir_all(at.join("x/y")).unwrap();
        fs::write(at.join("x/y/z"), "z").unwrap();
        let ino = fs::metadata(at.join("x/y/z")).unwrap().ino();
        fs::rename(at.join("x"), at.join("dir/x")).unwrap();
        assert_eq!(read(at.join("dir/x/y/z")), "z");
        assert_eq!(fs::metadata(at.join("dir/x/y/z")).unwrap().ino(), ino);
        let below_itself = fs::rename(at.join("dir/x"), at.join("dir/x/y/x")).unwrap_err();
        assert_eq!(below_itself.raw_os_error(), Some(libc::EINVAL));
    }

    fn directories_of_layers_move_by_one_call(at) {
        let (dir, file) = (fs::metadata(at.join("dir")).unwrap().ino(), fs::metadata(at.join("dir/a")).unwrap().ino());
        fs::rename(at.join("dir"), at.join("moved")).unwrap();
        assert_eq!(read(at.join("moved/a")), "a");
        assert!(!at.join("dir").exists());
        fs::create_dir(at.join("new")).unwrap();
        fs::rename(at.join("moved"), at.join("new/dir")).unwrap();
        assert_eq!(fs::metadata(at.join("new/dir")).unwrap().ino(), dir);
        assert_eq!(fs::metadata(at.join("new/dir/a")).unwrap().ino(), file);
        let into_itself = fs::rename(at.join("new/dir"), at.join("new/dir/x")).unwrap_err();
        assert_eq!(into_itself.raw_os_error(), Some(libc::EINVAL));
        fs::write(at.join("new/dir/a"), "changed").unwrap();
        fs::create_dir(at.join("dir")).unwrap();
        let (one, other) = (at.join("dir"), at.join("new/dir"));
        renameat_with(CWD, &one, CWD, &other, RenameFlags::EXCHANGE).unwrap();
        assert_eq!(read(at.join("dir/a")), "changed");
        assert_eq!(fs::read_dir(&other).unwrap().count(), 0);
    }
}
