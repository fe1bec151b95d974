//! What a program needs to run: its loader and its libraries, read from its ELF file.

use std::{fs::File, io};

use crate::image::{
    elf::{self, Elf, ElfError, u64_at},
    store::Store as _,
};

const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const PT_INTERP: u32 = 3;
const DT_NEEDED: u64 = 1;
const DT_STRTAB: u64 = 5;
const DT_STRSZ: u64 = 10;
const DT_RPATH: u64 = 15;
const DT_RUNPATH: u64 = 29;
const ENTRY_LEN: usize = 16;
/// Length of a dynamic section in bytes; ordinary ones have less than 2 KiB.
const DYNAMIC_LIMIT: u64 = 256 << 10;
/// Length of a string table in bytes; the C library's has 30 KiB.
const STRINGS_LIMIT: u64 = 4 << 20;
/// Length of the loader's path in bytes.
const PATH_LIMIT: u64 = 4096;

/// What a program needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// `e_machine` of the file.
    pub machine: u16,
    /// The loader; none in a static program or a library.
    pub loader: Option<String>,
    /// The libraries by name.
    pub libraries: Vec<String>,
    /// Where to look for them before anywhere else, as written.
    pub search: Vec<String>,
}

impl Needs {
    /// Whether the program runs without anything else.
    #[must_use]
    pub fn is_static(&self) -> bool {
        self.loader.is_none() && self.libraries.is_empty()
    }
}

/// A file whose needs cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum NeedsError {
    /// Its headers.
    #[error(transparent)]
    Elf(#[from] ElfError),
    /// The host refused.
    #[error("cannot read the dynamic section")]
    Read(#[from] io::Error),
    /// Something is larger than anything sensible.
    #[error("the {what} has {found} bytes, the limit is {limit}")]
    TooLong {
        /// What it is.
        what: &'static str,
        /// Its length.
        found: u64,
        /// The limit.
        limit: u64,
    },
    /// The dynamic section names a place that is not in the file.
    #[error("the dynamic section points nowhere")]
    Dangling,
}

/// Reads what a program or library needs.
///
/// # Errors
///
/// The file is no ELF file, or a damaged one.
pub fn needs(file: &File) -> Result<Needs, NeedsError> {
    let elf = elf::read(file)?;
    let mut needs = Needs { machine: elf.machine, ..Needs::default() };
    if let Some(bytes) = segment(file, &elf, PT_INTERP, "loader's path", PATH_LIMIT)? {
        needs.loader = Some(string_at(&bytes, 0).ok_or(NeedsError::Dangling)?);
    }
    let Some(dynamic) = segment(file, &elf, PT_DYNAMIC, "dynamic section", DYNAMIC_LIMIT)? else {
        return Ok(needs);
    };
    let entries: Vec<(u64, u64)> = dynamic
        .chunks_exact(ENTRY_LEN)
        .map(|entry| (u64_at(entry, 0), u64_at(entry, 8)))
        .take_while(|(tag, _)| *tag != 0)
        .collect();
    let value = |wanted| entries.iter().find(|(tag, _)| *tag == wanted).map(|(_, value)| *value);
    let (Some(address), Some(length)) = (value(DT_STRTAB), value(DT_STRSZ)) else { return Ok(needs) };
    let offset = offset_of(&elf, address).ok_or(NeedsError::Dangling)?;
    let strings = read(file, offset, length, "string table", STRINGS_LIMIT)?;
    for (tag, at) in entries {
        let text = || string_at(&strings, at).ok_or(NeedsError::Dangling);
        match tag {
            DT_NEEDED => needs.libraries.push(text()?),
            DT_RPATH | DT_RUNPATH => needs.search.extend(text()?.split(':').map(str::to_owned)),
            _ => {}
        }
    }
    Ok(needs)
}

fn segment(
    file: &File,
    elf: &Elf,
    kind: u32,
    what: &'static str,
    limit: u64,
) -> Result<Option<Vec<u8>>, NeedsError> {
    let found = elf.segments.iter().find(|segment| segment.kind == kind);
    found.map(|segment| read(file, segment.offset, segment.length, what, limit)).transpose()
}

fn read(
    file: &File,
    offset: u64,
    length: u64,
    what: &'static str,
    limit: u64,
) -> Result<Vec<u8>, NeedsError> {
    let too_long = NeedsError::TooLong { what, found: length, limit };
    let Some(len) = usize::try_from(length).ok().filter(|_| length <= limit) else { return Err(too_long) };
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, offset)?;
    Ok(bytes)
}

/// Where in the file an address is mapped from.
fn offset_of(elf: &Elf, address: u64) -> Option<u64> {
    let load = elf.segments.iter().find(|segment| {
        segment.kind == PT_LOAD
            && address.checked_sub(segment.address).is_some_and(|into| into < segment.length)
    })?;
    load.offset.checked_add(address.checked_sub(load.address)?)
}

fn string_at(strings: &[u8], at: u64) -> Option<String> {
    let rest = strings.get(usize::try_from(at).ok()?..)?;
    let end = rest.iter().position(|byte| *byte == 0)?;
    String::from_utf8(rest.get(..end)?.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write as _, process::Command};

    use super::*;

    #[test]
    fn needs_are_those_that_the_loader_names() {
        let shell = File::open("/bin/sh").unwrap();
        let found = needs(&shell).unwrap();
        if found.is_static() {
            println!("skipped: /bin/sh is static");
            return;
        }
        let listed = Command::new("ldd").arg("/bin/sh").output().unwrap();
        let listed = String::from_utf8(listed.stdout).unwrap();
        for library in &found.libraries {
            assert!(listed.contains(library.as_str()), "{library} in {listed}");
        }
        assert!(listed.contains(&found.loader.unwrap()));
        assert!(needs(&File::open("/proc/self/exe").unwrap()).unwrap().is_static(), "the engine is static");
    }

    #[test]
    fn damaged_programs_are_errors() {
        let bytes = fs::read("/bin/sh").unwrap();
        let mut file = tempfile::tempfile().unwrap();
        for at in (0..2048).step_by(7) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0xff;
            file.set_len(0).unwrap();
            std::io::Seek::rewind(&mut file).unwrap();
            file.write_all(&damaged).unwrap();
            let _ = needs(&file);
        }
    }
}
