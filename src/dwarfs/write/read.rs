//! Reading a file as a whole while others may change it.

use std::io;

use super::{
    error::WriteError,
    faults::Faults,
    object::Object,
    source::{Contents, Source},
    tree::{ObjectId, Tree},
};

/// The files of a tree: those of its source, and the side car, which is made here.
pub(super) struct Files<'a> {
    pub(super) source: &'a dyn Source,
    pub(super) sidecar: Option<(ObjectId, Vec<u8>)>,
    pub(super) faults: &'a Faults<'a>,
}

impl Files<'_> {
    fn open<'s>(
        &'s self,
        id: ObjectId,
        path: &[u8],
        object: &Object,
    ) -> Result<Box<dyn Contents + 's>, WriteError> {
        match &self.sidecar {
            Some((sidecar, bytes)) if *sidecar == id => Ok(Box::new(InMemory(bytes))),
            _ => self.source.open(path, object),
        }
    }
}

/// How often a file that keeps changing is read.
const ATTEMPTS: u32 = 4;

/// Runs `read` over a file until it has not changed meanwhile, and returns what that gave, with the file's present
/// state if it is no longer that of the tree. `read` returns nothing if the file ended early.
pub(super) fn read_stable<T>(
    files: &Files<'_>,
    tree: &Tree,
    id: ObjectId,
    mut read: impl FnMut(&dyn Contents, &Object) -> io::Result<Option<T>>,
) -> Result<(T, Option<Object>), WriteError> {
    let path = tree.path(tree.first_name(id));
    let Some(known) = tree.object(id) else { return Err(WriteError::NotADirectory { path: path.into() }) };
    let failed = |source| WriteError::Source { action: "read", path: path.clone().into(), source };
    let mut newer: Option<Object> = None;
    for _ in 0..ATTEMPTS {
        let contents = files.open(id, &path, known)?;
        if !contents.is_unchanged(newer.as_ref().unwrap_or(known)).map_err(failed)? {
            newer = Some(contents.refresh(newer.as_ref().unwrap_or(known)).map_err(failed)?);
        }
        let object = newer.as_ref().unwrap_or(known);
        let result = read(contents.as_ref(), object).map_err(failed)?;
        if let Some(result) = result
            && contents.is_unchanged(object).map_err(failed)?
        {
            return Ok((result, newer));
        }
    }
    Err(WriteError::Changed { path: path.into(), attempts: ATTEMPTS })
}

/// A file that is made of bytes in memory.
struct InMemory<'a>(&'a [u8]);

impl Contents for InMemory<'_> {
    fn is_unchanged(&self, _known: &Object) -> io::Result<bool> {
        Ok(true)
    }

    fn refresh(&self, known: &Object) -> io::Result<Object> {
        Ok(known.clone())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let from = usize::try_from(offset).ok().and_then(|start| self.0.get(start..)).unwrap_or_default();
        Ok(buffer.iter_mut().zip(from).map(|(to, from)| *to = *from).count())
    }
}
