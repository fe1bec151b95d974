//! All that can be seen of a stack of layers.

use std::collections::BTreeMap;

use fim::{
    layer::ArchiveLayer,
    overlay::{Overlay, OverlayOptions},
    sync::Arc,
    vfs::{Attr, DirSink, FileKind, FileSystem as _, Full, Ino, Layer, Lookup, Name, NoInvalidate},
};
use xxhash_rust::xxh3::xxh3_64;

use crate::support::full;

/// What can be seen of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Object {
    /// Without numbers that another archive may choose: inode, links.
    pub(crate) attr: Attr,
    /// A link's target, or a hash of a file's contents, or what reading it said.
    pub(crate) contents: String,
    pub(crate) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The first path of the same file.
    pub(crate) same_as: Vec<u8>,
}

pub(crate) type Seen = BTreeMap<Vec<u8>, Object>;

#[derive(Default)]
struct Names(Vec<Vec<u8>>);

impl DirSink for Names {
    fn push(&mut self, _: Ino, _: FileKind, name: &[u8], _: u64) -> Result<(), Full> {
        if name != b"." && name != b".." {
            self.0.push(name.to_vec());
        }
        Ok(())
    }
}

/// Looks at everything in a stack.
pub(crate) fn of(layers: Vec<Arc<ArchiveLayer>>) -> Seen {
    let layers = layers.into_iter().map(|layer| layer as Arc<dyn Layer>).collect();
    let overlay = Overlay::new(layers, None, OverlayOptions::default(), Arc::new(NoInvalidate)).unwrap();
    let mut seen = Seen::new();
    let mut first = BTreeMap::new();
    add(&overlay, Ino::ROOT, overlay.getattr(Ino::ROOT).unwrap(), b"", &mut seen, &mut first);
    seen
}

fn add(
    overlay: &Overlay,
    ino: Ino,
    attr: Attr,
    path: &[u8],
    seen: &mut Seen,
    first: &mut BTreeMap<Ino, Vec<u8>>,
) {
    let contents = match attr.kind {
        FileKind::Symlink => overlay.readlink(ino).unwrap().escape_ascii().to_string(),
        FileKind::Regular => match overlay.read(ino, 0, usize::try_from(attr.size).unwrap() + 1) {
            Ok(data) => format!("{} {:x}", data.len(), xxh3_64(&data.contiguous())),
            Err(error) => full(&error),
        },
        _ => String::new(),
    };
    let names = overlay.listxattr(ino).unwrap();
    let names = names.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let xattrs = names.map(|name| (name.to_vec(), overlay.getxattr(ino, name).unwrap())).collect();
    let same_as = match attr.kind {
        FileKind::Regular => first.entry(ino).or_insert_with(|| path.to_vec()).clone(),
        _ => Vec::new(),
    };
    seen.insert(path.to_vec(), Object { attr: Attr { ino: 0, nlink: 0, ..attr }, contents, xattrs, same_as });
    if attr.kind != FileKind::Directory {
        return;
    }
    let mut names = Names::default();
    overlay.readdir(ino, 0, &mut names).unwrap();
    // So that the first of several paths is the same one in any stack.
    names.0.sort();
    for name in names.0 {
        let Lookup::Found(entry) = overlay.lookup(ino, Name::new(&name).unwrap()).unwrap() else {
            panic!("{} is listed and not found", name.escape_ascii())
        };
        let path = if path.is_empty() { name } else { [path, &name[..]].join(&b'/') };
        add(overlay, entry.ino, entry.attr, &path, seen, first);
    }
}

/// The first differences of two stacks.
pub(crate) fn differences(found: &Seen, expected: &Seen) -> Vec<String> {
    let paths = found.keys().chain(expected.keys()).collect::<std::collections::BTreeSet<_>>();
    let differing = paths.into_iter().filter(|path| found.get(*path) != expected.get(*path));
    let show = |path: &Vec<u8>| {
        format!("{}: {:?}, expected {:?}", path.escape_ascii(), found.get(path), expected.get(path))
    };
    differing.map(show).take(5).collect()
}
