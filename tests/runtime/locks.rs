//! Locks between the instances of one image, which share a server. The test takes them itself, through the roots of two
//! sandboxes, which only root reaches.

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::FileExt as _,
    path::Path,
    process::{Command, Stdio},
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, fcntl},
};

use rustix::fs::{FlockOperation, flock};

use crate::support::{Who, World};

#[test]
fn locks_hold_in_every_instance() {
    let Some(world) = World::new(Who::Myself) else { return };
    fs::write(world.root().join("var/file"), "of the layer").unwrap();
    let instances = ["one", "two"].map(|_| world.start("echo ready; sleep 60"));
    let inside = instances
        .each_ref()
        .map(|instance| Path::new("/proc").join(innermost(instance.pid()).to_string()).join("root/var/file"));
    let [one, other] =
        inside.each_ref().map(|path| OpenOptions::new().read(true).write(true).open(path).unwrap());
    let lock = |kind: libc::c_int| libc::flock {
        l_type: i16::try_from(kind).unwrap(),
        l_whence: i16::try_from(libc::SEEK_SET).unwrap(),
        l_start: 2,
        l_len: 3,
        l_pid: 0,
    };
    // Of open files: also between two of one process.
    let (exclusive, none) = (lock(libc::F_WRLCK), lock(libc::F_UNLCK));
    fcntl(&one, FcntlArg::F_OFD_SETLK(&exclusive)).unwrap();
    assert_eq!(fcntl(&other, FcntlArg::F_OFD_SETLK(&exclusive)), Err(Errno::EAGAIN));
    // The copy-up does not lose it.
    other.write_all_at(b"OF", 0).unwrap();
    assert_eq!(fcntl(&other, FcntlArg::F_OFD_SETLK(&exclusive)), Err(Errno::EAGAIN));
    fcntl(&one, FcntlArg::F_OFD_SETLK(&none)).unwrap();
    fcntl(&other, FcntlArg::F_OFD_SETLK(&exclusive)).unwrap();
    fcntl(&other, FcntlArg::F_OFD_SETLK(&none)).unwrap();
    // Of whole files.
    flock(&one, FlockOperation::NonBlockingLockExclusive).unwrap();
    assert!(flock(&other, FlockOperation::NonBlockingLockShared).is_err());
    flock(&one, FlockOperation::Unlock).unwrap();
    flock(&other, FlockOperation::NonBlockingLockShared).unwrap();
    // Of processes.
    let tried = || {
        let script =
            "import fcntl,sys; fcntl.lockf(open(sys.argv[1],'r+'), fcntl.LOCK_EX|fcntl.LOCK_NB, 3, 2)";
        let python =
            Command::new("python3").args(["-c", script]).arg(&inside[1]).stderr(Stdio::null()).status();
        python.unwrap().success()
    };
    assert!(tried());
    fcntl(&one, FcntlArg::F_SETLK(&exclusive)).unwrap();
    assert!(!tried());
    fcntl(&one, FcntlArg::F_SETLK(&none)).unwrap();
    assert!(tried());
    drop((one, other, instances));
    world.assert_nothing_left();
}

/// The last of a line of processes that begins with `pid`: what a front has started inside.
fn innermost(pid: i32) -> i32 {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    children.split_whitespace().next().map_or(pid, |child| innermost(child.parse().unwrap()))
}
