//! Renaming a name to another spelling of itself.
//!
//! rename(2) does nothing where both names lead to one inode, and the two spellings of a name do: the kernel would never
//! ask for it. So whoever renames within a directory is told that the new spelling is not there yet.

use crate::{
    sys::renaming,
    vfs::{Caller, Errno, Error, FileSystem, Ino, Lookup, Name, Result},
};

/// Permission bit of a directory in which only owners remove and replace names.
const STICKY: u16 = 0o1000;

/// What `asker` is told of `name` in `parent`, which was `found`.
pub(super) fn told(fs: &dyn FileSystem, asker: u32, parent: Ino, name: Name<'_>, found: Lookup) -> Lookup {
    let Lookup::Respelled(entry) = found else { return found };
    let renames = renaming::within_directory(asker).is_some_and(|renaming| {
        renaming.new == name.as_bytes() && leads_to(fs, parent, &renaming.old) == Some(entry.ino)
    });
    if renames {
        fs.forget(entry.ino, 1);
        return Lookup::AbsentUncached;
    }
    found
}

/// `EPERM` where the sticky bit of the new directory forbids what a rename would replace under another spelling: a
/// kernel that takes the name for a new one has not looked.
pub(super) fn check_replaced(
    fs: &dyn FileSystem,
    caller: Caller,
    (parent, name): (Ino, Name<'_>),
    (new_parent, new_name): (Ino, Name<'_>),
) -> Result<()> {
    if caller.uid == 0 || !fs.is_folded(new_parent)? {
        return Ok(());
    }
    let dir = fs.getattr(new_parent)?;
    if dir.perm & STICKY == 0 || dir.uid == caller.uid {
        return Ok(());
    }
    let Lookup::Respelled(replaced) = fs.lookup(new_parent, new_name)? else { return Ok(()) };
    let is_itself = leads_to(fs, parent, name.as_bytes()) == Some(replaced.ino);
    fs.forget(replaced.ino, 1);
    match is_itself || replaced.attr.uid == caller.uid {
        true => Ok(()),
        false => Err(Error::new(Errno::EPERM, "replace a name in a sticky directory")),
    }
}

/// The inode behind a name.
fn leads_to(fs: &dyn FileSystem, parent: Ino, name: &[u8]) -> Option<Ino> {
    match fs.lookup(parent, Name::new(name).ok()?).ok()? {
        Lookup::Found(entry) | Lookup::Respelled(entry) => {
            fs.forget(entry.ino, 1);
            Some(entry.ino)
        }
        Lookup::Absent | Lookup::AbsentUncached => None,
    }
}
