//! How an image shows itself on the desktop.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{ConfigError, words::words};

/// Length of an icon in bytes.
pub const ICON_LIMIT: usize = 1 << 20;
/// Length of a name or a comment in bytes.
const TEXT_LIMIT: usize = 256;
/// How many categories there may be.
const CATEGORIES_LIMIT: usize = 16;

/// The categories that the menu specification (1.1) registers.
const REGISTERED: &str = "AudioVideo Audio Video Development Education Game Graphics Network Office Science Settings \
System Utility Building Debugger IDE GUIDesigner Profiling RevisionControl Translation Calendar ContactManagement \
Database Dictionary Chart Email Finance FlowChart PDA ProjectManagement Presentation Spreadsheet WordProcessor \
2DGraphics VectorGraphics RasterGraphics 3DGraphics Scanning OCR Photography Publishing Viewer TextTools \
DesktopSettings HardwareSettings Printing PackageManager Dialup InstantMessaging Chat IRCClient Feed FileTransfer \
HamRadio News P2P RemoteAccess Telephony TelephonyTools VideoConference WebBrowser WebDevelopment Midi Mixer \
Sequencer Tuner TV AudioVideoEditing Player Recorder DiscBurning ActionGame AdventureGame ArcadeGame BoardGame \
BlocksGame CardGame KidsGame LogicGame RolePlaying Shooter Simulation SportsGame StrategyGame Art Construction Music \
Languages ArtificialIntelligence Astronomy Biology Chemistry ComputerScience DataVisualization Economy Electricity \
Geography Geology Geoscience History Humanities ImageProcessing Literature Maps Math NumericalAnalysis \
MedicalSoftware Physics Robotics Spirituality Sports ParallelComputing Amusement Archiving Compression Electronics \
Emulator Engineering FileTools FileManager TerminalEmulator Filesystem Monitor Security Accessibility Calculator \
Clock TextEditor Documentation Adult Core KDE GNOME XFCE DDE GTK Qt Motif Java ConsoleOnly";

words! {
    /// A part of the desktop that an image may appear in.
    Integration, "integration", not in all: [None];
    /// Every one.
    All = "all",
    /// The menu.
    Entry = "entry",
    /// Icons in the menu and of the file.
    Icon = "icon",
    /// The type of the file.
    Mimetype = "mimetype",
    /// Nowhere.
    None = "none",
}

/// Where an image appears.
pub type Integrations = super::WordSet<Integration>;

/// What kind of picture an icon is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IconKind {
    /// Pixels.
    Png,
    /// Drawn.
    Svg,
}

impl IconKind {
    /// The ending of files of this kind.
    #[must_use]
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Svg => "svg",
        }
    }
}

/// An icon as its maker gave it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Icon {
    /// Its kind.
    pub kind: IconKind,
    /// The file.
    #[serde(serialize_with = "as_text", deserialize_with = "of_text")]
    data: Vec<u8>,
}

impl std::fmt::Debug for Icon {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Icon({:?}, {} bytes)", self.kind, self.data.len())
    }
}

impl Icon {
    /// Takes a file for an icon; its first bytes tell the kind.
    ///
    /// # Errors
    ///
    /// It is neither PNG nor SVG, or longer than [`ICON_LIMIT`].
    pub fn new(data: Vec<u8>) -> Result<Self, ConfigError> {
        if data.len() > ICON_LIMIT {
            return Err(ConfigError::TooLong { what: "the icon", found: data.len(), limit: ICON_LIMIT });
        }
        let kind = if data.starts_with(b"\x89PNG\r\n\x1a\n") {
            IconKind::Png
        } else if is_svg(&data) {
            IconKind::Svg
        } else {
            return Err(ConfigError::NotAnIcon);
        };
        Ok(Self { kind, data })
    }

    /// The file.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        &self.data
    }
}

/// Whether a file is XML with an `svg` element near its beginning.
fn is_svg(data: &[u8]) -> bool {
    /// Comments and a document type may stand before the element.
    const HEAD: usize = 16 << 10;
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let text = text.trim_start_matches('\u{feff}').trim_start();
    let head: String = text.chars().take(HEAD).collect();
    head.starts_with('<') && head.contains("<svg")
}

fn as_text<S: Serializer>(data: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&BASE64_STANDARD.encode(data))
}

fn of_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(deserializer)?;
    BASE64_STANDARD.decode(text).map_err(serde::de::Error::custom)
}

/// How an image shows itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Desktop {
    /// What people call it.
    pub name: String,
    /// A few words about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Where in the menu it stands.
    #[serde(default)]
    pub categories: Vec<String>,
    /// Whether it runs in a terminal.
    #[serde(default)]
    pub terminal: bool,
    /// Its picture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icon: Option<Icon>,
    /// Where it appears.
    #[serde(default)]
    pub integrations: Integrations,
    /// Fields of later versions: kept as they are.
    #[serde(flatten)]
    pub unknown: serde_json::Map<String, serde_json::Value>,
}

impl Desktop {
    /// Checks name, comment and categories.
    ///
    /// # Errors
    ///
    /// One of them cannot stand in a desktop entry.
    pub fn check(&self) -> Result<(), ConfigError> {
        let texts = [("the name", Some(&self.name)), ("the comment", self.comment.as_ref())];
        for (what, text) in texts.into_iter().filter_map(|(what, text)| Some((what, text?))) {
            if text.len() > TEXT_LIMIT {
                return Err(ConfigError::TooLong { what, found: text.len(), limit: TEXT_LIMIT });
            }
            if text.trim().is_empty() || text.chars().any(char::is_control) {
                return Err(ConfigError::NotALine { what, text: text.clone() });
            }
        }
        if self.categories.len() > CATEGORIES_LIMIT {
            let found = self.categories.len();
            return Err(ConfigError::TooMany { what: "categories", found, limit: CATEGORIES_LIMIT });
        }
        let is_known = |category: &String| {
            REGISTERED.split(' ').any(|known| known == category)
                || category.strip_prefix("X-").is_some_and(|own| {
                    !own.is_empty()
                        && own.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '-')
                })
        };
        match self.categories.iter().find(|category| !is_known(category)) {
            Some(category) => Err(ConfigError::UnknownWord {
                subject: "category",
                word: category.clone(),
                known: "those of the menu specification (Network, Game, Office, …) or X-NAME".to_owned(),
            }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str, categories: &[&str]) -> Desktop {
        Desktop {
            name: name.to_owned(),
            comment: None,
            categories: categories.iter().map(|category| (*category).to_owned()).collect(),
            terminal: false,
            icon: None,
            integrations: Integrations::default(),
            unknown: serde_json::Map::new(),
        }
    }

    #[test]
    fn what_cannot_stand_in_an_entry_is_refused() {
        assert!(named("Tool", &["Network", "X-Mine"]).check().is_ok());
        for (name, categories) in [
            ("", &[][..]),
            (" ", &[]),
            ("a\nb", &[]),
            ("x", &["Nonsense"]),
            ("x", &["X-"]),
            ("x", &["X-a;b"]),
        ] {
            assert!(named(name, categories).check().is_err(), "{name:?} {categories:?}");
        }
        assert!(named(&"x".repeat(TEXT_LIMIT + 1), &[]).check().is_err());
        assert!(named("x", &["Game"; CATEGORIES_LIMIT + 1]).check().is_err());
    }

    #[test]
    fn icons_are_known_by_their_first_bytes() {
        let kind = |data: &[u8]| Icon::new(data.to_vec()).map(|icon| icon.kind).ok();
        assert_eq!(kind(b"\x89PNG\r\n\x1a\n..."), Some(IconKind::Png));
        assert_eq!(kind(b"<?xml version='1.0'?>\n<!-- x --><svg/>"), Some(IconKind::Svg));
        for data in [&b"GIF89a"[..], b"", b"svg", b"<html>", b"\xff<svg"] {
            assert_eq!(kind(data), None, "{data:?}");
        }
        assert!(Icon::new(vec![b'<'; ICON_LIMIT + 1]).is_err());
    }

    #[test]
    fn an_icon_survives_the_round_trip() {
        let icon = Icon::new(b"<svg>\xc3\xa4</svg>".to_vec()).unwrap();
        let desktop = Desktop { icon: Some(icon), ..named("x", &[]) };
        let text = serde_json::to_string(&desktop).unwrap();
        assert_eq!(serde_json::from_str::<Desktop>(&text).unwrap(), desktop);
        assert!(serde_json::from_str::<Desktop>(&text.replace("PHN2Z", "!!!!!")).is_err());
    }
}
