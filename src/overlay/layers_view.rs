//! Each layer by itself: a read-only file system whose root holds the directories `0`, `1`, … , the lowest layer first.
//!
//! A directory shows what a mount of that layer alone would: neither whiteouts nor the overlay's own attributes. Nothing
//! is made for a layer before somebody looks at it. A layer that joins the stack later appears under the next number.

use std::fmt;

use super::{
    Overlay,
    stack::{in_view, out_of_view},
};
use crate::{
    pinned::Data,
    sync::{Arc, RwLock},
    vfs::{
        Attr, Caller, DeviceId, DirPlusSink, DirSink, Entry, Errno, Error, FallocateMode, FileKind,
        FileSystem, FsStat, Full, Ino, Invalidate, Lookup, Name, NoInvalidate, RenameFlags, Result,
        SeekWhence, SetAttr, XattrFlags,
    },
};

/// Positions behind `.` and `..` in the root; layer 0 follows.
const DOT: u64 = 1;
const DOT_DOT: u64 = 2;

/// Mode of the root: everybody may look.
const ROOT_PERM: u16 = 0o555;

/// The layers of a stack, each under its number.
pub struct LayersView {
    overlay: Arc<Overlay>,
    /// A stack of one for each layer that somebody has looked at, by number.
    alone: RwLock<Vec<Option<Arc<Overlay>>>>,
    invalidate: Arc<dyn Invalidate>,
}

impl LayersView {
    /// A view of the layers of `overlay`; `invalidate` is for the view's own mount.
    #[must_use]
    pub fn new(overlay: Arc<Overlay>, invalidate: Arc<dyn Invalidate>) -> Self {
        Self { overlay, alone: RwLock::default(), invalidate }
    }

    /// Makes the kernel list the numbers anew: a layer has joined the stack.
    pub fn has_grown(&self) {
        self.invalidate.inode(Ino::ROOT, true);
    }

    /// Number of layers that somebody has looked at.
    #[must_use]
    pub fn opened(&self) -> usize {
        self.alone.read().iter().flatten().count()
    }

    /// Layer `number` as a stack of its own, made at the first call.
    fn alone(&self, number: u32) -> Result<Arc<Overlay>> {
        let index = usize::try_from(number).unwrap_or(usize::MAX);
        if let Some(Some(known)) = self.alone.read().get(index) {
            return Ok(Arc::clone(known));
        }
        let layer = self.overlay.stack.layer(number)?;
        let mut alone = self.alone.write();
        if alone.len() <= index {
            alone.resize(index + 1, None);
        }
        let Some(place) = alone.get_mut(index) else { return Err(stale()) };
        if let Some(known) = place {
            return Ok(Arc::clone(known));
        }
        let options = self.overlay.options.clone();
        let made = Arc::new(Overlay::new(vec![layer], None, options, Arc::new(NoInvalidate))?);
        *place = Some(Arc::clone(&made));
        Ok(made)
    }

    /// The layer in which `ino` is, as a stack of its own, with its number there.
    fn within(&self, ino: Ino) -> Result<(u32, Arc<Overlay>, Ino)> {
        let (number, inner) =
            out_of_view(ino).ok_or(Error::new(Errno::EISDIR, "use the root of the view"))?;
        Ok((number, self.alone(number)?, inner))
    }

    /// The root of layer `number`.
    fn entry(&self, number: u32) -> Result<Entry> {
        let attr = self.alone(number)?.getattr(Ino::ROOT)?;
        Ok(shown(number, Entry { ino: Ino::ROOT, generation: 0, attr }))
    }

    /// The root: as old as the highest layer.
    fn root(&self) -> Result<Attr> {
        let newest = match self.overlay.stack.top() {
            Some(layer) => layer.attr(layer.root())?,
            None => self.overlay.getattr(Ino::ROOT)?,
        };
        let nlink = self.overlay.stack.len().saturating_add(2);
        let attr = Attr { ino: Ino::ROOT.get(), perm: ROOT_PERM, nlink, ..newest };
        Ok(self.overlay.shown(attr))
    }

    /// Goes through the root from `offset`: number of the layer, or none for `.` and `..`, name, and place behind it.
    fn each(
        &self,
        offset: u64,
        mut show: impl FnMut(Option<u32>, &[u8], u64) -> Result<Result<(), Full>>,
    ) -> Result<()> {
        for (at, name) in [(DOT, &b"."[..]), (DOT_DOT, b"..")] {
            if offset < at && show(None, name, at)?.is_err() {
                return Ok(());
            }
        }
        let first = u32::try_from(offset.saturating_sub(DOT_DOT)).unwrap_or(u32::MAX);
        for number in first..self.overlay.stack.len() {
            let next = u64::from(number) + DOT_DOT + 1;
            if show(Some(number), number.to_string().as_bytes(), next)?.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// `entry` of layer `number` as the view shows it.
fn shown(number: u32, entry: Entry) -> Entry {
    let ino = in_view(number, entry.ino);
    Entry { ino, attr: Attr { ino: ino.get(), ..entry.attr }, ..entry }
}

/// The number that a name of the root stands for.
fn number_of(name: Name<'_>) -> Option<u32> {
    let number: u32 = std::str::from_utf8(name.as_bytes()).ok()?.parse().ok()?;
    // Neither signs nor zeros in front: one layer, one name.
    (number.to_string().as_bytes() == name.as_bytes()).then_some(number)
}

fn stale() -> Error {
    Error::new(Errno::ESTALE, "find a layer")
}

fn read_only<T>() -> Result<T> {
    Err(Error::new(Errno::EROFS, "change a layer"))
}

/// Passes on the entries of a directory of one layer.
struct Renumbered<'a, S: ?Sized> {
    number: u32,
    /// Whether the directory is the layer's root, above which is the root of the view.
    is_top: bool,
    sink: &'a mut S,
}

impl<S: ?Sized> Renumbered<'_, S> {
    fn leads_out(&self, name: &[u8]) -> bool {
        self.is_top && name == b".."
    }
}

impl DirSink for Renumbered<'_, dyn DirSink + '_> {
    fn push(&mut self, ino: Ino, kind: FileKind, name: &[u8], next: u64) -> Result<(), Full> {
        let ino = if self.leads_out(name) { Ino::ROOT } else { in_view(self.number, ino) };
        self.sink.push(ino, kind, name, next)
    }
}

impl DirPlusSink for Renumbered<'_, dyn DirPlusSink + '_> {
    fn push(&mut self, entry: &Entry, name: &[u8], next: u64) -> Result<(), Full> {
        let mut entry = shown(self.number, *entry);
        if self.leads_out(name) {
            entry.ino = Ino::ROOT;
            entry.attr.ino = Ino::ROOT.get();
        }
        self.sink.push(&entry, name, next)
    }

    fn push_plain(&mut self, kind: FileKind, name: &[u8], next: u64) -> Result<(), Full> {
        self.sink.push_plain(kind, name, next)
    }
}

impl FileSystem for LayersView {
    fn lookup(&self, parent: Ino, name: Name<'_>) -> Result<Lookup> {
        if parent == Ino::ROOT {
            return match number_of(name) {
                Some(number) if number < self.overlay.stack.len() => self.entry(number).map(Lookup::Found),
                // There may be such a layer some day.
                Some(_) => Ok(Lookup::AbsentUncached),
                None => Ok(Lookup::Absent),
            };
        }
        let (number, layer, inner) = self.within(parent)?;
        Ok(match layer.lookup(inner, name)? {
            Lookup::Found(entry) => Lookup::Found(shown(number, entry)),
            absent => absent,
        })
    }

    fn forget(&self, ino: Ino, count: u64) {
        if let Ok((_, layer, inner)) = self.within(ino) {
            layer.forget(inner, count);
        }
    }

    fn getattr(&self, ino: Ino) -> Result<Attr> {
        if ino == Ino::ROOT {
            return self.root();
        }
        let (_, layer, inner) = self.within(ino)?;
        Ok(Attr { ino: ino.get(), ..layer.getattr(inner)? })
    }

    fn readlink(&self, ino: Ino) -> Result<Vec<u8>> {
        let (_, layer, inner) = self.within(ino)?;
        layer.readlink(inner)
    }

    fn readdir(&self, dir: Ino, offset: u64, sink: &mut dyn DirSink) -> Result<()> {
        if dir == Ino::ROOT {
            return self.each(offset, |number, name, next| {
                let ino = number.map_or(Ino::ROOT, |number| in_view(number, Ino::ROOT));
                Ok(sink.push(ino, FileKind::Directory, name, next))
            });
        }
        let (number, layer, inner) = self.within(dir)?;
        layer.readdir(inner, offset, &mut Renumbered { number, is_top: inner == Ino::ROOT, sink })
    }

    fn readdirplus(&self, dir: Ino, offset: u64, sink: &mut dyn DirPlusSink) -> Result<()> {
        if dir == Ino::ROOT {
            return self.each(offset, |number, name, next| {
                let entry = match number {
                    Some(number) => self.entry(number)?,
                    None => Entry { ino: Ino::ROOT, generation: 0, attr: self.root()? },
                };
                Ok(sink.push(&entry, name, next))
            });
        }
        let (number, layer, inner) = self.within(dir)?;
        layer.readdirplus(inner, offset, &mut Renumbered { number, is_top: inner == Ino::ROOT, sink })
    }

    fn fsyncdir(&self, _: Ino, _: bool) -> Result<()> {
        Ok(())
    }

    fn read(&self, ino: Ino, offset: u64, len: usize) -> Result<Data> {
        let (_, layer, inner) = self.within(ino)?;
        layer.read(inner, offset, len)
    }

    fn fsync(&self, _: Ino, _: bool) -> Result<()> {
        Ok(())
    }

    fn seek(&self, ino: Ino, offset: u64, whence: SeekWhence) -> Result<u64> {
        let (_, layer, inner) = self.within(ino)?;
        layer.seek(inner, offset, whence)
    }

    fn getxattr(&self, ino: Ino, name: &[u8]) -> Result<Vec<u8>> {
        if ino == Ino::ROOT {
            return Err(Error::new(Errno::ENODATA, "read an extended attribute"));
        }
        let (_, layer, inner) = self.within(ino)?;
        layer.getxattr(inner, name)
    }

    fn listxattr(&self, ino: Ino) -> Result<Vec<u8>> {
        if ino == Ino::ROOT {
            return Ok(Vec::new());
        }
        let (_, layer, inner) = self.within(ino)?;
        layer.listxattr(inner)
    }

    /// A layer that joins later may have some.
    fn has_xattrs(&self) -> bool {
        true
    }

    /// No space of its own.
    fn statfs(&self) -> Result<FsStat> {
        Ok(FsStat { block_size: 4096, name_max: 255, ..FsStat::default() })
    }

    fn is_read_only(&self) -> bool {
        true
    }

    fn setattr(&self, _: Caller, _: Ino, _: &SetAttr) -> Result<Attr> {
        read_only()
    }

    fn mknod(&self, _: Caller, _: Ino, _: Name<'_>, _: FileKind, _: u16, _: DeviceId) -> Result<Entry> {
        read_only()
    }

    fn mkdir(&self, _: Caller, _: Ino, _: Name<'_>, _: u16) -> Result<Entry> {
        read_only()
    }

    fn symlink(&self, _: Caller, _: Ino, _: Name<'_>, _: &[u8]) -> Result<Entry> {
        read_only()
    }

    fn link(&self, _: Ino, _: Ino, _: Name<'_>) -> Result<Entry> {
        read_only()
    }

    fn unlink(&self, _: Ino, _: Name<'_>) -> Result<()> {
        read_only()
    }

    fn rmdir(&self, _: Ino, _: Name<'_>) -> Result<()> {
        read_only()
    }

    fn rename(&self, _: Ino, _: Name<'_>, _: Ino, _: Name<'_>, _: RenameFlags) -> Result<()> {
        read_only()
    }

    fn write(&self, _: Caller, _: Ino, _: u64, _: &[u8], _: bool) -> Result<()> {
        read_only()
    }

    fn fallocate(&self, _: Caller, _: Ino, _: FallocateMode, _: u64, _: u64) -> Result<()> {
        read_only()
    }

    fn copy_range(&self, _: Caller, _: Ino, _: u64, _: Ino, _: u64, _: u64) -> Result<u64> {
        read_only()
    }

    fn setxattr(&self, _: Caller, _: Ino, _: &[u8], _: &[u8], _: XattrFlags) -> Result<()> {
        read_only()
    }

    fn removexattr(&self, _: Caller, _: Ino, _: &[u8]) -> Result<()> {
        read_only()
    }
}

impl fmt::Debug for LayersView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LayersView").field("opened", &self.opened()).finish_non_exhaustive()
    }
}
