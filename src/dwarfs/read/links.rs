//! Directory tables that must be unpacked or rebuilt: done once, on first use, and only for archives that need it.
//!
//! Archives made by upstream 0.11 and later, with directories that are not packed, need none of this.

use crate::dwarfs::format::tables::Tables;

/// For each directory its first entry, its parent directory, and its own entry.
#[derive(Debug, Default)]
pub(super) struct Links {
    /// First entries, one more than directories; empty where the table itself can be used.
    pub(super) first: Vec<u32>,
    /// Inode number of the parent.
    pub(super) parent: Vec<u32>,
    /// The entry that names the directory.
    pub(super) own: Vec<u32>,
}

/// No entry: the directory is not in the tree.
const NO_ENTRY: u32 = u32::MAX;

impl Links {
    /// Walks over all entries. `None` where the directories do not stand in order: their ranges would overlap.
    pub(super) fn build(tables: &Tables, data: &[u8], directories: u32) -> Option<Self> {
        let first = first_entries(tables, data, directories)?;
        let count = usize::try_from(directories).ok()?;
        let mut links = Self { first: Vec::new(), parent: vec![0; count], own: vec![NO_ENTRY; count] };
        if let Some(root) = links.own.first_mut() {
            *root = 0;
        }
        for (directory, range) in (0..directories).zip(first.windows(2)) {
            let [from, to] = *range else { return None };
            for entry in from..to {
                links.note(directory, entry, tables.entry_inode.get(data, entry)?);
            }
        }
        if tables.options.packed_directories {
            links.first = first;
        }
        Some(links)
    }

    /// Notes that `entry` of `directory` names `inode`. The first entry that names a directory is the one that counts.
    fn note(&mut self, directory: u32, entry: u32, inode: u64) {
        let Ok(inode) = usize::try_from(inode) else { return };
        if let (Some(own @ &mut NO_ENTRY), Some(parent)) =
            (self.own.get_mut(inode), self.parent.get_mut(inode))
        {
            *own = entry;
            *parent = directory;
        }
    }
}

/// The first entries of all directories and the sentinel, in ascending order and within the entries.
fn first_entries(tables: &Tables, data: &[u8], directories: u32) -> Option<Vec<u32>> {
    let mut first = Vec::with_capacity(usize::try_from(directories).ok()? + 1);
    let mut before = 0_u32;
    for number in 0..=directories {
        let stored = u32::try_from(tables.dir_first.get(data, number)?).ok()?;
        let entry = if tables.options.packed_directories { before.checked_add(stored)? } else { stored };
        if entry < before || entry > tables.entry_inode.len() {
            return None;
        }
        first.push(entry);
        before = entry;
    }
    Some(first)
}

/// Running sums of a table of differences. `None` where they overflow.
pub(super) fn prefix_sums(count: u32, get: impl Fn(u32) -> Option<u64>) -> Option<Vec<u32>> {
    let mut sum = 0_u32;
    (0..count)
        .map(|number| {
            sum = sum.checked_add(u32::try_from(get(number)?).ok()?)?;
            Some(sum)
        })
        .collect()
}

/// Spreads a table of counts (less two): number n stands as often as its count says. `None` where that makes more
/// than `most`.
pub(super) fn repeat_counts(count: u32, most: u32, get: impl Fn(u32) -> Option<u64>) -> Option<Vec<u32>> {
    let most = usize::try_from(most).ok()?;
    let mut spread = Vec::new();
    for number in 0..count {
        let times = usize::try_from(get(number)?).ok()?.checked_add(2)?;
        let len = spread.len().checked_add(times).filter(|len| *len <= most)?;
        spread.resize(len, number);
    }
    Some(spread)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_and_counts_are_unpacked_and_bounded() {
        let from = |values: &'static [u64]| move |at: u32| values.get(usize::try_from(at).unwrap()).copied();
        assert_eq!(prefix_sums(3, from(&[0, 5, 2])), Some(vec![0, 5, 7]));
        assert_eq!(prefix_sums(2, from(&[0xffff_ffff, 1])), None);
        assert_eq!(prefix_sums(2, from(&[0])), None);
        assert_eq!(repeat_counts(2, 5, from(&[0, 1])), Some(vec![0, 0, 1, 1, 1]));
        assert_eq!(repeat_counts(2, 4, from(&[0, 1])), None);
        assert_eq!(repeat_counts(1, 9, from(&[u64::MAX])), None);
    }
}
