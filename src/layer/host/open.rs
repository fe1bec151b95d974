//! From a node to a descriptor, and to attributes.

use std::os::fd::{AsFd as _, OwnedFd};

use super::{
    host,
    node::{Fds, HostNode, Key, Place},
    tree::HostTree,
};
use crate::{
    sync::Arc,
    sys::beneath::{self, OpenFor, Statx},
    vfs::{Attr, DeviceId, Errno, Error, FileKind, Result, Time},
};

/// How often an open starts over because the node was renamed meanwhile.
const MOVES: usize = 16;

/// What the kernel shows in place of an id that a user namespace does not know.
const NOBODY: u32 = 65_534;

/// The owner's permissions that are lent for one call.
const ALL_OF_OWNER: u16 = 0o700;

impl HostTree {
    /// A descriptor that names the directory `node`.
    pub(super) fn directory(&self, node: &Arc<HostNode>) -> Result<Arc<OwnedFd>> {
        if node.kind != FileKind::Directory {
            return Err(Error::new(Errno::ENOTDIR, "use a directory"));
        }
        if let Some(fd) = node.fds.lock().path.clone() {
            node.touch();
            return Ok(fd);
        }
        // From the nearest ancestor that is open downwards: a loop, for trees deeper than the stack.
        let mut chain = vec![Arc::clone(node)];
        let mut next = parent_of(node);
        while let Some(ancestor) = next {
            let is_open = ancestor.fds.lock().path.is_some();
            next = if is_open { None } else { parent_of(&ancestor) };
            chain.push(ancestor);
        }
        let mut fd = None;
        while let Some(node) = chain.pop() {
            fd = Some(self.descriptor(&node, OpenFor::Path)?);
        }
        fd.ok_or(Error::new(Errno::ESTALE, "open a directory"))
    }

    /// A descriptor of `node` that is good for `wanted`.
    pub(super) fn descriptor(&self, node: &Arc<HostNode>, wanted: OpenFor) -> Result<Arc<OwnedFd>> {
        if let Some(fd) = suitable(&node.fds.lock(), wanted) {
            node.touch();
            return Ok(fd);
        }
        let opened = self.open(node, wanted).map_err(host("open a file of a host directory"))?;
        Ok(self.keep(node, wanted, opened))
    }

    /// Attributes of `node`.
    pub(super) fn attr(&self, node: &Arc<HostNode>) -> Result<Attr> {
        self.attr_of(&self.stat(node).map_err(host("read attributes"))?)
    }

    /// What was looked at as attributes. Where there is one user only the others are root: nobody else tells them apart.
    pub(super) fn attr_of(&self, stat: &Statx) -> Result<Attr> {
        let mut attr = attr_of(stat, &self.root.key)?;
        if self.single_user {
            attr.uid = if attr.uid == NOBODY { 0 } else { attr.uid };
            attr.gid = if attr.gid == NOBODY { 0 } else { attr.gid };
        }
        Ok(attr)
    }

    /// What the host says of `node`.
    pub(super) fn stat(&self, node: &Arc<HostNode>) -> Result<Statx, Errno> {
        let open = node.fds.lock().any();
        if let Some(fd) = open {
            return beneath::stat(fd.as_fd(), b"");
        }
        self.at_place(node, |dir, name| {
            let stat = beneath::stat(dir.as_fd(), name)?;
            if key_of(&stat) == node.key { Ok(stat) } else { Err(Errno::ESTALE) }
        })
    }

    /// Calls `act` with the parent's descriptor and the name of `node`, again while somebody renames it.
    pub(super) fn at_place<T>(
        &self,
        node: &Arc<HostNode>,
        act: impl Fn(&OwnedFd, &[u8]) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let mut place = node.place.lock().clone();
        for _ in 0..MOVES {
            let result = match &place {
                Place::At { parent, name } => {
                    let dir = self.directory(parent).map_err(|error| error.errno())?;
                    act(&dir, name)
                }
                Place::Root | Place::Lost => {
                    let fd = node.fds.lock().any().ok_or(Errno::ESTALE)?;
                    act(&fd, b"")
                }
            };
            let now = node.place.lock().clone();
            match result {
                Err(Errno::ENOENT | Errno::ESTALE | Errno::ELOOP | Errno::ENOTDIR)
                    if !now.is_same(&place) =>
                {
                    place = now;
                }
                Err(Errno::ENOENT) => return Err(Errno::ESTALE),
                other => return other,
            }
        }
        Err(Errno::ESTALE)
    }

    /// Opens `node` by another descriptor of its own, else by its place.
    fn open(&self, node: &Arc<HostNode>, wanted: OpenFor) -> Result<OwnedFd, Errno> {
        let open = node.fds.lock().any();
        let opened = match open {
            Some(fd) => beneath::reopen(fd.as_fd(), wanted),
            None => self.at_place(node, |dir, name| {
                let fd = beneath::open(dir.as_fd(), name, wanted)?;
                if key_of(&beneath::stat(fd.as_fd(), b"")?) == node.key { Ok(fd) } else { Err(Errno::ESTALE) }
            }),
        };
        match opened {
            Err(Errno::EACCES) if matches!(wanted, OpenFor::Read | OpenFor::Write) => {
                let path = self.descriptor(node, OpenFor::Path).map_err(|error| error.errno())?;
                self.lend(&[node], || beneath::reopen(path.as_fd(), wanted))
            }
            other => other,
        }
    }

    /// Calls `act`; where the permission bits of our own objects forbid it to us, once more while they do not.
    ///
    /// Programs go on using what they took the permission away from, and remove it; whether they may was decided by the
    /// kernel above us. In a tree that is only read nothing is lent.
    pub(super) fn lend<T>(
        &self,
        nodes: &[&Arc<HostNode>],
        act: impl Fn() -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let refused = match act() {
            Err(Errno::EACCES) if self.writable => Errno::EACCES,
            other => return other,
        };
        let mut lent = Vec::new();
        for node in nodes {
            let path = self.descriptor(node, OpenFor::Path).map_err(|error| error.errno())?;
            let perm = perm_of(&beneath::stat(path.as_fd(), b"")?);
            if node.kind != FileKind::Symlink && beneath::set_perm(path.as_fd(), perm | ALL_OF_OWNER).is_ok()
            {
                lent.push((path, perm));
            }
        }
        let result = if lent.is_empty() { Err(refused) } else { act() };
        for (path, perm) in lent {
            beneath::set_perm(path.as_fd(), perm)?;
        }
        result
    }

    /// Puts a fresh descriptor into its node, unless another thread was faster.
    pub(super) fn keep(&self, node: &Arc<HostNode>, wanted: OpenFor, opened: OwnedFd) -> Arc<OwnedFd> {
        let opened = Arc::new(opened);
        {
            let mut fds = node.fds.lock();
            if let Some(fd) = suitable(&fds, wanted) {
                return fd;
            }
            match wanted {
                OpenFor::Path | OpenFor::List => fds.path = Some(Arc::clone(&opened)),
                OpenFor::Read => fds.read = Some(Arc::clone(&opened)),
                OpenFor::Write => fds.write = Some(Arc::clone(&opened)),
            }
            self.pool.added(node, &mut fds);
        }
        node.touch();
        self.pool.trim();
        opened
    }

    /// Makes sure that `node` stays reachable when its name goes.
    pub(super) fn pin(&self, node: &Arc<HostNode>) -> Result<()> {
        let fd = self.descriptor(node, OpenFor::Path)?;
        let mut fds = node.fds.lock();
        fds.pinned = true;
        if fds.any().is_none() {
            fds.path = Some(fd);
            self.pool.added(node, &mut fds);
        }
        Ok(())
    }

    /// Lets the pool close descriptors of `node` again.
    pub(super) fn unpin(&self, node: &Arc<HostNode>) {
        let mut fds = node.fds.lock();
        fds.pinned = false;
        if fds.any().is_some() {
            self.pool.requeue(node, &mut fds);
        }
    }
}

/// The descriptor among `fds` that serves `wanted`.
fn suitable(fds: &Fds, wanted: OpenFor) -> Option<Arc<OwnedFd>> {
    match wanted {
        OpenFor::Path => fds.any(),
        OpenFor::List => fds.path.clone(),
        OpenFor::Read => fds.write.as_ref().or(fds.read.as_ref()).cloned(),
        OpenFor::Write => fds.write.clone(),
    }
}

fn parent_of(node: &HostNode) -> Option<Arc<HostNode>> {
    match &*node.place.lock() {
        Place::At { parent, .. } => Some(Arc::clone(parent)),
        Place::Root | Place::Lost => None,
    }
}

/// The identity of what was looked at.
pub(super) fn key_of(stat: &Statx) -> Key {
    Key { device: (stat.stx_dev_major, stat.stx_dev_minor), inode: stat.stx_ino }
}

/// The permission bits of what was looked at.
pub(super) fn perm_of(stat: &Statx) -> u16 {
    stat.stx_mode & 0o7777
}

/// Attributes as the file-system storeys know them. Objects of another device than the root's get inode numbers of
/// their own range, so that numbers stay apart.
fn attr_of(stat: &Statx, root: &Key) -> Result<Attr> {
    let kind =
        FileKind::from_mode(stat.stx_mode.into()).ok_or(Error::new(Errno::EIO, "tell what an object is"))?;
    let device = (stat.stx_dev_major, stat.stx_dev_minor);
    let foreign = if device == root.device { 0 } else { u64::from(device.0 ^ device.1.rotate_left(8)) << 32 };
    let time = |seconds, nanos| Time { seconds, nanos };
    Ok(Attr {
        ino: stat.stx_ino ^ foreign,
        kind,
        perm: perm_of(stat),
        nlink: stat.stx_nlink,
        uid: stat.stx_uid,
        gid: stat.stx_gid,
        rdev: DeviceId { major: stat.stx_rdev_major, minor: stat.stx_rdev_minor },
        size: stat.stx_size,
        blocks: stat.stx_blocks,
        atime: time(stat.stx_atime.tv_sec, stat.stx_atime.tv_nsec),
        mtime: time(stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec),
        ctime: time(stat.stx_ctime.tv_sec, stat.stx_ctime.tv_nsec),
        btime: beneath::birth_time(stat).map(|(seconds, nanos)| time(seconds, nanos)),
    })
}
