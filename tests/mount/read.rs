//! Reading what the layers hold.

use std::{
    fs::{self, File},
    io::{Read as _, Seek as _, SeekFrom},
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::Path,
};

use crate::support::{on_mount, pattern};

on_mount! {
    fn contents_are_those_of_the_layer(at) {
        assert_eq!(fs::read_to_string(at.join("file")).unwrap(), "lower file\n");
        assert_eq!(fs::read_to_string(at.join("link")).unwrap(), "lower file\n");
        assert_eq!(fs::read_link(at.join("link")).unwrap(), Path::new("file"));
        let expected = pattern((3 << 20) + 5);
        for _ in 0..2 {
            assert!(fs::read(at.join("big")).unwrap() == expected);
        }
    }

    fn any_range_can_be_read(at) {
        let expected = pattern((3 << 20) + 5);
        let file = File::open(at.join("big")).unwrap();
        for (offset, len) in [(0, 1), (4095, 2), (1 << 20, 4096), ((3 << 20) + 4, 10), (3 << 21, 10), (777, 1_500_001)] {
            let mut buffer = vec![0; len];
            let got = read_full(&file, &mut buffer, offset as u64);
            let end = expected.len().min(offset + len);
            assert!(buffer[..got] == expected[offset.min(end)..end], "{offset}+{len}");
        }
    }

    fn seeking_finds_data_and_the_end(at) {
        let mut file = File::open(at.join("big")).unwrap();
        let end = (3 << 20) + 5;
        assert_eq!(file.seek(SeekFrom::End(0)).unwrap(), end);
        assert_eq!(rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(10)), Ok(10));
        assert_eq!(rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(10)), Ok(end));
        assert_eq!(rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(end)), Err(rustix::io::Errno::NXIO));
    }

    fn hard_links_are_one_inode(at) {
        let (one, two) = (fs::metadata(at.join("hard1")).unwrap(), fs::metadata(at.join("hard2")).unwrap());
        assert_eq!(one.ino(), two.ino());
        assert_eq!(one.nlink(), 2);
    }

    fn statfs_tells_the_longest_name(at) {
        let figures = rustix::fs::statvfs(at).unwrap();
        assert_eq!(figures.f_namemax, 255);
        assert!(figures.f_blocks > 0 && figures.f_bsize >= 512);
    }
}

fn read_full(file: &File, buffer: &mut [u8], offset: u64) -> usize {
    let mut got = 0;
    while got < buffer.len() {
        match file.read_at(&mut buffer[got..], offset + got as u64).unwrap() {
            0 => break,
            more => got += more,
        }
    }
    got
}

on_mount! {
    fn two_readers_share_one_position_each(at) {
        let (mut one, mut two) = (File::open(at.join("file")).unwrap(), File::open(at.join("file")).unwrap());
        let mut byte = [0];
        one.read_exact(&mut byte).unwrap();
        two.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"l");
    }
}
