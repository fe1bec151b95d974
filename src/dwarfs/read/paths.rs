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
//! Parents of a damaged archive may lead in a circle; a path is given up when it has more names than there are
//! directories, or is longer than any sensible one.

use std::ops::ControlFlow;

use super::tree::{DirEntry, Inode, Tree};
use crate::dwarfs::{Error, limits};

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
        if inode == self.root() {
            return Ok(Vec::new());
        }
        // From its end to its beginning.
        let mut path = Vec::new();
        let (mut entry, mut directory) = self.place(inode)?;
        for _ in 0..=self.directory_count() {
            path.extend(self.name_of_entry(entry)?.iter().rev());
            if path.len() > limits::MAX_PATH_LEN {
                let (found, limit) = (path.len() as u64, limits::MAX_PATH_LEN as u64);
                return Err(Error::Limit { what: "length of a path", found, limit });
            }
            if directory == 0 {
                path.reverse();
                return Ok(path);
            }
            path.push(b'/');
            entry = self.own_entry(directory)?;
            directory = self.parent(directory)?;
        }
        Err(Error::Damaged { what: "the directories lead in a circle", inode: inode.get() })
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

    use super::*;
    use crate::{
        dwarfs::{
            format::{schema::Schema, section::SectionKind},
            read::{Archive, BlockCache, Index, Place, archive::load},
            write::{DirSource, WriteOptions, write_archive},
        },
        sync::Arc,
    };

    const PLACE: Place = Place::At { offset: 0, len: None };

    fn example() -> Vec<u8> {
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
        bytes
    }

    #[test]
    fn paths_lead_back_to_what_they_name() {
        let archive = Archive::open(Arc::new(example()), PLACE, &BlockCache::new(1 << 20)).unwrap();
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

    /// Visits all that a tree shows, and returns how many paths that are, and how many directories lead in a circle.
    fn exhaust(tree: &Tree) -> (u32, usize) {
        let (mut visited, mut circles, mut inodes) = (0, 0, Vec::new());
        let _ = tree.paths(&mut |_, inode| {
            visited += 1;
            inodes.push(inode);
        });
        for inode in inodes.into_iter().chain((0..tree.inode_count().min(100)).map(Inode::new)) {
            let _ = (tree.stat(inode), tree.read_link(inode), tree.file_size(inode));
            let path = tree.path_of(inode);
            circles +=
                usize::from(matches!(path, Err(Error::Damaged { what, .. }) if what.contains("circle")));
        }
        (visited, circles)
    }

    #[test]
    fn no_bit_of_the_metadata_makes_a_walk_longer_than_the_entries() {
        let bytes = example();
        let index = Index::open(&bytes, PLACE).unwrap();
        let section = |kind| load(&bytes, &index, kind, "section").unwrap();
        let schema = Schema::decode(&section(SectionKind::Schema)).unwrap();
        let whole = section(SectionKind::Metadata);
        assert_eq!(exhaust(&Tree::new(&schema, whole.clone()).unwrap()), (9, 0));
        let (mut opened, mut circles) = (0, 0);
        for bit in 0..whole.len() * 8 {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let Ok(tree) = Tree::new(&schema, damaged) else { continue };
            let most = tree.tables().entry_inode.len();
            let (visited, round) = exhaust(&tree);
            assert!(visited <= most, "bit {bit}: {visited} paths of {most} entries");
            opened += 1;
            circles += round;
        }
        assert!(opened > 100, "only {opened} trees were opened");
        assert!(circles > 0, "some bit makes directories each other's parents");
    }
}
