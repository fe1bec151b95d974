//! Which files damaged blocks hit.

use std::ops::ControlFlow;

use crate::dwarfs::{
    Error,
    read::{
        archive::Archive,
        chunks::{Piece, piece},
        stat::Kind,
        tree::{Inode, Tree},
    },
};

/// Files that damaged blocks hit, by all their names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HitFiles {
    /// The first ones: paths from the root, without a slash in front.
    pub paths: Vec<Vec<u8>>,
    /// How many more there are.
    pub more: u64,
}

impl HitFiles {
    /// How many paths are kept. A damaged block of the usual 16 MiB hits some thousand files at most.
    const KEPT: usize = 10_000;

    fn add(&mut self, path: Vec<u8>) {
        if self.paths.len() < Self::KEPT {
            self.paths.push(path);
        } else {
            self.more += 1;
        }
    }
}

/// The files with pieces of damaged blocks, in the order of the tree; `None` where the tree cannot be walked.
pub(super) fn of_blocks(archive: &Archive, damaged: &[bool]) -> Option<HitFiles> {
    let mut hit = HitFiles::default();
    if !damaged.contains(&true) {
        return Some(hit);
    }
    let lists = lists_of(&archive.tree, damaged).ok()?;
    // The deepest directory last, so that paths come in the order of the tree.
    let mut waiting = vec![(archive.root(), Vec::new())];
    while let Some((directory, path)) = waiting.pop() {
        let mut inner = Vec::new();
        let listed = archive.read_dir(directory, 0, &mut |entry| {
            if let Some(inode) = entry.inode {
                match archive.kind(inode) {
                    Ok(Kind::Directory) => inner.push((inode, join(&path, entry.name))),
                    Ok(Kind::Regular) if is_hit(&archive.tree, inode, &lists) => {
                        hit.add(join(&path, entry.name));
                    }
                    _ => {}
                }
            }
            ControlFlow::Continue(())
        });
        listed.ok()?;
        waiting.extend(inner.into_iter().rev());
    }
    Some(hit)
}

fn join(path: &[u8], name: &[u8]) -> Vec<u8> {
    let separator: &[u8] = if path.is_empty() { b"" } else { b"/" };
    [path, separator, name].concat()
}

fn is_hit(tree: &Tree, inode: Inode, lists: &[bool]) -> bool {
    let list = tree.chunk_index(inode).ok().and_then(|list| usize::try_from(list).ok());
    list.and_then(|list| lists.get(list)).is_some_and(|hit| *hit)
}

/// For each chunk list, whether it has a piece of a damaged block.
fn lists_of(tree: &Tree, damaged: &[bool]) -> Result<Vec<bool>, Error> {
    let is_damaged = |number| {
        let Piece::Data { block, .. } = piece(tree.tables(), tree.data(), number)? else { return Ok(false) };
        Ok::<_, Error>(damaged.get(usize::try_from(block).unwrap_or(usize::MAX)).is_some_and(|bad| *bad))
    };
    let lists = tree.tables().chunk_table.len().saturating_sub(1);
    (0..lists)
        .map(|list| {
            for number in tree.chunks_at(list)? {
                if is_damaged(number)? {
                    return Ok(true);
                }
            }
            Ok(false)
        })
        .collect()
}
