//! Hard links.

use super::{
    Overlay,
    copy_up::Keep,
    create::Vacancy,
    node::{Contents, Node},
    redirect::is_path,
};
use crate::{
    sync::Arc,
    vfs::{Entry, Errno, Error, Ino, Name, NodeId, RenameMode, Result, Spot},
};

impl Overlay {
    /// Makes sure that a file finds its data under whatever name.
    fn keep_data(&self, node: &Arc<Node>, id: NodeId) -> Result<()> {
        let link = {
            let state = node.state.lock();
            if state.contents == Contents::Own || state.redirect.as_deref().is_some_and(is_path) {
                return Ok(());
            }
            state.links.first().cloned().zip(Some(state.redirect.clone()))
        };
        let path = link.and_then(|(link, redirect)| {
            self.path_below(&link.parent, redirect.as_deref().unwrap_or(&link.name))
        });
        if path.is_some_and(|path| self.redirect(node, id, &path).is_ok()) {
            return Ok(());
        }
        // No path can be noted: it gets them.
        self.copy_up(node, Keep::All).map(drop)
    }

    pub(super) fn do_link(&self, ino: Ino, parent: Ino, name: Name<'_>) -> Result<Entry> {
        let _gate = self.gate.read();
        let _topology = self.topology.read();
        let node = self.table.get(ino)?;
        if node.is_dir() {
            return Err(Error::new(Errno::EPERM, "make a hard link to a directory"));
        }
        let dir = self.changing_dir(parent)?;
        if node.state.lock().links.is_empty() {
            return Err(Error::new(Errno::ENOENT, "make a hard link to a removed file"));
        }
        // Nothing is copied for a name that cannot be made.
        let free = dir.directory()?.lock.read();
        self.vacancy(&dir, name)?;
        drop(free);
        self.copy_up(&node, Keep::Attributes)?;
        let _renaming = self.renaming.read();
        let _entries = dir.directory()?.lock.write();
        self.check_not_removed(&dir)?;
        let vacancy = self.vacancy(&dir, name)?;
        let id = self.copy_up(&node, Keep::Attributes)?;
        self.keep_data(&node, id)?;
        let dir_id = self.copy_up(&dir, Keep::All)?;
        self.note_impure(&node, &dir, dir_id)?;
        let upper = self.upper()?;
        // Nobody else may change how the names are counted until the new one is there.
        let mut state = node.state.lock();
        self.count_upper_names(&mut state)?;
        match vacancy {
            Vacancy::Free => upper.link(id, dir_id, name)?,
            Vacancy::Whiteout => {
                let staged = self.staging_name();
                let from = Spot { dir: upper.work(), name: Name::new(&staged)?, node: None };
                upper.link(id, from.dir, from.name)?;
                let to = Spot { dir: dir_id, name, node: None };
                upper.rename(from, to, RenameMode::Replace).inspect_err(|_| {
                    let _ = upper.unlink(from);
                })?;
            }
        }
        drop(state);
        if !node.refs.try_retain() {
            return Err(Error::new(Errno::ESTALE, "make a hard link"));
        }
        self.table.add_link(&node, &dir, name);
        self.index_insert(&dir, name, &node);
        let attr = self.attr_of(&node).inspect_err(|_| self.table.release(&self.stack, &node, 1))?;
        Ok(Entry { ino: node.ino, generation: node.generation, attr })
    }
}
