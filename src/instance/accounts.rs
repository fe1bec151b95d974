//! Users and groups by the letters of passwd(5) and group(5).
//!
//! The engine is static and asks no name service; a uid that no file knows is an ordinary case.

use std::path::{Path, PathBuf};

/// Largest account file that is read, in bytes.
pub const ACCOUNTS_LIMIT: u64 = 4 << 20;

/// A user as programs inside see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Login name.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Home directory.
    pub home: PathBuf,
    /// Login shell.
    pub shell: PathBuf,
}

/// The user with this id; a damaged line is passed over.
#[must_use]
pub fn user_by_id(passwd: &[u8], uid: u32) -> Option<User> {
    users(passwd).find(|user| user.uid == uid)
}

/// All users of a passwd file.
pub fn users(passwd: &[u8]) -> impl Iterator<Item = User> {
    passwd.split(|byte| *byte == b'\n').filter_map(parse_user)
}

/// The name of the group with this id.
#[must_use]
pub fn group_by_id(group: &[u8], gid: u32) -> Option<String> {
    group.split(|byte| *byte == b'\n').find_map(|line| {
        let [name, _, id, ..] = fields(line)?[..] else { return None };
        (id.parse() == Ok(gid) && !name.is_empty()).then(|| name.to_owned())
    })
}

/// The passwd file with `user` in it; `None` where its id is there already.
#[must_use]
pub fn passwd_with(passwd: &[u8], user: &User) -> Option<Vec<u8>> {
    if user_by_id(passwd, user.uid).is_some() {
        return None;
    }
    let (name, uid, gid) = (clean(&user.name), user.uid, user.gid);
    let (home, shell) = (clean_path(&user.home), clean_path(&user.shell));
    Some(with_line(passwd, &format!("{name}:x:{uid}:{gid}:{name}:{home}:{shell}\n")))
}

/// The passwd file in which `user` is the only one with his id and the only one with his name; `None` where that is so.
#[must_use]
pub fn passwd_naming(passwd: &[u8], user: &User) -> Option<Vec<u8>> {
    if user_by_id(passwd, user.uid).as_ref() == Some(user) {
        return None;
    }
    let is_other =
        |line: &&[u8]| parse_user(line).is_none_or(|other| other.uid != user.uid && other.name != user.name);
    let others: Vec<&[u8]> = passwd.split(|byte| *byte == b'\n').filter(is_other).collect();
    passwd_with(&others.join(&b'\n'), user)
}

/// The group file with a group in it; `None` where its id is there already.
#[must_use]
pub fn group_with(group: &[u8], name: &str, gid: u32) -> Option<Vec<u8>> {
    if group_by_id(group, gid).is_some() {
        return None;
    }
    Some(with_line(group, &format!("{}:x:{gid}:\n", clean(name))))
}

fn parse_user(line: &[u8]) -> Option<User> {
    let [name, _, uid, gid, _, home, shell, ..] = fields(line)?[..] else { return None };
    Some(User {
        name: (!name.is_empty()).then(|| name.to_owned())?,
        uid: uid.parse().ok()?,
        gid: gid.parse().ok()?,
        home: home.into(),
        shell: if shell.is_empty() { "/bin/sh".into() } else { shell.into() },
    })
}

fn fields(line: &[u8]) -> Option<Vec<&str>> {
    Some(std::str::from_utf8(line).ok()?.split(':').collect())
}

fn with_line(file: &[u8], line: &str) -> Vec<u8> {
    let mut whole = file.to_vec();
    if whole.last().is_some_and(|byte| *byte != b'\n') {
        whole.push(b'\n');
    }
    whole.extend_from_slice(line.as_bytes());
    whole
}

/// A field must not end its field or its line.
fn clean(field: &str) -> String {
    field.replace([':', '\n', '\0'], "_")
}

fn clean_path(path: &Path) -> String {
    clean(&path.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/bash\nbroken\n_apt:x:42:65534::/nonexistent:\nx:y:z";

    fn alice() -> User {
        User { name: "al:ice".into(), uid: 1000, gid: 1001, home: "/home/a".into(), shell: "/bin/sh".into() }
    }

    #[test]
    fn users_are_found_by_id() {
        assert_eq!(user_by_id(PASSWD, 0).unwrap().home, Path::new("/root"));
        assert_eq!(user_by_id(PASSWD, 42).unwrap().shell, Path::new("/bin/sh"));
        assert_eq!(user_by_id(PASSWD, 1000), None);
        assert_eq!(group_by_id(b"a:x:5:\nb:x:6", 6).unwrap(), "b");
        assert_eq!(group_by_id(b"", 6), None);
    }

    #[test]
    fn a_named_user_takes_the_place_of_others() {
        let passwd = b"root:x:0:0::/root:/bin/sh\nbob:x:1000:7::/b:/bin/sh\nalice:x:5:5::/a:/bin/sh\n";
        let alice = User { name: "alice".into(), ..alice() };
        let named = passwd_naming(passwd, &alice).unwrap();
        let text = String::from_utf8(named.clone()).unwrap();
        assert_eq!(text, "root:x:0:0::/root:/bin/sh\nalice:x:1000:1001:alice:/home/a:/bin/sh\n");
        assert_eq!(passwd_naming(&named, &alice), None);
    }

    #[test]
    fn a_missing_user_is_added_once_and_on_a_line_of_its_own() {
        let added = passwd_with(PASSWD, &alice()).unwrap();
        assert!(added.starts_with(PASSWD));
        let found = user_by_id(&added, 1000).unwrap();
        assert_eq!((found.name.as_str(), found.gid), ("al_ice", 1001));
        assert_eq!(passwd_with(&added, &alice()), None);
        assert_eq!(group_with(b"g:x:1001:", "g", 1001), None);
        assert_eq!(group_with(b"g:x:1:", "h", 1001).unwrap(), b"g:x:1:\nh:x:1001:\n");
    }
}
