//! Files that are gone but open.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use rustix::fs::{AtFlags, CWD, StatxFlags};

use crate::support::on_mount;

on_mount! {
    fn an_unlinked_new_file_works_on(at) {
        let path = at.join("new");
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        file.write_all(b"before").unwrap();
        fs::remove_file(&path).unwrap();
        works_on(file, "before");
        assert!(!path.exists());
    }

    fn an_unlinked_lower_file_works_on(at) {
        let path = at.join("file");
        let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        fs::remove_file(&path).unwrap();
        works_on(file, "lower file\n");
        assert!(!path.exists());
    }

    fn a_new_file_in_the_place_of_an_open_one_is_another(at) {
        let mut old = File::open(at.join("file")).unwrap();
        fs::remove_file(at.join("file")).unwrap();
        fs::write(at.join("file"), "other").unwrap();
        let mut text = String::new();
        old.read_to_string(&mut text).unwrap();
        assert_eq!(text, "lower file\n");
        assert_eq!(fs::read_to_string(at.join("file")).unwrap(), "other");
        assert_ne!(old.metadata().unwrap().ino(), fs::metadata(at.join("file")).unwrap().ino());
    }

    fn a_second_name_keeps_a_file(at) {
        fs::hard_link(at.join("file"), at.join("dir/second")).unwrap();
        assert_eq!(fs::metadata(at.join("file")).unwrap().nlink(), 2);
        fs::remove_file(at.join("file")).unwrap();
        assert_eq!(fs::metadata(at.join("dir/second")).unwrap().nlink(), 1);
        assert_eq!(fs::read_to_string(at.join("dir/second")).unwrap(), "lower file\n");
    }

    fn a_file_can_be_linked_whoever_looks_at_it_while_names_go(at) {
        let file = at.join("file");
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        let mask = StatxFlags::BASIC_STATS;
                        rustix::fs::statx(CWD, &file, AtFlags::STATX_FORCE_SYNC, mask).unwrap();
                    }
                });
            }
            let linkers: Vec<_> = (0..3)
                .map(|number| {
                    let (name, file) = (at.join(format!("again{number}")), &file);
                    scope.spawn(move || {
                        for _ in 0..200 {
                            link_within(Duration::from_secs(10), file, &name);
                            fs::remove_file(&name).unwrap();
                        }
                    })
                })
                .collect();
            let ends: Vec<_> = linkers.into_iter().map(thread::ScopedJoinHandle::join).collect();
            done.store(true, Ordering::Relaxed);
            assert!(ends.iter().all(Result::is_ok));
        });
    }

    fn a_removed_directory_stays_usable_for_who_is_in_it(at) {
        let dir = at.join("new");
        fs::create_dir(&dir).unwrap();
        let open = File::open(&dir).unwrap();
        fs::remove_dir(&dir).unwrap();
        assert_eq!(open.metadata().unwrap().nlink(), 0);
        let inside = rustix::fs::openat(&open, "x", rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY, 0o600.into());
        assert_eq!(inside.err(), Some(rustix::io::Errno::NOENT));
    }
}

/// The kernel may count one name too few for some milliseconds; not for good.
fn link_within(limit: Duration, file: &Path, name: &Path) {
    let end = Instant::now() + limit;
    while let Err(error) = fs::hard_link(file, name) {
        assert!(error.kind() == io::ErrorKind::NotFound && Instant::now() < end, "{error}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn works_on(mut file: File, before: &str) {
    assert_eq!(file.metadata().unwrap().nlink(), 0);
    file.rewind().unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, before);
    file.write_all(b"after").unwrap();
    file.sync_all().unwrap();
    assert_eq!(file.metadata().unwrap().len(), before.len() as u64 + 5);
    file.set_len(3).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 3);
    assert_eq!(file.metadata().unwrap().nlink(), 0);
    file.rewind().unwrap();
    text.clear();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, before[..3]);
}
