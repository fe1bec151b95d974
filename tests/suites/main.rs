//! Public suites and long exercises on real mounts, as root and without. The test here only starts them: each is a script
//! of this folder, and can be run by hand (`place.sh`).
//!
//! ```text
//! fsx         crate fsx: random changes of one file by system calls and mappings, every read compared
//! ranges      what fsx lacks: zero range, holes, files that mostly are the lower layer's still
//! pjdfstest   crate pjdfstest: system calls and their errors, beside the lists pjdfstest.{root,mapped,user}
//! fio         package fio: random blocks with checksums, by several jobs
//! stress      many processes in one tree, and the checksum that a plain directory gives
//! differ      the same random system calls on a mount of ours and one of kernel overlayfs
//! programs    dpkg, git, cargo, sqlite, PostgreSQL inside a mount; only in the full form
//! ```
//!
//! `FIM_SUITES=full` runs them whole (`.tools/test full`). They need root and what `.tools/need-tools` installs. How long
//! each took is printed, and written to the file that `FIM_SUITES_TIMES` names.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says what it skips"
)]

#[path = "../shared/needs.rs"]
mod needs;
mod place;

use place::{Base, Suite, User, run};

#[test]
fn fsx_as_root() {
    run(&Suite { name: "fsx", needs: &["fsx"], base: Base::Memory, words: &["fsx.sh"] }, User::Root);
}

#[test]
fn fsx_as_a_user() {
    run(&Suite { name: "fsx", needs: &["fsx"], base: Base::Memory, words: &["fsx.sh"] }, User::One);
}

#[test]
fn ranges_of_lower_files() {
    let suite = Suite { name: "ranges", needs: &["python3"], base: Base::Disk, words: &["ranges.sh"] };
    run(&suite, User::Root);
    run(&suite, User::One);
}

#[test]
fn pjdfstest_fails_what_is_listed_and_nothing_else() {
    for (user, list) in
        [(User::Root, "pjdfstest.root"), (User::Mapped, "pjdfstest.mapped"), (User::One, "pjdfstest.user")]
    {
        let words = ["pjdfstest.sh", list];
        let suite = Suite { name: "pjdfstest", needs: &["pjdfstest"], base: Base::Disk, words: &words };
        run(&suite, user);
    }
}

#[test]
fn fio_reads_back_what_it_wrote() {
    let suite = Suite { name: "fio", needs: &["fio"], base: Base::Disk, words: &["fio.sh"] };
    run(&suite, User::Root);
    run(&suite, User::One);
}

#[test]
fn many_processes_leave_the_tree_that_a_plain_directory_gives() {
    let needs = ["python3", "make", "cc", "tar"];
    let suite = Suite { name: "stress", needs: &needs, base: Base::Memory, words: &["stress.sh"] };
    run(&suite, User::Root);
    run(&suite, User::Mapped);
    run(&suite, User::One);
}

#[test]
fn random_system_calls_are_answered_as_by_kernel_overlayfs() {
    place::beside_the_kernel();
}

#[test]
fn programs_work_inside() {
    place::programs();
}
