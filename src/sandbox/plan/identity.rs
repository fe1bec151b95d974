//! Who the program is: the caller, unless the image's environment names somebody else, or root.

use std::{
    ffi::{OsStr, OsString},
    path::PathBuf,
};

use super::{Cause, Identity, Inputs, Role};
use crate::{
    config::Namespace,
    instance::accounts::User,
    sandbox::{SandboxError, expand},
};

/// Variables of the image that say who the program is; for root the first four mean nothing.
pub(super) const NAMES: [&str; 5] = ["UID", "GID", "USER", "HOME", "SHELL"];

/// Who the program is.
#[derive(Clone, Debug)]
pub(super) struct Who {
    /// Its ids.
    pub(super) identity: Identity,
    /// Why there is a user namespace, where there is one.
    pub(super) cause: Cause,
    /// Its account.
    pub(super) user: User,
    /// Whether the image says so.
    pub(super) explicit: bool,
    /// What the variable `SHELL` says.
    pub(super) shell: OsString,
}

pub(super) fn identity(inputs: &Inputs<'_>) -> Result<Who, SandboxError> {
    let caller = inputs.user;
    let shell = setting(inputs, "SHELL").unwrap_or_else(|| "/bin/bash".into());
    let unshared = inputs.unshare.contains(Namespace::User);
    let user = match inputs.role {
        Role::Root => {
            User { name: "root".into(), uid: 0, gid: 0, home: "/root".into(), shell: PathBuf::from(&shell) }
        }
        Role::User => user(inputs)?,
    };
    let (uid, gid) = (user.uid, user.gid);
    let as_the_caller = inputs.role == Role::Root || (uid, gid) == (caller.uid, caller.gid);
    let (identity, cause) = match (caller.uid == 0, as_the_caller, unshared) {
        (true, true, false) => (Identity::HostRoot, Cause::Basis),
        (true, true, true) => (Identity::Mapped { uid, gid }, Cause::Unshare),
        (true, false, _) => (Identity::Mapped { uid, gid }, Cause::Settings),
        (false, ..) => (Identity::Mapped { uid, gid }, Cause::Basis),
    };
    let explicit = NAMES.iter().any(|name| inputs.settings.iter().any(|(set, _)| set == name));
    Ok(Who { identity, cause, user, explicit, shell })
}

/// The caller as the image wants him.
fn user(inputs: &Inputs<'_>) -> Result<User, SandboxError> {
    let caller = inputs.user;
    let uid = id(inputs, "UID")?.unwrap_or(caller.uid);
    let gid = id(inputs, "GID")?.unwrap_or(caller.gid);
    let is_other = uid != caller.uid;
    let name = match setting(inputs, "USER") {
        Some(name) => {
            text("USER", name, "a name", |name| !name.is_empty() && !name.contains([':', '/', '\n']))?
        }
        None if is_other => format!("user{uid}"),
        None => caller.name.clone(),
    };
    let home = match setting(inputs, "HOME") {
        Some(home) => text("HOME", home, "an absolute path", |home| home.starts_with('/'))?.into(),
        None if is_other => format!("/home/{name}").into(),
        None => caller.home.clone(),
    };
    let shell = setting(inputs, "SHELL").map_or_else(|| caller.shell.clone(), PathBuf::from);
    Ok(User { name, uid, gid, home, shell })
}

fn id(inputs: &Inputs<'_>, name: &'static str) -> Result<Option<u32>, SandboxError> {
    // The highest number stands for nobody at all.
    let is_id = |text: &str| text.parse::<u32>().is_ok_and(|id| id != u32::MAX);
    let Some(value) = setting(inputs, name) else { return Ok(None) };
    Ok(text(name, value, "a number from 0 to 4294967294", is_id)?.parse().ok())
}

fn text(
    name: &'static str,
    value: OsString,
    expected: &'static str,
    is_right: impl Fn(&str) -> bool,
) -> Result<String, SandboxError> {
    match value.into_string() {
        Ok(value) if is_right(&value) => Ok(value),
        Ok(value) => Err(SandboxError::Identity { name, value: value.into(), expected }),
        Err(value) => Err(SandboxError::Identity { name, value, expected }),
    }
}

/// What the image says, expanded with the caller's variables.
fn setting(inputs: &Inputs<'_>, name: &str) -> Option<OsString> {
    let (_, value) = inputs.settings.iter().find(|(set, _)| set == name)?;
    Some(expand(value, &|name| caller_variable(inputs, name)))
}

/// A variable of the caller; `HOME` and `USER` are known even where they are not set.
pub(super) fn caller_variable(inputs: &Inputs<'_>, name: &str) -> Option<OsString> {
    inputs.environment.get(OsStr::new(name)).cloned().or_else(|| match name {
        "HOME" => Some(inputs.user.home.clone().into()),
        "USER" => Some(inputs.user.name.clone().into()),
        _ => None,
    })
}
