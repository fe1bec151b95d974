//! An archive of what is in other archives: blocks whose whole content is still wanted are copied as they are stored,
//! the rest is packed anew.
//!
//! ```text
//! blocks of the archives    [ a ][ b ][ c ]   [ d ][ e ]         b and d hold a file that is gone
//!                             |         |           |   \
//! new archive               [ a ][ c ][ e ][ what is left of b and d, and the side car ]
//!                             0    1    2    3 ..
//! ```
//!
//! A file lies in copied blocks, in new ones, or in both. To the segmenter, what lies in copied blocks is a hole; its
//! pieces are put into that hole afterwards ([`Splice`]).

use std::{
    collections::{HashMap, HashSet},
    io::Write,
    ops::{ControlFlow, Range},
};

use super::{
    Summary,
    archive_writer::{ArchiveWriter, Sealed},
    build, categories,
    category::{self, Category},
    codec::Compressor,
    compress::{self, BlockSink},
    dedup::{self, Group},
    error::WriteError,
    faults::Faults,
    in_order::in_order,
    inspect, memory,
    merged_source::{MergedSource, Origin, archive_of, ranges},
    object::{Content, FileContent, Object},
    options::{Order, WriteOptions},
    order,
    progress::{Phase, Progress},
    read::Files,
    recompress::{copy_block, write_history},
    scan,
    segment::{self, Packed, Piece, Segmented},
    settle, similar, summarise,
    tree::{ObjectId, Tree},
};
use crate::dwarfs::{
    Error,
    format::{section::SectionKind, sidecar},
    limits,
    read::{self, Archive, Inode, Section},
};

/// What was archived, and how much of it was not touched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reused {
    /// The archive as a whole.
    pub summary: Summary,
    /// Blocks that were copied as they are stored.
    pub copied: u64,
    /// Blocks of all archives.
    pub blocks: u64,
    /// Bytes of the copied blocks as they are stored.
    pub copied_bytes: u64,
}

/// Archives a tree whose files are in archives. Blocks that are longer than those of `options` are not copied.
///
/// # Errors
///
/// As [`write_archive`](super::write_archive), and where an archive is damaged.
pub fn write_merged(
    source: &MergedSource<'_>,
    options: &WriteOptions,
    output: &mut dyn Write,
    progress: &dyn Progress,
) -> Result<Reused, WriteError> {
    options.check()?;
    let threads = memory::threads(options)?;
    let faults = Faults::new(options.unreadable, progress);
    let (mut tree, files) = scan::scan(source, &faults, progress)?;
    let kept = Kept::plan(&tree, source, options.block_size())?;
    let in_order_of = order::order(&tree, &options.order);
    let share = Shares::new(&mut tree, source, &kept, &in_order_of)?;
    let groups = groups_of(&files, &mut tree, &share, options, progress)?;

    let fresh: u64 = data_len(&tree, groups.iter().map(|group| group.first));
    let of_kept = kept.blocks.iter().map(|(_, section)| section.end - section.offset);
    let copied_bytes: u64 = of_kept.sum();
    progress.begin(Phase::Compress, groups.len() as u64, copied_bytes + fresh);
    let mut archive = ArchiveWriter::new(output, progress);
    in_order(
        threads,
        kept.blocks.len(),
        || (),
        |(), number| {
            let (from, section) = *kept.blocks.get(number).ok_or(WriteError::Worker)?;
            let origin = Origin { archive: from, inode: Inode::new(0) };
            let archive = archive_of(source.archives(), origin).map_err(WriteError::Archive)?;
            let copied = copy_block(archive, section, number)?;
            progress.bytes_in(section.end - section.offset);
            Ok(copied)
        },
        |(header, payload)| archive.write(&Sealed { header, payload: &payload }),
    )?;
    let first = archive.next_number()?;
    let cut = segment::Cut { block_size: options.block_size(), segmentation: options.segmentation() };
    let crew = compress::Crew { threads, buffers: memory::buffers(options, threads) };
    let (mut segmented, tallies) = compress::run(
        |category| options.codecs(category),
        crew,
        &mut archive,
        |sink| {
            let sink = Shifted { sink, first };
            segment::segment(&files, &tree, category::apart(groups), cut, &sink, progress)
        },
    )?;
    settle(&mut tree, &mut segmented);
    let categories = categories(&segmented, &tallies);
    progress.begin(Phase::Finish, 0, 0);
    share.give_back(&mut tree);
    let segmented = Splice { tree: &tree, source, kept: &kept, first }.all(segmented, &share.whole)?;

    let lost = tree.forget_lost();
    write_metadata(&tree, &segmented, options, &mut archive)?;
    write_history(source.archives(), options, &mut archive)?;
    let bytes_out = archive.finish()?;
    let told = Summary { bytes_out, left_out: faults.left_out(), categories, ..Summary::default() };
    let summary = Summary { bytes_packed: fresh, ..summarise(&tree, &segmented, lost, told) };
    let blocks = source.archives().iter().map(|archive| archive.block_sections().count() as u64).sum();
    Ok(Reused { summary, copied: kept.blocks.len() as u64, blocks, copied_bytes })
}

/// Looks into the files that are packed anew as a whole, and groups all that are packed anew.
fn groups_of(
    files: &Files<'_>,
    tree: &mut Tree,
    share: &Shares,
    options: &WriteOptions,
    progress: &dyn Progress,
) -> Result<Vec<Group>, WriteError> {
    let questions = inspect::Questions {
        sketches: options.order == Order::Similarity,
        categorizers: &options.categorizers,
    };
    let insights = inspect::inspect(files, tree, &share.fresh, questions, options.threads.get(), progress)?;
    let (mut groups, sketches) = dedup::group(tree, share.fresh.clone(), &insights);
    if questions.sketches {
        groups = similar::arrange(groups, &sketches);
    }
    let alone = |first: &ObjectId| Group { first: *first, others: Vec::new(), category: Category::default() };
    groups.extend(share.mixed.iter().map(|(id, _)| alone(id)));
    Ok(groups)
}

fn data_len(tree: &Tree, files: impl Iterator<Item = ObjectId>) -> u64 {
    files.filter_map(|id| tree.object(id)?.file()).map(FileContent::data_len).sum()
}

fn write_metadata(
    tree: &Tree,
    segmented: &Segmented,
    options: &WriteOptions,
    archive: &mut ArchiveWriter<'_>,
) -> Result<(), WriteError> {
    let frozen = build::build(tree, segmented, options)?;
    if frozen.metadata.len() as u64 > limits::MAX_METADATA_LEN {
        return Err(WriteError::TooMany { what: "bytes of metadata" });
    }
    let mut compressor = Compressor::new(options.metadata)?;
    for (kind, payload) in
        [(SectionKind::Schema, frozen.schema.encode()), (SectionKind::Metadata, frozen.metadata)]
    {
        let number = archive.next_number()?;
        archive.write(&compressor.seal(number, kind, &payload)?)?;
    }
    Ok(())
}

/// Numbers blocks from behind the copied ones on.
struct Shifted<'a> {
    sink: &'a dyn BlockSink,
    first: u32,
}

impl BlockSink for Shifted<'_> {
    fn buffer(&self, len: usize) -> Option<Vec<u8>> {
        self.sink.buffer(len)
    }

    fn block(&self, number: u32, buffer: Vec<u8>, len: usize, category: Category) {
        // Numbers of sections are bounded far below.
        self.sink.block(number.saturating_add(self.first), buffer, len, category);
    }
}

/// The blocks that are copied.
struct Kept {
    /// Archive and section of each, by its number in the new archive.
    blocks: Vec<(usize, Section)>,
    /// What each is, as its archive says.
    categories: Vec<Category>,
    /// Number in the new archive by archive and block.
    numbers: Vec<Vec<Option<u32>>>,
}

/// A part of a block: its number, and where the part begins and ends.
type Part = (u32, u64, u64);

impl Kept {
    /// Finds the blocks of which each byte that a file of their archive refers to is still wanted.
    fn plan(tree: &Tree, source: &MergedSource<'_>, block_size: u32) -> Result<Self, WriteError> {
        let mut wanted: Vec<Vec<Part>> = vec![Vec::new(); source.archives().len()];
        let mut seen = HashSet::new();
        for origin in origins(tree, source) {
            let archive = archive_of(source.archives(), origin).map_err(WriteError::Archive)?;
            let contents = archive.contents_of(origin.inode).map_err(WriteError::Archive)?;
            if let Some(parts) = wanted.get_mut(origin.archive)
                && seen.insert((origin.archive, contents))
            {
                add_parts(archive, origin.inode, parts).map_err(WriteError::Archive)?;
            }
        }
        let mut kept = Self { blocks: Vec::new(), categories: Vec::new(), numbers: Vec::new() };
        for ((place, archive), parts) in source.archives().iter().enumerate().zip(wanted) {
            let sections: Vec<Section> = archive.block_sections().collect();
            let mut numbers = vec![None; sections.len()];
            if archive.block_size() <= u64::from(block_size)
                && let Some(all) = all_parts(archive).map_err(WriteError::Archive)?
            {
                let (all, live) = (covered(all, sections.len()), covered(parts, sections.len()));
                for (block, section) in sections.iter().enumerate() {
                    let is_whole = all.get(block) == live.get(block) && live.get(block) != Some(&0);
                    if let (true, Some(number)) = (is_whole, numbers.get_mut(block)) {
                        *number = Some(kept.add(archive, place, block, *section)?);
                    }
                }
            }
            kept.numbers.push(numbers);
        }
        Ok(kept)
    }

    fn add(
        &mut self,
        archive: &Archive,
        place: usize,
        block: usize,
        section: Section,
    ) -> Result<u32, WriteError> {
        let too_many = |_| WriteError::TooMany { what: "blocks" };
        let number = u32::try_from(self.blocks.len()).map_err(too_many)?;
        let name = archive.category_of(u32::try_from(block).map_err(too_many)?);
        self.categories.push(name.and_then(Category::of_name).unwrap_or_default());
        self.blocks.push((place, section));
        Ok(number)
    }

    /// The number in the new archive of a block that is copied.
    fn number(&self, archive: usize, block: u32) -> Option<u32> {
        *self.numbers.get(archive)?.get(usize::try_from(block).ok()?)?
    }
}

/// Where the contents of each file of a tree are.
fn origins<'t>(tree: &'t Tree, source: &'t MergedSource<'_>) -> impl Iterator<Item = Origin> + 't {
    let names = tree.entry_ids().map(|entry| tree.object_of(entry));
    names.filter_map(|id| source.origin(tree.object(id)?.file()?))
}

/// The parts of blocks that all files of an archive refer to. `None` where it cannot tell. The side car does not count:
/// there is a new one, and a copied block may carry the old one along.
fn all_parts(archive: &Archive) -> Result<Option<Vec<Part>>, Error> {
    let Some(files) = archive.files() else { return Ok(None) };
    let sidecar = archive.lookup(archive.root(), sidecar::FILE_NAME)?;
    let mut parts = Vec::new();
    let mut seen = HashSet::new();
    for inode in files.filter(|inode| Some(*inode) != sidecar) {
        if seen.insert(archive.contents_of(inode)?) {
            add_parts(archive, inode, &mut parts)?;
        }
    }
    Ok(Some(parts))
}

fn add_parts(archive: &Archive, inode: Inode, parts: &mut Vec<Part>) -> Result<(), Error> {
    archive.pieces(inode, 0, &mut |_, piece| {
        if let read::Piece::Data { block, offset, len } = piece {
            parts.push((block, u64::from(offset), u64::from(offset).saturating_add(len)));
        }
        Ok(ControlFlow::Continue(()))
    })
}

/// How many bytes of each block any of the parts covers.
fn covered(mut parts: Vec<Part>, blocks: usize) -> Vec<u64> {
    parts.sort_unstable();
    let mut covered = vec![0; blocks];
    let mut at = (0, 0);
    for (block, start, end) in parts {
        let start = if at.0 == block { start.max(at.1) } else { start };
        if let Some(sum) = covered.get_mut(block as usize).filter(|_| start < end) {
            *sum += end - start;
            at = (block, end);
        } else if at.0 != block {
            at = (block, end);
        }
    }
    covered
}

/// Which files lie where.
struct Shares {
    /// All their contents are in copied blocks.
    whole: Vec<ObjectId>,
    /// They are packed anew, as a whole.
    fresh: Vec<ObjectId>,
    /// A part of them is packed anew. In the tree they have that part alone until [`give_back`](Self::give_back); here
    /// is what they really hold.
    mixed: Vec<(ObjectId, FileContent)>,
}

impl Shares {
    fn new(
        tree: &mut Tree,
        source: &MergedSource<'_>,
        kept: &Kept,
        order: &[ObjectId],
    ) -> Result<Self, WriteError> {
        let mut shares = Self { whole: Vec::new(), fresh: Vec::new(), mixed: Vec::new() };
        for id in order {
            let Some(file) = tree.object(*id).and_then(Object::file) else { continue };
            // The side car, which is made here, has none.
            let Some(origin) = source.origin(file) else {
                shares.fresh.push(*id);
                continue;
            };
            let archive = archive_of(source.archives(), origin).map_err(WriteError::Archive)?;
            let is_anew = |block| kept.number(origin.archive, block).is_none();
            let anew = ranges(archive, origin.inode, file.size, is_anew).map_err(WriteError::Archive)?;
            let anew_len: u64 = anew.iter().map(|range| range.end - range.start).sum();
            if anew_len == 0 {
                shares.whole.push(*id);
            } else if anew_len == file.data_len() {
                shares.fresh.push(*id);
            } else {
                let part = FileContent { extents: Some(anew.into()), ..*file };
                let real = file.clone();
                if let Some(object) = tree.object_mut(*id) {
                    object.content = Content::File(part);
                }
                shares.mixed.push((*id, real));
            }
        }
        Ok(shares)
    }

    /// Makes the tree say again what files really hold.
    fn give_back(&self, tree: &mut Tree) {
        for (id, real) in &self.mixed {
            if let Some(object) = tree.object_mut(*id) {
                object.content = Content::File(real.clone());
            }
        }
    }
}

/// Puts the pieces of copied blocks where the segmenter saw holes.
struct Splice<'a> {
    tree: &'a Tree,
    source: &'a MergedSource<'a>,
    kept: &'a Kept,
    /// Number of the first new block.
    first: u32,
}

impl Splice<'_> {
    /// All files: those that were packed anew, and those that were not touched.
    fn all(&self, segmented: Segmented, whole: &[ObjectId]) -> Result<Segmented, WriteError> {
        let mut all = Segmented {
            blocks: segmented.blocks.saturating_add(self.first),
            categories: [self.kept.categories.as_slice(), &segmented.categories].concat(),
            matched: segmented.matched,
            ..Segmented::default()
        };
        for Packed { group, pieces } in segmented.files {
            let start = all.pieces.len();
            let pieces = segmented.pieces.get(pieces).unwrap_or_default();
            self.fill(group.first, pieces, &mut all.pieces).map_err(WriteError::Archive)?;
            all.files.push(Packed { group, pieces: start..all.pieces.len() });
        }
        // Files of the same contents share them, as they did before.
        let mut known: HashMap<(usize, u32, u64), usize> = HashMap::new();
        for id in whole {
            let Some((file, origin)) = self.file(*id) else { continue };
            let archive = archive_of(self.source.archives(), origin).map_err(WriteError::Archive)?;
            let contents = archive.contents_of(origin.inode).map_err(WriteError::Archive)?;
            let at = *known.entry((origin.archive, contents, file.size)).or_insert(all.files.len());
            if let Some(same) = all.files.get_mut(at) {
                same.group.others.push(*id);
                continue;
            }
            let start = all.pieces.len();
            self.copied(origin, 0..file.size, &mut all.pieces).map_err(WriteError::Archive)?;
            let group = Group { first: *id, others: Vec::new(), category: Category::default() };
            all.files.push(Packed { group, pieces: start..all.pieces.len() });
        }
        Ok(all)
    }

    fn file(&self, id: ObjectId) -> Option<(&FileContent, Origin)> {
        let file = self.tree.object(id)?.file()?;
        Some((file, self.source.origin(file)?))
    }

    /// The pieces of a file that went through the segmenter.
    fn fill(&self, id: ObjectId, packed: &[Piece], out: &mut Vec<Piece>) -> Result<(), Error> {
        let origin = self.file(id).map(|(_, origin)| origin);
        let mut at = 0;
        for piece in packed {
            match (*piece, origin) {
                (Piece::Data { block, offset, size }, _) => {
                    out.push(Piece::Data { block: block.saturating_add(self.first), offset, size });
                    at += u64::from(size);
                }
                (Piece::Hole { size }, Some(origin)) => {
                    self.copied(origin, at..at + size, out)?;
                    at += size;
                }
                (hole @ Piece::Hole { .. }, None) => out.push(hole),
            }
        }
        Ok(())
    }

    /// The pieces of a range of a file that lies in copied blocks, and of its holes.
    fn copied(&self, origin: Origin, range: Range<u64>, out: &mut Vec<Piece>) -> Result<(), Error> {
        let archive = archive_of(self.source.archives(), origin)?;
        let mut at = range.start;
        let mut hole = 0;
        archive.pieces(origin.inode, range.start, &mut |start, piece| {
            let end = start.saturating_add(piece.len()).min(range.end);
            let from = start.max(range.start);
            match piece {
                _ if from >= end => {}
                read::Piece::Hole { .. } => hole += end - from,
                read::Piece::Data { block, offset, .. } => {
                    flush(&mut hole, out);
                    let number = self.kept.number(origin.archive, block);
                    let offset = u32::try_from(u64::from(offset) + (from - start)).ok();
                    let size = u32::try_from(end - from).ok();
                    let (Some(block), Some(offset), Some(size)) = (number, offset, size) else {
                        let (found, bound) = (u64::from(block), self.kept.blocks.len() as u64);
                        return Err(Error::OutOfRange { what: "copied block", found, bound });
                    };
                    out.push(Piece::Data { block, offset, size });
                }
            }
            at = at.max(end);
            Ok(if at < range.end { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        })?;
        // A file that is longer than its contents ends in a hole.
        hole += range.end - at;
        flush(&mut hole, out);
        Ok(())
    }
}

fn flush(hole: &mut u64, out: &mut Vec<Piece>) {
    let size = std::mem::take(hole);
    if size > 0 {
        out.push(Piece::Hole { size });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_covered_once() {
        let parts = vec![(0, 0, 10), (0, 5, 8), (0, 8, 12), (2, 3, 3), (2, 0, 4), (0, 20, 25), (9, 0, 1)];
        assert_eq!(covered(parts, 3), [17, 0, 4]);
        assert_eq!(covered(vec![(1, 7, 9), (1, 0, 7)], 2), [0, 9]);
    }
}
