//! Archives that change under a live mount: what is affected gives EIO, the rest stays readable, nothing is wrong
//! silently, and nobody dies.

use std::{fs, fs::File, io, io::Read as _, num::NonZeroUsize, os::unix::fs::FileExt as _};

use fim::dwarfs::{
    format::section::SectionKind,
    read::{Index, Place, Section},
    write::{Codec, DirSource, Order, WriteOptions, write_archive},
};
use nix::{
    errno::Errno,
    fcntl::{PosixFadviseAdvice, posix_fadvise},
};

use crate::support::{Machine, User, can_mount};

/// Files of the tree, and their length: several blocks each.
const FILES: usize = 8;
const LEN: usize = 300_000;

type Content = fn(usize, u64) -> Vec<u8>;

/// Bytes that differ from file to file and do not shrink.
fn content(number: usize, salt: u64) -> Vec<u8> {
    let mut state = 0x1234_5678_9abc_def1 ^ salt ^ (number as u64) << 40;
    (0..LEN)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[4]
        })
        .collect()
}

/// Text that shrinks, so that blocks are compressed.
fn text(number: usize, salt: u64) -> Vec<u8> {
    content(number, salt).into_iter().map(|byte| b'a' + byte % 4).collect()
}

/// Makes an archive with blocks of 64 KiB. Trees of the same shape give the same sections at the same places, if they
/// are stored as they are.
fn archive_of(machine: &Machine, name: &str, data: Codec, file: impl Fn(usize) -> Vec<u8>) -> Vec<Section> {
    let tree = machine.path(&format!("{name}.tree"));
    fs::create_dir(&tree).unwrap();
    for number in 0..FILES {
        fs::write(tree.join(number.to_string()), file(number)).unwrap();
    }
    machine.shell(&format!("touch -d @1000000000 {name}.tree/* {name}.tree"));
    let options = WriteOptions {
        block_size_bits: 16,
        data,
        order: Order::Path,
        threads: NonZeroUsize::MIN,
        ..WriteOptions::default()
    };
    let mut bytes = Vec::new();
    write_archive(&DirSource::open(&tree).unwrap(), &options, &mut bytes, &()).unwrap();
    fs::write(machine.path(name), &bytes).unwrap();
    let index = Index::open(&bytes, Place::At { offset: 0, len: None }).unwrap();
    index.sections().iter().filter(|section| section.kind == SectionKind::Block).copied().collect()
}

fn mount(machine: &Machine, name: &str) {
    machine.succeed(&["mount", "--ro", name, "mount"]);
}

fn read(machine: &Machine, number: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(machine.path("mount").join(number.to_string()))?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads a file: the right bytes, or EIO. Says which.
fn right_or_eio(machine: &Machine, number: usize, right: &[u8]) -> bool {
    match read(machine, number) {
        Ok(bytes) => {
            assert!(bytes == right, "wrong bytes in file {number}");
            true
        }
        Err(error) => {
            assert_eq!(error.raw_os_error(), Some(Errno::EIO as i32), "file {number}");
            false
        }
    }
}

/// Every kind of damage is done to an archive of stored blocks and to one of compressed ones.
const CODECS: [(&str, Codec, Content); 2] =
    [("stored", Codec::None, content), ("packed", Codec::Zstd { level: 1 }, text)];

#[test]
fn a_truncated_archive_gives_eio_behind_its_end() {
    if !can_mount() {
        return;
    }
    for (name, codec, file) in CODECS {
        let machine = Machine::new(User::Root);
        let blocks = archive_of(&machine, name, codec, |number| file(number, 0));
        mount(&machine, name);
        assert!(right_or_eio(&machine, 0, &file(0, 0)));
        let archive = File::options().write(true).open(machine.path(name)).unwrap();
        archive.set_len(blocks[blocks.len() / 2].offset + 100).unwrap();
        let right: Vec<_> =
            (0..FILES).map(|number| right_or_eio(&machine, number, &file(number, 0))).collect();
        assert!(right[..FILES / 2 - 1].iter().all(|right| *right), "{name}: the first half stays: {right:?}");
        assert!(right[FILES / 2 + 1..].iter().all(|right| !*right), "{name}: the rest is gone: {right:?}");
        // Names and attributes are not affected.
        assert_eq!(fs::read_dir(machine.path("mount")).unwrap().count(), FILES);
        archive.set_len(0).unwrap();
        assert_eq!(machine.shell("stat -c %s mount/7"), format!("{LEN}\n"));
        machine.succeed(&["umount", "mount"]);
    }
}

#[test]
fn overwritten_blocks_give_eio_and_the_rest_is_right() {
    if !can_mount() {
        return;
    }
    for (name, codec, file) in CODECS {
        let machine = Machine::new(User::Root);
        let blocks = archive_of(&machine, name, codec, |number| file(number, 0));
        mount(&machine, name);
        // One file has been read, so that its checksums are known to be right; then the kernel forgets it.
        let (known, unread) = (1, 5);
        assert!(right_or_eio(&machine, known, &file(known, 0)));
        let known_file = File::open(machine.path("mount").join(known.to_string())).unwrap();
        posix_fadvise(&known_file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).unwrap();
        let archive = File::options().write(true).open(machine.path(name)).unwrap();
        for number in [known, unread] {
            let hit = blocks[(number * LEN + LEN / 2) >> 16];
            archive.write_all_at(b"something else", (hit.offset + hit.end) / 2).unwrap();
        }
        let right: Vec<_> =
            (0..FILES).map(|number| right_or_eio(&machine, number, &file(number, 0))).collect();
        assert!(!right[unread], "{name}: {right:?}");
        // A block that is kept decoded is right whatever the file holds.
        assert_eq!(right[known], codec != Codec::None, "{name}: {right:?}");
        assert_eq!(
            right.iter().filter(|right| **right).count(),
            FILES - 1 - usize::from(codec == Codec::None)
        );
        machine.succeed(&["umount", "mount"]);
    }
}

#[test]
fn another_archive_in_the_same_file_is_not_taken_for_this_one() {
    if !can_mount() {
        return;
    }
    for (name, codec, file) in CODECS {
        let machine = Machine::new(User::Root);
        archive_of(&machine, name, codec, |number| file(number, 0));
        // One more byte changes the metadata, and nothing else of a stored archive's layout.
        archive_of(&machine, "other", codec, |number| {
            let mut bytes = file(number, 1);
            bytes.resize(LEN - usize::from(number == FILES - 1), 0);
            bytes
        });
        mount(&machine, name);
        assert!(right_or_eio(&machine, 0, &file(0, 0)));
        machine.shell(&format!("cat other > {name}"));
        let right: Vec<_> =
            (1..FILES).map(|number| right_or_eio(&machine, number, &file(number, 0))).collect();
        assert!(right.iter().any(|right| !right), "{name}: what was not read before is gone");
        machine.succeed(&["umount", "mount"]);
    }
}

#[test]
fn a_replaced_or_removed_file_is_read_on() {
    if !can_mount() {
        return;
    }
    for (name, codec, file) in CODECS {
        let machine = Machine::new(User::Root);
        archive_of(&machine, name, codec, |number| file(number, 0));
        archive_of(&machine, "other", codec, |number| file(number, 1));
        mount(&machine, name);
        assert!(right_or_eio(&machine, 0, &file(0, 0)));
        machine.shell(&format!("mv other {name}"));
        assert!((0..FILES).all(|number| right_or_eio(&machine, number, &file(number, 0))), "{name}");
        machine.succeed(&["umount", "mount"]);
    }
}

#[test]
fn a_file_that_grows_stays_the_same_archive() {
    if !can_mount() {
        return;
    }
    for (name, codec, file) in CODECS {
        let machine = Machine::new(User::Root);
        archive_of(&machine, name, codec, |number| file(number, 0));
        mount(&machine, name);
        assert!(right_or_eio(&machine, 0, &file(0, 0)));
        machine.shell(&format!("echo more >> {name}"));
        assert!((0..FILES).all(|number| right_or_eio(&machine, number, &file(number, 0))), "{name}");
        machine.succeed(&["umount", "mount"]);
    }
}
