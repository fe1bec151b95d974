//! Checking a whole archive: everything that can be wrong with it, and which files that hits.
//!
//! ```text
//! 1  index       section index = what hopping from header to header finds; numbers in order
//! 2  references  metadata: entries, names, inodes, chunk lists, sizes; how far chunks reach into each block
//! 3  sections    each read once: XXH3, SHA-512/256; blocks and history decoded          in parallel
//! 4  lengths     each block is as long as its chunks need
//! 5  side car    decoded
//! 6  files       where blocks are damaged: the paths of the files that have a piece of one
//! ```
//!
//! A finding ends no step that can go on without what is damaged. Of a section no more is in memory than it and what
//! it decodes to, once for each thread; of the metadata some bytes for each inode and each block.

mod files;
mod references;
mod sections;

use super::{
    archive::Archive,
    cache::BlockCache,
    index::{Index, Place, Section},
    read_at::ReadAt,
    stat::Kind,
};
use crate::{
    dwarfs::{
        Error,
        format::{
            section::{FIRST_MINOR_WITH_INDEX, SectionKind},
            sidecar::{self, Sidecar},
        },
        limits,
    },
    sync::Arc,
};

pub use files::HitFiles;

/// How much is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Checksums, and what opening the archive checks.
    Checksums,
    /// All of it.
    Everything,
}

/// What a finding is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The row of sections, or the section index.
    Index,
    /// A section; of a block also its number among the blocks.
    Section {
        /// The section.
        section: Section,
        /// Its number among the blocks, if it is one.
        block: Option<u32>,
    },
    /// Schema and metadata.
    Metadata,
    /// The side car with extended attributes.
    SideCar,
}

impl Part {
    /// Its name: one word for `--json`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Index => "index",
            Self::Section { section, .. } => match section.kind {
                SectionKind::Block => "block",
                SectionKind::Schema => "schema",
                SectionKind::Metadata => "metadata",
                SectionKind::Index => "index",
                SectionKind::History => "history",
                SectionKind::Unknown(_) => "unknown",
            },
            Self::Metadata => "metadata",
            Self::SideCar => "sidecar",
        }
    }
}

/// Something that is wrong.
#[derive(Debug)]
pub struct Finding {
    /// Where.
    pub part: Part,
    /// What.
    pub error: Error,
}

/// What is wrong, as far as anybody wants to read it.
#[derive(Debug, Default)]
pub struct Findings {
    /// The first ones.
    pub list: Vec<Finding>,
    /// How many more there are.
    pub more: u64,
}

impl Findings {
    /// How many are kept: a reader of the report stops long before.
    const KEPT: usize = 1_000;

    /// Whether nothing is wrong.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// How many there are in all.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.list.len() as u64 + self.more
    }

    fn add(&mut self, part: Part, error: Error) {
        if self.list.len() < Self::KEPT {
            self.list.push(Finding { part, error });
        } else {
            self.more += 1;
        }
    }

    /// Adds the error of a step, if it ended in one.
    fn note(&mut self, part: Part, result: Result<(), Error>) {
        if let Err(error) = result {
            self.add(part, error);
        }
    }

    fn append(&mut self, other: Self) {
        other.list.into_iter().for_each(|finding| self.add(finding.part, finding.error));
        self.more += other.more;
    }
}

/// What a check found.
#[derive(Debug)]
pub struct Report {
    /// Where the archive begins in its file.
    pub offset: u64,
    /// Its length there.
    pub length: u64,
    /// Minor version of its format.
    pub minor: u8,
    /// Number of sections.
    pub sections: u64,
    /// Number of blocks.
    pub blocks: u64,
    /// Number of inodes; 0 where the metadata cannot be read.
    pub inodes: u64,
    /// Number of directory entries that were seen.
    pub entries: u64,
    /// Bytes that blocks decoded to.
    pub decoded: u64,
    /// What is wrong.
    pub findings: Findings,
    /// The files that damaged blocks hit; `None` where that cannot be known, for directories or chunk lists are
    /// damaged as well.
    pub hit: Option<HitFiles>,
}

impl Report {
    /// Whether nothing is wrong.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        self.findings.is_empty()
    }
}

/// Memory for blocks while the side car is read, in bytes.
const CACHE: usize = 1 << 20;

/// Checks the archive at a place of a file with at most `threads` threads. `watch` hears of bytes done and bytes in
/// all.
///
/// # Errors
///
/// There is no archive, or its sections cannot be found. Everything else that is wrong is in the report.
pub fn check(
    source: &Arc<dyn ReadAt>,
    place: Place,
    depth: Depth,
    threads: usize,
    watch: &mut dyn FnMut(u64, u64),
) -> Result<Report, Error> {
    let index = Index::open(&**source, place)?;
    // From here on the place is known: what opens now is what the index speaks of.
    let whole = Place::At { offset: index.offset(), len: Some(index.place_len()) };
    let archive = Archive::open(Arc::clone(source), whole, &BlockCache::new(CACHE));
    let subject = Subject { source: &**source, index: &index, archive: archive.as_ref().ok() };
    let mut report = subject.check(depth, threads, watch);
    if let Err(error) = archive {
        let told = report.findings.list.iter().any(|finding| {
            matches!(finding.part, Part::Section { section, .. }
                if matches!(section.kind, SectionKind::Schema | SectionKind::Metadata))
        });
        if !told {
            report.findings.add(Part::Metadata, error);
        }
    }
    Ok(report)
}

impl Archive {
    /// Checks the open archive; see [`check`].
    #[must_use]
    pub fn check(&self, depth: Depth, threads: usize, watch: &mut dyn FnMut(u64, u64)) -> Report {
        let subject = Subject { source: self.blocks.source(), index: self.index(), archive: Some(self) };
        subject.check(depth, threads, watch)
    }

    /// Checks every section against its SHA-512/256 and its XXH3, in the calling thread. `watch` hears of bytes done
    /// and bytes in all.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong.
    pub fn verify(&self, watch: &mut dyn FnMut(u64, u64)) -> Result<(), Error> {
        let findings = self.check(Depth::Checksums, 1, watch).findings;
        findings.list.into_iter().next().map_or(Ok(()), |finding| Err(finding.error))
    }
}

/// What is checked.
struct Subject<'a> {
    source: &'a dyn ReadAt,
    index: &'a Index,
    /// The archive, where it opens.
    archive: Option<&'a Archive>,
}

impl Subject<'_> {
    fn check(&self, depth: Depth, threads: usize, watch: &mut dyn FnMut(u64, u64)) -> Report {
        let mut report = Report {
            offset: self.index.offset(),
            length: self.index.end().saturating_sub(self.index.offset()),
            minor: self.index.minor(),
            sections: self.index.sections().len() as u64,
            blocks: 0,
            inodes: 0,
            entries: 0,
            decoded: 0,
            findings: Findings::default(),
            hit: None,
        };
        let blocks: Vec<Section> = of_kind(self.index, SectionKind::Block).collect();
        report.blocks = blocks.len() as u64;
        self.check_index(&mut report.findings);
        let references = match (depth, self.archive) {
            (Depth::Everything, Some(archive)) => {
                Some(references::check(&archive.tree, &blocks, &mut report.findings))
            }
            _ => None,
        };
        if let Some(archive) = self.archive {
            report.inodes = u64::from(archive.tree.inode_count());
        }
        let max_block = self.archive.map(|archive| archive.tree.tables().block_size);
        let plan = sections::Plan { source: self.source, index: self.index, depth, max_block };
        let read = sections::check(&plan, threads, watch);
        report.decoded = read.decoded.iter().flatten().sum();
        report.findings.append(read.findings);
        let (Some(archive), Some(references)) = (self.archive, references) else { return report };
        report.entries = references.entries;
        self.check_lengths(&blocks, &references.needs, &read.decoded, &mut report.findings);
        report.findings.note(Part::SideCar, check_side_car(archive));
        let damaged = damaged_blocks(&report.findings, blocks.len());
        if references.can_walk {
            report.hit = files::of_blocks(archive, &damaged);
        }
        report
    }

    /// Checks the row of sections.
    fn check_index(&self, findings: &mut Findings) {
        let (source, index) = (self.source, self.index);
        let sections = index.sections();
        match index.hopped(source) {
            Ok(hopped) if index.has_index() => {
                let same = hopped.iter().zip(sections).take_while(|(one, other)| one == other).count();
                let (found, expected) = (sections.len() as u64, hopped.len() as u64);
                if found != expected {
                    let what = "number of sections in the section index";
                    findings.add(Part::Index, Error::Unequal { what, found, expected });
                } else if let (Some(found), Some(expected)) = (sections.get(same), hopped.get(same)) {
                    let what = match found.offset == expected.offset {
                        true => "kind or end of a section in the section index (offset)",
                        false => "offset of a section in the section index",
                    };
                    let (found, expected) = (found.offset, expected.offset);
                    findings.add(Part::Index, Error::Unequal { what, found, expected });
                }
            }
            Ok(_) => {
                let last = sections.last().filter(|last| last.kind == SectionKind::Index);
                if let Some(last) = last.filter(|_| index.minor() >= FIRST_MINOR_WITH_INDEX) {
                    let error = Error::Malformed { what: "section index", at: 0 };
                    findings.add(Part::Section { section: *last, block: None }, error);
                }
            }
            Err(error) => findings.add(Part::Index, error),
        }
        for (kind, what) in [
            (SectionKind::Schema, "number of schema sections"),
            (SectionKind::Metadata, "number of metadata sections"),
        ] {
            let found = of_kind(index, kind).count() as u64;
            if found != 1 {
                findings.add(Part::Index, Error::Unequal { what, found, expected: 1 });
            }
        }
    }

    /// Checks that blocks are as long as their chunks need.
    fn check_lengths(
        &self,
        blocks: &[Section],
        needs: &[u64],
        decoded: &[Option<u64>],
        findings: &mut Findings,
    ) {
        for (number, ((section, need), len)) in (0..).zip(blocks.iter().zip(needs).zip(decoded)) {
            // A block that did not decode has its finding already.
            if let Some(len) = len.filter(|len| need > len) {
                let (what, found, bound) = ("end of a chunk in its block", *need, len + 1);
                let part = Part::Section { section: *section, block: Some(number) };
                findings.add(part, Error::OutOfRange { what, found, bound });
            }
        }
    }
}

fn of_kind(index: &Index, kind: SectionKind) -> impl Iterator<Item = Section> {
    index.sections().iter().filter(move |section| section.kind == kind).copied()
}

/// Which blocks have findings.
fn damaged_blocks(findings: &Findings, count: usize) -> Vec<bool> {
    let mut damaged = vec![false; count];
    for finding in &findings.list {
        if let Part::Section { block: Some(number), .. } = finding.part
            && let Some(mark) = damaged.get_mut(usize::try_from(number).unwrap_or(usize::MAX))
        {
            *mark = true;
        }
    }
    damaged
}

/// Reads and decodes the side car, where there is one.
fn check_side_car(archive: &Archive) -> Result<(), Error> {
    let Some(inode) = archive.lookup(archive.root(), sidecar::FILE_NAME)? else { return Ok(()) };
    if archive.kind(inode)? != Kind::Regular {
        return Ok(());
    }
    let (found, limit) = (archive.attr(inode)?.size, limits::MAX_SIDECAR_LEN);
    if found > limit {
        return Err(Error::Limit { what: "length of the side car", found, limit });
    }
    let data = archive.read(inode, 0, usize::try_from(found).unwrap_or_default())?;
    Sidecar::decode(&data.contiguous()).map(|_| ())
}

#[cfg(test)]
mod tests;
