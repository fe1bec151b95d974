//! Files of FlatImage 2: what is in them, so that `fim create` can take it over.
//!
//! ```text
//! | ELF program | u64 length, tool | … | settings, 4 MiB | u64 length, archive | u64 length, archive | …
//!               ^ end of the section header table          base                  layers, lowest first
//!
//! settings   0        u64 permissions, a bit each        8     u8 notify      9  u8 overlay     10  u8 casefold
//!            11       JSON desktop, 4 KiB                4107  JSON boot, 8 KiB
//!            12299    icon, 1 MiB: ending (4 bytes), data, u64 length in the last 8 bytes
//!            1060875  JSON environment, 1 MiB            2109451  JSON binds, 1 MiB
//!            3158027  text remote, 4 KiB                 3162123  u16 unshare, a bit each
//! ```
//!
//! (releases 2.0.0 and 2.0.1; integers little endian, texts end at a NUL.) How many tools there are is known to the program
//! alone: they are walked until archives stand where they must, 4 MiB behind one. Everything is checked against the
//! length of the file; a setting that has no meaning is told and left out.

use std::{
    collections::BTreeMap,
    fs::File,
    path::{Path, PathBuf},
};

use serde::{Deserialize, de::DeserializeOwned};
use thiserror::Error;

use crate::{
    causes::one_line,
    config::{
        Bind, Binds, Boot, Casefold, CasefoldMode, Desktop, Environment, Icon, Integrations, Namespace,
        OverlayKind, Permission, Settings, remote_address,
    },
    image::{
        ImageError,
        elf::{u16_at, u64_at},
        open_regular,
        store::Store as _,
    },
};

/// Length of the settings area.
const AREA: u64 = 4 << 20;
/// Most tools and archives that are walked.
const PIECES: usize = 4096;
/// Length of the ELF header.
const HEADER: usize = 64;

/// A part of the settings area: offset and length.
type Part = (u64, usize);
const PERMISSIONS: Part = (0, 8);
const NOTIFY: Part = (8, 1);
const OVERLAY: Part = (9, 1);
const CASEFOLD: Part = (10, 1);
const DESKTOP: Part = (11, 4 << 10);
const BOOT: Part = (after(DESKTOP), 8 << 10);
const ICON: Part = (after(BOOT), 1 << 20);
const ENVIRONMENT: Part = (after(ICON), 1 << 20);
const BINDS: Part = (after(ENVIRONMENT), 1 << 20);
const REMOTE: Part = (after(BINDS), 4 << 10);
const UNSHARE: Part = (after(REMOTE), 2);

const fn after((offset, length): Part) -> u64 {
    offset + length as u64
}

const _: () = assert!(after(UNSHARE) < AREA && REMOTE.0 == 3_158_027);

/// Permissions in the order of their bits.
const PERMISSION_BITS: [Permission; 15] = [
    Permission::Home,
    Permission::Media,
    Permission::Audio,
    Permission::Wayland,
    Permission::Xorg,
    Permission::DbusUser,
    Permission::DbusSystem,
    Permission::Udev,
    Permission::Usb,
    Permission::Input,
    Permission::Gpu,
    Permission::Network,
    Permission::Dev,
    Permission::Shm,
    Permission::Optical,
];
/// Namespaces in the order of their bits.
const UNSHARE_BITS: [Namespace; 6] =
    [Namespace::User, Namespace::Ipc, Namespace::Pid, Namespace::Net, Namespace::Uts, Namespace::Cgroup];

/// A file that cannot be taken over.
#[derive(Debug, Error)]
pub enum FlatImageError {
    /// It cannot be opened.
    #[error(transparent)]
    Open(#[from] ImageError),
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the host said.
        source: std::io::Error,
    },
    /// It is something else.
    #[error("cannot take over {}: it is no FlatImage 2 file ({why})", path.display())]
    NotOne {
        /// The file.
        path: PathBuf,
        /// What is missing.
        why: &'static str,
    },
}

/// A FlatImage 2 file.
#[derive(Debug)]
pub struct FlatImage {
    path: PathBuf,
    file: File,
    area: u64,
    layers: Vec<(u64, u64)>,
}

impl FlatImage {
    /// Whether a file begins as one does; the rest may still be something else.
    #[must_use]
    pub fn begins_like(file: &File) -> bool {
        let mut head = [0; 4];
        file.read_exact_at(&mut head, 0).is_ok() && head == *b"\x7fELF"
    }

    /// Opens one and finds its layers.
    ///
    /// # Errors
    ///
    /// [`FlatImageError`].
    pub fn open(path: &Path) -> Result<Self, FlatImageError> {
        let file = open_regular(path)?;
        let read_failed = |source| FlatImageError::Read { path: path.to_owned(), source };
        let not_one = |why| FlatImageError::NotOne { path: path.to_owned(), why };
        let length = file.length().map_err(read_failed)?;
        let mut head = [0; HEADER];
        file.read_at(&mut head, 0).map_err(read_failed)?;
        if !head.starts_with(b"\x7fELF\x02\x01") {
            return Err(not_one("it does not begin with a 64-bit ELF program"));
        }
        let table = u64::from(u16_at(&head, 0x3a)) * u64::from(u16_at(&head, 0x3c));
        let mut at = u64_at(&head, 0x28).checked_add(table).filter(|end| *end > 0 && *end <= length);
        for _ in 0..PIECES {
            let Some(place) = at else { break };
            let layers = walk(&file, place.saturating_add(AREA), length).map_err(read_failed)?;
            if !layers.is_empty() {
                return Ok(Self { path: path.to_owned(), file, area: place, layers });
            }
            at = behind_piece(&file, place, length).map_err(read_failed)?;
        }
        Err(not_one("there is no archive 4 MiB behind its program or one of its tools"))
    }

    /// The file.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Offset and length of its archives, lowest first.
    #[must_use]
    pub fn layers(&self) -> &[(u64, u64)] {
        &self.layers
    }

    /// Puts its settings into those of a new image; `warn` hears of what has no meaning.
    pub fn take_over(&self, settings: &mut Settings, warn: &mut dyn FnMut(&str)) {
        let bits = u64_at(&self.part(PERMISSIONS), 0);
        let set = |bit: usize| bits >> bit & 1 == 1;
        settings
            .permissions
            .set(PERMISSION_BITS.iter().enumerate().filter(|(bit, _)| set(*bit)).map(|(_, word)| *word));
        let bits = u16_at(&self.part(UNSHARE), 0);
        let set = |bit: usize| bits >> bit & 1 == 1;
        settings
            .unshare
            .set(UNSHARE_BITS.iter().enumerate().filter(|(bit, _)| set(*bit)).map(|(_, word)| *word));
        settings.notify = self.part(NOTIFY) == [1];
        if self.part(CASEFOLD) == [1] {
            settings.casefold = Casefold { on: true, mode: CasefoldMode::default(), subtrees: Vec::new() };
        }
        settings.overlay = match self.part(OVERLAY).first().copied().unwrap_or_default() {
            2 => OverlayKind::Kernel,
            0 | 4 | 8 => OverlayKind::Fuse,
            _ => {
                warn("the overlay of the FlatImage file is unknown and left out");
                OverlayKind::default()
            }
        };
        settings.boot = self.json::<Boot>("boot command", BOOT, warn);
        if let Some(variables) = self.json::<BTreeMap<String, String>>("environment", ENVIRONMENT, warn) {
            for (name, value) in variables {
                match Environment::parse(&format!("{name}={value}")) {
                    Ok(variable) => settings.environment.add([variable]),
                    Err(error) => warn(&format!("a variable is left out: {}", one_line(&error))),
                }
            }
        }
        self.take_binds(settings, warn);
        let remote = text(&self.part(REMOTE));
        if !remote.is_empty() {
            match remote_address(&remote) {
                Ok(remote) => settings.remote = Some(remote),
                Err(error) => warn(&format!("the remote is left out: {}", one_line(&error))),
            }
        }
        settings.desktop = self.desktop(warn);
    }

    /// The binds in the order of their numbers.
    fn take_binds(&self, settings: &mut Settings, warn: &mut dyn FnMut(&str)) {
        let Some(binds) = self.json::<BTreeMap<String, Bind>>("binds", BINDS, warn) else { return };
        let mut numbered: Vec<(u64, Bind)> =
            binds.into_iter().map(|(number, bind)| (number.parse().unwrap_or(u64::MAX), bind)).collect();
        numbered.sort_by_key(|(number, _)| *number);
        let mut taken = Binds::default();
        for (_, bind) in numbered {
            if let Err(error) = taken.add(bind) {
                warn(&format!("a bind is left out: {}", one_line(&error)));
            }
        }
        settings.binds = taken;
    }

    fn desktop(&self, warn: &mut dyn FnMut(&str)) -> Option<Desktop> {
        /// As FlatImage writes it.
        #[derive(Deserialize)]
        struct Stored {
            name: String,
            #[serde(default)]
            categories: Vec<String>,
            #[serde(default)]
            integrations: Vec<String>,
        }
        let stored = self.json::<Stored>("desktop", DESKTOP, warn)?;
        let mut desktop = Desktop {
            name: stored.name,
            comment: None,
            categories: stored.categories,
            terminal: false,
            icon: self.icon(warn),
            integrations: Integrations::default(),
            unknown: serde_json::Map::new(),
        };
        match Integrations::parse(stored.integrations.iter().map(String::as_str)) {
            Ok(words) => desktop.integrations.set(words),
            Err(error) => warn(&format!("the integrations are left out: {}", one_line(&error))),
        }
        match desktop.check() {
            Ok(()) => Some(desktop),
            Err(error) => {
                warn(&format!("the desktop is left out: {}", one_line(&error)));
                None
            }
        }
    }

    fn icon(&self, warn: &mut dyn FnMut(&str)) -> Option<Icon> {
        let part = self.part(ICON);
        let (head, length_at) = (4, part.len().checked_sub(8)?);
        let length = usize::try_from(u64_at(&part, length_at)).ok()?;
        if length == 0 {
            return None;
        }
        let data = part.get(head..length_at)?.get(..length).map(<[u8]>::to_vec);
        match data.map(Icon::new) {
            Some(Ok(icon)) => Some(icon),
            _ => {
                warn("the icon is neither PNG nor SVG, or longer than it can be, and is left out");
                None
            }
        }
    }

    /// A text of the area as JSON; nothing where it is empty.
    fn json<T: DeserializeOwned>(&self, what: &str, part: Part, warn: &mut dyn FnMut(&str)) -> Option<T> {
        let text = text(&self.part(part));
        if matches!(text.trim(), "" | "{}" | "null") {
            return None;
        }
        serde_json::from_str(&text)
            .map_err(|error| warn(&format!("the {what} of the FlatImage file is left out: {error}")))
            .ok()
    }

    /// A part of the area; zeros where it cannot be read.
    fn part(&self, (offset, length): Part) -> Vec<u8> {
        let mut bytes = vec![0; length];
        let _ = self.file.read_at(&mut bytes, self.area.saturating_add(offset));
        bytes
    }
}

/// Bytes up to the first NUL.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
}

/// Where the piece that a length stands before ends; `None` where there is no such piece.
fn behind_piece(file: &File, at: u64, length: u64) -> std::io::Result<Option<u64>> {
    let mut bytes = [0; 8];
    if file.read_at(&mut bytes, at)? < bytes.len() {
        return Ok(None);
    }
    let size = u64::from_le_bytes(bytes);
    Ok(at.checked_add(8).and_then(|begin| begin.checked_add(size)).filter(|end| size > 0 && *end <= length))
}

/// Archives with their lengths before them, up to the end of the file or to something else.
fn walk(file: &File, mut at: u64, length: u64) -> std::io::Result<Vec<(u64, u64)>> {
    let mut found = Vec::new();
    while found.len() < PIECES
        && let Some(end) = behind_piece(file, at, length)?
    {
        let begin = at + 8;
        let mut magic = [0; 6];
        if file.read_at(&mut magic, begin)? < magic.len() || magic != *b"DWARFS" {
            break;
        }
        found.push((begin, end - begin));
        at = end;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::config::ImageId;

    /// A file with a program of `program` bytes, two tools, the settings `area`, and two pieces that begin as archives do.
    fn made(area: &[u8]) -> tempfile::NamedTempFile {
        let mut bytes = vec![0; 0x400];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[0x28..0x30].copy_from_slice(&0x380_u64.to_le_bytes());
        bytes[0x3a..0x3c].copy_from_slice(&64_u16.to_le_bytes());
        bytes[0x3c..0x3e].copy_from_slice(&2_u16.to_le_bytes());
        for tool in [&b"\x7fELF bash"[..], b"#!/bin/sh\n"] {
            bytes.extend_from_slice(&(tool.len() as u64).to_le_bytes());
            bytes.extend_from_slice(tool);
        }
        let mut settings = vec![0; usize::try_from(AREA).unwrap()];
        settings[..area.len()].copy_from_slice(area);
        bytes.extend_from_slice(&settings);
        for archive in [&b"DWARFS base"[..], b"DWARFS layer"] {
            bytes.extend_from_slice(&(archive.len() as u64).to_le_bytes());
            bytes.extend_from_slice(archive);
        }
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&bytes).unwrap();
        file
    }

    fn with(parts: &[(Part, &[u8])]) -> Vec<u8> {
        let mut area = vec![0; usize::try_from(after(UNSHARE)).unwrap()];
        for ((offset, length), bytes) in parts {
            assert!(bytes.len() <= *length);
            let at = usize::try_from(*offset).unwrap();
            area[at..at + bytes.len()].copy_from_slice(bytes);
        }
        area
    }

    fn taken(area: &[u8]) -> (Settings, Vec<String>) {
        let file = made(area);
        let mut settings = Settings::new(ImageId::from_random([1; 16]));
        let mut said = Vec::new();
        FlatImage::open(file.path())
            .unwrap()
            .take_over(&mut settings, &mut |text| said.push(text.to_owned()));
        (settings, said)
    }

    #[test]
    fn layers_are_found_behind_tools_and_settings() {
        let file = made(&[]);
        let found = FlatImage::open(file.path()).unwrap();
        assert_eq!(found.layers().iter().map(|(_, length)| *length).collect::<Vec<_>>(), [11, 12]);
        assert_eq!(found.area, 0x400 + 8 + 9 + 8 + 10);
    }

    #[test]
    fn settings_are_taken_over() {
        let mut icon = vec![0; ICON.1];
        let svg = b"<svg/>";
        icon[..3].copy_from_slice(b"svg");
        icon[4..4 + svg.len()].copy_from_slice(svg);
        icon[ICON.1 - 8..].copy_from_slice(&(svg.len() as u64).to_le_bytes());
        let (settings, said) = taken(&with(&[
            (PERMISSIONS, &0b1000_0000_0001_u64.to_le_bytes()),
            (NOTIFY, &[1]),
            (OVERLAY, &[2]),
            (CASEFOLD, &[1]),
            (BOOT, br#"{"program":"firefox","args":["-P"]}"#),
            (ENVIRONMENT, br#"{"A":"1","B":"$HOME"}"#),
            (BINDS, br#"{"10":{"src":"/b","dst":"/y","type":"rw"},"2":{"src":"/a","dst":"/x","type":"ro"}}"#),
            (REMOTE, b"https://example.org/r/"),
            (UNSHARE, &0b10_u16.to_le_bytes()),
            (DESKTOP, br#"{"name":"F","icon":"x","categories":["Network"],"integrations":["ENTRY","ICON"]}"#),
            (ICON, &icon),
        ]));
        assert_eq!(said, Vec::<String>::new());
        assert_eq!(settings.permissions.names(), ["home", "network"]);
        assert_eq!(settings.unshare.names(), ["ipc"]);
        assert!(settings.notify && settings.casefold.on);
        assert_eq!(settings.overlay, OverlayKind::Kernel);
        assert_eq!(settings.boot.unwrap().args, ["-P"]);
        assert_eq!(settings.environment.get("B"), Some("$HOME"));
        let binds: Vec<_> = settings.binds.as_slice().iter().map(|bind| bind.source.as_str()).collect();
        assert_eq!(binds, ["/a", "/b"], "in the order of their numbers");
        assert_eq!(settings.remote.as_deref(), Some("https://example.org/r"));
        let desktop = settings.desktop.unwrap();
        assert_eq!((desktop.name.as_str(), desktop.icon.unwrap().data()), ("F", &svg[..]));
        assert_eq!(desktop.integrations.names(), ["entry", "icon"]);
    }

    #[test]
    fn settings_without_a_meaning_are_told_and_left_out() {
        let (settings, said) = taken(&with(&[
            (OVERLAY, &[77]),
            (BOOT, b"{"),
            (ENVIRONMENT, br#"{"=":"x"}"#),
            (BINDS, br#"{"0":{"src":"/a","dst":"x","type":"ro"}}"#),
            (REMOTE, b"gopher://x"),
            (DESKTOP, br#"{"name":"a\nb"}"#),
        ]));
        assert_eq!(said.len(), 6, "{said:?}");
        assert!(settings.boot.is_none() && settings.remote.is_none() && settings.desktop.is_none());
    }

    #[test]
    fn other_files_are_refused_and_cut_ones_do_no_harm() {
        let whole = std::fs::read(made(&[]).path()).unwrap();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        for cut in (0..0x500).chain([whole.len() - 30, whole.len() - 1]) {
            file.as_file().set_len(0).unwrap();
            std::io::Seek::rewind(&mut file).unwrap();
            file.write_all(&whole[..cut]).unwrap();
            let found = FlatImage::open(file.path());
            assert!(found.is_err() || found.unwrap().layers().len() == 1, "{cut}");
        }
        for (at, value) in [(0x28, u64::MAX), (0x400, u64::MAX), (0x400, 0), (0x400, 1 << 40)] {
            let mut bytes = whole.clone();
            bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
            std::fs::write(file.path(), bytes).unwrap();
            assert!(matches!(FlatImage::open(file.path()), Err(FlatImageError::NotOne { .. })), "{at:#x}");
        }
    }
}
