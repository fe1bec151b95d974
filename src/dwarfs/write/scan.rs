//! Gets a tree from its source and makes the side car for what DwarFS cannot carry.

use std::io;

use super::{
    error::WriteError,
    faults::Faults,
    object::{Content, FileContent, Object},
    progress::{Phase, Progress},
    read::{Files, read_stable},
    source::Source,
    tree::{EntryId, ObjectId, Tree},
    xattrs,
};
use crate::dwarfs::{
    Error,
    format::sidecar::{self, Sidecar, Xattrs},
    limits,
};

/// Scans a source. The tree that is returned has the side car in it, if there is anything to carry.
pub(super) fn scan<'a>(
    source: &'a dyn Source,
    faults: &'a Faults<'a>,
    progress: &dyn Progress,
) -> Result<(Tree, Files<'a>), WriteError> {
    progress.begin(Phase::Scan, 0, 0);
    let mut tree = source.scan(faults, progress)?;
    let mut files = Files { source, sidecar: None, faults };
    let old = tree.children(EntryId::ROOT).find(|id| tree.name(*id) == sidecar::FILE_NAME);
    let old = old.map(|id| tree.object_of(id));
    if let Some(old) = old {
        take_over(&mut tree, &files, old)?;
    }
    if old.is_none() && !tree.has_xattrs() {
        return Ok((tree, files));
    }
    let bytes = encode(&tree)?;
    let content = FileContent { size: bytes.len() as u64, ..FileContent::default() };
    let id = match old {
        Some(old) => old,
        None => tree.add_root_file(sidecar::FILE_NAME, new_file(&tree))?,
    };
    if let Some(object) = tree.object_mut(id) {
        object.content = Content::File(content);
    }
    files.sidecar = Some((id, bytes));
    Ok((tree, files))
}

/// The side car as an object: nobody's business but root's, as old as the root.
fn new_file(tree: &Tree) -> Object {
    let mut object = Object::new(Content::File(FileContent::default()), 0o600);
    if let Some(root) = tree.object(ObjectId::ROOT) {
        (object.mtime, object.atime, object.ctime) = (root.mtime, root.mtime, root.mtime);
        object.btime = root.btime.map(|_| root.mtime);
    }
    object
}

fn encode(tree: &Tree) -> Result<Vec<u8>, WriteError> {
    let with_xattrs = tree.entry_ids().filter_map(|id| Some((id, tree.xattrs(tree.object_of(id))?)));
    let records = with_xattrs.map(|(id, xattrs)| (tree.path(id), xattrs.clone())).collect();
    let bytes = Sidecar { records }.encode().map_err(WriteError::Sidecar)?;
    check_len(bytes.len() as u64)?;
    Ok(bytes)
}

/// Readers refuse a longer one, so that none is made.
fn check_len(found: u64) -> Result<(), WriteError> {
    let (what, limit) = ("length of the side car", limits::MAX_SIDECAR_LEN);
    if found > limit { Err(WriteError::Sidecar(Error::Limit { what, found, limit })) } else { Ok(()) }
}

/// Takes over what the side car of an archive says that was unpacked by a tool which does not know of it.
fn take_over(tree: &mut Tree, files: &Files<'_>, old: ObjectId) -> Result<(), WriteError> {
    let bytes = read_whole(tree, files, old)?;
    let records = Sidecar::decode(&bytes).map_err(WriteError::Sidecar)?.records;
    for (path, carried) in records {
        let Some(entry) = find(tree, &path) else { continue };
        let object = tree.object_of(entry);
        let mut all = carried;
        all.retain(|name, _| xattrs::is_wanted(name));
        // What is on the object itself is newer.
        all.extend(tree.xattrs(object).cloned().unwrap_or_else(Xattrs::new));
        tree.set_xattrs(object, all);
    }
    Ok(())
}

fn find(tree: &Tree, path: &[u8]) -> Option<EntryId> {
    if path.is_empty() {
        return Some(EntryId::ROOT);
    }
    path.split(|byte| *byte == b'/')
        .try_fold(EntryId::ROOT, |at, name| tree.children(at).find(|child| tree.name(*child) == name))
}

fn read_whole(tree: &mut Tree, files: &Files<'_>, id: ObjectId) -> Result<Vec<u8>, WriteError> {
    let path = || tree.path(tree.first_name(id)).into();
    let Some(file) = tree.object(id).and_then(Object::file) else {
        return Err(WriteError::BadName { path: path() });
    };
    check_len(file.size)?;
    let (bytes, _newer) = read_stable(files, tree, id, |contents, object| {
        let size = object.file().map_or(0, |file| file.size).min(limits::MAX_SIDECAR_LEN);
        let mut bytes = vec![0; usize::try_from(size).map_err(io::Error::other)?];
        let mut at = 0;
        while let Some(rest) = bytes.get_mut(at..).filter(|rest| !rest.is_empty()) {
            match contents.read_at(rest, at as u64)? {
                0 => return Ok(None),
                read => at += read,
            }
        }
        Ok(Some(bytes))
    })?;
    Ok(bytes)
}
