//! As whom each process sees itself.

use std::collections::HashMap;

use super::{
    credentials::{Credentials, Ids},
    filter::{Asked, Kind},
};
use crate::sys::{
    errno::Errno,
    foreign::{Process, Task},
    seccomp::{Answer, Call, Listener},
};

/// Most supplementary groups (`NGROUPS_MAX`).
const MOST_GROUPS: u32 = 65_536;

/// How many processes are remembered before those that have ended are forgotten.
const CROWD: usize = 512;

/// Most ancestors that are asked for whom a process takes after.
const ANCESTORS: usize = 64;

/// Who has become somebody else, and who descends from such a process. All others are what the kernel says.
#[derive(Debug, Default)]
pub(super) struct Minds {
    known: HashMap<Process, Credentials>,
    /// How many there may be before the next round of forgetting.
    room: usize,
}

impl Minds {
    /// Answers what a process asks about itself.
    pub(super) fn answer(&mut self, listener: &Listener, call: &Call, asked: &Asked) -> Answer {
        match self.try_answer(listener, call, asked) {
            Ok(answer) => answer,
            Err(errno) => Answer::Failed(errno as i32),
        }
    }

    /// A process does something: whom it takes after is known now, and may not be later.
    pub(super) fn meet(&mut self, pid: u32) {
        if !self.known.is_empty() {
            let _ = Task::open(pid).and_then(|task| self.of(&task));
        }
    }

    fn try_answer(&mut self, listener: &Listener, call: &Call, asked: &Asked) -> Result<Answer, Errno> {
        let changes = matches!(asked, Asked::Become { .. } | Asked::Join { .. });
        if self.known.is_empty() && !changes {
            return Ok(Answer::Proceed);
        }
        let task = Task::open(call.pid)?;
        let (process, known) = self.of(&task)?;
        let mut own = known.clone().unwrap_or_default();
        match *asked {
            Asked::Become { kind, change } => {
                let old = *ids(&mut own, kind);
                let new = old.changed(change, own.is_privileged()).map_err(|_| Errno::EPERM)?;
                *ids(&mut own, kind) = new;
                self.settle(listener, call, process, own)?;
                let is_of_files = matches!(change, super::credentials::Change::OfFiles(_));
                Ok(Answer::Returned(if is_of_files { old.of_files } else { 0 }))
            }
            Asked::Join { count, address } => {
                if !own.is_privileged() {
                    return Err(Errno::EPERM);
                }
                let count =
                    usize::try_from(count).ok().filter(|_| count <= MOST_GROUPS).ok_or(Errno::EINVAL)?;
                own.further =
                    Some(if count == 0 { Vec::new() } else { task.memory()?.numbers(address, count)? });
                self.settle(listener, call, process, own)?;
                Ok(Answer::Returned(0))
            }
            Asked::Who { .. } | Asked::WhoAll { .. } | Asked::Groups { .. } if known.is_none() => {
                Ok(Answer::Proceed)
            }
            Asked::Who { kind, effective } => {
                let ids = ids(&mut own, kind);
                Ok(Answer::Returned(if effective { ids.effective } else { ids.real }))
            }
            Asked::WhoAll { kind, addresses } => {
                let Ids { real, effective, saved, .. } = *ids(&mut own, kind);
                let memory = task.memory()?;
                if !listener.is_waiting(call) {
                    return Err(Errno::ESRCH);
                }
                for (address, id) in addresses.into_iter().zip([real, effective, saved]) {
                    memory.write(address, &id.to_ne_bytes())?;
                }
                Ok(Answer::Returned(0))
            }
            Asked::Groups { count, address } => {
                let Some(groups) = own.further else { return Ok(Answer::Proceed) };
                let len = u32::try_from(groups.len()).map_err(|_| Errno::EINVAL)?;
                if count != 0 {
                    if count < len {
                        return Err(Errno::EINVAL);
                    }
                    let bytes: Vec<u8> = groups.iter().flat_map(|group| group.to_ne_bytes()).collect();
                    let memory = task.memory()?;
                    if !listener.is_waiting(call) {
                        return Err(Errno::ESRCH);
                    }
                    memory.write(address, &bytes)?;
                }
                Ok(Answer::Returned(len))
            }
            Asked::Chown { .. } | Asked::Stat { .. } | Asked::Device { .. } => Ok(Answer::Proceed),
        }
    }

    fn settle(
        &mut self,
        listener: &Listener,
        call: &Call,
        process: Process,
        own: Credentials,
    ) -> Result<(), Errno> {
        if !listener.is_waiting(call) {
            return Err(Errno::ESRCH);
        }
        if self.known.len() >= self.room.max(CROWD) {
            self.known.retain(|process, _| Task::open(process.pid).is_ok());
            self.room = 2 * self.known.len();
        }
        self.known.insert(process, own);
        Ok(())
    }

    /// The process of a task, and as whom it sees itself: as it has said, else as its next ancestor that has.
    fn of(&mut self, task: &Task) -> Result<(Process, Option<Credentials>), Errno> {
        let (process, mut parent) = task.process()?;
        if let Some(known) = self.known.get(&process) {
            return Ok((process, Some(known.clone())));
        }
        for _ in 0..ANCESTORS {
            // Process 1 is ours.
            if parent <= 1 {
                break;
            }
            let Ok((ancestor, next)) = Task::open(parent).and_then(|task| task.process()) else { break };
            if let Some(known) = self.known.get(&ancestor).cloned() {
                self.known.insert(process, known.clone());
                return Ok((process, Some(known)));
            }
            parent = next;
        }
        Ok((process, None))
    }
}

const fn ids(own: &mut Credentials, kind: Kind) -> &mut Ids {
    match kind {
        Kind::Users => &mut own.users,
        Kind::Groups => &mut own.groups,
    }
}
