//! Random operations on layers whose names are spelled in all ways: the overlay equals a plain tree in which each name is
//! looked for by its key.

use fim::casefold::Mode;
use proptest::prelude::*;

use crate::{
    ops::{Op, op},
    random::{Pair, config},
    tree::{Tree, layer},
};

/// All spellings of the letters that names are made of.
const SPELLINGS: [&[&str]; 4] =
    [&["a", "A"], &["b", "B"], &["c", "C"], &["é \u{7f}", "É \u{7f}", "E\u{301} \u{7f}"]];

fn respelled(text: &str, choice: usize) -> String {
    let all = SPELLINGS.iter().find(|all| all.contains(&text)).unwrap();
    all[choice % all.len()].to_owned()
}

/// Gives every name of every layer a spelling, and returns what they show together. Directories have another one in each
/// layer; what would hide something of another spelling has the same everywhere.
fn respell(layers: &[Tree], seed: usize) -> (Vec<Tree>, Tree) {
    fn below(parts: &[Option<&Tree>], seed: usize, free: bool) -> Vec<Option<Tree>> {
        let is_plain = |tree: &&Tree| matches!(tree, Tree::Directory { opaque: false, .. });
        let free = free && parts.iter().flatten().all(is_plain);
        if parts.iter().all(Option::is_none) {
            return vec![None; parts.len()];
        }
        let mut made: Vec<Option<Tree>> = parts.iter().map(|part| part.cloned()).collect();
        for tree in made.iter_mut().flatten() {
            if let Tree::Directory { entries, .. } = tree {
                entries.clear();
            }
        }
        for (letter, all) in SPELLINGS.iter().enumerate() {
            let children: Vec<_> = parts
                .iter()
                .map(|part| match part {
                    Some(Tree::Directory { entries, .. }) => entries.get(all[0]),
                    _ => None,
                })
                .collect();
            let seed = seed.wrapping_mul(31).wrapping_add(letter + 7);
            let both = free && children.iter().flatten().all(is_plain);
            for (number, child) in below(&children, seed, free).into_iter().enumerate() {
                let choice = if both { seed / 3 + number * (seed % 5) } else { seed / 3 };
                if let (Some(child), Some(Tree::Directory { entries, .. })) = (child, &mut made[number]) {
                    entries.insert(respelled(all[0], choice), child);
                }
            }
        }
        made
    }
    /// Lays `top` over `below`, names meeting by their letter.
    fn over(top: Tree, below: Tree) -> Tree {
        let (Tree::Directory { opaque: false, perm, entries }, Tree::Directory { entries: mut under, .. }) =
            (top.clone(), below)
        else {
            return top;
        };
        for (text, entry) in entries {
            let all = SPELLINGS.iter().find(|all| all.contains(&&*text)).unwrap();
            let merged = match all.iter().find_map(|spelling| under.remove(*spelling)) {
                Some(below) => over(entry, below),
                None => entry,
            };
            under.insert(text, merged);
        }
        Tree::Directory { opaque: false, perm, entries: under }
    }
    let parts: Vec<_> = layers.iter().map(Some).collect();
    let made: Vec<Tree> = below(&parts, seed, true).into_iter().flatten().collect();
    let merged = made.iter().fold(Tree::empty(), |below, tree| over(tree.clone(), below));
    (made, merged.plain())
}

/// Operations that ask for names in any spelling.
fn respelled_op() -> impl Strategy<Value = Op> {
    (op(), any::<usize>()).prop_map(|(mut op, mut seed)| {
        for text in op.paths_mut().into_iter().flatten() {
            seed = seed.rotate_left(5).wrapping_mul(0x9e37_79b9);
            *text = respelled(text, seed >> 7);
        }
        op
    })
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn equals_a_plain_tree_by_keys(
        lowest in layer(false),
        middle in prop::collection::vec(layer(true), 0..3),
        seed in any::<usize>(),
        ops in prop::collection::vec(respelled_op(), 1..60),
    ) {
        let layers: Vec<_> = [lowest].into_iter().chain(middle).collect();
        let (layers, merged) = respell(&layers, seed);
        let mut pair = Pair::with(&layers, &merged, Some(Mode::Unicode));
        pair.check();
        for op in &ops {
            pair.apply(op);
        }
        pair.finish();
    }
}
