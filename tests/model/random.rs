//! Random operations on random layers.

use std::{cell::Cell, time::Instant};

use fim::{casefold::Mode, overlay::Folding};
use proptest::{
    prelude::*,
    test_runner::{Config, RngSeed, TestRunner},
};

use crate::{
    dump,
    native::Native,
    ops::{Op, Side as _, op},
    ours::Ours,
    tree::{Tree, layer, linked_layer, scratch},
};

/// The overlay and its reference over the same layers.
pub(crate) struct Pair {
    scratch: tempfile::TempDir,
    pub(crate) ours: Ours,
    pub(crate) native: Native,
    lowers_before: Vec<dump::Dump>,
    /// Something has become part of a layer since the stack was started: it has other numbers next time.
    committed: bool,
}

impl Pair {
    /// `layers`: the lowest first.
    pub(crate) fn new(layers: &[Tree]) -> Self {
        let merged = layers.iter().fold(Tree::empty(), |below, tree| tree.clone().over(below));
        Self::with(layers, &merged.plain(), None)
    }

    /// The same with names folded; `merged` is what `layers` show together.
    pub(crate) fn with(layers: &[Tree], merged: &Tree, casefold: Option<Mode>) -> Self {
        let scratch = scratch();
        let at = |name: &str| scratch.path().join(name);
        let mut lowers = Vec::new();
        for (number, tree) in layers.iter().enumerate() {
            tree.write(&at(&format!("lower{number}")));
            lowers.push(at(&format!("lower{number}")));
        }
        merged.write(&at("native"));
        Tree::empty().write(&at("upper"));
        std::fs::create_dir(at("work")).unwrap();
        let lowers_before = lowers.iter().map(|path| dump::native(path)).collect();
        let mut ours = Ours::new(lowers, at("upper"), at("work"));
        if let Some(mode) = casefold {
            ours.unmount();
            ours.casefold = Some(Folding::new(mode, &[] as &[&[u8]]));
            ours.mount();
        }
        let mut native = Native::new(at("native"));
        native.casefold = casefold;
        Self { scratch, ours, native, lowers_before, committed: false }
    }

    /// Applies an operation to both; they must agree.
    pub(crate) fn apply(&mut self, op: &Op) {
        if matches!(op, Op::Commit) && self.has_links_without_notes() {
            // As layers' hard links they last only as long as the kernel knows them.
            return;
        }
        let ours = self.ours.apply(op);
        let native = self.native.apply(op);
        assert_eq!(ours, native, "ours and the reference at {op:?}");
        match op {
            Op::Check => self.check(),
            Op::Remount => self.remount(),
            Op::Commit => self.committed = true,
            _ => {}
        }
    }

    /// Whether something has several names that takes no attributes.
    fn has_links_without_notes(&self) -> bool {
        let native = dump::native(&self.scratch.path().join("native"));
        native.values().any(|seen| seen.links > 1 && seen.kind != libc::S_IFREG)
    }

    pub(crate) fn check(&self) {
        let (ours, _) = dump::ours(&self.ours);
        let native = dump::native(&self.scratch.path().join("native"));
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
            let kind = dump[&path].kind;
            if !self.committed && (kind == libc::S_IFREG || kind == libc::S_IFDIR) {
                assert_eq!(after[&path], ino, "inode number of {path:?} after a remount");
            }
        }
        self.committed = false;
        self.check();
    }

    /// Checks everything once more, and that the layers are as they were.
    pub(crate) fn finish(mut self) {
        self.check();
        self.remount();
        self.end();
    }

    /// Checks that nothing is left, and that the layers are as they were.
    pub(crate) fn end(mut self) {
        self.native.release_all();
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

/// How long to try, and how hard to shrink. The quick form tries the same cases each time; with `FIM_MODEL_CASES` they
/// are others each time.
pub(crate) fn config() -> Config {
    let rng_seed = match std::env::var_os("FIM_MODEL_CASES") {
        Some(_) => RngSeed::Random,
        None => RngSeed::Fixed(1),
    };
    Config {
        cases: cases(),
        max_shrink_iters: 4000,
        failure_persistence: None,
        rng_seed,
        ..Config::default()
    }
}

/// Tries a property with as many random cases as are wanted, and says how many operations that were.
pub(crate) fn try_all<S: Strategy>(what: &str, strategy: &S, run: impl Fn(S::Value) -> usize) {
    let operations = Cell::new(0_usize);
    let started = Instant::now();
    let result = TestRunner::new(config()).run(strategy, |case| {
        operations.set(operations.get() + run(case));
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    let seconds = started.elapsed().as_secs_f64();
    println!("{what}: {} operations in {} cases, {seconds:.1} s", operations.get(), cases());
}

#[test]
fn equals_a_plain_directory() {
    let strategy =
        (layer(false), prop::collection::vec(layer(true), 0..3), prop::collection::vec(op(), 1..60));
    try_all("random layers", &strategy, |(lowest, middle, ops)| {
        let layers: Vec<_> = [lowest].into_iter().chain(middle).collect();
        run(&layers, &ops);
        ops.len()
    });
}

/// Names of one file of a layer stay names of one file, whether or not the kernel knows it.
#[test]
fn hard_links_of_a_layer_stay_one_file() {
    let strategy = (linked_layer(), prop::collection::vec(op(), 1..40));
    try_all("hard links", &strategy, |(layer, ops)| {
        run(&[layer], &ops);
        ops.len()
    });
}

/// The same where the kernel knows all of them.
#[test]
fn hard_links_that_are_known_stay_one_file() {
    let strategy = (linked_layer(), prop::collection::vec(op(), 1..40));
    try_all("known hard links", &strategy, |(layer, ops)| {
        let mut pair = Pair::new(&[layer]);
        let kept = pair.ours.keep_all();
        for op in ops.iter().filter(|op| !matches!(op, Op::Remount)) {
            pair.apply(op);
        }
        pair.check();
        pair.ours.give_back(kept);
        pair.end();
        ops.len()
    });
}
