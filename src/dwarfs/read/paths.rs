//! From an inode back to its path, and the walk over all of them.
//!
//! A directory's record names its own entry and its parent, so that its path is found upwards, one step a name. A file
//! records neither: its first entry is searched for, and the directory that holds that entry by the order of the
//! directories. Nothing is built or kept for either.
//!
//! ```text
//! entries      | . | bin etc usr | ls sh | passwd | bin lib | ...
//! directories    ^0  ^1            ^2      ^3       ^4            first entry of each: ascending
//! ```
//!
//! Parents of a damaged archive may lead in a circle; a path is given up when it is longer than any sensible one.

use std::ops::ControlFlow;

use super::tree::{DirEntry, Inode, Tree};
use crate::dwarfs::{Error, format::fsst::Text, limits};

/// Hears of each path and what it names.
pub type VisitPath<'a> = dyn FnMut(&[u8], Inode) + 'a;

/// A directory whose entries are being visited.
struct Level {
    directory: Inode,
    /// Where to go on.
    next: u32,
    /// Length of its path.
    path_len: usize,
}

impl Tree {
    /// The path of an object from the root: names with `/` between them, nothing for the root. Of a file with several
    /// names the first one. A directory's takes a step a name; a file's a look at all entries.
    pub(super) fn path_of(&self, inode: Inode) -> Result<Vec<u8>, Error> {
        let mut names: Vec<Text> = Vec::new();
        let mut len = 0;
        if inode == self.root() {
            return Ok(Vec::new());
        }
        let (mut entry, mut directory) = self.place(inode)?;
        loop {
            let name = self.name_of_entry(entry)?;
            len += name.len() + 1;
            names.push(name);
            if len > limits::MAX_PATH_LEN {
                let (found, limit) = (len as u64, limits::MAX_PATH_LEN as u64);
                return Err(Error::Limit { what: "length of a path", found, limit });
            }
            if directory == 0 {
                break;
            }
            entry = self.own_entry(directory)?;
            directory = self.parent(directory)?;
        }
        names.reverse();
        Ok(names.join(&b'/'))
    }

    /// Visits every path below the root, each directory before what is in it. What is damaged is passed over, and the
    /// first damage told at the end.
    pub(super) fn paths(&self, visit: &mut VisitPath<'_>) -> Result<(), Error> {
        let mut path = Vec::new();
        let mut levels = vec![Level { directory: self.root(), next: 0, path_len: 0 }];
        let mut damage = None;
        while let Some(level) = levels.last_mut() {
            let (directory, path_len) = (level.directory, level.path_len);
            path.truncate(path_len);
            let mut below = None;
            let listed = self.read_dir(directory, level.next, &mut |DirEntry { name, inode, position }| {
                level.next = position + 1;
                let Some(inode) = inode else { return ControlFlow::Continue(()) };
                path.truncate(path_len);
                if path_len > 0 {
                    path.push(b'/');
                }
                path.extend_from_slice(name);
                visit(&path, inode);
                if self.is_directory(inode) {
                    below = Some(inode);
                    return ControlFlow::Break(());
                }
                ControlFlow::Continue(())
            });
            if let Err(error) = listed {
                damage.get_or_insert(error);
                levels.pop();
            } else if let Some(directory) = below {
                levels.push(Level { directory, next: 0, path_len: path.len() });
            } else {
                levels.pop();
            }
        }
        damage.map_or(Ok(()), Err)
    }

    /// An entry of an object, and the number of the directory that holds it.
    fn place(&self, inode: Inode) -> Result<(u32, u32), Error> {
        let number = self.number(inode)?;
        if self.is_directory(inode) {
            return Ok((self.own_entry(number)?, self.parent(number)?));
        }
        let entry = self.first_entry_of(inode)?;
        Ok((entry, self.holder_of(entry)?))
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, num::NonZeroUsize, os::unix::fs::symlink};

    use crate::{
        dwarfs::{
            read::{Archive, BlockCache, Inode, Place},
            write::{DirSource, WriteOptions, write_archive},
        },
        sync::Arc,
    };

    fn example() -> Archive {
        let tree = tempfile::tempdir().unwrap();
        let path = |name: &str| tree.path().join(name);
        fs::create_dir_all(path("a/b/c")).unwrap();
        fs::create_dir_all(path("a/empty")).unwrap();
        fs::create_dir_all(path("z")).unwrap();
        fs::write(path("a/b/c/file"), "file").unwrap();
        fs::write(path("top"), "top").unwrap();
        fs::hard_link(path("top"), path("z/again")).unwrap();
        symlink("top", path("z/link")).unwrap();
        let options = WriteOptions { threads: NonZeroUsize::MIN, ..WriteOptions::default() };
        let mut bytes = Vec::new();
        write_archive(&DirSource::open(tree.path()).unwrap(), &options, &mut bytes, &()).unwrap();
        let place = Place::At { offset: 0, len: None };
        Archive::open(Arc::new(bytes), place, &BlockCache::new(1 << 20)).unwrap()
    }

    #[test]
    fn paths_lead_back_to_what_they_name() {
        let archive = example();
        let mut found = Vec::new();
        archive.paths(&mut |path, inode| found.push((path.to_vec(), inode))).unwrap();
        let names: Vec<_> = found.iter().map(|(path, _)| path.escape_ascii().to_string()).collect();
        let expected = ["a", "a/b", "a/b/c", "a/b/c/file", "a/empty", "top", "z", "z/again", "z/link"];
        assert_eq!(names, expected);
        for (path, inode) in &found {
            assert_eq!(archive.find(path).unwrap(), Some(*inode));
            let back = archive.path_of(*inode).unwrap();
            let first = if path == b"z/again" { &b"top"[..] } else { path };
            assert_eq!(back, first, "the first name of a file");
        }
        assert!(archive.path_of(archive.root()).unwrap().is_empty());
        assert!(archive.path_of(Inode::new(99)).is_err());
    }
}
