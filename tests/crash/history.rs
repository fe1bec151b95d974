//! What the workload did, kept outside of what crashes, and what a crash may leave of it.
//!
//! Names, permissions and attributes change step by step, one program doing all of it: after a crash they are as after
//! one of the steps, none of which may be missing that an fsync promised. Contents of files are written back page
//! by page whenever the kernel likes: each page is one of those that the file had there since its last fsync.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::Path,
};

/// Bytes that are written back together.
const PAGE: usize = 4096;

/// The extended attribute that the workload sets.
pub(crate) const XATTR: &str = "user.x";

/// An object, whatever its names.
pub(crate) type Id = usize;

/// What is to be seen of an object beside its contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    /// Type and permission bits.
    pub(crate) mode: u32,
    pub(crate) xattr: Option<Vec<u8>>,
    /// Of a symlink.
    pub(crate) target: Vec<u8>,
    /// The last step that changed the object itself, or the entries of the directory.
    pub(crate) touched: usize,
}

/// The tree after some step: the root is the path "".
#[derive(Clone, Debug, Default)]
pub(crate) struct Tree {
    pub(crate) names: BTreeMap<String, Id>,
    pub(crate) metas: BTreeMap<Id, Meta>,
}

impl Tree {
    pub(crate) fn is_dir(&self, path: &str) -> bool {
        self.kind(path) == Some(libc::S_IFDIR)
    }

    pub(crate) fn is_file(&self, path: &str) -> bool {
        self.kind(path) == Some(libc::S_IFREG)
    }

    fn kind(&self, path: &str) -> Option<u32> {
        self.names.get(path).map(|id| self.metas[id].mode & libc::S_IFMT)
    }

    pub(crate) fn links(&self, id: Id) -> usize {
        self.names.values().filter(|other| **other == id).count()
    }

    /// Paths below a directory.
    pub(crate) fn below(&self, path: &str) -> Vec<String> {
        let prefix = format!("{path}/");
        self.names.keys().filter(|name| name.starts_with(&prefix)).cloned().collect()
    }

    /// Moves a path with everything below it.
    pub(crate) fn rekey(&mut self, from: &str, to: &str) {
        for path in [vec![from.to_owned()], self.below(from)].concat() {
            let id = self.names.remove(&path).unwrap();
            self.names.insert(format!("{to}{}", &path[from.len()..]), id);
        }
    }

    /// Forgets objects without names.
    pub(crate) fn prune(&mut self) {
        let named: BTreeSet<_> = self.names.values().copied().collect();
        self.metas.retain(|id, _| named.contains(id));
    }
}

/// Contents that a file had.
pub(crate) struct Version {
    pub(crate) step: usize,
    pub(crate) data: Vec<u8>,
}

/// What an fsync that returned has promised.
pub(crate) struct Promise {
    /// The size of the log of the disk when it returned.
    pub(crate) at: usize,
    /// A step that is not lost.
    pub(crate) step: usize,
    /// A version of a file that is not lost.
    pub(crate) version: Option<(Id, usize)>,
}

/// Everything that was done.
#[derive(Default)]
pub(crate) struct History {
    /// The tree after each number of steps, and the size of the log when the step began.
    pub(crate) trees: Vec<(usize, Tree)>,
    pub(crate) versions: BTreeMap<Id, Vec<Version>>,
    pub(crate) promises: Vec<Promise>,
}

/// What a crash may leave.
pub(crate) struct Allowed {
    /// The first and the last number of steps.
    pub(crate) steps: (usize, usize),
    /// The oldest version of each file that may show, where that is not the first.
    pub(crate) oldest: BTreeMap<Id, usize>,
}

impl History {
    /// What is allowed when the power fails at size `at` of the log.
    pub(crate) fn allowed(&self, at: usize) -> Allowed {
        let begun = self.trees.iter().rposition(|(start, _)| *start <= at).unwrap_or(0);
        let mut allowed = Allowed { steps: (0, begun), oldest: BTreeMap::new() };
        for promise in self.promises.iter().filter(|promise| promise.at <= at) {
            allowed.steps.0 = allowed.steps.0.max(promise.step);
            if let Some((id, version)) = promise.version {
                let oldest = allowed.oldest.entry(id).or_default();
                *oldest = version.max(*oldest);
            }
        }
        allowed
    }

    /// Checks what was seen; returns the number of steps that it shows.
    pub(crate) fn check(&self, seen: &Dump, allowed: &Allowed) -> Result<usize, String> {
        let (first, last) = allowed.steps;
        let mut best = (usize::MAX, String::new());
        for steps in (first..=last).rev() {
            let wrong = compare(&self.trees[steps].1, seen);
            if wrong.is_empty() {
                // Two files that differ in nothing but their contents may have been exchanged by the step.
                match self.check_contents(steps, seen, allowed) {
                    Ok(()) => return Ok(steps),
                    Err(why) if best.0 > 0 => best = (0, why),
                    Err(_) => {}
                }
            } else if wrong.len() < best.0 {
                best = (wrong.len(), format!("nearest to step {steps}:\n  {}", wrong.join("\n  ")));
            }
        }
        Err(format!("steps {first} to {last} are allowed, {}", best.1))
    }

    fn check_contents(&self, steps: usize, seen: &Dump, allowed: &Allowed) -> Result<(), String> {
        let tree = &self.trees[steps].1;
        let mut wrong = String::new();
        for (path, id) in tree.names.iter().filter(|(path, _)| tree.is_file(path)) {
            let oldest = allowed.oldest.get(id).copied().unwrap_or(0);
            let versions = &self.versions[id][oldest..];
            let begun = versions.iter().filter(|version| version.step <= allowed.steps.1).count();
            // The first of them is there whatever has begun.
            if let Err(why) = check_file(&seen[path].content, &versions[..begun.max(1)]) {
                let _ = write!(wrong, "\n  {path:?} (object {id}, version {oldest} promised): {why}");
            }
        }
        if wrong.is_empty() { Ok(()) } else { Err(format!("as after step {steps}, but{wrong}")) }
    }
}

/// Whether `content` can have come from `versions`, of which the first was safe.
fn check_file(content: &[u8], versions: &[Version]) -> Result<(), String> {
    let shortest = versions.iter().map(|version| version.data.len()).min().unwrap();
    let longest = versions.iter().map(|version| version.data.len()).max().unwrap();
    if !(shortest..=longest).contains(&content.len()) {
        return Err(format!("{} bytes long, not {shortest} to {longest}", content.len()));
    }
    for (number, page) in content.chunks(PAGE).enumerate() {
        let offset = number * PAGE;
        let fits = |data: &[u8]| {
            let had = data.get(offset..).unwrap_or_default();
            let had = &had[..had.len().min(page.len())];
            // What had not been written yet when the file was made longer reads as zeros.
            let may_be_zero = offset + had.len() >= shortest;
            page[..had.len()] == *had
                && (had.len() == page.len() || (may_be_zero && is_zero(&page[had.len()..])))
        };
        let unwritten = offset >= shortest && is_zero(page);
        if !unwritten && !versions.iter().any(|version| fits(&version.data)) {
            let first: Vec<_> = page.iter().take(8).collect();
            return Err(format!(
                "the page at {offset} of {} bytes is of none of {} versions: {first:?}…",
                content.len(),
                versions.len()
            ));
        }
    }
    Ok(())
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

/// What differs between a tree and what was seen, contents aside.
fn compare(tree: &Tree, seen: &Dump) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut inodes: BTreeMap<Id, u64> = BTreeMap::new();
    for (path, id) in &tree.names {
        let Some(seen) = seen.get(path) else {
            wrong.push(format!("{path:?} is missing"));
            continue;
        };
        let meta = &tree.metas[id];
        if (seen.mode, &seen.xattr, &seen.target) != (meta.mode, &meta.xattr, &meta.target) {
            wrong.push(format!("{path:?} is {seen:?}, not {meta:?}"));
        }
        let links = tree.links(*id) as u64;
        if seen.mode & libc::S_IFMT != libc::S_IFDIR && seen.links != links {
            wrong.push(format!("{path:?} has {} links, not {links}", seen.links));
        }
        if *inodes.entry(*id).or_insert(seen.ino) != seen.ino {
            wrong.push(format!("{path:?} is another file than its other names"));
        }
    }
    if inodes.values().collect::<BTreeSet<_>>().len() < inodes.len() {
        wrong.push("different objects have one number".to_owned());
    }
    wrong.extend(
        seen.keys().filter(|path| !tree.names.contains_key(*path)).map(|path| format!("{path:?} is there")),
    );
    wrong
}

/// An object as it was seen.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) mode: u32,
    pub(crate) xattr: Option<Vec<u8>>,
    pub(crate) target: Vec<u8>,
    links: u64,
    ino: u64,
    content: Vec<u8>,
}

impl std::fmt::Debug for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { mode, xattr, target, links, content, .. } = self;
        write!(f, "{mode:o} {xattr:?} {target:?} {links} links {} bytes", content.len())
    }
}

pub(crate) type Dump = BTreeMap<String, Seen>;

/// Looks at everything.
pub(crate) fn dump(root: &Path) -> Dump {
    let mut dump = Dump::new();
    dump_below(root, "", &mut dump);
    dump
}

fn dump_below(root: &Path, path: &str, dump: &mut Dump) {
    let full = root.join(path);
    let meta = fs::symlink_metadata(&full).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    let mut xattr = [0; 64];
    let xattr = rustix::fs::lgetxattr(&full, XATTR, &mut xattr[..]).ok().map(|len| xattr[..len].to_vec());
    let kind = meta.file_type();
    let mut seen = Seen {
        mode: meta.mode(),
        xattr,
        target: Vec::new(),
        links: meta.nlink(),
        ino: meta.ino(),
        content: Vec::new(),
    };
    if kind.is_symlink() {
        seen.target = fs::read_link(&full).unwrap().as_os_str().as_bytes().to_vec();
    } else if kind.is_file() {
        seen.content = fs::read(&full).unwrap_or_else(|error| panic!("read {path:?}: {error}"));
        assert_eq!(seen.content.len() as u64, meta.len(), "the size of {path:?}");
    }
    dump.insert(path.to_owned(), seen);
    if kind.is_dir() {
        for entry in fs::read_dir(&full).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            dump_below(root, &join(path, &name), dump);
        }
    }
}

pub(crate) fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") }
}

/// The history that begins with what is to be seen now.
pub(crate) fn begin(dump: &Dump) -> History {
    let mut history = History::default();
    let mut tree = Tree::default();
    let mut ids: BTreeMap<u64, Id> = BTreeMap::new();
    for (path, seen) in dump {
        let next = ids.len();
        let id = *ids.entry(seen.ino).or_insert(next);
        let Seen { mode, xattr, target, content, .. } = seen.clone();
        tree.names.insert(path.clone(), id);
        tree.metas.insert(id, Meta { mode, xattr, target, touched: 0 });
        history.versions.insert(id, vec![Version { step: 0, data: content }]);
    }
    history.trees.push((0, tree));
    history
}
