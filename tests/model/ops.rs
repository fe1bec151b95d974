//! Operations, and the interface that both sides offer.

use proptest::prelude::*;

use crate::tree::name;

pub(crate) type Errno = i32;
pub(crate) type Path = Vec<String>;

#[derive(Clone, Debug)]
pub(crate) enum Op {
    Create(Path, u16),
    Mkdir(Path, u16),
    Symlink(Path, String),
    Fifo(Path),
    Whiteout(Path),
    Unlink(Path),
    Rmdir(Path),
    Rename(Path, Path, u32),
    Link(Path, Path),
    Write(Path, u64, u8, usize),
    Read(Path),
    Truncate(Path, u64),
    Punch(Path, u64, u64),
    /// Mode bits of fallocate(2), offset and length.
    Allocate(Path, u32, u64, u64),
    Chmod(Path, u16),
    Touch(Path, i64),
    SetXattr(Path, Vec<u8>, u32),
    RemoveXattr(Path),
    Stat(Path),
    Readlink(Path),
    CopyRange(Path, Path, u64),
    /// Holds an object in one of the slots, as an open file does.
    Hold(usize, Path),
    HeldWrite(usize, u64, usize),
    HeldTruncate(usize, u64),
    HeldStat(usize),
    HeldCreate(usize, String),
    Release(usize),
    Fsync(Path),
    /// Compares everything.
    Check,
    /// Turns the upper into a layer while everything goes on.
    Commit,
    /// Starts over on the same directories.
    Remount,
}

impl Op {
    /// The paths in it: none, one or two.
    pub(crate) fn paths_mut(&mut self) -> Vec<&mut Path> {
        match self {
            Self::Rename(from, to, _) | Self::Link(from, to) | Self::CopyRange(from, to, _) => vec![from, to],
            Self::Create(path, _)
            | Self::Mkdir(path, _)
            | Self::Symlink(path, _)
            | Self::Fifo(path)
            | Self::Whiteout(path)
            | Self::Unlink(path)
            | Self::Rmdir(path)
            | Self::Write(path, ..)
            | Self::Read(path)
            | Self::Truncate(path, _)
            | Self::Punch(path, ..)
            | Self::Allocate(path, ..)
            | Self::Chmod(path, _)
            | Self::Touch(path, _)
            | Self::SetXattr(path, ..)
            | Self::RemoveXattr(path)
            | Self::Stat(path)
            | Self::Readlink(path)
            | Self::Hold(_, path)
            | Self::Fsync(path) => vec![path],
            Self::HeldWrite(..)
            | Self::HeldTruncate(..)
            | Self::HeldStat(_)
            | Self::HeldCreate(..)
            | Self::Release(_)
            | Self::Check
            | Self::Commit
            | Self::Remount => Vec::new(),
        }
    }
}

/// Number of slots for held objects.
pub(crate) const SLOTS: usize = 3;

/// What an operation answers, as far as both sides must agree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Done,
    Bytes(Vec<u8>),
    /// Kind, permission bits, links (0 for directories unless removed), size of files.
    Stat(u32, u16, u32, u64),
}

pub(crate) trait Side {
    fn apply(&mut self, op: &Op) -> Result<Answer, Errno>;
}

fn path() -> impl Strategy<Value = Path> {
    prop_oneof![3 => 1..2_usize, 4 => 2..3_usize, 2 => 3..4_usize]
        .prop_flat_map(|depth| prop::collection::vec(name(), depth))
}

pub(crate) fn op() -> impl Strategy<Value = Op> {
    let perm = || prop_oneof![Just(0o644_u16), Just(0o600), Just(0o755), Just(0o6755), Just(0o400)];
    let flags = prop_oneof![6 => Just(0_u32), 1 => Just(1), 2 => Just(2), 1 => Just(4)];
    let len = || prop_oneof![Just(0_u64), 1..40_u64, Just(5000)];
    prop_oneof![
        6 => (path(), perm()).prop_map(|(p, m)| Op::Create(p, m)),
        5 => (path(), perm()).prop_map(|(p, m)| Op::Mkdir(p, m)),
        2 => (path(), name()).prop_map(|(p, t)| Op::Symlink(p, t)),
        1 => path().prop_map(Op::Fifo),
        1 => path().prop_map(Op::Whiteout),
        7 => path().prop_map(Op::Unlink),
        6 => path().prop_map(Op::Rmdir),
        14 => (path(), path(), flags).prop_map(|(p, q, f)| Op::Rename(p, q, f)),
        5 => (path(), path()).prop_map(|(p, q)| Op::Link(p, q)),
        5 => (path(), len(), any::<u8>(), 0..50_usize).prop_map(|(p, o, b, l)| Op::Write(p, o, b, l)),
        2 => path().prop_map(Op::Read),
        4 => (path(), len()).prop_map(|(p, l)| Op::Truncate(p, l)),
        1 => (path(), len(), 1..50_u64).prop_map(|(p, o, l)| Op::Punch(p, o, l)),
        1 => (path(), prop_oneof![Just(0_u32), Just(1), Just(16), Just(17)], len(), 1..50_u64)
            .prop_map(|(p, m, o, l)| Op::Allocate(p, m, o, l)),
        3 => (path(), perm()).prop_map(|(p, m)| Op::Chmod(p, m)),
        2 => (path(), 1..1000_i64).prop_map(|(p, t)| Op::Touch(p, t)),
        2 => (path(), prop::collection::vec(any::<u8>(), 0..9), 0..3_u32).prop_map(|(p, v, f)| Op::SetXattr(p, v, f)),
        1 => path().prop_map(Op::RemoveXattr),
        2 => path().prop_map(Op::Stat),
        1 => path().prop_map(Op::Readlink),
        1 => (path(), path(), len()).prop_map(|(p, q, l)| Op::CopyRange(p, q, l)),
        3 => (0..SLOTS, path()).prop_map(|(s, p)| Op::Hold(s, p)),
        3 => (0..SLOTS, len(), 0..50_usize).prop_map(|(s, o, l)| Op::HeldWrite(s, o, l)),
        1 => (0..SLOTS, len()).prop_map(|(s, l)| Op::HeldTruncate(s, l)),
        2 => (0..SLOTS).prop_map(Op::HeldStat),
        1 => (0..SLOTS, name()).prop_map(|(s, n)| Op::HeldCreate(s, n)),
        1 => (0..SLOTS).prop_map(Op::Release),
        1 => path().prop_map(Op::Fsync),
        5 => Just(Op::Check),
        1 => Just(Op::Commit),
        1 => Just(Op::Remount),
    ]
}
