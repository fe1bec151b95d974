//! File contents.

use super::{
    Overlay,
    copy_up::Keep,
    node::{Node, Origin},
};
use crate::{
    pinned::Data,
    sync::Arc,
    vfs::{Caller, Errno, Error, FallocateMode, FileKind, FsStat, Ino, Result, SeekWhence},
};

/// How much a copy between files moves at a time where the kernel cannot do it alone, in bytes.
const COPY_CHUNK: usize = 1 << 20;

/// Longest name in bytes, whatever the file system of the upper says.
const NAME_MAX: u32 = 255;

impl Overlay {
    pub(super) fn do_readlink(&self, ino: Ino) -> Result<Vec<u8>> {
        let _topology = self.topology.read();
        match self.table.get(ino)?.origin()? {
            Origin::Upper(id) => self.upper()?.read_link(id),
            Origin::Lower(lower) => self.stack.layer(lower.layer)?.read_link(lower.node),
        }
    }

    pub(super) fn do_read(&self, ino: Ino, offset: u64, len: usize) -> Result<Data> {
        let _topology = self.topology.read();
        let node = self.regular(ino)?;
        self.read_node(&node, offset, len)
    }

    fn read_node(&self, node: &Node, offset: u64, len: usize) -> Result<Data> {
        let data = node.data()?;
        let lower = match data {
            Origin::Upper(id) => return self.upper()?.read(id, offset, len),
            Origin::Lower(lower) => lower,
        };
        let mut len = len;
        let origin = node.origin()?;
        if origin != data {
            // The file may have become shorter than its data.
            let left = self.attr_at(origin)?.size.saturating_sub(offset);
            len = usize::try_from(left).map_or(len, |left| left.min(len));
        }
        self.stack.layer(lower.layer)?.read(lower.node, offset, len)
    }

    pub(super) fn do_write(
        &self,
        caller: Caller,
        ino: Ino,
        offset: u64,
        data: &[u8],
        kill_privileges: bool,
    ) -> Result<()> {
        let _gate = self.gate.read();
        let _topology = self.topology.read();
        let node = self.regular(ino)?;
        let id = self.copy_up(&node, Keep::All)?;
        self.upper()?.write(id, offset, data)?;
        if kill_privileges { self.kill_privileges(caller, &node, id) } else { Ok(()) }
    }

    pub(super) fn do_fsync(&self, ino: Ino, data_only: bool) -> Result<()> {
        let _topology = self.topology.read();
        let node = self.table.get(ino)?;
        match node.upper() {
            Some(id) if !self.options.volatile => self.upper()?.sync(id, data_only),
            _ => Ok(()),
        }
    }

    pub(super) fn do_fallocate(
        &self,
        caller: Caller,
        ino: Ino,
        mode: FallocateMode,
        offset: u64,
        len: u64,
    ) -> Result<()> {
        let _gate = self.gate.read();
        let _topology = self.topology.read();
        let node = self.regular(ino)?;
        let id = self.copy_up(&node, Keep::All)?;
        self.upper()?.allocate(id, mode, offset, len)?;
        if caller.uid == 0 { Ok(()) } else { self.kill_privileges(caller, &node, id) }
    }

    pub(super) fn do_seek(&self, ino: Ino, offset: u64, whence: SeekWhence) -> Result<u64> {
        let _topology = self.topology.read();
        match self.regular(ino)?.data()? {
            Origin::Upper(id) => self.upper()?.seek(id, offset, whence),
            Origin::Lower(lower) => self.stack.layer(lower.layer)?.seek(lower.node, offset, whence),
        }
    }

    pub(super) fn do_copy_range(
        &self,
        caller: Caller,
        (from, from_offset): (Ino, u64),
        (to, to_offset): (Ino, u64),
        len: u64,
    ) -> Result<u64> {
        let _gate = self.gate.read();
        let _topology = self.topology.read();
        let (source, target) = (self.regular(from)?, self.regular(to)?);
        let target_id = self.copy_up(&target, Keep::All)?;
        let upper = self.upper()?;
        let in_kernel = match source.data()? {
            Origin::Upper(source_id) => {
                match upper.copy_range((source_id, from_offset), (target_id, to_offset), len) {
                    Err(error)
                        if matches!(error.errno(), Errno::EXDEV | Errno::EOPNOTSUPP | Errno::ENOSYS) =>
                    {
                        None
                    }
                    other => Some(other?),
                }
            }
            Origin::Lower(_) => None,
        };
        let copied = match in_kernel {
            Some(copied) => copied,
            None => {
                let wanted = usize::try_from(len).map_or(COPY_CHUNK, |len| len.min(COPY_CHUNK));
                let data = self.read_node(&source, from_offset, wanted)?;
                upper.write(target_id, to_offset, &data.contiguous())?;
                data.len() as u64
            }
        };
        if caller.uid != 0 {
            self.kill_privileges(caller, &target, target_id)?;
        }
        Ok(copied)
    }

    pub(super) fn do_statfs(&self) -> Result<FsStat> {
        let _topology = self.topology.read();
        let stat = match (self.stack.upper(), self.stack.top()) {
            (Some(upper), _) => upper.stat_fs()?,
            (None, Some(layer)) => layer.stat_fs()?,
            (None, None) => FsStat::default(),
        };
        Ok(FsStat { name_max: NAME_MAX, ..stat })
    }

    /// The regular file `ino`.
    fn regular(&self, ino: Ino) -> Result<Arc<Node>> {
        let node = self.table.get(ino)?;
        match node.kind {
            FileKind::Regular => Ok(node),
            FileKind::Directory => Err(Error::new(Errno::EISDIR, "use the contents of a file")),
            _ => Err(Error::new(Errno::EINVAL, "use the contents of a file")),
        }
    }
}
