//! What is kept of a run: its record, what it writes, its logs.

use std::{
    ffi::OsString,
    io::{self, PipeWriter},
    os::fd::{AsFd as _, BorrowedFd},
};

use super::{Finished, Ground, IN_THE_IMAGE, Request, RunError, finished};
use crate::{
    causes::one_line,
    config::{Bind, BindKind},
    instance::{
        Instance,
        group::{Group, PREFIX},
        output,
        state::{self, End, Registered, State},
    },
    runtime::{host::Host, instances, site::Upper},
    sandbox::{Role, Slot, Stdio, Verdict},
    sys::{
        identity::Identity,
        inherit,
        process::{self, Ended, Forked},
        tree::DirFd,
    },
};

/// Most bytes of logs that are kept of an instance.
const LOGS_LIMIT: u64 = 4 << 20;

impl Ground {
    /// The control group of the instance: where limits are asked for, and where nobody waits, so that it can be watched.
    pub(super) fn group(&self, request: &Request) -> Result<Option<Group>, RunError> {
        let options = &request.options;
        if options.quota.is_none() && !options.background {
            return Ok(None);
        }
        let name = format!("{PREFIX}{}-{}", process::id(), State::now());
        match Group::make(&name, &options.quota) {
            Ok(group) => Ok(Some(group)),
            Err(error) if options.quota.is_none() => {
                tracing::info!(error = one_line(&error), "no control group");
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Writes the record of the instance. One that nobody has asked for by name runs without, where it must.
    pub(super) fn register(
        &self,
        host: &Host,
        request: &Request,
        instance: &Instance,
        group: Option<&Group>,
    ) -> Result<Option<Registered>, RunError> {
        let options = &request.options;
        let settings = self.site.image.settings();
        let command = request.command.arguments(settings, &instance.path().join("bashrc"));
        let registered = Identity::own()
            .map_err(|source| RunError::Step { step: "find out who we are", source })
            .and_then(|identity| {
                let state = State {
                    version: state::VERSION,
                    id: 0,
                    name: options.name.clone(),
                    image: self.site.image.path().to_owned(),
                    image_id: settings.image_id.to_string(),
                    directory: instance.path().to_owned(),
                    command: command.iter().map(|word| word.to_string_lossy().into_owned()).collect(),
                    root: self.role == Role::Root,
                    background: options.background,
                    layers: self.site.layers.clone(),
                    binds: options.binds.iter().map(bind_text).collect(),
                    env: options.env.clone(),
                    notes: options.notes.clone(),
                    group: group.map(|group| group.places().clone()),
                    upper: match &self.site.upper {
                        Upper::Shared => None,
                        Upper::Ephemeral => self.site.ephemeral(),
                        Upper::At(path) => Some(path.clone()),
                    },
                    started: State::now(),
                    identity,
                    ended: None,
                };
                Ok(instances::of_site(host, &self.site)?.register(state)?)
            });
        match registered {
            Ok(registered) => Ok(Some(registered)),
            Err(error) if options.name.is_some() => Err(error),
            Err(error) => {
                tracing::warn!(%error, "the instance is not on record, and cannot be listed");
                Ok(None)
            }
        }
    }
}

/// A bind as it was given: `SRC:DST:KIND`.
fn bind_text(bind: &Bind) -> String {
    let kind = match bind.kind {
        BindKind::Ro => "ro",
        BindKind::Rw => "rw",
        BindKind::Dev => "dev",
    };
    format!("{}:{}:{kind}", bind.source, bind.destination)
}

/// Puts the logs of an instance beside its record, which outlives its directory.
pub(super) fn keep_logs(record: &Registered, instance: &Instance) {
    let kept = DirFd::open(&instance.logs())
        .and_then(|logs| logs.copy_files(&record.directory().ensure("logs", 0o700)?, LOGS_LIMIT));
    if let Err(error) = kept {
        tracing::debug!(%error, "the logs of the instance are not kept");
    }
}

/// Descriptors that are passed on whatever they are, and need not outlive this.
pub(super) fn given<'a>(fds: [BorrowedFd<'_>; 3]) -> Result<Stdio<'a>, RunError> {
    let copy = |fd: BorrowedFd<'_>| {
        fd.try_clone_to_owned()
            .map(Slot::Given)
            .map_err(|source| RunError::Step { step: "copy a descriptor", source })
    };
    let [input, output, error] = fds;
    Ok(Stdio([copy(input)?, copy(output)?, copy(error)?]))
}

/// Starts the process that keeps what the instance writes; returns where to write it.
pub(super) fn keep_output(record: &Registered) -> Result<[PipeWriter; 2], RunError> {
    let step = |step| move |source| RunError::Step { step, source };
    let (out, to_out) = io::pipe().map_err(step("make a pipe"))?;
    let (err, to_err) = io::pipe().map_err(step("make a pipe"))?;
    match process::fork().map_err(step("keep the output of the instance"))? {
        Forked::Parent(_) => Ok([to_out, to_err]),
        Forked::Child => {
            let directory = record.directory();
            let kept = inherit::close_others(&[out.as_fd(), err.as_fd(), directory.as_fd()])
                .and_then(|()| output::keep([out.into(), err.into()], directory));
            process::end(u8::from(kept.is_err()))
        }
    }
}

/// How the instance ended.
pub(super) fn end_of(outcome: &Result<(Verdict, OsString), RunError>) -> End {
    match outcome {
        Ok((Verdict::Ended(ended), _)) => {
            let signal = match ended {
                Ended::Exited(_) => None,
                Ended::Killed(signal) => Some(*signal),
            };
            End::now(Some(ended.status()), signal, None)
        }
        Ok((not_started @ Verdict::NotStarted(_), program)) => {
            match finished(*not_started, program, IN_THE_IMAGE) {
                Finished::Status(status) => End::now(Some(status), None, None),
                Finished::NotStarted { status, why } => End::now(Some(status), None, Some(why)),
            }
        }
        Err(error) => End::now(None, None, Some(one_line(error))),
    }
}
