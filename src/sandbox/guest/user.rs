//! As whom a session runs.

use std::{ffi::OsStr, fs, io, path::PathBuf};

use crate::{
    instance::accounts::{self, ACCOUNTS_LIMIT, User},
    sys::{become_user, errno::Errno, users::effective_ids},
};

/// Becomes the user with this name or number; returns who that is.
///
/// # Errors
///
/// `ENOENT` where nobody is called so, `EPERM` where the instance may not become that user.
pub(super) fn become_user(wanted: &OsStr) -> io::Result<User> {
    let user = find(wanted).ok_or(Errno::ENOENT)?;
    let (uid, _) = effective_ids();
    match (uid, user.uid) {
        (own, wanted) if own == wanted => {}
        (0, wanted) => become_user::for_good(wanted, user.gid)?,
        (_, 0) => become_user::root_in_stead_of_self()?,
        _ => return Err(Errno::EPERM.into()),
    }
    Ok(user)
}

/// The user as the root's own passwd file knows him; root is known everywhere.
fn find(wanted: &OsStr) -> Option<User> {
    let passwd = read_accounts();
    let wanted = wanted.to_str()?;
    let known = match wanted.parse() {
        Ok(uid) => accounts::user_by_id(&passwd, uid),
        Err(_) => accounts::users(&passwd).find(|user| user.name == wanted),
    };
    let root = || User {
        name: "root".into(),
        uid: 0,
        gid: 0,
        home: PathBuf::from("/root"),
        shell: PathBuf::from("/bin/sh"),
    };
    known.or_else(|| matches!(wanted, "root" | "0").then(root))
}

fn read_accounts() -> Vec<u8> {
    use std::io::Read as _;
    let mut passwd = Vec::new();
    let read =
        fs::File::open("/etc/passwd").and_then(|file| file.take(ACCOUNTS_LIMIT).read_to_end(&mut passwd));
    // Without the file root is known still.
    drop(read);
    passwd
}
