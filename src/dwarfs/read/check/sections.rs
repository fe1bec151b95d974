//! Reads each section once: checksums, numbers, and what the payload decodes to. In parallel.

use super::{Depth, Findings, Part};
use crate::{
    dwarfs::{
        Error,
        format::{
            history::History,
            section::{Compression, SectionKind},
        },
        limits,
        read::{
            codec::Job,
            index::{Index, Section},
            read_at::ReadAt,
        },
    },
    sync::{
        atomic::{AtomicU64, AtomicUsize, Ordering},
        thread,
    },
};

/// What is to be read.
pub(super) struct Plan<'a> {
    pub(super) source: &'a dyn ReadAt,
    pub(super) index: &'a Index,
    pub(super) depth: Depth,
    /// Longest block; `None` where the metadata does not tell, so that blocks cannot be decoded.
    pub(super) max_block: Option<u64>,
}

/// What was read.
pub(super) struct Read {
    /// The decoded length of each block, where it decoded.
    pub(super) decoded: Vec<Option<u64>>,
    pub(super) findings: Findings,
}

/// Memory that all threads together may use for what they decode, in bytes.
const MEMORY: u64 = 1 << 30;

/// What the threads share.
struct Shared<'a> {
    plan: &'a Plan<'a>,
    next: AtomicUsize,
    done: AtomicU64,
    total: u64,
    /// For each section its number among the blocks.
    blocks: Vec<Option<u32>>,
}

/// What one thread found.
#[derive(Default)]
struct Share {
    lengths: Vec<(u32, u64)>,
    findings: Findings,
}

/// Reads all sections. The calling thread is one of those that read, and the one that `watch` is called by.
pub(super) fn check(plan: &Plan<'_>, threads: usize, watch: &mut dyn FnMut(u64, u64)) -> Read {
    let sections = plan.index.sections();
    let total = plan.index.end().saturating_sub(plan.index.offset());
    let mut count = 0_u32;
    let number = |section: &Section| {
        (section.kind == SectionKind::Block).then(|| {
            count += 1;
            count - 1
        })
    };
    let blocks = sections.iter().map(number).collect();
    let shared = Shared { plan, next: AtomicUsize::new(0), done: AtomicU64::new(0), total, blocks };
    let each = 2 * plan.max_block.unwrap_or(limits::MAX_SCHEMA_LEN).max(1);
    let affordable = usize::try_from(MEMORY / each).unwrap_or(usize::MAX).max(1);
    let helpers = threads.min(affordable).min(sections.len()).saturating_sub(1);
    let mut parts = Vec::with_capacity(helpers + 1);
    thread::scope(|scope| {
        // A thread that cannot be had is one less: the caller's own reads all that is left.
        let start = |_| thread::Builder::new().spawn_scoped(scope, || shared.work(&mut |_, _| {})).ok();
        let started: Vec<_> = (0..helpers).filter_map(start).collect();
        parts.push(shared.work(watch));
        for helper in started {
            match helper.join() {
                Ok(part) => parts.push(part),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
    });
    watch(total, total);
    let mut decoded = vec![None; usize::try_from(count).unwrap_or_default()];
    let mut all = Vec::new();
    let mut findings = Findings::default();
    for part in parts {
        for (block, len) in part.lengths {
            if let Some(place) = decoded.get_mut(usize::try_from(block).unwrap_or(usize::MAX)) {
                *place = Some(len);
            }
        }
        all.extend(part.findings.list);
        findings.more += part.findings.more;
    }
    all.sort_by_key(|finding| match finding.part {
        Part::Section { section, .. } => section.number,
        _ => 0,
    });
    all.into_iter().for_each(|finding| findings.add(finding.part, finding.error));
    Read { decoded, findings }
}

impl Shared<'_> {
    /// Reads section after section, until none is left.
    fn work(&self, watch: &mut dyn FnMut(u64, u64)) -> Share {
        let mut found = Share::default();
        loop {
            let at = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(section) = self.plan.index.sections().get(at) else { return found };
            let block = self.blocks.get(at).copied().flatten();
            let mut seen = 0;
            let result = self.plan.read(*section, &mut |bytes| {
                seen += bytes;
                let done = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
                watch(done.min(self.total), self.total);
            });
            // What was not read counts as well: the bar must reach its end.
            let rest = (section.end - section.offset).saturating_sub(seen);
            let done = self.done.fetch_add(rest, Ordering::Relaxed) + rest;
            watch(done.min(self.total), self.total);
            match result {
                Ok(Some(len)) => found.lengths.extend(block.map(|block| (block, len))),
                Ok(None) => {}
                Err(error) => found.findings.add(Part::Section { section: *section, block }, error),
            }
        }
    }
}

impl Plan<'_> {
    /// Checks a section and returns what it decodes to, where it was decoded.
    fn read(&self, section: Section, take: &mut dyn FnMut(u64)) -> Result<Option<u64>, Error> {
        let codec = self.index.payload(self.source, section)?.compression;
        let limit = match section.kind {
            SectionKind::Block => self.max_block,
            SectionKind::History => Some(limits::MAX_HISTORY_LEN),
            _ => None,
        };
        let decoded = match (self.depth, limit) {
            // What is stored as it is needs no memory, and the rest was decoded when the archive was opened.
            (Depth::Everything, Some(limit)) if codec != Compression::None => {
                Some(self.decode(section, limit, take)?)
            }
            (Depth::Everything, Some(limit)) => {
                self.index.check(self.source, section, true, take)?;
                Some(self.stored(section, limit)?)
            }
            _ => {
                self.index.check(self.source, section, true, take)?;
                None
            }
        };
        let expected = u64::from(section.number);
        match self.index.number(self.source, section)?.map(u64::from) {
            Some(found) if found != expected => {
                Err(Error::Unequal { what: "number of a section", found, expected })
            }
            _ => Ok(decoded),
        }
    }

    fn decode(&self, section: Section, limit: u64, take: &mut dyn FnMut(u64)) -> Result<u64, Error> {
        let (codec, payload) = self.index.read_whole(self.source, section, true)?;
        take(payload.len() as u64);
        let bytes = Job { section: section.number, codec, limit }.decompress(payload)?;
        if section.kind == SectionKind::History {
            History::decode(&bytes)?;
        }
        Ok(bytes.len() as u64)
    }

    /// The length of a section that is stored as it is.
    fn stored(&self, section: Section, limit: u64) -> Result<u64, Error> {
        let found = self.index.payload(self.source, section)?.len;
        if found > limit {
            return Err(Error::Limit { what: "uncompressed length of a section", found, limit });
        }
        if section.kind == SectionKind::History {
            History::decode(&self.index.read_whole(self.source, section, false)?.1)?;
        }
        Ok(found)
    }
}
