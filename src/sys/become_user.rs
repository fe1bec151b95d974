//! Becoming another user.

use std::{fs, io};

use nix::{
    sched::{CloneFlags, unshare},
    sys::prctl,
    unistd::{Gid, Uid, setgroups, setresgid, setresuid},
};

use super::users::effective_ids;

/// Becomes a user for good, without supplementary groups. The caller has one thread and may change its ids.
///
/// # Errors
///
/// `EPERM` where the caller may not, `EINVAL` where the user namespace does not know the id.
pub fn for_good(uid: u32, gid: u32) -> io::Result<()> {
    let (user, group) = (Uid::from_raw(uid), Gid::from_raw(gid));
    setgroups(&[])?;
    setresgid(group, group, group)?;
    Ok(setresuid(user, user, user)?)
}

/// Becomes root in a new user namespace in which root stands for the caller, and nobody else is there. The caller has
/// one thread.
///
/// # Errors
///
/// What unshare(2) and writing the maps say.
pub fn root_in_stead_of_self() -> io::Result<()> {
    let (uid, gid) = effective_ids();
    // The maps of a process that is hidden belong to the host's root.
    prctl::set_dumpable(true)?;
    let mapped = unshare(CloneFlags::CLONE_NEWUSER).map_err(io::Error::from).and_then(|()| {
        fs::write("/proc/self/setgroups", "deny")?;
        fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
        fs::write("/proc/self/gid_map", format!("0 {gid} 1"))
    });
    prctl::set_dumpable(false)?;
    mapped
}
