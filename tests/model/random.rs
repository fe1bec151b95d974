//! Random operations on random layers.

use std::path::Path;

use proptest::{prelude::*, test_runner::Config};

use crate::{
    dump,
    native::Native,
    ops::{Op, Side as _, op},
    ours::Ours,
    tree::{Tree, layer},
};

/// The overlay and its reference over the same layers.
pub(crate) struct Pair {
    scratch: tempfile::TempDir,
    pub(crate) ours: Ours,
    pub(crate) native: Native,
    lowers_before: Vec<dump::Dump>,
    /// A hard link of a layer was copied up and the stack was started over: links are not what they were.
    links_broken: bool,
}

impl Pair {
    /// `layers`: the lowest first.
    pub(crate) fn new(layers: &[Tree]) -> Self {
        let shm = Path::new("/dev/shm");
        let scratch = if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() }.unwrap();
        let at = |name: &str| scratch.path().join(name);
        let mut folded = Tree::empty();
        let mut lowers = Vec::new();
        for (number, tree) in layers.iter().enumerate() {
            tree.write(&at(&format!("lower{number}")));
            lowers.push(at(&format!("lower{number}")));
            folded = tree.clone().over(folded);
        }
        folded.plain().write(&at("native"));
        Tree::empty().write(&at("upper"));
        std::fs::create_dir(at("work")).unwrap();
        let lowers_before = lowers.iter().map(|path| dump::native(path)).collect();
        let ours = Ours::new(lowers, at("upper"), at("work"));
        let native = Native::new(at("native"));
        Self { scratch, ours, native, lowers_before, links_broken: false }
    }

    /// Applies an operation to both; they must agree.
    pub(crate) fn apply(&mut self, op: &Op) {
        let ours = self.ours.apply(op);
        if ours == Err(libc::EXDEV) && matches!(op, Op::Rename(..)) {
            // The kernel does not rename directories of layers either: nothing happens on both sides.
            return;
        }
        let native = self.native.apply(op);
        assert_eq!(ours, native, "ours and the reference at {op:?}");
        match op {
            Op::Check => self.check(),
            Op::Remount => self.remount(),
            _ => {}
        }
    }

    pub(crate) fn check(&self) {
        let (mut ours, _) = dump::ours(&self.ours);
        let mut native = dump::native(&self.scratch.path().join("native"));
        if self.links_broken {
            for seen in ours.values_mut().chain(native.values_mut()) {
                (seen.links, seen.same_as) = (0, String::new());
            }
        }
        for (path, seen) in &native {
            assert_eq!(ours.get(path), Some(seen), "{path:?}");
        }
        assert_eq!(ours.len(), native.len(), "names that only we show");
    }

    pub(crate) fn remount(&mut self) {
        let (_, before) = dump::ours(&self.ours);
        self.native.release_all();
        self.ours.unmount();
        self.ours.mount();
        let (dump, after) = dump::ours(&self.ours);
        for (path, ino) in before {
            // Objects that take no attributes cannot remember where they came from.
            if dump[&path].kind == libc::S_IFREG || dump[&path].kind == libc::S_IFDIR {
                assert_eq!(after[&path], ino, "inode number of {path:?} after a remount");
            }
        }
        self.check();
    }

    /// Checks everything once more, and that the layers are as they were.
    pub(crate) fn finish(mut self) {
        self.check();
        self.remount();
        self.ours.unmount();
        for (number, before) in self.lowers_before.iter().enumerate() {
            let after = dump::native(&self.scratch.path().join(format!("lower{number}")));
            assert_eq!(&after, before, "layer {number}");
        }
    }
}

pub(crate) fn run(layers: &[Tree], ops: &[Op]) {
    let mut pair = Pair::new(layers);
    pair.check();
    for op in ops {
        pair.apply(op);
    }
    pair.finish();
}

fn cases() -> u32 {
    std::env::var("FIM_MODEL_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(200)
}

proptest! {
    #![proptest_config(Config { cases: cases(), max_shrink_iters: 4000, failure_persistence: None, ..Config::default() })]

    #[test]
    fn equals_a_plain_directory(
        lowest in layer(false),
        middle in prop::collection::vec(layer(true), 0..3),
        ops in prop::collection::vec(op(), 1..60),
    ) {
        let layers: Vec<_> = [lowest].into_iter().chain(middle).collect();
        run(&layers, &ops);
    }
}
