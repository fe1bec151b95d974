//! lzma: one `.xz` stream a payload, with a filter before it where there is machine code.

use liblzma::stream::{Action, Check, Filters, LzmaOptions, Status, Stream};

use super::Lzma;

/// Which filter turns the relative addresses in calls and jumps into absolute ones: the same target reads the same
/// from everywhere then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Bcj {
    /// None.
    #[default]
    None,
    /// That of the machine for which most ELF files in the payload are made, if there is any, and if the payload gets
    /// smaller by it: both ways are tried.
    Auto,
    /// That of one machine.
    For(Machine),
}

/// Machines that liblzma has a filter for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Machine {
    /// x86, 32 and 64 bits.
    X86,
    /// Arm, 32 bits.
    Arm,
    /// Arm, 32 bits, Thumb code.
    ArmThumb,
    /// Arm, 64 bits.
    Arm64,
    /// PowerPC, big endian.
    PowerPc,
    /// IA-64.
    Ia64,
    /// SPARC.
    Sparc,
    /// RISC-V, 32 and 64 bits.
    RiscV,
}

impl Machine {
    /// The machine that an ELF header names by class, byte order and number.
    pub(in crate::dwarfs::write) fn of_elf(header: &[u8]) -> Option<Self> {
        let [class, order] = [*header.get(4)?, *header.get(5)?];
        let number = [*header.get(18)?, *header.get(19)?];
        let number = match order {
            1 => u16::from_le_bytes(number),
            2 => u16::from_be_bytes(number),
            _ => return None,
        };
        match (number, class, order) {
            (3 | 62, ..) => Some(Self::X86),
            (40, ..) => Some(Self::Arm),
            (183, ..) => Some(Self::Arm64),
            // The filter knows big endian code only.
            (20 | 21, _, 2) => Some(Self::PowerPc),
            (50, ..) => Some(Self::Ia64),
            (2 | 18 | 43, ..) => Some(Self::Sparc),
            (243, ..) => Some(Self::RiscV),
            _ => None,
        }
    }
}

impl Bcj {
    /// The filter that is used in any case, and one that is to be tried.
    fn machines(self, payload: &[u8]) -> (Option<Machine>, Option<Machine>) {
        match self {
            Self::None => (None, None),
            Self::For(machine) => (Some(machine), None),
            Self::Auto => (None, most_frequent(payload)),
        }
    }
}

/// The machine of most ELF files in a payload. Of equally frequent ones it is the one that came first.
fn most_frequent(payload: &[u8]) -> Option<Machine> {
    let mut counts: Vec<(Machine, u32)> = Vec::new();
    let starts = payload.windows(ELF.len()).enumerate().filter(|(_, window)| *window == ELF);
    for (at, _) in starts {
        let Some(machine) = payload.get(at..).and_then(Machine::of_elf) else { continue };
        match counts.iter_mut().find(|(known, _)| *known == machine) {
            Some((_, count)) => *count += 1,
            None => counts.push((machine, 1)),
        }
    }
    counts.into_iter().rev().max_by_key(|(_, count)| *count).map(|(machine, _)| machine)
}

const ELF: &[u8] = b"\x7fELF";

/// What liblzma calls the flag for a longer search.
const EXTREME: u32 = 1 << 31;

/// Compresses into `out`, which is empty; false if that would not make the payload smaller.
pub(super) fn encode(settings: Lzma, payload: &[u8], out: &mut Vec<u8>) -> Result<bool, String> {
    let (sure, perhaps) = settings.filter.machines(payload);
    let is_smaller = encode_with(settings, sure, payload, out)?;
    let Some(machine) = perhaps else { return Ok(is_smaller) };
    let mut filtered = Vec::new();
    if encode_with(settings, Some(machine), payload, &mut filtered)?
        && (!is_smaller || filtered.len() < out.len())
    {
        *out = filtered;
        return Ok(true);
    }
    Ok(is_smaller)
}

fn encode_with(
    settings: Lzma,
    machine: Option<Machine>,
    payload: &[u8],
    out: &mut Vec<u8>,
) -> Result<bool, String> {
    let failed = |error: liblzma::stream::Error| error.to_string();
    let mut filters = Filters::new();
    match machine {
        None => &mut filters,
        Some(Machine::X86) => filters.x86(),
        Some(Machine::Arm) => filters.arm(),
        Some(Machine::ArmThumb) => filters.arm_thumb(),
        Some(Machine::Arm64) => filters.arm64(),
        Some(Machine::PowerPc) => filters.powerpc(),
        Some(Machine::Ia64) => filters.ia64(),
        Some(Machine::Sparc) => filters.sparc(),
        Some(Machine::RiscV) => filters.riscv(),
    };
    filters.lzma2(&options(settings, payload.len()).map_err(failed)?);
    let mut stream = Stream::new_stream_encoder(&filters, Check::Crc64).map_err(failed)?;
    // No more room than would make it smaller.
    out.clear();
    out.resize(payload.len(), 0);
    let status = stream.process(payload, out, Action::Finish).map_err(failed)?;
    let len = usize::try_from(stream.total_out()).unwrap_or(usize::MAX);
    out.truncate(len);
    Ok(status == Status::StreamEnd)
}

impl Lzma {
    /// Length of the dictionary in bytes, but for short payloads.
    pub(in crate::dwarfs::write) fn dictionary(self) -> u32 {
        self.dictionary_bits.map_or_else(|| dictionary_of_level(self.level), |bits| 1 << bits.min(30))
    }
}

/// The settings for liblzma, with a dictionary no longer than the payload: encoders take some ten times its length.
fn options(settings: Lzma, payload: usize) -> Result<LzmaOptions, liblzma::stream::Error> {
    let preset = u32::from(settings.level) | if settings.extreme { EXTREME } else { 0 };
    let mut options = LzmaOptions::new_preset(preset)?;
    let needed = u32::try_from(payload).unwrap_or(u32::MAX).max(LEAST_DICTIONARY);
    options.dict_size(settings.dictionary().min(needed));
    Ok(options)
}

/// The shortest dictionary that liblzma takes.
const LEAST_DICTIONARY: u32 = 4096;

/// Length of the dictionary at each level, as the manual of xz lists it.
const fn dictionary_of_level(level: u8) -> u32 {
    const MIB: u32 = 1 << 20;
    match level {
        0 => MIB / 4,
        1 => MIB,
        2 => 2 * MIB,
        3 | 4 => 4 * MIB,
        5 | 6 => 8 * MIB,
        7 => 16 * MIB,
        8 => 32 * MIB,
        _ => 64 * MIB,
    }
}
