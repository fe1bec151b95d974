//! Listing directories.

use std::ops::ControlFlow;

use super::{
    Overlay,
    dir_index::{DOT, DOT_DOT, DirIndex, IndexEntry, TOP},
    lookup::choose_ino,
    marks::Marks,
    node::{LowerRef, Lowers, Node, Object},
    stack::Found,
};
use crate::{
    sync::Arc,
    vfs::{
        Attr, DirPlusSink, DirSink, Entry, Errno, FileKind, Full, Ino, Layer, LayerEntry, Name, NodeId,
        Result,
    },
};

/// The number of an entry without one: any but 0, which is no entry at all.
const UNKNOWN: Ino = Ino::new(u64::MAX);

/// Entries that are taken out of an index at a time.
const BATCH: usize = 128;

/// An entry to be shown.
struct Shown<'a> {
    name: &'a [u8],
    kind: FileKind,
    ino: Option<Ino>,
    /// Where the layer says at no cost what it is.
    node: Option<(Object, Attr)>,
    next: u64,
}

/// Whether there is room for more.
type Room = ControlFlow<()>;

impl Overlay {
    pub(super) fn do_readdir(&self, ino: Ino, offset: u64, sink: &mut dyn DirSink) -> Result<()> {
        let _topology = self.topology.read();
        let dir = self.table.get(ino)?;
        let _entries = dir.directory()?.lock.read();
        for (at, name, node) in [(DOT, &b"."[..], Arc::clone(&dir)), (DOT_DOT, b"..", dir.parent())] {
            if offset < at && sink.push(node.ino, FileKind::Directory, name, at).is_err() {
                return Ok(());
            }
        }
        self.each_entry(&dir, offset, &mut |shown| {
            let ino = match self.ino_of_entry(&dir, &shown) {
                Ok(Some(ino)) => ino,
                Ok(None) => return Ok(Room::Continue(())),
                // As READDIRPLUS: its own look-up tells what is wrong with it.
                Err(_) => UNKNOWN,
            };
            Ok(room(sink.push(ino, shown.kind, shown.name, shown.next)))
        })
    }

    pub(super) fn do_readdirplus(&self, ino: Ino, offset: u64, sink: &mut dyn DirPlusSink) -> Result<()> {
        let _topology = self.topology.read();
        let dir = self.table.get(ino)?;
        let _entries = dir.directory()?.lock.read();
        for (at, name, node) in [(DOT, &b"."[..], Arc::clone(&dir)), (DOT_DOT, b"..", dir.parent())] {
            if offset < at {
                let attr = self.attr_of(&node)?;
                let entry = Entry { ino: node.ino, generation: node.generation, attr };
                if sink.push(&entry, name, at).is_err() {
                    return Ok(());
                }
            }
        }
        self.each_entry(&dir, offset, &mut |shown| {
            if !sink.wants(shown.kind) {
                return Ok(match self.ino_of_entry(&dir, &shown) {
                    Ok(Some(ino)) => room(sink.push_bare(ino, shown.kind, shown.name, shown.next)),
                    Ok(None) => Room::Continue(()),
                    Err(_) => room(sink.push_plain(shown.kind, shown.name, shown.next)),
                });
            }
            let name = Name::new(shown.name)?;
            let entry = match self.entry_of(&dir, name, &shown) {
                // Redirects that were made to be followed without end hide what has them, and nothing else.
                Err(error) if error.errno() == Errno::ELOOP => return Ok(Room::Continue(())),
                // What is wrong with one entry its own look-up tells; the others are listed all the same.
                Err(_) => return Ok(room(sink.push_plain(shown.kind, shown.name, shown.next))),
                Ok(found) => found,
            };
            let Some(entry) = entry else { return Ok(Room::Continue(())) };
            let room = room(sink.push(&entry, shown.name, shown.next));
            if room.is_break() {
                self.do_forget(entry.ino, 1);
            }
            Ok(room)
        })
    }

    /// Calls `show` with each entry behind `offset` until it has no room.
    fn each_entry(
        &self,
        dir: &Arc<Node>,
        offset: u64,
        show: &mut dyn FnMut(Shown<'_>) -> Result<Room>,
    ) -> Result<()> {
        if dir.state.lock().removed {
            return Ok(());
        }
        let begins = offset < DOT_DOT;
        let offset = offset.max(DOT_DOT);
        let directory = dir.directory()?;
        let (upper, lowers) = dir.parts();
        if let (None, [only]) = (upper, lowers.as_slice()) {
            // A folded one is indexed, and shows all that the layer has unless names meet in it.
            let streams = match directory.mode() {
                None => directory.index.lock().is_none(),
                Some(_) => self.with_index(dir, DirIndex::is_plain)?,
            };
            if streams {
                return self.stream(*only, offset, show);
            }
        }
        self.with_index(dir, |_| ())?;
        if begins && let Some(index) = directory.index.lock().as_mut() {
            index.begin_listing();
        }
        let mut at = offset;
        loop {
            let batch =
                directory.index.lock().as_ref().map_or_else(Vec::new, |index| index.behind(at, BATCH));
            if batch.is_empty() {
                return Ok(());
            }
            for (next, IndexEntry { name, kind, ino, .. }) in batch {
                at = next;
                if show(Shown { name: &name, kind, ino, node: None, next })?.is_break() {
                    return Ok(());
                }
            }
        }
    }

    /// Lists a directory that only one layer has, straight from there.
    fn stream(
        &self,
        dir: LowerRef,
        offset: u64,
        show: &mut dyn FnMut(Shown<'_>) -> Result<Room>,
    ) -> Result<()> {
        let layer = self.stack.layer(dir.layer)?;
        let mut result = Ok(());
        layer.read_dir(dir.node, offset - DOT_DOT, &mut |entry| {
            let step = || -> Result<Room> {
                if is_whiteout(&*layer, dir.node, &entry)? {
                    return Ok(Room::Continue(()));
                }
                let object = |node| Object::lower(LowerRef { layer: dir.layer, node });
                show(Shown {
                    name: entry.name.as_bytes(),
                    kind: entry.kind,
                    ino: None,
                    node: entry.node.map(|(node, attr)| (object(node), attr)),
                    next: entry.next + DOT_DOT,
                })
            };
            let mut step = step;
            step().unwrap_or_else(|error| {
                result = Err(error);
                Room::Break(())
            })
        })?;
        result
    }

    /// The inode number of an entry, as a look-up would tell it; `None` where the entry has gone.
    fn ino_of_entry(&self, dir: &Arc<Node>, shown: &Shown<'_>) -> Result<Option<Ino>> {
        if let Some(ino) = shown.ino {
            return Ok(Some(ino));
        }
        if let Some((object, attr)) = shown.node
            && self.is_all(object, attr.kind)?
        {
            if let Some(node) = self.table.peek(object) {
                return Ok(Some(node.ino));
            }
            if let Some(ino) = object.layer().and_then(|layer| super::stack::lower_ino(layer, attr.ino)) {
                return Ok(Some(Ino::new(ino)));
            }
        }
        let found = match self.find(dir, Name::new(shown.name)?) {
            Err(error) if error.errno() == Errno::ELOOP => return Ok(None),
            found => found?,
        };
        let Some(found) = found else { return Ok(None) };
        let known = found.object().and_then(|object| self.table.peek(object));
        let (ino, lasting) = match known {
            Some(node) => (node.ino, node.lasting_ino()),
            None => {
                let chosen = choose_ino(&found);
                // A number that does not fit is only known once there is a node; until then any but 0 will do.
                (chosen.unwrap_or(UNKNOWN), chosen)
            }
        };
        if let (Some(ino), Some(index)) = (lasting, dir.directory()?.index.lock().as_mut()) {
            index.learn(shown.next, shown.name, ino);
        }
        Ok(Some(ino))
    }

    /// Whether an entry of a directory that only one layer has is all there is: it does not say that something of it is
    /// elsewhere.
    fn is_all(&self, object: Object, kind: FileKind) -> Result<bool> {
        let Some(number) = object.layer().filter(|number| *number > 0) else { return Ok(true) };
        let marks = Marks::read(&*self.stack.layer(number)?, object.node(), kind)?;
        Ok(marks.redirect.is_none() && !marks.metacopy)
    }

    /// The entry with one more look-up; `None` where it has gone.
    fn entry_of(&self, dir: &Arc<Node>, name: Name<'_>, shown: &Shown<'_>) -> Result<Option<Entry>> {
        self.entry(dir, name, || {
            let Some((object, attr)) = shown.node else { return self.find(dir, name) };
            let Some(number) = object.layer() else { return self.find(dir, name) };
            if dir.upper().is_some() || !self.is_all(object, attr.kind)? {
                return self.find(dir, name);
            }
            // The only layer that has the directory has told everything already.
            let lower = LowerRef { layer: number, node: object.node() };
            self.stack.layer(number)?.retain(lower.node);
            let ino = super::stack::lower_ino(number, attr.ino);
            let mut found = Found::new(&self.stack, attr);
            (found.lowers, found.lower_ino) = (Lowers::One(lower), ino);
            Ok(Some(found))
        })
    }

    /// Whether a directory shows no entry.
    pub(super) fn is_empty(&self, dir: &Arc<Node>) -> Result<bool> {
        if dir.state.lock().removed {
            return Ok(true);
        }
        self.with_index(dir, |index| index.is_empty())
    }

    /// Notes a new entry of `dir`.
    pub(super) fn index_insert(&self, dir: &Node, name: Name<'_>, node: &Node) {
        if let Some(dir) = &dir.dir
            && let Some(index) = dir.index.lock().as_mut()
        {
            index.insert(name.as_bytes(), node.kind, node.lasting_ino(), TOP);
        }
    }

    /// Notes that an entry of `dir`, if it is still there, has become what `node` is now.
    pub(super) fn index_change(&self, dir: &Node, name: Name<'_>, node: &Node) {
        if let Some(dir) = &dir.dir
            && let Some(index) = dir.index.lock().as_mut()
        {
            index.change(name.as_bytes(), node.kind, node.lasting_ino(), TOP);
        }
    }

    /// Notes that an entry of `dir` has gone.
    pub(super) fn index_remove(&self, dir: &Node, name: Name<'_>) {
        if let Some(dir) = &dir.dir
            && let Some(index) = dir.index.lock().as_mut()
        {
            index.remove(name.as_bytes());
        }
    }

    /// Calls `act` with the index of `dir`, which is made if there is none. The caller holds the lock of the entries.
    pub(super) fn with_index<T>(&self, dir: &Arc<Node>, act: impl FnOnce(&DirIndex) -> T) -> Result<T> {
        let mut index = dir.directory()?.index.lock();
        if index.is_none() {
            *index = Some(self.make_index(dir)?);
        }
        Ok(act(index.get_or_insert_default()))
    }

    /// Merges the entries of `dir`, from the lowest layer upwards.
    fn make_index(&self, dir: &Arc<Node>) -> Result<DirIndex> {
        let mut index = DirIndex::new(dir.directory()?.mode());
        let (upper, lowers) = dir.parts();
        let single = lowers.as_slice().len() == 1;
        for lower in lowers.as_slice().iter().rev() {
            let layer = self.stack.layer(lower.layer)?;
            let at = |entry: &LayerEntry<'_>| single.then_some(entry.next + DOT_DOT);
            add_entries(&mut index, (lower.layer, &*layer), lower.node, at)?;
        }
        if let (Some(upper), Some(id)) = (self.stack.upper(), upper) {
            add_entries(&mut index, (TOP, &**upper), id, |_| None)?;
        }
        // One that has begun in the layer goes on in it.
        index.begin_listing();
        Ok(index)
    }
}

/// Lays the entries of one directory over an index.
fn add_entries<L: Layer + ?Sized>(
    index: &mut DirIndex,
    (number, layer): (u32, &L),
    dir: NodeId,
    at: impl Fn(&LayerEntry<'_>) -> Option<u64>,
) -> Result<()> {
    let mut result = Ok(());
    layer.read_dir(dir, 0, &mut |entry| {
        let name = entry.name.as_bytes();
        match is_whiteout(layer, dir, &entry) {
            Ok(true) => index.remove(name),
            Ok(false) => match at(&entry) {
                Some(offset) => index.insert_at(offset, name, entry.kind, None, number),
                None => index.insert(name, entry.kind, None, number),
            },
            Err(error) => {
                result = Err(error);
                return Room::Break(());
            }
        }
        Room::Continue(())
    })?;
    result
}

/// Whether an entry of a layer deletes a name.
fn is_whiteout<L: Layer + ?Sized>(layer: &L, dir: NodeId, entry: &LayerEntry<'_>) -> Result<bool> {
    if entry.kind != FileKind::CharDevice {
        return Ok(false);
    }
    if let Some((_, attr)) = entry.node {
        return Ok(attr.is_whiteout());
    }
    let Some((node, attr)) = layer.lookup(dir, entry.name)? else { return Ok(true) };
    layer.forget(node);
    Ok(attr.is_whiteout())
}

fn room(pushed: Result<(), Full>) -> Room {
    match pushed {
        Ok(()) => Room::Continue(()),
        Err(Full) => Room::Break(()),
    }
}
