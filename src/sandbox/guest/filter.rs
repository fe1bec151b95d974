//! Which system calls of a root with one user are answered in the kernel's place. Pure.
//!
//! ```text
//! setuid getuid setgroups ...         to the overseer, who remembers as whom each process sees itself
//! chown and its family                to the overseer, who has the owner recorded
//! stat and its family                 to the overseer, who says what is recorded
//! mknod of devices                    to the overseer, who makes a file that stands for one
//! everything else                     to the kernel
//! ```
//!
//! Numbers are those of one architecture; programs of 32 bits have others.

use super::credentials::Change;
use crate::sys::seccomp::{Call, Instruction};

/// What a call asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// Another owner; `None` leaves that id as it is.
    Chown { object: Object, uid: Option<u32>, gid: Option<u32> },
    /// What the object is, in the form of a call, to be written to an address.
    Stat { object: Object, form: Form, address: u64 },
    /// Other ids of this kind.
    Become { kind: Kind, change: Change },
    /// One id.
    Who { kind: Kind, effective: bool },
    /// Real, effective and saved id, to be written to these addresses.
    WhoAll { kind: Kind, addresses: [u64; 3] },
    /// Other supplementary groups, `count` of them at an address.
    Join { count: u32, address: u64 },
    /// The supplementary groups, at most `count`, to be written to an address.
    Groups { count: u32, address: u64 },
    /// A device.
    Device { dir: i32, path: u64, mode: u32, device: u64 },
}

/// Ids of users or of groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Users,
    Groups,
}

/// In which form attributes are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// `struct stat`.
    Stat,
    /// `struct statx`, with this mask.
    Statx(u32),
}

/// Which object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Object {
    /// An open one.
    Open(i32),
    /// The one at a path.
    At {
        /// Where it begins: a descriptor, or `AT_FDCWD`.
        dir: i32,
        /// Where it lies in memory.
        path: u64,
        /// Whether a symlink at its end is followed.
        follow: bool,
        /// Whether an empty path means the directory itself.
        may_be_empty: bool,
    },
}

/// How a call is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// With success.
    Done,
    /// By the overseer.
    Ask(Shape),
}

/// Which argument means what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Chown,
    Lchown,
    Fchown,
    FchownAt,
    #[cfg(target_arch = "x86_64")]
    Stat,
    #[cfg(target_arch = "x86_64")]
    Lstat,
    Fstat,
    StatAt,
    Statx,
    Mknod,
    MknodAt,
    Set(Kind),
    SetTwo(Kind),
    SetThree(Kind),
    SetOfFiles(Kind),
    SetGroups,
    Get(Kind),
    GetEffective(Kind),
    GetThree(Kind),
    GetGroups,
    /// The same with ids of 16 bits.
    Chown16,
    Lchown16,
    Fchown16,
}

impl Shape {
    /// The argument that says whether a device is to be made.
    const fn mode_at(self) -> Option<u32> {
        match self {
            Self::Mknod => Some(1),
            Self::MknodAt => Some(2),
            _ => None,
        }
    }
}

/// The calls of an architecture.
struct Table {
    /// `AUDIT_ARCH_*`.
    architecture: u32,
    calls: &'static [(i64, Verdict)],
}

use Verdict::{Ask, Done};

const TABLES: &[Table] = &[
    Table { architecture: NATIVE, calls: NATIVE_CALLS },
    #[cfg(target_arch = "x86_64")]
    Table { architecture: 0x4000_0003, calls: I386_CALLS },
];

#[cfg(target_arch = "x86_64")]
const NATIVE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const NATIVE: u32 = 0xc000_00b7;

const NATIVE_CALLS: &[(i64, Verdict)] = &[
    (libc::SYS_newfstatat, Ask(Shape::StatAt)),
    (libc::SYS_fstat, Ask(Shape::Fstat)),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_stat, Ask(Shape::Stat)),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_lstat, Ask(Shape::Lstat)),
    (libc::SYS_statx, Ask(Shape::Statx)),
    (libc::SYS_fchownat, Ask(Shape::FchownAt)),
    (libc::SYS_fchown, Ask(Shape::Fchown)),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_chown, Ask(Shape::Chown)),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_lchown, Ask(Shape::Lchown)),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_mknod, Ask(Shape::Mknod)),
    (libc::SYS_mknodat, Ask(Shape::MknodAt)),
    (libc::SYS_setuid, Ask(Shape::Set(Kind::Users))),
    (libc::SYS_setgid, Ask(Shape::Set(Kind::Groups))),
    (libc::SYS_setreuid, Ask(Shape::SetTwo(Kind::Users))),
    (libc::SYS_setregid, Ask(Shape::SetTwo(Kind::Groups))),
    (libc::SYS_setresuid, Ask(Shape::SetThree(Kind::Users))),
    (libc::SYS_setresgid, Ask(Shape::SetThree(Kind::Groups))),
    (libc::SYS_setfsuid, Ask(Shape::SetOfFiles(Kind::Users))),
    (libc::SYS_setfsgid, Ask(Shape::SetOfFiles(Kind::Groups))),
    (libc::SYS_setgroups, Ask(Shape::SetGroups)),
    (libc::SYS_getuid, Ask(Shape::Get(Kind::Users))),
    (libc::SYS_getgid, Ask(Shape::Get(Kind::Groups))),
    (libc::SYS_geteuid, Ask(Shape::GetEffective(Kind::Users))),
    (libc::SYS_getegid, Ask(Shape::GetEffective(Kind::Groups))),
    (libc::SYS_getresuid, Ask(Shape::GetThree(Kind::Users))),
    (libc::SYS_getresgid, Ask(Shape::GetThree(Kind::Groups))),
    (libc::SYS_getgroups, Ask(Shape::GetGroups)),
];

/// `arch/x86/entry/syscalls/syscall_32.tbl`. Attributes are the kernel's answer here, for their form is another one, and
/// whoever becomes somebody else is told that he has.
#[cfg(target_arch = "x86_64")]
const I386_CALLS: &[(i64, Verdict)] = &[
    (298, Ask(Shape::FchownAt)),
    (207, Ask(Shape::Fchown)),
    (212, Ask(Shape::Chown)),
    (198, Ask(Shape::Lchown)),
    (182, Ask(Shape::Chown16)),
    (16, Ask(Shape::Lchown16)),
    (95, Ask(Shape::Fchown16)),
    (14, Ask(Shape::Mknod)),
    (297, Ask(Shape::MknodAt)),
    // setuid setgid setreuid setregid setgroups setfsuid setfsgid setresuid setresgid: first with 16 bits
    (23, Done),
    (46, Done),
    (70, Done),
    (71, Done),
    (81, Done),
    (138, Done),
    (139, Done),
    (164, Done),
    (170, Done),
    (213, Done),
    (214, Done),
    (203, Done),
    (204, Done),
    (206, Done),
    (215, Done),
    (216, Done),
    (208, Done),
    (210, Done),
];

/// Opcodes (linux/bpf_common.h): load a word, compare, mask, answer.
const LOAD: u16 = 0x20;
const IS: u16 = 0x15;
const NOT_BELOW: u16 = 0x35;
const JUMP: u16 = 0x05;
const MASK: u16 = 0x54;
const ANSWER: u16 = 0x06;

/// Offsets in `struct seccomp_data`: number, architecture, and the low halves of the arguments.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

/// Answers (linux/seccomp.h).
const ALLOW: u32 = 0x7fff_0000;
const DONE: u32 = 0x0005_0000;
const NOT_THERE: u32 = DONE | libc::ENOSYS.cast_unsigned();
const NOTIFY: u32 = 0x7fc0_0000;

/// The filter.
pub(super) fn filter() -> Vec<Instruction> {
    let mut all = vec![plain(LOAD, ARCHITECTURE)];
    for table in TABLES {
        let mut section = vec![plain(LOAD, NUMBER)];
        for (number, verdict) in table.calls {
            let Ok(number) = u32::try_from(*number) else { continue };
            let answer = match verdict {
                Verdict::Done => vec![plain(ANSWER, DONE)],
                Verdict::Ask(shape) => match shape.mode_at() {
                    None => vec![plain(ANSWER, NOTIFY)],
                    Some(argument) => vec![
                        plain(LOAD, ARGUMENTS + 8 * argument),
                        plain(MASK, libc::S_IFMT),
                        Instruction { code: IS, if_so: 1, if_not: 0, value: libc::S_IFCHR },
                        Instruction { code: IS, if_so: 0, if_not: 1, value: libc::S_IFBLK },
                        plain(ANSWER, NOTIFY),
                        plain(ANSWER, ALLOW),
                    ],
                },
            };
            let behind = u8::try_from(answer.len()).unwrap_or(u8::MAX);
            section.push(Instruction { code: IS, if_so: 0, if_not: behind, value: number });
            section.extend(answer);
        }
        section.push(plain(ANSWER, ALLOW));
        // A comparison skips 255 at most, a jump any number.
        let len = u32::try_from(section.len()).unwrap_or(u32::MAX);
        all.push(Instruction { code: IS, if_so: 1, if_not: 0, value: table.architecture });
        all.push(plain(JUMP, len));
        all.extend(section);
    }
    all.push(plain(ANSWER, ALLOW));
    all
}

/// What no program inside may call: the kernel's keys. Those of the caller's session are inherited, and a root of the host
/// would have those of all.
pub(super) fn fence() -> Vec<Instruction> {
    #[cfg(target_arch = "x86_64")]
    const TABLES: &[(u32, [i64; 3])] = &[(NATIVE, KEYS), (0x4000_0003, [286, 287, 288])];
    #[cfg(not(target_arch = "x86_64"))]
    const TABLES: &[(u32, [i64; 3])] = &[(NATIVE, KEYS)];
    const KEYS: [i64; 3] = [libc::SYS_add_key, libc::SYS_request_key, libc::SYS_keyctl];
    let mut all = vec![plain(LOAD, ARCHITECTURE)];
    for (architecture, numbers) in TABLES {
        let mut section = vec![plain(LOAD, NUMBER)];
        for number in numbers.iter().filter_map(|number| u32::try_from(*number).ok()) {
            section.push(Instruction { code: IS, if_so: 0, if_not: 1, value: number });
            section.push(plain(ANSWER, NOT_THERE));
        }
        if *architecture == NATIVE && cfg!(target_arch = "x86_64") {
            // The same calls by the numbers of x32.
            section.push(Instruction { code: NOT_BELOW, if_so: 0, if_not: 1, value: 0x4000_0000 });
            section.push(plain(ANSWER, NOT_THERE));
        }
        section.push(plain(ANSWER, ALLOW));
        let behind = u8::try_from(section.len()).unwrap_or(u8::MAX);
        all.push(Instruction { code: IS, if_so: 0, if_not: behind, value: *architecture });
        all.extend(section);
    }
    all.push(plain(ANSWER, ALLOW));
    all
}

const fn plain(code: u16, value: u32) -> Instruction {
    Instruction { code, if_so: 0, if_not: 0, value }
}

/// What a call that was handed over asks for.
pub(super) fn asked(call: &Call) -> Option<Asked> {
    let table = TABLES.iter().find(|table| table.architecture == call.architecture)?;
    let (_, verdict) = table.calls.iter().find(|(number, _)| *number == i64::from(call.number))?;
    let Verdict::Ask(shape) = *verdict else { return None };
    let [a, b, c, d, e, _] = call.arguments;
    let at = |dir, path, flags: u64, follow_flag: bool| {
        let has = |flag: i32| u32::try_from(flag).is_ok_and(|flag| low(flags) & flag != 0);
        let may_be_empty = has(libc::AT_EMPTY_PATH);
        Object::At { dir, path, follow: follow_flag && !has(libc::AT_SYMLINK_NOFOLLOW), may_be_empty }
    };
    let here = |path, follow| at(libc::AT_FDCWD, path, 0, follow);
    let chown = |object, uid, gid| Asked::Chown { object, uid: id(uid), gid: id(gid) };
    let chown_16 = |object, uid, gid| Asked::Chown { object, uid: id_16(uid), gid: id_16(gid) };
    let stat = |object, address| Asked::Stat { object, form: Form::Stat, address };
    Some(match shape {
        Shape::Chown => chown(here(a, true), b, c),
        Shape::Lchown => chown(here(a, false), b, c),
        Shape::Fchown => chown(Object::Open(signed(a)), b, c),
        Shape::FchownAt => chown(at(signed(a), b, e, true), c, d),
        Shape::Chown16 => chown_16(here(a, true), b, c),
        Shape::Lchown16 => chown_16(here(a, false), b, c),
        Shape::Fchown16 => chown_16(Object::Open(signed(a)), b, c),
        #[cfg(target_arch = "x86_64")]
        Shape::Stat => stat(here(a, true), b),
        #[cfg(target_arch = "x86_64")]
        Shape::Lstat => stat(here(a, false), b),
        Shape::Fstat => stat(Object::Open(signed(a)), b),
        Shape::StatAt => stat(at(signed(a), b, d, true), c),
        Shape::Statx => {
            Asked::Stat { object: at(signed(a), b, c, true), form: Form::Statx(low(d)), address: e }
        }
        Shape::Set(kind) => Asked::Become { kind, change: Change::All(low(a)) },
        Shape::SetTwo(kind) => Asked::Become { kind, change: Change::Two(id(a), id(b)) },
        Shape::SetThree(kind) => Asked::Become { kind, change: Change::Three(id(a), id(b), id(c)) },
        Shape::SetOfFiles(kind) => Asked::Become { kind, change: Change::OfFiles(low(a)) },
        Shape::SetGroups => Asked::Join { count: low(a), address: b },
        Shape::Get(kind) => Asked::Who { kind, effective: false },
        Shape::GetEffective(kind) => Asked::Who { kind, effective: true },
        Shape::GetThree(kind) => Asked::WhoAll { kind, addresses: [a, b, c] },
        Shape::GetGroups => Asked::Groups { count: low(a), address: b },
        Shape::Mknod => {
            Asked::Device { dir: libc::AT_FDCWD, path: a, mode: low(b), device: u64::from(low(c)) }
        }
        Shape::MknodAt => Asked::Device { dir: signed(a), path: b, mode: low(c), device: u64::from(low(d)) },
    })
}

/// The low half of an argument: the kernel takes no more where a type has 32 bits.
fn low(argument: u64) -> u32 {
    u32::try_from(argument & u64::from(u32::MAX)).unwrap_or_default()
}

fn signed(argument: u64) -> i32 {
    low(argument).cast_signed()
}

fn id(argument: u64) -> Option<u32> {
    Some(low(argument)).filter(|id| *id != u32::MAX)
}

fn id_16(argument: u64) -> Option<u32> {
    const NONE: u32 = 0xffff;
    Some(low(argument) & NONE).filter(|id| *id != NONE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(architecture: u32, number: u32, arguments: [u64; 6]) -> u32 {
        run(&filter(), architecture, number, arguments)
    }

    /// Runs a filter on a call as the kernel does.
    fn run(filter: &[Instruction], architecture: u32, number: u32, arguments: [u64; 6]) -> u32 {
        let (mut at, mut value) = (0, 0);
        loop {
            let Instruction { code, if_so, if_not, value: operand } = filter[at];
            at += 1;
            match code {
                LOAD => {
                    value = match operand {
                        NUMBER => number,
                        ARCHITECTURE => architecture,
                        offset => low(arguments[usize::try_from((offset - ARGUMENTS) / 8).unwrap()]),
                    }
                }
                IS => at += usize::from(if value == operand { if_so } else { if_not }),
                NOT_BELOW => at += usize::from(if value >= operand { if_so } else { if_not }),
                JUMP => at += usize::try_from(operand).unwrap(),
                MASK => value &= operand,
                ANSWER => return operand,
                other => panic!("opcode {other:#x}"),
            }
        }
    }

    #[test]
    fn calls_go_where_they_belong() {
        for table in TABLES {
            for (number, expected) in table.calls {
                let number = u32::try_from(*number).unwrap();
                let expected = match expected {
                    Verdict::Done => DONE,
                    Verdict::Ask(Shape::Mknod | Shape::MknodAt) => ALLOW,
                    Verdict::Ask(_) => NOTIFY,
                };
                assert_eq!(verdict(table.architecture, number, [0; 6]), expected, "{number}");
                assert_eq!(verdict(1, number, [0; 6]), ALLOW);
            }
        }
        let getpid = u32::try_from(libc::SYS_getpid).unwrap();
        assert_eq!(verdict(NATIVE, getpid, [0; 6]), ALLOW);
        assert!(filter().len() < 4096);
    }

    #[test]
    fn keys_are_not_there() {
        let number = |number: i64| u32::try_from(number).unwrap();
        let fence = fence();
        for (architecture, call, expected) in [
            (NATIVE, number(libc::SYS_keyctl), NOT_THERE),
            (NATIVE, number(libc::SYS_add_key), NOT_THERE),
            (NATIVE, number(libc::SYS_getpid), ALLOW),
            #[cfg(target_arch = "x86_64")]
            (NATIVE, number(libc::SYS_keyctl) | 0x4000_0000, NOT_THERE),
            #[cfg(target_arch = "x86_64")]
            (0x4000_0003, 288, NOT_THERE),
            #[cfg(target_arch = "x86_64")]
            (0x4000_0003, number(libc::SYS_keyctl), ALLOW),
            (1, number(libc::SYS_keyctl), ALLOW),
        ] {
            assert_eq!(run(&fence, architecture, call, [0; 6]), expected, "{architecture:#x} {call}");
        }
    }

    #[test]
    fn only_devices_are_made_by_the_overseer() {
        let number = u32::try_from(libc::SYS_mknodat).unwrap();
        for (mode, expected) in [
            (libc::S_IFCHR | 0o600, NOTIFY),
            (libc::S_IFBLK, NOTIFY),
            (libc::S_IFIFO | 0o600, ALLOW),
            (libc::S_IFREG, ALLOW),
            (0, ALLOW),
        ] {
            assert_eq!(verdict(NATIVE, number, [0, 0, u64::from(mode), 0, 0, 0]), expected, "{mode:o}");
        }
    }
}
