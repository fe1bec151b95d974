//! Layers drawn by proptest, as sources for our writer.

use std::{
    collections::{BTreeMap, HashMap},
    fmt, io,
};

use fim::dwarfs::{
    format::sidecar::Xattrs,
    write::{
        Content, Contents, Device, EntryId, Faults, FileContent, Object, ObjectId, Progress, Source,
        Timestamp, Tree, WriteError,
    },
};
use proptest::{collection::vec, option, prelude::*, sample};

/// What may be drawn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Palette {
    /// Whiteouts, opaque directories, redirects.
    pub(crate) marks: bool,
    /// Files without data; all files then have one length, as those have that were copied up.
    pub(crate) metacopies: bool,
}

/// Length of all files where some have no data.
const ONE_LENGTH: usize = 3_000;

/// An object of a layer.
#[derive(Clone)]
struct Drawing {
    content: Content,
    bytes: Vec<u8>,
    perm: u16,
    owner: u32,
    mtime: i64,
    xattrs: Xattrs,
}

/// Without the bytes, of which there are too many to look at.
impl fmt::Debug for Drawing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { content, perm, owner, xattrs, .. } = self;
        write!(f, "{content:?} {perm:o} {owner} {xattrs:?}")
    }
}

/// A layer: objects by path, and further names of files.
#[derive(Clone, Debug, Default)]
pub(crate) struct Drawn {
    root: Option<Drawing>,
    nodes: BTreeMap<Vec<u8>, Drawing>,
    links: BTreeMap<Vec<u8>, Vec<u8>>,
}

fn name() -> impl Strategy<Value = &'static str> {
    sample::select(vec!["a", "b", "c", "d"])
}

fn path() -> impl Strategy<Value = Vec<u8>> {
    vec(name(), 1..4).prop_map(|names| names.join("/").into_bytes())
}

/// Contents of few kinds, so that blocks and files are equal now and then, with a hole now and then.
fn file(one_length: bool) -> impl Strategy<Value = (Content, Vec<u8>)> {
    let len = prop_oneof![Just(0_usize), 1..300_usize, 1_000..9_000_usize];
    (len, 0..6_u64, option::weighted(0.2, (0..3_000_u64, 1..2_000_u64))).prop_map(move |(len, seed, hole)| {
        let len = if one_length { ONE_LENGTH } else { len };
        let mut state = seed;
        let mut bytes: Vec<u8> = (0..len)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1 + seed);
                state.to_be_bytes()[0] | 1
            })
            .collect();
        let size = len as u64;
        let extents = hole.filter(|(start, _)| *start < size).map(|(start, gap)| {
            let end = (start + gap).min(size);
            bytes[usize::try_from(start).unwrap()..usize::try_from(end).unwrap()].fill(0);
            [0..start, end..size].into_iter().filter(|range| !range.is_empty()).collect()
        });
        (Content::File(FileContent { size, extents, locator: 0 }), bytes)
    })
}

fn redirect() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        2 => name().prop_map(|name| name.as_bytes().to_vec()),
        4 => path().prop_map(|path| [b"/", &path[..]].concat()),
        1 => sample::select(vec![b"/".to_vec(), b"a/b".to_vec(), b"/../a".to_vec()]),
    ]
}

fn mark(name: &str, value: &[u8]) -> Xattrs {
    [(name.as_bytes().to_vec(), value.to_vec())].into()
}

fn drawing(palette: Palette) -> impl Strategy<Value = Drawing> {
    let Palette { marks, metacopies } = palette;
    let often = |yes: bool, weight: u32| if yes { weight } else { 0 };
    let plain = |content: Content| (content, Vec::new(), Xattrs::new());
    let directory = prop_oneof![
        6 => Just(Xattrs::new()),
        often(marks, 2) => sample::select(vec!["user.overlay.opaque", "trusted.overlay.opaque"])
            .prop_map(|name| mark(name, b"y")),
        often(marks, 3) => redirect().prop_map(|to| mark("user.fim.redirect", &to)),
        often(marks, 1) => redirect().prop_map(|to| mark("user.overlay.redirect", &to)),
    ];
    let without_data = option::of(redirect()).prop_map(|to| {
        let mut xattrs = mark("user.fim.metacopy", b"");
        xattrs.extend(to.iter().flat_map(|to| mark("user.fim.redirect", to)));
        let size = ONE_LENGTH as u64;
        let content = FileContent { size, extents: Some(Box::new([])), locator: 0 };
        (Content::File(content), vec![0; ONE_LENGTH], xattrs)
    });
    let kind = prop_oneof![
        6 => directory.prop_map(|marks| (Content::Directory, Vec::new(), marks)),
        8 => file(metacopies).prop_map(|(content, bytes)| (content, bytes, Xattrs::new())),
        often(metacopies, 4) => without_data,
        1 => vec(1..=255_u8, 1..40).prop_map(move |target| plain(Content::Symlink(target.into()))),
        often(marks, 5) => Just(plain(Content::CharDevice(Device::WHITEOUT))),
        1 => Just(plain(Content::CharDevice(Device { major: 1, minor: 3 }))),
        1 => Just(plain(Content::Fifo)),
    ];
    let note = option::weighted(0.2, vec(any::<u8>(), 0..9));
    let plain_perm = sample::select(vec![0o644_u16, 0o755, 0o4711, 0]);
    (kind, note, plain_perm, 0..3_u32, 0..2_000_000_000_i64).prop_map(
        |((content, bytes, mut xattrs), note, perm, owner, mtime)| {
            let is_whiteout = content == Content::CharDevice(Device::WHITEOUT);
            if let Some(note) = note.filter(|_| !is_whiteout) {
                xattrs.insert(b"user.note".to_vec(), note);
            }
            Drawing { content, bytes, perm, owner, mtime, xattrs }
        },
    )
}

/// Draws a layer.
pub(crate) fn layer(palette: Palette) -> impl Strategy<Value = Drawn> {
    let entry = (path(), drawing(palette), option::weighted(0.15, any::<sample::Index>()));
    let root = drawing(palette).prop_filter("a directory", |drawing| drawing.content == Content::Directory);
    (root, vec(entry, 0..25)).prop_map(|(root, entries)| {
        let mut drawn = Drawn::default();
        for (path, drawing, link) in entries {
            drawn.add(path, drawing, link);
        }
        // A redirect of the root would lead to itself.
        let mut root = root;
        root.xattrs.retain(|name, _| !name.ends_with(b"redirect"));
        drawn.root = Some(root);
        drawn
    })
}

impl Drawn {
    fn add(&mut self, path: Vec<u8>, drawing: Drawing, link: Option<sample::Index>) {
        if self.nodes.contains_key(&path) || self.links.contains_key(&path) {
            return;
        }
        for (at, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
            let parent = path[..at].to_vec();
            if self.links.contains_key(&parent) {
                return;
            }
            let made = Drawing {
                content: Content::Directory,
                bytes: Vec::new(),
                perm: 0o755,
                owner: 0,
                mtime: 7,
                xattrs: Xattrs::new(),
            };
            if self.nodes.entry(parent).or_insert(made).content != Content::Directory {
                return;
            }
        }
        // A file without data gets a further name only where it says by a path from the root where they are.
        let can_be_linked = |node: &Drawing| {
            let is_path = node.xattrs.get(&b"user.fim.redirect"[..]).is_some_and(|to| to.starts_with(b"/"));
            let has_data = !node.xattrs.contains_key(&b"user.fim.metacopy"[..]);
            matches!(node.content, Content::File(_)) && (has_data || is_path)
        };
        let files: Vec<_> = self.nodes.iter().filter(|(_, node)| can_be_linked(node)).collect();
        if let Some(link) = link.filter(|_| !files.is_empty()) {
            let target = link.get(&files).0.clone();
            self.links.insert(path, target);
        } else {
            self.nodes.insert(path, drawing);
        }
    }

    fn object(drawing: &Drawing, locator: usize) -> Object {
        let mut object = Object::new(drawing.content.clone(), drawing.perm);
        if let Content::File(file) = &mut object.content {
            file.locator = locator as u64;
        }
        (object.uid, object.gid) = (drawing.owner, drawing.owner / 2);
        let time = Timestamp { seconds: drawing.mtime, nanos: 5 };
        (object.mtime, object.atime, object.ctime) = (time, time, time);
        object
    }

    fn children(&self, directory: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
        let own = self.nodes.keys().map(|path| (path, path));
        let all = own.chain(&self.links);
        let below = all.filter_map(|(path, target)| {
            let slash = path.iter().rposition(|byte| *byte == b'/');
            let (parent, name) = slash.map_or((&b""[..], &path[..]), |at| (&path[..at], &path[at + 1..]));
            (parent == directory).then(|| (name.to_vec(), target.clone()))
        });
        below.collect()
    }
}

impl Source for Drawn {
    fn scan(&self, _: &Faults<'_>, _: &dyn Progress) -> Result<Tree, WriteError> {
        let root = self.root.as_ref().unwrap();
        let mut tree = Tree::new(Self::object(root, 0), root.xattrs.clone())?;
        let mut objects: HashMap<&[u8], ObjectId> = HashMap::new();
        for (number, (path, drawing)) in self.nodes.iter().enumerate() {
            let object = Self::object(drawing, number);
            objects.insert(path, tree.add_object(object, drawing.xattrs.clone())?);
        }
        let mut queue = vec![(EntryId::ROOT, Vec::new())];
        while let Some((directory, path)) = queue.pop() {
            let named = self.children(&path).into_iter().map(|(name, target)| (name, objects[&target[..]]));
            for number in tree.fill_directory(directory, named.collect())? {
                let entry = EntryId::from_number(number);
                if tree.object(tree.object_of(entry)).unwrap().is_directory() {
                    queue.push((entry, tree.path(entry)));
                }
            }
        }
        Ok(tree)
    }

    fn open(&self, _: &[u8], file: &Object) -> Result<Box<dyn Contents + '_>, WriteError> {
        let number = usize::try_from(file.file().unwrap().locator).unwrap();
        Ok(Box::new(Bytes(&self.nodes.values().nth(number).unwrap().bytes)))
    }
}

struct Bytes<'a>(&'a [u8]);

impl Contents for Bytes<'_> {
    fn is_unchanged(&self, _: &Object) -> io::Result<bool> {
        Ok(true)
    }

    fn refresh(&self, known: &Object) -> io::Result<Object> {
        Ok(known.clone())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let from = &self.0[usize::try_from(offset).unwrap().min(self.0.len())..];
        let len = from.len().min(buffer.len());
        buffer[..len].copy_from_slice(&from[..len]);
        Ok(len)
    }
}
