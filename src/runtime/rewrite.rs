//! Writing an image anew beside itself, and putting it in its own place by one rename: another engine (`fim upgrade`), or
//! a layer less (`fim-layer rm`).
//!
//! ```text
//! old   | program | settings, table | archive | archive | archive |
//! new   | program | settings, table | archive | archive |    the archives that stay, wherever they begin now
//! ```
//!
//! Whoever looks finds one or the other. The archives are shared instead of copied where the file system can, and each
//! is found to be the one that the table names before the rename. The old image is locked meanwhile; who waits for that
//! lock finds the new one. What runs from the old file goes on with it.

use std::{
    fs::{self, File, Permissions},
    io,
    os::{
        fd::AsFd as _,
        unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, fchown},
    },
    path::{Path, PathBuf},
};

use thiserror::Error;

use super::create::Program;
use crate::{
    config::{self, ConfigError},
    dwarfs::write::{self, PublishError},
    image::{
        ImageEdit, ImageError, ImageFile, LayerTable, TableError, digest,
        elf::{ElfError, MARK, MARK_AT},
        reserved::{Reserved, align_up},
        twin::TwinError,
    },
    sys::{transfer, xattr},
};

/// Length of the pieces that are compared, in bytes.
const PIECE: usize = 256 << 10;

/// An image that cannot be written anew; it is as it was.
#[derive(Debug, Error)]
pub enum RewriteError {
    /// The image, or what was written in its stead.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The running program cannot be understood.
    #[error("cannot copy the running program")]
    Program(#[from] ElfError),
    /// The new file cannot be filled.
    #[error("cannot {action} the new {}", path.display())]
    Fill {
        /// What was being done.
        action: &'static str,
        /// The image.
        path: PathBuf,
        /// What the host said.
        source: io::Error,
    },
    /// An archive arrived as another one.
    #[error("cannot rewrite {}: the archive at offset {offset:#x} changed while it was copied", path.display())]
    Changed {
        /// The image.
        path: PathBuf,
        /// Where the archive begins in the old image.
        offset: u64,
    },
    /// A layer that is not there.
    #[error("cannot remove layer {index} of {}: it has {count}, counted from 0", path.display())]
    NoSuchLayer {
        /// The image.
        path: PathBuf,
        /// The number as given.
        index: usize,
        /// How many layers there are.
        count: usize,
    },
    /// The last layer.
    #[error("cannot remove the only layer of {}", path.display())]
    OnlyLayer {
        /// The image.
        path: PathBuf,
    },
    /// The settings cannot be written.
    #[error("cannot write the settings")]
    Settings(#[from] ConfigError),
    /// The table cannot be written.
    #[error("cannot write the layer table")]
    Table(#[from] TableError),
    /// The settings or the table cannot be written.
    #[error("cannot write the image")]
    Twin(#[from] TwinError),
    /// The new file cannot take the old one's place.
    #[error(transparent)]
    Publish(#[from] PublishError),
}

/// What an upgrade did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upgraded {
    /// The image has another engine now.
    Replaced,
    /// It had this very engine.
    Already,
}

/// Puts the running program into an image. `watch` hears of bytes done and bytes in all.
///
/// # Errors
///
/// [`RewriteError`]; the image is as it was.
pub fn upgrade(image: &Path, watch: &mut dyn FnMut(u64, u64)) -> Result<Upgraded, RewriteError> {
    let subject = Subject::open(image)?;
    let program = Program::running()?;
    if is_same(&program, &subject.old).map_err(subject.failed("read the program of"))? {
        return Ok(Upgraded::Already);
    }
    let table = subject.old.table().clone();
    subject.rewrite((program.file(), program.end()), &table, watch)?;
    Ok(Upgraded::Replaced)
}

/// Takes a layer out of an image, by its number from the lowest. `watch` hears of bytes done and bytes in all.
///
/// # Errors
///
/// [`RewriteError`]; the image is as it was.
pub fn remove_layer(image: &Path, index: usize, watch: &mut dyn FnMut(u64, u64)) -> Result<(), RewriteError> {
    let subject = Subject::open(image)?;
    let mut table = subject.old.table().clone();
    if table.remove_layer(index).is_none() {
        let count = table.layers().count();
        return Err(RewriteError::NoSuchLayer { path: subject.path, index, count });
    }
    if table.layers().next().is_none() {
        return Err(RewriteError::OnlyLayer { path: subject.path });
    }
    subject.rewrite((subject.old.file(), subject.old.elf_end()), &table, watch)
}

/// An image that is locked, to be written anew.
struct Subject {
    path: PathBuf,
    old: ImageFile,
    _lock: ImageEdit,
}

impl Subject {
    fn open(image: &Path) -> Result<Self, RewriteError> {
        // The file itself takes the new one's place, not a link to it.
        let path =
            fs::canonicalize(image).map_err(|source| ImageError::Open { path: image.to_owned(), source })?;
        let lock = ImageEdit::open(&path)?;
        let again =
            lock.file().try_clone().map_err(|source| ImageError::Open { path: path.clone(), source })?;
        Ok(Self { old: ImageFile::of(again, path.clone())?, path, _lock: lock })
    }

    fn failed(&self, action: &'static str) -> impl FnOnce(io::Error) -> RewriteError + use<> {
        let path = self.path.clone();
        move |source| RewriteError::Fill { action, path, source }
    }

    /// Writes the image with this program and the archives of this table, which are among its own.
    fn rewrite(
        &self,
        program: (&File, u64),
        table: &LayerTable,
        watch: &mut dyn FnMut(u64, u64),
    ) -> Result<(), RewriteError> {
        let (old, area) = (&self.old, Reserved::behind(program.1));
        write::publish(
            &self.path,
            |new| {
                let moved = fill(program, old.file(), table, new, watch).map_err(self.failed("write"))?;
                area.settings().create(new, config::encode(old.settings())?)?;
                area.table().create(new, moved.encode()?)?;
                dress(old.file(), new).map_err(self.failed("set owner and mode of"))
            },
            |new| check(old.file(), table, new, &self.path),
        )
    }
}

/// Whether the image has the running program already.
fn is_same(program: &Program, old: &ImageFile) -> io::Result<bool> {
    if program.end() != old.elf_end() {
        return Ok(false);
    }
    let (mut ours, mut theirs) = (vec![0; PIECE], vec![0; PIECE]);
    let mut at = 0;
    while at < program.end() {
        let want = usize::try_from(program.end() - at).unwrap_or(PIECE).min(PIECE);
        let (Some(ours), Some(theirs)) = (ours.get_mut(..want), theirs.get_mut(..want)) else { break };
        program.file().read_exact_at(ours, at)?;
        old.file().read_exact_at(theirs, at)?;
        if at == 0
            && let Some(place) =
                usize::try_from(MARK_AT).ok().and_then(|mark| ours.get_mut(mark..mark + MARK.len()))
        {
            place.copy_from_slice(&MARK);
        }
        if ours != theirs {
            return Ok(false);
        }
        at += want as u64;
    }
    Ok(true)
}

/// Writes the program and the archives; returns the table of their new places.
fn fill(
    (program, length): (&File, u64),
    old: &File,
    table: &LayerTable,
    new: &File,
    watch: &mut dyn FnMut(u64, u64),
) -> io::Result<LayerTable> {
    transfer::copy_range(program, 0, new, 0, length, |_| {})?;
    new.write_all_at(&MARK, MARK_AT)?;
    let area = Reserved::behind(length);
    new.set_len(area.end())?;
    let total = table.archives().iter().map(|entry| entry.length).sum();
    let (mut end, mut done) = (area.end(), 0);
    table.moved(|entry| {
        let offset = align_up(end);
        transfer::copy_range(old, entry.offset, new, offset, entry.length, |count| {
            done += count;
            watch(done, total);
        })?;
        end = offset.saturating_add(entry.length);
        Ok(offset)
    })
}

/// Gives the new file mode, owner and attributes of the old one.
fn dress(old: &File, new: &File) -> io::Result<()> {
    let was = old.metadata()?;
    let is = new.metadata()?;
    if (was.uid(), was.gid()) != (is.uid(), is.gid()) {
        fchown(new, Some(was.uid()), Some(was.gid()))?;
    }
    new.set_permissions(Permissions::from_mode(was.mode() & 0o7777))?;
    let names = xattr::list(old.as_fd()).unwrap_or_default();
    for name in names.split(|byte| *byte == 0).filter(|name| name.starts_with(b"user.")) {
        if let Ok(Some(value)) = xattr::get(old.as_fd(), name) {
            // A file system without them has none to give.
            let _ = xattr::set(new.as_fd(), name, &value, 0);
        }
    }
    Ok(())
}

/// Whether the new file is an image with the archives of `table`.
fn check(old: &File, table: &LayerTable, new: &File, path: &Path) -> Result<(), RewriteError> {
    let again = new.try_clone().map_err(|source| ImageError::Open { path: path.to_owned(), source })?;
    let found = ImageFile::of(again, path.to_owned())?;
    for (was, is) in table.archives().iter().zip(found.table().archives()) {
        // An archive that was damaged before stays as it is: the rest of the image can still be read.
        let Ok(digest_of_old) = digest::of_archive(old, was.offset, was.length) else { continue };
        if digest::of_archive(new, is.offset, is.length).ok() != Some(digest_of_old) {
            return Err(RewriteError::Changed { path: path.to_owned(), offset: was.offset });
        }
    }
    Ok(())
}
