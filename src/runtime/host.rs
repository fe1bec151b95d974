//! The host as one run sees it: who calls, with which environment, from where. Read once, at the start.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs, io,
    num::NonZeroUsize,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use thiserror::Error;
use tracing::level_filters::LevelFilter;

use crate::{
    config::{Casefold, CasefoldMode, OverlayKind},
    instance::accounts::{self, User},
    sandbox::Hidden,
    sys::users::Ids,
};

/// Why the host cannot be understood.
#[derive(Debug, Error)]
pub enum HostError {
    /// A variable has a value that means nothing.
    #[error("cannot understand {name}={value:?}: expected {expected}")]
    Value {
        /// Which variable.
        name: &'static str,
        /// Its value.
        value: OsString,
        /// What it may be.
        expected: &'static str,
    },
    /// The system does not say who we are.
    #[error("cannot find out who is calling")]
    Caller(#[source] io::Error),
}

/// Which case folding the caller asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CasefoldChoice {
    /// None, whatever the image says.
    Off,
    /// This mode, whatever the image says.
    On(CasefoldMode),
}

impl CasefoldChoice {
    /// What a mount folds whose own setting is `stored`; its subtrees stay.
    #[must_use]
    pub fn over(self, stored: &Casefold) -> Casefold {
        match self {
            Self::Off => Casefold::default(),
            Self::On(mode) if stored.on => Casefold { mode, ..stored.clone() },
            Self::On(mode) => Casefold { on: true, mode, subtrees: Vec::new() },
        }
    }
}

/// The variables that the engine reads (`FIM_*`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choices {
    /// `FIM_DEBUG`: the log is shown on stderr too.
    pub debug: bool,
    /// `FIM_LOG`: the least important level that is logged.
    pub log: LevelFilter,
    /// `FIM_ROOT`: run as root inside.
    pub root: bool,
    /// `FIM_CASEFOLD`.
    pub casefold: Option<CasefoldChoice>,
    /// `FIM_OVERLAY`.
    pub overlay: Option<OverlayKind>,
    /// `FIM_LAYERS`: further layers, lowest first.
    pub layers: Vec<PathBuf>,
    /// `FIM_DIR_DATA`.
    pub data: Option<PathBuf>,
    /// `FIM_DIR_GLOBAL`.
    pub global: Option<PathBuf>,
    /// `FIM_COMPRESSION_LEVEL`.
    pub compression_level: Option<u8>,
    /// `FIM_BWRAP`.
    pub bwrap: Option<PathBuf>,
    /// `FIM_CACHE_SIZE`, in bytes.
    pub cache_size: Option<u64>,
    /// `FIM_THREADS`.
    pub threads: Option<NonZeroUsize>,
    /// `FIM_ENV_PASS=all`: the whole environment is passed on.
    pub pass_all: bool,
}

/// The host.
#[derive(Clone, Debug)]
pub struct Host {
    /// Ids of the caller.
    pub ids: Ids,
    /// The caller's account; a stand-in where no passwd file knows the uid.
    pub user: User,
    /// The environment.
    pub environment: BTreeMap<OsString, OsString>,
    /// What the environment asks of the engine.
    pub choices: Choices,
    /// The working directory, if it is still there.
    pub directory: Option<PathBuf>,
    /// Places of the host that programs inside do not see below `run/host`.
    pub hidden: Hidden,
}

/// Kernel and run-time state, and everybody's scratch space: never shown below `run/host`.
const STATE: [&str; 6] = ["/proc", "/sys", "/dev", "/run", "/var/run", "/tmp"];

/// Where homes are, besides those that passwd names.
const HOMES: [&str; 2] = ["/home", "/root"];

/// Homes that some system accounts name, and that are no homes.
const NO_HOMES: [&str; 12] = [
    "/",
    "/bin",
    "/sbin",
    "/usr",
    "/usr/bin",
    "/usr/sbin",
    "/lib",
    "/etc",
    "/var",
    "/opt",
    "/srv",
    "/nonexistent",
];

impl Host {
    /// Reads it.
    ///
    /// # Errors
    ///
    /// [`HostError`].
    pub fn read() -> Result<Self, HostError> {
        let environment: BTreeMap<OsString, OsString> = std::env::vars_os().collect();
        let choices = Choices::of(&environment)?;
        let ids = Ids::of_caller().map_err(HostError::Caller)?;
        let passwd = fs::read("/etc/passwd").unwrap_or_default();
        let user = account(&ids, &passwd, &environment);
        let hidden = Hidden {
            state: existing(&STATE.map(PathBuf::from)),
            homes: existing(&homes(&passwd, &user, &environment)),
        };
        Ok(Self { user, choices, hidden, ids, directory: std::env::current_dir().ok(), environment })
    }

    /// A variable of the environment.
    #[must_use]
    pub fn variable(&self, name: &str) -> Option<&OsStr> {
        self.environment.get(OsStr::new(name)).map(OsString::as_os_str)
    }
}

/// The caller's account. The uid decides, never `USER`.
fn account(ids: &Ids, passwd: &[u8], environment: &BTreeMap<OsString, OsString>) -> User {
    let known = accounts::user_by_id(passwd, ids.uid);
    let home = environment.get(OsStr::new("HOME")).map(PathBuf::from).filter(|home| home.is_absolute());
    let known_home = known.as_ref().map(|user| user.home.clone());
    User {
        name: known.as_ref().map_or_else(|| format!("user{}", ids.uid), |user| user.name.clone()),
        uid: ids.uid,
        gid: ids.gid,
        home: home.or(known_home).unwrap_or_else(|| PathBuf::from("/")),
        shell: known.map_or_else(|| PathBuf::from("/bin/sh"), |user| user.shell),
    }
}

/// Candidates for home directories: they may not exist.
fn homes(passwd: &[u8], user: &User, environment: &BTreeMap<OsString, OsString>) -> Vec<PathBuf> {
    /// The first uid of people; those below belong to the system's own services.
    const FIRST_PERSON: u32 = 1000;
    let people = accounts::users(passwd).filter(|user| user.uid >= FIRST_PERSON).map(|user| user.home);
    let own = environment.get(OsStr::new("HOME")).map(PathBuf::from);
    HOMES
        .iter()
        .map(PathBuf::from)
        .chain(people)
        .chain(own)
        .chain([user.home.clone()])
        .filter(|place| place.is_absolute() && !NO_HOMES.iter().any(|no| place == Path::new(no)))
        .collect()
}

/// Those that are there, by their real paths.
fn existing(places: &[PathBuf]) -> Vec<PathBuf> {
    let mut real: Vec<PathBuf> = places
        .iter()
        .filter_map(|place| fs::canonicalize(place).ok())
        .filter(|place| place.is_dir() && place != Path::new("/"))
        .collect();
    real.sort();
    real.dedup();
    real
}

impl Choices {
    /// Reads the variables of this process.
    ///
    /// # Errors
    ///
    /// As [`of`](Self::of).
    pub fn read() -> Result<Self, HostError> {
        Self::of(&std::env::vars_os().collect())
    }

    /// Reads the variables.
    ///
    /// # Errors
    ///
    /// [`HostError::Value`] for the first value that means nothing.
    pub fn of(environment: &BTreeMap<OsString, OsString>) -> Result<Self, HostError> {
        let of = |name: &'static str| {
            environment
                .get(OsStr::new(name))
                .filter(|value| !value.is_empty())
                .map(|value| Variable { name, value })
        };
        // Inside a sandbox these two are set by the one around us, for its programs and not for us.
        let inherited = of("FIM_DIR_LAYERS").map(|layers| Path::new(layers.value).to_owned());
        let is_inherited = |path: &PathBuf| inherited.as_deref() == Some(&path.join("layers"));
        let around = of("FIM_DIR_APP").map(|app| Path::new(app.value).to_owned());
        let is_around = |path: &PathBuf| around.as_ref().is_some_and(|app| app.starts_with(path));
        Ok(Self {
            debug: of("FIM_DEBUG").map_or(Ok(false), Variable::switch)?,
            log: of("FIM_LOG").map_or(Ok(LevelFilter::INFO), Variable::level)?,
            root: of("FIM_ROOT").map_or(Ok(false), Variable::switch)?,
            casefold: of("FIM_CASEFOLD").map(Variable::casefold).transpose()?,
            overlay: of("FIM_OVERLAY").map(Variable::overlay).transpose()?,
            layers: of("FIM_LAYERS")
                .map(|layers| std::env::split_paths(layers.value).collect())
                .unwrap_or_default(),
            data: of("FIM_DIR_DATA").map(Variable::path).transpose()?.filter(|path| !is_inherited(path)),
            global: of("FIM_DIR_GLOBAL").map(Variable::path).transpose()?.filter(|path| !is_around(path)),
            compression_level: of("FIM_COMPRESSION_LEVEL").map(Variable::compression).transpose()?,
            bwrap: of("FIM_BWRAP").map(Variable::path).transpose()?,
            cache_size: of("FIM_CACHE_SIZE").map(Variable::size).transpose()?,
            threads: of("FIM_THREADS").map(Variable::threads).transpose()?,
            pass_all: of("FIM_ENV_PASS").map_or(Ok(false), Variable::pass)?,
        })
    }
}

/// A variable that is set.
#[derive(Clone, Copy)]
struct Variable<'a> {
    name: &'static str,
    value: &'a OsString,
}

impl Variable<'_> {
    fn wrong(self, expected: &'static str) -> HostError {
        HostError::Value { name: self.name, value: self.value.clone(), expected }
    }

    fn text(self) -> String {
        self.value.to_string_lossy().to_ascii_lowercase()
    }

    fn switch(self) -> Result<bool, HostError> {
        match self.text().as_str() {
            "1" | "on" | "true" | "yes" => Ok(true),
            "0" | "off" | "false" | "no" => Ok(false),
            _ => Err(self.wrong("0 or 1")),
        }
    }

    fn level(self) -> Result<LevelFilter, HostError> {
        self.text().parse().map_err(|_| self.wrong("off, error, warn, info, debug or trace"))
    }

    fn casefold(self) -> Result<CasefoldChoice, HostError> {
        let text = self.text();
        if let Ok(on) = self.switch() {
            return Ok(if on { CasefoldChoice::On(CasefoldMode::default()) } else { CasefoldChoice::Off });
        }
        CasefoldMode::parse(&text)
            .map(CasefoldChoice::On)
            .map_err(|_| self.wrong("0, 1, unicode, windows or ascii"))
    }

    fn overlay(self) -> Result<OverlayKind, HostError> {
        OverlayKind::parse(&self.text()).map_err(|_| self.wrong("fuse, kernel or auto"))
    }

    fn path(self) -> Result<PathBuf, HostError> {
        let path = PathBuf::from(self.value);
        if path.is_absolute() { Ok(path) } else { Err(self.wrong("an absolute path")) }
    }

    fn compression(self) -> Result<u8, HostError> {
        self.text().parse().ok().filter(|level| *level <= 9).ok_or_else(|| self.wrong("a level from 0 to 9"))
    }

    fn threads(self) -> Result<NonZeroUsize, HostError> {
        self.text()
            .parse()
            .ok()
            .filter(|count: &NonZeroUsize| count.get() <= 1024)
            .ok_or_else(|| self.wrong("a number from 1 to 1024"))
    }

    fn size(self) -> Result<u64, HostError> {
        parse_size(self.value.as_bytes()).ok_or_else(|| self.wrong("a size such as 512M or 2G"))
    }

    fn pass(self) -> Result<bool, HostError> {
        if self.text() == "all" { Ok(true) } else { Err(self.wrong("all")) }
    }
}

/// Reads `512M`, `2G`, `1048576`: powers of 1,024.
#[must_use]
pub fn parse_size(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    let (number, factor) = match text.char_indices().last()? {
        (at, 'k' | 'K') => (text.get(..at)?, 1_u64 << 10),
        (at, 'm' | 'M') => (text.get(..at)?, 1 << 20),
        (at, 'g' | 'G') => (text.get(..at)?, 1 << 30),
        _ => (text, 1),
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> BTreeMap<OsString, OsString> {
        pairs.iter().map(|(name, value)| (name.into(), value.into())).collect()
    }

    #[test]
    fn every_variable_is_read() {
        let choices = Choices::of(&environment(&[
            ("FIM_DEBUG", "1"),
            ("FIM_LOG", "Debug"),
            ("FIM_ROOT", "on"),
            ("FIM_CASEFOLD", "ascii"),
            ("FIM_OVERLAY", "bwrap"),
            ("FIM_LAYERS", "/a:/b c"),
            ("FIM_DIR_DATA", "/d"),
            ("FIM_DIR_GLOBAL", "/g"),
            ("FIM_COMPRESSION_LEVEL", "9"),
            ("FIM_BWRAP", "/b"),
            ("FIM_CACHE_SIZE", "2G"),
            ("FIM_THREADS", "3"),
            ("FIM_ENV_PASS", "all"),
            ("FIM_UNRELATED", "?"),
        ]))
        .unwrap();
        assert!(choices.debug && choices.root && choices.pass_all);
        assert_eq!(choices.log, LevelFilter::DEBUG);
        assert_eq!(choices.casefold, Some(CasefoldChoice::On(CasefoldMode::Ascii)));
        assert_eq!(choices.overlay, Some(OverlayKind::Kernel));
        let stored = Casefold::new(CasefoldMode::Windows, &["/a".to_owned()]).unwrap();
        let over = |choice: CasefoldChoice, stored: &Casefold| choice.over(stored).to_string();
        assert_eq!(over(CasefoldChoice::On(CasefoldMode::Ascii), &stored), "ascii /a");
        assert_eq!(over(CasefoldChoice::On(CasefoldMode::Ascii), &Casefold::default()), "ascii");
        assert_eq!(over(CasefoldChoice::Off, &stored), "off");
        assert_eq!(choices.layers, [PathBuf::from("/a"), PathBuf::from("/b c")]);
        assert_eq!(choices.cache_size, Some(2 << 30));
        assert_eq!(choices.threads, NonZeroUsize::new(3));
        let none = Choices::of(&environment(&[("FIM_DEBUG", "")])).unwrap();
        assert!(!none.debug && none.data.is_none() && none.casefold.is_none());
    }

    #[test]
    fn values_without_a_meaning_are_errors() {
        for (name, value) in [
            ("FIM_DEBUG", "maybe"),
            ("FIM_LOG", "loud"),
            ("FIM_CASEFOLD", "latin"),
            ("FIM_OVERLAY", "zfs"),
            ("FIM_DIR_DATA", "relative"),
            ("FIM_COMPRESSION_LEVEL", "10"),
            ("FIM_CACHE_SIZE", "2T"),
            ("FIM_CACHE_SIZE", "99999999999G"),
            ("FIM_THREADS", "0"),
            ("FIM_ENV_PASS", "some"),
        ] {
            let error = Choices::of(&environment(&[(name, value)])).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains(value), "{error}");
        }
    }

    #[test]
    fn what_a_sandbox_around_us_has_set_is_not_for_us() {
        let mut around = environment(&[
            ("FIM_DIR_DATA", "/x/.app.data"),
            ("FIM_DIR_LAYERS", "/x/.app.data/layers"),
            ("FIM_DIR_GLOBAL", "/tmp/fim"),
            ("FIM_DIR_APP", "/tmp/fim/app/1_2"),
        ]);
        let choices = Choices::of(&around).unwrap();
        assert_eq!((choices.data, choices.global), (None, None));
        around.insert("FIM_DIR_DATA".into(), "/mine".into());
        assert_eq!(Choices::of(&around).unwrap().data, Some("/mine".into()));
    }

    #[test]
    fn an_unknown_uid_is_an_ordinary_case() {
        let ids = Ids { uid: 4711, gid: 5, groups: vec![] };
        let user = account(&ids, b"root:x:0:0::/root:/bin/sh\n", &environment(&[("USER", "root")]));
        assert_eq!((user.name.as_str(), user.uid, user.home.as_path()), ("user4711", 4711, Path::new("/")));
    }

    #[test]
    fn homes_are_hidden_and_system_directories_are_not() {
        let passwd = b"bin:x:2:2::/bin:\nalice:x:1000:1::/data/alice:\nnobody:x:65534:1::/nonexistent:\n";
        let user = account(&Ids { uid: 1, gid: 1, groups: vec![] }, passwd, &environment(&[]));
        let hidden = homes(passwd, &user, &environment(&[("HOME", "/var")]));
        assert!(hidden.contains(&"/data/alice".into()) && hidden.contains(&"/root".into()));
        for shown in ["/bin", "/", "/nonexistent", "/var"] {
            assert!(!hidden.contains(&shown.into()), "{shown}");
        }
    }
}
