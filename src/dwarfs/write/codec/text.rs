//! Codecs as words: a name, and settings behind colons, `lzma:level=9:extreme`. A setting that is not named has its
//! usual value.
//!
//! ```text
//! null                                                            zstd[:level=N][:long[=BITS]]
//! lzma[:level=N][:extreme][:dict_size=BITS][:binary=MACHINE|auto]  lz4   lz4hc[:level=N]
//! brotli[:quality=N][:lgwin=BITS]
//! flac[:level=N]:channels=N:bits=N[:bytes=N][:big][:unsigned][:low]
//! ```
//!
//! Names and settings are those of mkdwarfs where that has them.

use std::{fmt, str::FromStr};

use thiserror::Error;

use super::{Bcj, Codec, Lzma, Machine, Padding, Pcm};
use crate::dwarfs::write::error::WriteError;

/// What is wrong with a codec's text.
#[derive(Debug, Error)]
pub enum CodecTextError {
    /// No codec has this name.
    #[error("unknown codec {name:?}: expected null, zstd, lzma, lz4, lz4hc, brotli or flac")]
    Name {
        /// The name.
        name: String,
    },
    /// The codec has no such setting, or its value is of another kind.
    #[error("{codec} has no setting {setting:?}: expected {expected}")]
    Setting {
        /// The codec.
        codec: String,
        /// The setting, with its value.
        setting: String,
        /// What there is.
        expected: &'static str,
    },
    /// A setting that has no usual value is not there.
    #[error("{codec} needs {setting}")]
    Missing {
        /// The codec.
        codec: &'static str,
        /// The setting.
        setting: &'static str,
    },
    /// A setting is out of range.
    #[error(transparent)]
    Range(#[from] WriteError),
}

/// Usual levels: those of mkdwarfs, and of zstd itself.
const ZSTD_LEVEL: i32 = 3;
const ZSTD_WINDOW: u8 = 27;
const LZMA_LEVEL: u8 = 9;
const LZ4HC_LEVEL: u8 = 9;
const BROTLI_QUALITY: u8 = 11;
const BROTLI_WINDOW: u8 = 22;
const FLAC_LEVEL: u8 = 5;

/// Machines by their names.
const MACHINES: [(&str, Machine); 8] = [
    ("x86", Machine::X86),
    ("arm", Machine::Arm),
    ("armthumb", Machine::ArmThumb),
    ("arm64", Machine::Arm64),
    ("powerpc", Machine::PowerPc),
    ("ia64", Machine::Ia64),
    ("sparc", Machine::Sparc),
    ("riscv", Machine::RiscV),
];

impl FromStr for Codec {
    type Err = CodecTextError;

    fn from_str(text: &str) -> Result<Self, CodecTextError> {
        let (name, settings) = text.split_once(':').unwrap_or((text, ""));
        let mut settings = Settings::new(name, settings);
        let codec = match name {
            "null" => Self::None,
            "zstd" => zstd(&mut settings),
            "lzma" => lzma(&mut settings),
            "lz4" => Self::Lz4,
            "lz4hc" => Self::Lz4Hc { level: settings.number("level").unwrap_or(LZ4HC_LEVEL) },
            "brotli" => Self::Brotli {
                quality: settings.number("quality").unwrap_or(BROTLI_QUALITY),
                window_bits: settings.number("lgwin").unwrap_or(BROTLI_WINDOW),
            },
            "flac" => flac(&mut settings)?,
            _ => return Err(CodecTextError::Name { name: name.to_owned() }),
        };
        settings.finish()?;
        codec.check()?;
        Ok(codec)
    }
}

fn zstd(settings: &mut Settings<'_>) -> Codec {
    let level = settings.number("level").unwrap_or(ZSTD_LEVEL);
    let window = settings.number("long").or_else(|| settings.word("long").then_some(ZSTD_WINDOW));
    window.map_or(Codec::Zstd { level }, |window_bits| Codec::ZstdLong { level, window_bits })
}

fn lzma(settings: &mut Settings<'_>) -> Codec {
    let machine = |text: &str| {
        let known = MACHINES.iter().find(|(name, _)| *name == text);
        known.map(|(_, machine)| Bcj::For(*machine)).or_else(|| (text == "auto").then_some(Bcj::Auto))
    };
    Codec::Lzma(Lzma {
        level: settings.number("level").unwrap_or(LZMA_LEVEL),
        extreme: settings.word("extreme"),
        dictionary_bits: settings.number("dict_size"),
        filter: settings.value("binary", machine).unwrap_or_default(),
    })
}

fn flac(settings: &mut Settings<'_>) -> Result<Codec, CodecTextError> {
    let missing = |setting| CodecTextError::Missing { codec: "flac", setting };
    let level = settings.number("level").unwrap_or(FLAC_LEVEL);
    let bits: u8 = settings.number("bits").ok_or_else(|| missing("bits"))?;
    let pcm = Pcm {
        channels: settings.number("channels").ok_or_else(|| missing("channels"))?,
        bits,
        bytes: settings.number("bytes").unwrap_or(bits.div_ceil(8)),
        big_endian: settings.word("big"),
        signed: !settings.word("unsigned"),
        padding: if settings.word("low") { Padding::Low } else { Padding::High },
    };
    Ok(Codec::Flac { level, pcm })
}

/// The settings of a codec that nobody has asked for yet.
struct Settings<'a> {
    codec: &'a str,
    left: Vec<&'a str>,
}

impl<'a> Settings<'a> {
    fn new(codec: &'a str, text: &'a str) -> Self {
        Self { codec, left: text.split(':').filter(|setting| !setting.is_empty()).collect() }
    }

    /// Takes a setting with a value that `read` understands.
    fn value<T>(&mut self, name: &str, read: impl Fn(&str) -> Option<T>) -> Option<T> {
        let of = |setting: &str| read(setting.strip_prefix(name)?.strip_prefix('=')?);
        let (at, value) = self.left.iter().enumerate().find_map(|(at, setting)| Some((at, of(setting)?)))?;
        self.left.remove(at);
        Some(value)
    }

    fn number<T: FromStr>(&mut self, name: &str) -> Option<T> {
        self.value(name, |text| text.parse().ok())
    }

    /// Takes a setting without a value.
    fn word(&mut self, name: &str) -> bool {
        let at = self.left.iter().position(|setting| *setting == name);
        at.map(|at| self.left.remove(at)).is_some()
    }

    /// All have been asked for.
    fn finish(self) -> Result<(), CodecTextError> {
        let expected = match self.codec {
            "zstd" => "level=N, long or long=BITS",
            "lzma" => {
                "level=N, extreme, dict_size=BITS or \
                 binary=auto|x86|arm|armthumb|arm64|powerpc|ia64|sparc|riscv"
            }
            "lz4hc" => "level=N",
            "brotli" => "quality=N or lgwin=BITS",
            "flac" => "level=N, channels=N, bits=N, bytes=N, big, unsigned or low",
            _ => "nothing",
        };
        match self.left.first() {
            None => Ok(()),
            Some(setting) => Err(CodecTextError::Setting {
                codec: self.codec.to_owned(),
                setting: (*setting).to_owned(),
                expected,
            }),
        }
    }
}

/// As it is read; settings that have their usual value are left out where they have one.
impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::None => f.write_str("null"),
            Self::Zstd { level } => write!(f, "zstd:level={level}"),
            Self::ZstdLong { level, window_bits } => write!(f, "zstd:level={level}:long={window_bits}"),
            Self::Lzma(lzma) => write_lzma(lzma, f),
            Self::Lz4 => f.write_str("lz4"),
            Self::Lz4Hc { level } => write!(f, "lz4hc:level={level}"),
            Self::Brotli { quality, window_bits } => {
                write!(f, "brotli:quality={quality}:lgwin={window_bits}")
            }
            Self::Flac { level, pcm } => write_flac(level, pcm, f),
        }
    }
}

fn write_lzma(lzma: Lzma, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "lzma:level={}", lzma.level)?;
    if lzma.extreme {
        f.write_str(":extreme")?;
    }
    if let Some(bits) = lzma.dictionary_bits {
        write!(f, ":dict_size={bits}")?;
    }
    match lzma.filter {
        Bcj::None => Ok(()),
        Bcj::Auto => f.write_str(":binary=auto"),
        Bcj::For(machine) => {
            let name = MACHINES.iter().find(|(_, known)| *known == machine).map_or("", |(name, _)| name);
            write!(f, ":binary={name}")
        }
    }
}

fn write_flac(level: u8, pcm: Pcm, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let Pcm { channels, bits, bytes, .. } = pcm;
    write!(f, "flac:level={level}:channels={channels}:bits={bits}:bytes={bytes}")?;
    let words = [(pcm.big_endian, ":big"), (!pcm.signed, ":unsigned"), (pcm.padding == Padding::Low, ":low")];
    words.iter().filter(|(is_set, _)| *is_set).try_for_each(|(_, word)| f.write_str(word))
}
