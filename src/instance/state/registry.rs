//! The records of one image's instances.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use thiserror::Error;

use super::record::{End, Meant, Name, State, VERSION};
use crate::{
    instance::{InstanceId, ServerKey},
    sys::{
        identity::Life,
        process::Pidfd,
        tree::{DirFd, make_directory, may_write},
    },
};

/// Largest record that is read, in bytes: an environment as large as the kernel takes, quoted.
const STATE_LIMIT: u64 = 4 << 20;
/// How many ended instances of an image are remembered.
const KEPT: usize = 20;
/// Between the key of an ended instance and the moment of its start; no name has it.
const ENDED: char = '@';
const STATE: &str = "state.json";
/// The file with the id that is given next.
const NEXT: &str = "next";
/// Digits of the server key that tell data directories of one image apart.
const KEY_DIGITS: usize = 8;

/// What is wrong with a record, or with a word that should mean an instance.
#[derive(Debug, Error)]
pub enum StateError {
    /// The records cannot be read or written.
    #[error("cannot {what} the records of instances in {path}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The name is another instance's.
    #[error("cannot call the instance {name}: a running one has that name")]
    Taken {
        /// The name.
        name: String,
    },
    /// No instance is meant.
    #[error("cannot find a running instance {word}")]
    NotFound {
        /// What the user said.
        word: String,
    },
    /// Several may be meant.
    #[error("cannot tell which instance {word} means: {candidates}")]
    Ambiguous {
        /// What the user said.
        word: String,
        /// Who may be meant.
        candidates: String,
    },
}

/// Where the records of all images are: `XDG_STATE_HOME`, else the home's usual place, else a directory of ours.
#[must_use]
pub fn base(xdg_state_home: Option<&Path>, home: &Path, global: &Path) -> PathBuf {
    let place = xdg_state_home.filter(|place| place.is_absolute()).map(Path::to_owned);
    // A home that is not there is not made, nor is `/` one.
    let place = place.or_else(|| {
        (home.is_absolute() && home != Path::new("/") && home.is_dir()).then(|| home.join(".local/state"))
    });
    let usable = place.map(|place| place.join("fim/instances")).filter(|place| make_all(place).is_ok());
    usable.unwrap_or_else(|| global.join("state/instances"))
}

fn make_all(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    // Read-only homes are there, and are of no use.
    may_write(path)
}

/// The records of one image's instances.
#[derive(Debug)]
pub struct Registry {
    directory: DirFd,
    path: PathBuf,
}

/// An instance that was found.
#[derive(Debug)]
pub struct Found {
    /// What is known of it.
    pub state: State,
    /// Its process; none where it has ended.
    pub process: Option<Pidfd>,
    /// The directory of its record.
    pub path: PathBuf,
}

impl Registry {
    /// Opens the records of an image below `base`, and makes their directory.
    ///
    /// # Errors
    ///
    /// [`StateError::Io`].
    pub fn open(base: &Path, image_id: &str, key: ServerKey) -> Result<Self, StateError> {
        let digits: String = key.to_string().chars().take(KEY_DIGITS).collect();
        let path = base.join(format!("{image_id}.{digits}"));
        let failed = |source| StateError::Io { what: "open", path: path.clone(), source };
        make_all(base).map_err(failed)?;
        make_directory(&path, 0o700).map_err(failed)?;
        let directory = DirFd::open(&path).map_err(failed)?;
        Ok(Self { directory, path })
    }

    fn failed(&self, what: &'static str) -> impl FnOnce(io::Error) -> StateError {
        move |source| StateError::Io { what, path: self.path.clone(), source }
    }

    /// Locks the directory until the descriptor is dropped. A descriptor of its own: the lock is that of the opening.
    fn lock(&self) -> Result<DirFd, StateError> {
        let directory = DirFd::open(&self.path).map_err(self.failed("lock"))?;
        directory.lock(true).map_err(self.failed("lock"))?;
        Ok(directory)
    }

    /// Writes the record of a new instance, under the next id.
    ///
    /// # Errors
    ///
    /// [`StateError::Taken`], [`StateError::Io`].
    pub fn register(&self, mut state: State) -> Result<Registered, StateError> {
        let _lock = self.lock()?;
        if let Some(name) = &state.name
            && self.read(name.as_str())?.is_some_and(|found| found.process.is_some())
        {
            return Err(StateError::Taken { name: name.to_string() });
        }
        state.id = self.next_id()?;
        let mut key = state.key();
        if let Some(found) = self.read(&key)? {
            match found.process {
                None => self.archive(&key, found.state)?,
                // Somebody has made a record that is not ours.
                Some(_) => key = format!("{key}-{}", state.identity.pid),
            }
        } else {
            // What has no record there is a leftover.
            self.directory.remove(&key).map_err(self.failed("clear"))?;
        }
        let own = self.directory.ensure(&key, 0o700).map_err(self.failed("make"))?;
        write(&own, &state).map_err(self.failed("write"))?;
        let registry = Self {
            directory: DirFd::open(&self.path).map_err(self.failed("open"))?,
            path: self.path.clone(),
        };
        Ok(Registered { path: self.path.join(&key), id: InstanceId::new(state.id), own, registry })
    }

    /// Takes the next id: behind all that were given since an instance lives; the lock is held.
    fn next_id(&self) -> Result<u32, StateError> {
        let given = self
            .directory
            .read(NEXT, 16)
            .map_err(self.failed("count"))?
            .and_then(|text| std::str::from_utf8(&text).ok()?.trim().parse::<u32>().ok());
        let mut next = 0;
        for name in self.directory.names().map_err(self.failed("list"))? {
            let Some(name) = name.to_str().filter(|name| !name.contains(ENDED)) else { continue };
            let Some(found) = self.read(name)?.filter(|found| !is_over(&found.state)) else { continue };
            // One that lives is enough where the count is there.
            next = given.unwrap_or(0).max(found.state.id.saturating_add(1)).max(next);
            if given.is_some() {
                break;
            }
        }
        let text = next.saturating_add(1).to_string();
        self.directory.put(NEXT, text.as_bytes()).map_err(self.failed("count"))?;
        Ok(next)
    }

    /// All records, living instances first, each in the order of ids; those of instances that are gone without a word
    /// are archived on the way.
    ///
    /// # Errors
    ///
    /// [`StateError::Io`].
    pub fn all(&self) -> Result<Vec<Found>, StateError> {
        let _lock = self.lock()?;
        let mut found = Vec::new();
        for name in self.directory.names().map_err(self.failed("list"))? {
            let Some(name) = name.to_str() else { continue };
            let Some(mut one) = self.read(name)? else { continue };
            if one.process.is_none() && !name.contains(ENDED) && is_over(&one.state) {
                one.state.ended.get_or_insert(unknown_end());
                let to = ended_name(name, &one.state);
                self.archive(name, one.state.clone())?;
                one.path = self.path.join(to);
            }
            found.push(one);
        }
        found.sort_by_key(|one| (one.process.is_none(), one.state.started, one.state.id));
        Ok(found)
    }

    /// The instances that run, in the order of ids.
    ///
    /// # Errors
    ///
    /// [`StateError::Io`].
    pub fn living(&self) -> Result<Vec<Found>, StateError> {
        let mut living: Vec<Found> = self.all()?.into_iter().filter(|one| one.process.is_some()).collect();
        living.sort_by_key(|one| one.state.id);
        Ok(living)
    }

    /// The running instance that a word of the user means: an id, a name, the unique beginning of one, with or without
    /// `instance://` in front.
    ///
    /// # Errors
    ///
    /// [`StateError::NotFound`], [`StateError::Ambiguous`], [`StateError::Io`].
    pub fn find(&self, word: &str) -> Result<Found, StateError> {
        choose(self.living()?, word)
    }

    /// The instance that a word means, or the last one that ended and was called so.
    ///
    /// # Errors
    ///
    /// As [`find`](Self::find).
    pub fn find_or_ended(&self, word: &str) -> Result<Found, StateError> {
        let (living, ended): (Vec<_>, Vec<_>) =
            self.all()?.into_iter().partition(|one| one.process.is_some());
        match choose(living, word) {
            Err(StateError::NotFound { word }) => {
                let plain = plain(&word).to_owned();
                ended
                    .into_iter()
                    .filter(|one| one.state.is_meant_by(&plain) == Meant::Exactly)
                    .max_by_key(|one| one.state.started)
                    .ok_or(StateError::NotFound { word })
            }
            other => other,
        }
    }

    /// Gives a running instance another name.
    ///
    /// # Errors
    ///
    /// [`StateError`].
    pub fn rename(&self, word: &str, name: Name) -> Result<(), StateError> {
        let found = self.find(word)?;
        let _lock = self.lock()?;
        if self.read(name.as_str())?.is_some_and(|other| other.process.is_some()) {
            return Err(StateError::Taken { name: name.to_string() });
        }
        let Some(key) = found.path.file_name() else {
            return Err(StateError::NotFound { word: word.to_owned() });
        };
        let own = self.directory.open_in(key).map_err(self.failed("open"))?;
        if let Some(other) = self.read(name.as_str())? {
            self.archive(name.as_str(), other.state)?;
        }
        self.directory.rename(key, &self.directory, name.as_str()).map_err(self.failed("rename"))?;
        let state = State { name: Some(name), ..found.state };
        write(&own, &state).map_err(self.failed("write"))
    }

    /// Removes the records of ended instances beyond the last `keep`.
    ///
    /// # Errors
    ///
    /// [`StateError::Io`].
    pub fn prune(&self, keep: usize) -> Result<usize, StateError> {
        let mut ended: Vec<(u64, String)> = Vec::new();
        for name in self.directory.names().map_err(self.failed("list"))? {
            if let Some(name) = name.to_str()
                && let Some((_, moment)) = name.rsplit_once(ENDED)
            {
                ended.push((moment.parse().unwrap_or(0), name.to_owned()));
            }
        }
        ended.sort_unstable();
        let over = ended.len().saturating_sub(keep);
        for (_, name) in ended.iter().take(over) {
            self.directory.remove(name).map_err(self.failed("remove"))?;
        }
        Ok(over)
    }

    /// Reads a record; `None` where there is none that we understand.
    fn read(&self, name: &str) -> Result<Option<Found>, StateError> {
        let own = match self.directory.open_in(name) {
            Ok(own) => own,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                tracing::debug!(%error, name, "no record");
                return Ok(None);
            }
        };
        let Some(state) = read_state(&own) else { return Ok(None) };
        let process = match (&state.ended, name.contains(ENDED)) {
            (None, false) => match state.identity.life().map_err(self.failed("check"))? {
                Life::Running(process) => Some(process),
                Life::Ended | Life::Elsewhere => None,
            },
            _ => None,
        };
        Ok(Some(Found { state, process, path: self.path.join(name) }))
    }

    /// Puts a record among those of ended instances; the lock is held.
    fn archive(&self, key: &str, mut state: State) -> Result<(), StateError> {
        state.ended.get_or_insert(unknown_end());
        if let Some(group) = state.group.take() {
            group.remove();
        }
        let own = self.directory.open_in(key).map_err(self.failed("open"))?;
        write(&own, &state).map_err(self.failed("write"))?;
        let to = ended_name(key, &state);
        self.directory.remove(&to).map_err(self.failed("remove"))?;
        self.directory.rename(key, &self.directory, &to).map_err(self.failed("archive"))?;
        self.prune(KEPT).map(drop)
    }
}

/// Whether the end of an instance is proven: one in another pid namespace may live.
fn is_over(state: &State) -> bool {
    state.ended.is_some() || matches!(state.identity.life(), Ok(Life::Ended))
}

fn ended_name(key: &str, state: &State) -> String {
    format!("{key}{ENDED}{}", state.started)
}

fn unknown_end() -> End {
    End { at: now(), status: None, signal: None, error: None }
}

/// Milliseconds since 1970.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn plain(word: &str) -> &str {
    word.strip_prefix("instance://").unwrap_or(word)
}

fn choose(living: Vec<Found>, word: &str) -> Result<Found, StateError> {
    let wanted = plain(word);
    let (exact, similar): (Vec<_>, Vec<_>) = living
        .into_iter()
        .filter(|one| one.state.is_meant_by(wanted) != Meant::Not)
        .partition(|one| one.state.is_meant_by(wanted) == Meant::Exactly);
    let mut candidates = if exact.is_empty() { similar } else { exact };
    match (candidates.pop(), candidates.is_empty()) {
        (Some(one), true) => Ok(one),
        (None, _) => Err(StateError::NotFound { word: word.to_owned() }),
        (Some(last), false) => {
            candidates.push(last);
            let names: Vec<String> = candidates.iter().map(|one| one.state.key()).collect();
            Err(StateError::Ambiguous { word: word.to_owned(), candidates: names.join(", ") })
        }
    }
}

fn write(own: &DirFd, state: &State) -> io::Result<()> {
    own.put(STATE, &serde_json::to_vec_pretty(state).map_err(io::Error::other)?)
}

fn read_state(own: &DirFd) -> Option<State> {
    let bytes = own.read(STATE, STATE_LIMIT).ok().flatten()?;
    let state: State = serde_json::from_slice(&bytes)
        .inspect_err(|error| tracing::warn!(%error, "cannot understand the record of an instance"))
        .ok()?;
    (state.version <= VERSION).then_some(state)
}

/// The record of this process's instance. Dropped without an end it says that the end is unknown.
#[derive(Debug)]
pub struct Registered {
    path: PathBuf,
    id: InstanceId,
    own: DirFd,
    registry: Registry,
}

impl Registered {
    /// The id that it was given.
    #[must_use]
    pub const fn id(&self) -> InstanceId {
        self.id
    }

    /// Where it was made; it moves with a new name.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its directory, whatever it is called by now.
    #[must_use]
    pub const fn directory(&self) -> &DirFd {
        &self.own
    }

    /// Says how the instance ended, and puts its record among those of ended ones.
    ///
    /// # Errors
    ///
    /// [`StateError::Io`].
    pub fn end(&self, end: End) -> Result<(), StateError> {
        let _lock = self.registry.lock()?;
        // It may have been renamed, or found dead by somebody who was wrong about nothing but the moment.
        let Some(state) = read_state(&self.own) else { return Ok(()) };
        let key = state.key();
        let with_pid = format!("{key}-{}", state.identity.pid);
        let place =
            [key, with_pid].into_iter().find(|name| self.own.is_entry_of(&self.registry.directory, name));
        match place {
            Some(place) => self.registry.archive(&place, State { ended: Some(end), ..state }),
            None => Ok(()),
        }
    }
}

/// Opens the records of every image below `base`.
///
/// # Errors
///
/// [`StateError::Io`].
pub fn all_images(base: &Path) -> Result<Vec<Registry>, StateError> {
    let failed = |source| StateError::Io { what: "list", path: base.to_owned(), source };
    let parent = match DirFd::open(base) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(failed)?,
    };
    let mut images = Vec::new();
    for name in parent.names().map_err(failed)? {
        if let Ok(directory) = parent.open_in(&name) {
            images.push(Registry { directory, path: base.join(&name) });
        }
    }
    Ok(images)
}

impl End {
    /// An end at this moment.
    #[must_use]
    pub fn now(status: Option<u8>, signal: Option<u8>, error: Option<String>) -> Self {
        Self { status, signal, error, ..unknown_end() }
    }
}

impl State {
    /// The moment as records have it.
    #[must_use]
    pub fn now() -> u64 {
        now()
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, os::unix::fs::PermissionsExt as _};

    use super::*;
    use crate::sys::identity::Identity;

    fn state(id: u32, name: Option<&str>) -> State {
        State {
            version: VERSION,
            id,
            name: name.map(|name| Name::new(name).unwrap()),
            image: "/x/app".into(),
            image_id: "aa".into(),
            directory: "/d".into(),
            command: vec!["sh".into()],
            root: false,
            background: false,
            group: None,
            upper: None,
            layers: vec![],
            binds: vec![],
            env: BTreeMap::new(),
            notes: BTreeMap::new(),
            started: 1000 + u64::from(id),
            identity: Identity::own().unwrap(),
            ended: None,
        }
    }

    fn dead(id: u32, name: Option<&str>) -> State {
        let own = Identity::own().unwrap();
        State { identity: Identity { started: own.started + 1, ..own }, ..state(id, name) }
    }

    fn registry() -> (tempfile::TempDir, Registry) {
        let folder = tempfile::tempdir().unwrap();
        let registry = Registry::open(folder.path(), "aa", ServerKey::new("aa", (1, 2))).unwrap();
        (folder, registry)
    }

    fn ids(found: &[Found]) -> Vec<u32> {
        found.iter().map(|one| one.state.id).collect()
    }

    #[test]
    fn a_record_is_private_and_goes_among_the_ended_ones() {
        let (_folder, registry) = registry();
        let registered = registry.register(state(0, None)).unwrap();
        let mode = fs::metadata(registered.path().join(STATE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(ids(&registry.living().unwrap()), [0]);
        registered.end(End::now(Some(3), None, None)).unwrap();
        assert!(registry.living().unwrap().is_empty());
        let all = registry.all().unwrap();
        assert_eq!(all[0].state.ended.as_ref().unwrap().status, Some(3));
        assert!(all[0].path.ends_with("0@1000"));
    }

    #[test]
    fn the_dead_are_archived_by_whoever_looks() {
        let (_folder, registry) = registry();
        registry.register(dead(0, Some("web"))).unwrap();
        // Nobody lives: ids begin anew.
        registry.register(state(0, None)).unwrap();
        assert_eq!(ids(&registry.living().unwrap()), [0]);
        assert!(!registry.path.join("web").exists());
        assert!(registry.find_or_ended("web").unwrap().state.ended.is_some());
        // The name is free again.
        registry.register(state(0, Some("web"))).unwrap();
        assert_eq!(registry.find("web").unwrap().state.id, 1);
        assert!(matches!(registry.register(state(0, Some("web"))), Err(StateError::Taken { .. })));
    }

    #[test]
    fn ids_are_not_given_again_while_an_instance_lives() {
        let (_folder, registry) = registry();
        let next = || registry.register(state(9, None)).unwrap();
        let (zero, one) = (next(), next());
        assert_eq!((zero.id().get(), one.id().get()), (0, 1));
        one.end(End::now(Some(0), None, None)).unwrap();
        let two = next();
        assert_eq!(two.id().get(), 2);
        // Whatever has become of the count, none is given twice.
        fs::write(registry.path.join(NEXT), "nonsense").unwrap();
        assert_eq!(next().id().get(), 3);
        for found in registry.living().unwrap() {
            let own = registry.directory.open_in(found.path.file_name().unwrap()).unwrap();
            write(&own, &State { ended: Some(unknown_end()), ..found.state }).unwrap();
        }
        assert_eq!(next().id().get(), 0);
    }

    #[test]
    fn words_mean_one_instance_or_none() {
        let (_folder, registry) = registry();
        for (id, name) in [(0, Some("web")), (1, Some("website")), (2, None), (3, Some("db-1"))] {
            registry.register(state(id, name)).unwrap();
        }
        for (word, id) in [("web", 0), ("0", 0), ("webs", 1), ("2", 2), ("instance://db", 3), ("db-1", 3)] {
            assert_eq!(registry.find(word).unwrap().state.id, id, "{word}");
        }
        assert!(matches!(registry.find("we"), Err(StateError::Ambiguous { .. })));
        for word in ["", "4", "x", "instance://"] {
            assert!(matches!(registry.find(word), Err(StateError::NotFound { .. })), "{word}");
        }
    }

    #[test]
    fn a_renamed_instance_ends_under_its_new_name() {
        let (_folder, registry) = registry();
        let registered = registry.register(state(0, None)).unwrap();
        registry.register(state(1, Some("b"))).unwrap();
        assert!(registry.rename("0", Name::new("b").unwrap()).is_err());
        registry.rename("0", Name::new("a").unwrap()).unwrap();
        assert_eq!(registry.find("a").unwrap().state.id, 0);
        registered.end(End::now(Some(0), None, None)).unwrap();
        assert!(registry.find("a").is_err());
        assert_eq!(registry.find_or_ended("a").unwrap().state.id, 0);
    }

    #[test]
    fn the_last_ended_ones_are_kept() {
        let (_folder, registry) = registry();
        for moment in 0..25 {
            let registered = registry.register(state(moment, None)).unwrap();
            registered.end(End::now(Some(0), None, None)).unwrap();
        }
        let starts: Vec<u64> = registry.all().unwrap().iter().map(|one| one.state.started).collect();
        assert_eq!(starts, (1005..1025).collect::<Vec<_>>());
    }

    #[test]
    fn nonsense_is_passed_over() {
        let (folder, registry) = registry();
        registry.register(state(0, None)).unwrap();
        for (name, text) in [("broken", "{"), ("newer", "{\"version\":99}"), ("empty", "")] {
            let path = registry.path.join(name);
            fs::create_dir(&path).unwrap();
            fs::write(path.join(STATE), text).unwrap();
        }
        fs::write(registry.path.join("file"), "").unwrap();
        std::os::unix::fs::symlink(folder.path(), registry.path.join("link")).unwrap();
        assert_eq!(ids(&registry.all().unwrap()), [0]);
    }
}
