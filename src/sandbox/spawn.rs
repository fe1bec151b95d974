//! Becoming bubblewrap.
//!
//! A child of the front joins the namespaces of the server, takes a private copy of the mounts, binds the merged root
//! and the view of its layers to the instance's directory, makes the mount points and executes bubblewrap. The front itself stays on the host.

use std::{
    ffi::OsString,
    io::{self, PipeReader, PipeWriter, Write as _, pipe},
    iter,
    os::{fd::AsFd as _, unix::ffi::OsStrExt as _},
    path::Path,
};

use super::{
    Bwrap, Plan, SandboxError,
    guest::{GUEST_LIMIT, HOST_LIMIT},
    prepare::prepare,
    render::render,
};
use crate::{
    causes::one_line,
    instance::group::Group,
    sys::{
        errno::Errno,
        in_root::RootDir,
        inherit, memory_file, mount,
        namespace::Namespaces,
        process::{self, Child, Forked},
        scm::Channel,
    },
};

/// Where the merged root comes from.
#[derive(Debug)]
pub struct Stage<'a> {
    /// The namespaces in which it is mounted; none where that is here.
    pub namespaces: Option<&'a Namespaces>,
    /// Where it is in them.
    pub root: &'a Path,
    /// Where it appears in the instance's own copy of them.
    pub mount: &'a Path,
    /// Where each layer is by itself, in the namespaces, and where that appears in the copy.
    pub layers: (&'a Path, &'a Path),
    /// The directory for generated files.
    pub instance: &'a Path,
    /// The bubblewrap to use.
    pub bwrap: &'a Bwrap,
    /// The control group of everything inside.
    pub group: Option<&'a Group>,
}

/// A sandbox that has been started.
#[derive(Debug)]
pub struct Sandbox {
    /// bubblewrap; its end is the end of everything inside.
    pub(super) child: Child,
    /// To process 1 inside.
    pub(super) channel: Channel,
    /// What was said on the way to process 1.
    pub(super) errors: PipeReader,
}

/// Starts bubblewrap for `plan`. It ends when the calling thread ends.
///
/// # Errors
///
/// [`SandboxError::Step`]. What fails later is said on the way and found by [`attend`](super::attend()).
pub fn spawn(plan: &Plan, stage: &Stage<'_>) -> Result<Sandbox, SandboxError> {
    let (errors, errors_inside) = pipe().map_err(SandboxError::step("make a pipe"))?;
    let (channel, inside) =
        Channel::pair(GUEST_LIMIT.max(HOST_LIMIT)).map_err(SandboxError::step("make a channel"))?;
    let front = process::id();
    match process::fork().map_err(SandboxError::step("make a process"))? {
        Forked::Parent(child) => Ok(Sandbox { child, channel, errors }),
        Forked::Child => {
            let error = become_bwrap(plan, stage, &inside, &errors_inside, front);
            let _ = writeln!(&errors_inside, "{}", one_line(&error));
            process::end(125)
        }
    }
}

fn become_bwrap(
    plan: &Plan,
    stage: &Stage<'_>,
    inside: &Channel,
    errors: &PipeWriter,
    front: i32,
) -> SandboxError {
    match set_up(plan, stage, inside, errors, front) {
        Ok(arguments) => {
            let program = stage.bwrap.program().as_os_str();
            // bubblewrap needs no variable; the program's own travel by the channel.
            let error = process::exec(program, &arguments, iter::empty());
            SandboxError::Step { step: "execute bubblewrap", source: error }
        }
        Err(error) => error,
    }
}

/// Does everything before exec; returns the arguments.
fn set_up(
    plan: &Plan,
    stage: &Stage<'_>,
    inside: &Channel,
    errors: &PipeWriter,
    front: i32,
) -> Result<Vec<OsString>, SandboxError> {
    if let Some(group) = stage.group {
        // First, as whoever made it: what is started from now on is in it.
        group.enter().map_err(SandboxError::step("enter the control group"))?;
    }
    if let Some(namespaces) = stage.namespaces {
        namespaces.enter_copy().map_err(SandboxError::step("join the namespaces of the server"))?;
        mount::bind(stage.root, stage.mount)
            .map_err(|errno| SandboxError::Step { step: "bind the merged root", source: errno.into() })?;
        let (from, to) = stage.layers;
        mount::bind(from, to).map_err(|errno| SandboxError::Step {
            step: "bind the view of the layers",
            source: errno.into(),
        })?;
    }
    // Behind setns(2), which may clear it.
    process::die_with_parent(front).map_err(SandboxError::step("follow the front into death"))?;
    let place = if stage.namespaces.is_some() { stage.mount } else { stage.root };
    let root = RootDir::open(place).map_err(SandboxError::step("open the merged root"))?;
    let mut plan = plan.clone();
    prepare(&mut plan, &root, stage.instance)?;
    drop(root);

    let step = SandboxError::step("hand the arguments to bubblewrap");
    let words = render(&plan, place);
    let arguments = hand_over(&plan, stage.bwrap, &words, inside).map_err(step)?;
    let null = inherit::null().map_err(SandboxError::step("open /dev/null"))?;
    inherit::set_stdio([null.as_fd(), null.as_fd(), errors.as_fd()])
        .map_err(SandboxError::step("redirect bubblewrap"))?;
    Ok(arguments)
}

/// Puts the long list into a file in memory; what remains is short and says nothing.
fn hand_over(plan: &Plan, bwrap: &Bwrap, words: &[OsString], inside: &Channel) -> io::Result<Vec<OsString>> {
    let mut bytes = Vec::new();
    for word in words {
        if word.as_bytes().contains(&0) {
            return Err(Errno::EINVAL.into());
        }
        bytes.extend_from_slice(word.as_bytes());
        bytes.push(0);
    }
    let list = memory_file::holding("fim-bwrap", &bytes)?;
    let list_number = inherit::keep_over_exec(list.as_fd())?;
    let channel_number = inherit::keep_over_exec(inside.as_fd())?;
    // It must be open when bubblewrap runs.
    std::mem::forget(list);
    let mut arguments = vec![bwrap.program().as_os_str().to_owned()];
    arguments.extend(bwrap.first().iter().cloned());
    arguments.extend(["--args".into(), list_number.to_string().into(), "--".into()]);
    arguments.extend([plan.init.as_os_str().to_owned(), channel_number.to_string().into()]);
    Ok(arguments)
}
