//! Makes archives.
//!
//! ```text
//! Source -> scan -> order -> inspect -> dedup -> similar -> segment -> compress -> ArchiveWriter -> output
//!             |                                                |                        ^
//!             +--- tree --------> build <----------------------+--- schema, metadata ---+
//! ```
//!
//! [`write_archive`] does all of it. A [`Source`] is a tree to be archived: a directory of the host ([`DirSource`]),
//! a tar file ([`TarSource`]). [`publish`] puts the result under its name when it is whole.
//!
//! What is held in memory grows with the number of files by some hundred bytes each; of their contents no more is
//! held than two blocks more than there are threads, each twice.

mod archive_writer;
mod build;
mod category;
mod codec;
mod compress;
mod dedup;
mod dir_source;
mod error;
mod faults;
mod in_order;
mod inspect;
mod level;
mod memory;
mod merged_source;
mod object;
mod options;
mod order;
mod progress;
mod publish;
mod read;
mod recompress;
mod reuse;
mod sample;
mod scan;
mod segment;
mod similar;
mod source;
mod tar_source;
mod tree;
mod xattrs;

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, io::Write};

use archive_writer::ArchiveWriter;
use category::Category;
use codec::Compressor;

pub use category::Categorizer;
pub use codec::{Bcj, Codec, CodecTextError, Lzma, Machine, Padding, Pcm};
pub use dir_source::DirSource;
pub use error::{PathText, TarProblem, WriteError};
pub use faults::{Faults, Unreadable};
pub use level::Level;
pub use memory::least as least_memory;
pub use merged_source::{FromArchives, MergedSource, Origin};
pub use object::{Content, Device, FileContent, Object, Timestamp};
pub use options::{History, Order, Overrides, Packing, Resolution, Segmentation, Times, WriteOptions};
pub use progress::{Phase, Progress};
pub use publish::{PublishError, publish};
pub use recompress::{Keep, Recompressed, block_size_bits, compression_of, recompress};
pub use reuse::{Reused, write_merged};
pub use source::{Contents, Source};
pub use tar_source::{TarLimits, TarSource};
pub use tree::{EntryId, ObjectId, Tree};

use super::{
    format::{
        history::{self, HistoryEntry, WriterVersion},
        section::SectionKind,
    },
    limits,
};

/// What was archived, and how large it became.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Directories, the root included.
    pub directories: u64,
    /// Regular files, each once however many names it has.
    pub files: u64,
    /// Symlinks.
    pub symlinks: u64,
    /// Devices, fifos and sockets.
    pub specials: u64,
    /// Further names of what has several.
    pub hard_links: u64,
    /// Files with the contents of another one.
    pub duplicates: u64,
    /// Size of all files, each once however many names it has.
    pub bytes_in: u64,
    /// Size of what was compressed: without holes, and of equal files one only.
    pub bytes_packed: u64,
    /// What of that was found again in a block.
    pub bytes_matched: u64,
    /// Size of the archive.
    pub bytes_out: u64,
    /// What could not be read and is not in the archive.
    pub left_out: u64,
    /// Each kind of data that there is.
    pub categories: Vec<CategorySummary>,
}

/// What became of one kind of data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CategorySummary {
    /// What it is called.
    pub name: &'static str,
    /// Files that were taken for it, of equal ones one only.
    pub files: u64,
    /// Blocks with such data.
    pub blocks: u64,
    /// Length of these blocks before they were compressed.
    pub bytes_in: u64,
    /// Their length in the archive, headers not counted.
    pub bytes_out: u64,
}

/// Archives a tree. Everything is written to `output` in one go, from where it stands.
///
/// # Errors
/// Fails if the source cannot be read, a file keeps changing, an option is out of range, or the output cannot be
/// written. What has been written until then is of no use.
pub fn write_archive(
    source: &dyn Source,
    options: &WriteOptions,
    output: &mut dyn Write,
    progress: &dyn Progress,
) -> Result<Summary, WriteError> {
    options.check()?;
    let threads = memory::threads(options)?;
    let faults = Faults::new(options.unreadable, progress);
    let (mut tree, files) = scan::scan(source, &faults, progress)?;
    let order = order::order(&tree, &options.order);
    let count = order.len() as u64;
    let questions = inspect::Questions {
        sketches: options.order == Order::Similarity,
        categorizers: &options.categorizers,
    };
    let insights = inspect::inspect(&files, &mut tree, &order, questions, options.threads.get(), progress)?;
    let (mut groups, sketches) = dedup::group(&tree, order, &insights);
    drop(insights);
    if questions.sketches {
        groups = similar::arrange(groups, &sketches);
    }
    drop(sketches);

    let bytes =
        groups.iter().filter_map(|group| tree.object(group.first)?.file()).map(FileContent::data_len).sum();
    progress.begin(Phase::Compress, count, bytes);
    let mut archive = ArchiveWriter::new(output, progress);
    let cut = segment::Cut { block_size: options.block_size(), segmentation: options.segmentation() };
    let crew = compress::Crew { threads, buffers: memory::buffers(options, threads) };
    let (mut segmented, tallies) = compress::run(
        |category| options.codecs(category),
        crew,
        &mut archive,
        |sink| segment::segment(&files, &tree, category::apart(groups), cut, sink, progress),
    )?;
    settle(&mut tree, &mut segmented);

    progress.begin(Phase::Finish, 0, 0);
    let lost = tree.forget_lost();
    let frozen = build::build(&tree, &segmented, options)?;
    if frozen.metadata.len() as u64 > limits::MAX_METADATA_LEN {
        return Err(WriteError::TooMany { what: "bytes of metadata" });
    }
    let mut write = |kind, codec, payload: &[u8]| {
        let number = archive.next_number()?;
        archive.write(&Compressor::new(codec)?.seal(number, kind, payload)?)
    };
    write(SectionKind::Schema, options.schema, &frozen.schema.encode())?;
    write(SectionKind::Metadata, options.metadata, &frozen.metadata)?;
    if let Some(history) = &options.history {
        write(SectionKind::History, options.schema, &encode_history(history, options.created))?;
    }
    let bytes_out = archive.finish()?;
    let categories = categories(&segmented, &tallies);
    let summary = Summary { bytes_out, left_out: faults.left_out(), categories, ..Summary::default() };
    Ok(summarise(&tree, &segmented, lost, summary))
}

fn encode_history(history: &History, created: Option<u64>) -> Vec<u8> {
    let number = |part: &str| part.parse().unwrap_or_default();
    let version = WriterVersion {
        major: number(env!("CARGO_PKG_VERSION_MAJOR")),
        minor: number(env!("CARGO_PKG_VERSION_MINOR")),
        patch: number(env!("CARGO_PKG_VERSION_PATCH")),
        is_release: true,
        git_desc: Some(build::WRITER.into()),
        ..WriterVersion::default()
    };
    let arguments: Vec<Vec<u8>> =
        history.arguments.iter().map(|argument| argument.clone().into_bytes()).collect();
    let entry = HistoryEntry {
        version,
        system_id: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH).into_bytes(),
        compiler_id: b"rustc".to_vec(),
        arguments: (!arguments.is_empty()).then_some(arguments),
        timestamp: created,
        library_versions: None,
    };
    let before = history.before.iter().cloned();
    history::History { entries: before.chain([entry]).collect() }.encode()
}

/// Enters in the tree what has changed while it was read.
fn settle(tree: &mut Tree, segmented: &mut segment::Segmented) {
    for (id, newer) in segmented.changed.drain(..) {
        if let Some(object) = tree.object_mut(id) {
            *object = newer;
        }
    }
    segmented.lost.drain(..).for_each(|id| tree.lose(id));
}

/// What became of each category; those with the same name are one.
fn categories(
    segmented: &segment::Segmented,
    tallies: &BTreeMap<Category, compress::Tally>,
) -> Vec<CategorySummary> {
    let mut found: BTreeMap<Category, CategorySummary> = BTreeMap::new();
    for file in &segmented.files {
        found.entry(file.group.category).or_default().files += 1;
    }
    for (category, tally) in tallies {
        let summary = found.entry(*category).or_default();
        summary.blocks += tally.blocks;
        summary.bytes_in += tally.bytes_in;
        summary.bytes_out += tally.bytes_out;
    }
    let mut all: Vec<CategorySummary> = Vec::new();
    for (category, summary) in found {
        match all.iter_mut().find(|known| known.name == category.name()) {
            None => all.push(CategorySummary { name: category.name(), ..summary }),
            Some(known) => {
                known.files += summary.files;
                known.blocks += summary.blocks;
                known.bytes_in += summary.bytes_in;
                known.bytes_out += summary.bytes_out;
            }
        }
    }
    all
}

fn summarise(tree: &Tree, segmented: &segment::Segmented, lost: usize, told: Summary) -> Summary {
    let (duplicates, bytes_matched) = (segment::duplicates(segmented), segmented.matched);
    let mut summary = Summary { duplicates, bytes_matched, ..told };
    summary.hard_links = (tree.entries().len() + lost - tree.objects().len()) as u64;
    for object in tree.object_ids().filter(|id| !tree.is_lost(*id)).filter_map(|id| tree.object(id)) {
        match &object.content {
            Content::Directory => summary.directories += 1,
            Content::Symlink(_) => summary.symlinks += 1,
            Content::File(file) => {
                summary.files += 1;
                summary.bytes_in = summary.bytes_in.saturating_add(file.size);
            }
            Content::CharDevice(_) | Content::BlockDevice(_) | Content::Fifo | Content::Socket => {
                summary.specials += 1;
            }
        }
    }
    let packed = segmented.files.iter().filter_map(|file| tree.object(file.group.first)?.file());
    summary.bytes_packed = packed.map(FileContent::data_len).sum();
    summary
}
