//! Starting the program.

use std::{
    io::{self, PipeReader, Read as _, Write as _, pipe},
    os::fd::{AsFd, BorrowedFd},
};

use super::{filter, message::Start, overseer::Overseer};
use crate::sys::{
    errno::Errno,
    inherit,
    process::{self, Child, Forked},
    pty, seccomp,
};

/// The program that was started, or the errno of why it could not be.
pub(super) type Started = Result<Child, i32>;

/// Starts the program in a process group of its own; on `terminal` it is in the foreground.
///
/// # Errors
///
/// What the system says about making a process at all.
pub(super) fn start(request: &Start, terminal: Option<BorrowedFd<'_>>) -> io::Result<Started> {
    let (reader, writer) = pipe()?;
    let parent = process::id();
    let overseer = Overseer::start()?;
    match process::fork()? {
        Forked::Child => {
            let error = become_program(request, terminal, parent, overseer);
            // Both ends close at exec: the parent reads nothing where it succeeds.
            let errno = error.raw_os_error().unwrap_or(EINVAL);
            let _ = (&writer).write_all(&errno.to_le_bytes());
            process::end(127)
        }
        Forked::Parent(child) => {
            drop(writer);
            // The child does the same: whoever comes first, the group is there when a signal is to be sent.
            let _ = process::new_group(child.pid());
            Ok(match failure(reader)? {
                Some(errno) => {
                    child.wait()?;
                    Err(errno)
                }
                None => Ok(child),
            })
        }
    }
}

fn failure(mut reader: PipeReader) -> io::Result<Option<i32>> {
    let mut errno = Vec::new();
    reader.read_to_end(&mut errno)?;
    Ok(errno.first_chunk().map(|bytes| i32::from_le_bytes(*bytes)))
}

/// `EINVAL`, for the one error that has no number: a NUL in an argument.
const EINVAL: i32 = Errno::EINVAL as i32;

/// Becomes the program; returns why not.
fn become_program(
    request: &Start,
    terminal: Option<BorrowedFd<'_>>,
    parent: i32,
    overseer: Option<Overseer>,
) -> io::Error {
    // A kernel without filters runs images all the same.
    let _ = seccomp::install(&filter::fence());
    // Last, so that nothing of ours is overseen.
    match set_up(request, terminal, parent).and_then(|()| overseer.map_or(Ok(()), Overseer::submit)) {
        Ok(()) => {}
        Err(error) => return error,
    }
    let Some(name) = request.arguments.first() else { return io::ErrorKind::InvalidInput.into() };
    process::exec(name, &request.arguments, request.environment.clone())
}

fn set_up(request: &Start, terminal: Option<BorrowedFd<'_>>, parent: i32) -> io::Result<()> {
    // A session that is killed can end nobody, and nobody else knows of its program.
    process::die_with_parent(parent)?;
    process::new_group(0)?;
    if let Some(terminal) = terminal {
        pty::set_foreground(terminal, process::id())?;
    }
    let null = inherit::null()?;
    let [input, output, error] = &request.stdio;
    let of = |slot| slot_fd(slot, terminal, null.as_fd());
    inherit::set_stdio([of(input), of(output), of(error)])?;
    // What the caller has left open besides is not for inside: a directory would be a way out.
    inherit::close_rest_on_exec();
    // `/` is always there.
    request.directories.iter().find(|directory| process::change_dir(directory).is_ok());
    Ok(())
}

fn slot_fd<'a>(
    slot: &'a Option<std::os::fd::OwnedFd>,
    terminal: Option<BorrowedFd<'a>>,
    null: BorrowedFd<'a>,
) -> BorrowedFd<'a> {
    slot.as_ref().map(AsFd::as_fd).or(terminal).unwrap_or(null)
}
