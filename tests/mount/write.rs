//! Writing: new files, changed lower files, appending, truncating, syncing, big ones.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
};

use crate::support::{on_mount, pattern};

on_mount! {
    fn a_new_file_keeps_what_is_written(at) {
        let path = at.join("new");
        fs::write(&path, "one").unwrap();
        let mut file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        file.seek(SeekFrom::Start(100_000)).unwrap();
        file.write_all(b"far").unwrap();
        file.rewind().unwrap();
        let mut text = Vec::new();
        file.read_to_end(&mut text).unwrap();
        assert_eq!((&text[..4], &text[100_000..], text.len()), (&b"one\0"[..], &b"far"[..], 100_003));
    }

    fn a_changed_lower_file_keeps_the_rest(at) {
        let path = at.join("big");
        let mut expected = pattern((3 << 20) + 5);
        let reader = File::open(&path).unwrap();
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all_at(b"changed", 1 << 20).unwrap();
        expected[1 << 20..(1 << 20) + 7].copy_from_slice(b"changed");
        let mut read = Vec::new();
        (&reader).read_to_end(&mut read).unwrap();
        assert!(read == expected, "who had it open before sees the change");
        drop(file);
        assert!(fs::read(&path).unwrap() == expected);
    }

    fn two_appenders_lose_nothing(at) {
        let path = at.join("file");
        let open = || OpenOptions::new().append(true).open(&path).unwrap();
        let (mut one, mut two) = (open(), open());
        let mut expected = "lower file\n".to_owned();
        for number in 0..500 {
            let line = format!("{number}\n");
            let file = if number % 2 == 0 { &mut one } else { &mut two };
            file.write_all(line.as_bytes()).unwrap();
            expected.push_str(&line);
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), expected);
    }

    fn truncation_shortens_and_lengthens(at) {
        let path = at.join("big");
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(1000).unwrap();
        assert!(fs::read(&path).unwrap() == pattern(1000));
        file.set_len(5000).unwrap();
        let mut expected = pattern(1000);
        expected.resize(5000, 0);
        assert!(fs::read(&path).unwrap() == expected);
        drop(file);
        File::create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), 0);
        File::create(at.join("file")).unwrap();
        assert_eq!(fs::metadata(at.join("file")).unwrap().len(), 0, "O_TRUNC of a lower file");
    }

    fn a_file_nobody_may_read_can_be_written_by_its_maker(at) {
        let path = at.join("secret");
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o000).open(&path).unwrap();
        file.write_all(b"written").unwrap();
        file.sync_all().unwrap();
        drop(file);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"written");
    }

    fn create_new_refuses_what_is_there(at) {
        let refused = OpenOptions::new().write(true).create_new(true).open(at.join("file")).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EEXIST));
        fs::remove_file(at.join("file")).unwrap();
        OpenOptions::new().write(true).create_new(true).open(at.join("file")).unwrap();
    }

    fn syncing_succeeds_and_is_seen_below(at) {
        let mut file = File::create(at.join("new")).unwrap();
        file.write_all(b"synced").unwrap();
        file.sync_data().unwrap();
        file.sync_all().unwrap();
        let below = at.with_file_name("upper").join("new");
        assert_eq!(fs::read(below).unwrap(), b"synced");
        File::open(at).unwrap().sync_all().unwrap();
    }

    fn many_small_files(at) {
        for number in 0..1000 {
            fs::write(at.join(format!("dir/{number}")), format!("contents of {number}")).unwrap();
        }
        for number in 0..1000 {
            let text = fs::read_to_string(at.join(format!("dir/{number}"))).unwrap();
            assert_eq!(text, format!("contents of {number}"));
        }
    }

    fn a_large_file_in_odd_pieces(at) {
        let expected = pattern(50_000_000);
        let mut file = File::create(at.join("large")).unwrap();
        for piece in expected.chunks(123_457) {
            file.write_all(piece).unwrap();
        }
        drop(file);
        assert!(fs::read(at.join("large")).unwrap() == expected);
    }

    fn blocks_and_times_follow_a_write(at) {
        let path = at.join("file");
        let before = fs::metadata(&path).unwrap();
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(&[1; 100_000]).unwrap();
        // With writeback the kernel asks for the blocks again when the file is closed, not before.
        drop(file);
        let after = fs::metadata(&path).unwrap();
        assert_eq!(after.len(), before.len() + 100_000);
        assert!(after.blocks() >= 100_000 / 512);
        assert!(after.modified().unwrap() > before.modified().unwrap());
        assert!((after.ctime(), after.ctime_nsec()) > (before.ctime(), before.ctime_nsec()));
    }

    fn writing_clears_set_id_bits_for_ordinary_users(at) {
        let path = at.join("new");
        fs::write(&path, "program").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o6755)).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o6755);
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"x").unwrap();
        let expected = if nix::unistd::geteuid().is_root() { 0o6755 } else { 0o755 };
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, expected);
    }

    fn holes_can_be_punched_and_space_reserved(at) {
        use rustix::fs::{FallocateFlags, fallocate};
        let file = File::create(at.join("new")).unwrap();
        fallocate(&file, FallocateFlags::empty(), 0, 100_000).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 100_000);
        file.write_all_at(&[7; 100_000], 0).unwrap();
        fallocate(&file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 8192, 8192).unwrap();
        let read = fs::read(at.join("new")).unwrap();
        assert!(read[8192..16_384].iter().all(|byte| *byte == 0));
        assert_eq!((read[8191], read[16_384], read.len()), (7, 7, 100_000));
    }

    fn ranges_are_copied_between_files(at) {
        let (from, to) = (File::open(at.join("big")).unwrap(), File::create(at.join("new")).unwrap());
        let (mut offset, mut total) = (5, 0);
        while total < 1_000_000 {
            let copied = rustix::fs::copy_file_range(&from, Some(&mut offset), &to, None, 1_000_000 - total).unwrap();
            assert!(copied > 0);
            total += copied;
        }
        assert!(fs::read(at.join("new")).unwrap() == pattern(1_000_005)[5..]);
    }
}
