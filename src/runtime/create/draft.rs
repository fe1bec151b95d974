//! An image in the making: program, settings area, archives, in this order.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Read as _, Seek as _, SeekFrom},
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

use super::{CreateError, CreatePlan};
use crate::{
    config::{self, DISTRIBUTION_LABEL, ImageId, Settings},
    dwarfs::{
        read::{Archive, BlockCache, Place},
        write::{self, Progress, Source, Summary, WriteOptions},
    },
    image::{
        ArchiveKind, Depth, ImageError, LayerEntry, LayerTable,
        elf::{self, ElfError, MARK, MARK_AT},
        reserved::{Reserved, align_up},
        store::Store as _,
        verify_archive,
    },
    runtime::layer::BUFFER,
    sync::Arc,
    sys::transfer,
};

/// The running program.
#[derive(Debug)]
pub struct Program {
    file: File,
    end: u64,
}

impl Program {
    /// Opens it.
    ///
    /// # Errors
    ///
    /// It cannot be read, or is not understood.
    pub fn running() -> Result<Self, ElfError> {
        let file = File::open("/proc/self/exe").map_err(ElfError::Read)?;
        let end = elf::read(&file)?.end;
        Ok(Self { file, end })
    }

    /// The file; what is behind its end may be anything.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Its length in bytes.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.end
    }
}

/// An image that is being made.
pub(super) struct Draft<'a> {
    file: &'a mut File,
    path: &'a Path,
    reserved: Reserved,
    table: LayerTable,
    settings: Settings,
    created: u64,
    depth: Depth,
    end: u64,
}

impl<'a> Draft<'a> {
    /// Writes the program and leaves room for the settings.
    pub(super) fn begin(
        file: &'a mut File,
        program: &Program,
        plan: &'a CreatePlan,
    ) -> Result<Self, CreateError> {
        let reserved = Reserved::behind(program.end);
        transfer::copy_range(&program.file, 0, file, 0, program.end, |_| {}).map_err(CreateError::Program)?;
        file.write_all_at(&MARK, MARK_AT).map_err(CreateError::Program)?;
        file.set_length(reserved.end()).map_err(CreateError::Program)?;
        let settings = Settings::new(ImageId::from_random(random().map_err(CreateError::Program)?));
        let end = reserved.end();
        let (table, created, depth) = (LayerTable::default(), plan.created, plan.depth);
        Ok(Self { file, path: &plan.output, reserved, table, settings, created, depth, end })
    }

    /// Archives a source behind what is there, and checks it.
    pub(super) fn archive(
        &mut self,
        kind: ArchiveKind,
        message: &str,
        source: &dyn Source,
        options: &WriteOptions,
        progress: &dyn Progress,
        what: &str,
    ) -> Result<Summary, CreateError> {
        let offset = align_up(self.end);
        let failed = |source| CreateError::Scratch { action: "write", path: self.path.to_owned(), source };
        self.file.set_len(offset).map_err(failed)?;
        self.file.seek(SeekFrom::Start(offset)).map_err(failed)?;
        let summary = {
            let mut output = BufWriter::with_capacity(BUFFER, &mut *self.file);
            let written = write::write_archive(source, options, &mut output, progress)
                .map_err(|source| CreateError::Write { what: what.to_owned(), source })?;
            io::Write::flush(&mut output).map_err(|source| CreateError::Scratch {
                action: "write",
                path: self.path.to_owned(),
                source,
            })?;
            written
        };
        self.enter(kind, message, offset, self.depth)?;
        Ok(summary)
    }

    /// Checks what was written at `offset`, and enters it in the table.
    fn enter(
        &mut self,
        kind: ArchiveKind,
        message: &str,
        offset: u64,
        depth: Depth,
    ) -> Result<(), CreateError> {
        let place = Place::At { offset, len: None };
        let found = verify_archive(self.file, self.path, place, depth, &mut |_, _| {})?;
        self.end = offset.saturating_add(found.length);
        if kind == ArchiveKind::Base
            && let Some(distribution) = distribution(self.file, offset)
        {
            self.settings.labels.insert(DISTRIBUTION_LABEL.to_owned(), distribution);
        }
        let entry = LayerEntry {
            kind,
            offset,
            length: found.length,
            content: found.content,
            created: self.created,
            message: message.to_owned(),
            unknown: serde_json::Map::new(),
        };
        self.table.push(entry).map_err(|source| ImageError::Table { path: self.path.to_owned(), source })?;
        Ok(())
    }

    /// Takes over an archive as it is, and checks it.
    pub(super) fn adopt(
        &mut self,
        kind: ArchiveKind,
        message: &str,
        source: &File,
        (from, length): (u64, u64),
        progress: &dyn Progress,
    ) -> Result<(), CreateError> {
        let offset = align_up(self.end);
        transfer::copy_range(source, from, self.file, offset, length, |count| progress.bytes_in(count))
            .map_err(|source| CreateError::Scratch { action: "write", path: self.path.to_owned(), source })?;
        // Others have written it.
        self.enter(kind, message, offset, Depth::Checksums)
    }

    /// The settings of the image.
    pub(super) fn settings(&mut self) -> &mut Settings {
        &mut self.settings
    }

    /// Writes the settings and the table, and makes the file executable.
    pub(super) fn finish(self) -> Result<(), CreateError> {
        let table =
            self.table.encode().map_err(|source| ImageError::Table { path: self.path.to_owned(), source })?;
        self.reserved.settings().create(self.file, config::encode(&self.settings)?)?;
        self.reserved.table().create(self.file, table)?;
        // whoever may read the file, as the umask left it, may run it
        let failed =
            |source| CreateError::Scratch { action: "make executable", path: self.path.to_owned(), source };
        let mode = self.file.metadata().map_err(failed)?.permissions().mode();
        let mode = mode | (mode & 0o444) >> 2;
        self.file.set_permissions(fs::Permissions::from_mode(mode)).map_err(failed)
    }
}

/// The `ID` of an archive's os-release file.
fn distribution(file: &File, offset: u64) -> Option<String> {
    let source = Arc::new(file.try_clone().ok()?);
    let place = Place::At { offset, len: None };
    let archive = Archive::open(source, place, &BlockCache::new(OS_RELEASE_CACHE)).ok()?;
    let paths: [&[u8]; 2] = [b"usr/lib/os-release", b"etc/os-release"];
    let text = paths.iter().find_map(|path| {
        let inode = archive.find(path).ok().flatten()?;
        let data = archive.read(inode, 0, OS_RELEASE_LIMIT).ok()?;
        Some(String::from_utf8_lossy(&data.contiguous()).into_owned())
    })?;
    let id = text.lines().find_map(|line| line.strip_prefix("ID="))?;
    Some(id.trim_matches(['"', '\'']).to_owned())
}

/// Length of an os-release file in bytes, as far as it is read.
const OS_RELEASE_LIMIT: usize = 16 << 10;
/// Memory for the block that holds it, in bytes.
const OS_RELEASE_CACHE: usize = 32 << 20;

/// 128 random bits.
fn random() -> io::Result<[u8; 16]> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_differ() {
        assert_ne!(random().unwrap(), random().unwrap());
    }
}
