//! A directory with an entry that cannot be read.

use std::{fs, ops::ControlFlow};

use fim::{
    fuse::Options,
    layer::HostDir,
    overlay::{Overlay, OverlayOptions},
    pinned::Data,
    sync::Arc,
    vfs::{self, Attr, Errno, FsStat, Layer, LayerEntry, Name, NoInvalidate, NodeId, Result, SeekWhence},
};

use crate::support::{Served, can_mount};

/// A layer of which one entry is damaged.
#[derive(Debug)]
struct Damaged(HostDir);

const BROKEN: &[u8] = b"broken";

impl Layer for Damaged {
    fn root(&self) -> NodeId {
        self.0.root()
    }

    fn lookup(&self, dir: NodeId, name: Name<'_>) -> Result<Option<(NodeId, Attr)>> {
        match name.as_bytes() {
            BROKEN => Err(vfs::Error::new(Errno::EIO, "look a damaged entry up")),
            _ => self.0.lookup(dir, name),
        }
    }

    fn retain(&self, node: NodeId) {
        self.0.retain(node);
    }

    fn forget(&self, node: NodeId) {
        self.0.forget(node);
    }

    fn attr(&self, node: NodeId) -> Result<Attr> {
        self.0.attr(node)
    }

    fn read_dir(
        &self,
        dir: NodeId,
        after: u64,
        visit: &mut dyn FnMut(LayerEntry<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        self.0.read_dir(dir, after, visit)
    }

    fn read_link(&self, node: NodeId) -> Result<Vec<u8>> {
        self.0.read_link(node)
    }

    fn read(&self, node: NodeId, offset: u64, len: usize) -> Result<Data> {
        self.0.read(node, offset, len)
    }

    fn seek(&self, node: NodeId, offset: u64, whence: SeekWhence) -> Result<u64> {
        self.0.seek(node, offset, whence)
    }

    fn xattr(&self, node: NodeId, name: &[u8]) -> Result<Option<Vec<u8>>> {
        self.0.xattr(node, name)
    }

    fn xattr_names(&self, node: NodeId) -> Result<Vec<Vec<u8>>> {
        self.0.xattr_names(node)
    }

    fn has_xattrs(&self) -> bool {
        self.0.has_xattrs()
    }

    fn stat_fs(&self) -> Result<FsStat> {
        self.0.stat_fs()
    }
}

#[test]
fn one_damaged_entry_hides_no_other() {
    if !can_mount() {
        return;
    }
    let lower = tempfile::tempdir().unwrap();
    let names = ["a", "broken", "c", "d"];
    for name in names {
        fs::write(lower.path().join(name), name).unwrap();
    }
    let layer: Arc<dyn Layer> = Arc::new(Damaged(HostDir::open(lower.path()).unwrap()));
    let overlay = Overlay::new(vec![layer], None, OverlayOptions::default(), Arc::new(NoInvalidate)).unwrap();
    let served = Served::start(Arc::new(overlay), Options::default());
    for _ in 0..2 {
        let entries = fs::read_dir(&served.path).unwrap().map(|entry| entry.unwrap());
        let mut listed: Vec<_> =
            entries.map(|entry| (entry.file_name(), entry.file_type().unwrap().is_file())).collect();
        listed.sort();
        assert_eq!(listed, names.map(|name| (name.into(), true)));
        for name in ["a", "c", "d"] {
            assert_eq!(fs::read_to_string(served.join(name)).unwrap(), name);
        }
        let error = fs::metadata(served.join("broken")).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::EIO as i32));
    }
    served.stop();
}
