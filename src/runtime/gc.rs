//! `fim gc`: what killed processes have left behind.
//!
//! Nearly all of it goes by itself: by the janitor, or at the next start or commit. This looks everywhere at once, and
//! removes only what is proven to belong to nobody:
//!
//! - directories of instances, of all builds: their lock is free;
//! - directories of servers: their lock is free, and nobody listens;
//! - sockets in the portals of living instances: their process is gone;
//! - records: beyond the last ones of an image, and those that were never written;
//! - mounts: the kernel says that their connection has ended;
//! - parts of layers: no server and no committer has the data directory.

use std::{
    fs, io,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::{
    commit,
    host::Host,
    instances::{self, InstanceError},
    mount::Way,
    server::{Place, alone},
    site, unmount,
};
use crate::{
    causes::one_line,
    instance::{
        self, ServerKey,
        dirs::{self, AppDirs, DataDirs},
        state::{self, Registry, State},
    },
    sys::{identity::Identity, tree::DirFd, users::effective_ids},
};

/// What something was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The directory of an instance.
    Instance,
    /// The directory of a server.
    Server,
    /// A socket of somebody who wanted something of an instance.
    Socket,
    /// The record of an instance.
    Record,
    /// A mount without a server.
    Mount,
    /// A part of a layer.
    Staged,
}

/// Something that nobody needs any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Leftover {
    /// What it is.
    pub kind: Kind,
    /// Where it is, or was.
    pub path: PathBuf,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Found {
    /// What is removed now, or would be.
    pub leftovers: Vec<Leftover>,
    /// Where looking or removing failed, in sentences.
    pub failures: Vec<String>,
}

/// Whether leftovers are removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// They are.
    Remove,
    /// They are only listed.
    List,
}

/// Looks for leftovers of the user, and removes them if `mode` says so.
///
/// # Errors
///
/// `FIM_DIR_GLOBAL` or the directory of all records cannot be used; failures about single places are in what is
/// returned.
pub fn collect(host: &Host, mode: Mode) -> Result<Found, InstanceError> {
    let global = dirs::choose_global(host.choices.global.as_deref())?;
    let registries = state::all_images(&instances::base(host, global.path()))?;
    let mut found = Found::default();
    let states: Vec<State> = registries.iter().flat_map(|registry| found.states(registry)).collect();
    found.instances(global.path(), mode);
    found.servers(global.path(), mode);
    found.sockets(&states, mode);
    for registry in &registries {
        let removed = registry.tidy(mode == Mode::Remove);
        found.add(Kind::Record, registry.path(), removed);
    }
    found.mounts(mode);
    found.staged(host, global.path(), &states, mode);
    Ok(found)
}

impl Found {
    fn add<E>(&mut self, kind: Kind, place: &Path, paths: Result<Vec<PathBuf>, E>)
    where
        E: std::error::Error + 'static,
    {
        match paths {
            Ok(paths) => self.leftovers.extend(paths.into_iter().map(|path| Leftover { kind, path })),
            Err(error) => {
                self.failures.push(format!("cannot tidy up {}: {}", place.display(), one_line(&error)));
            }
        }
    }

    fn names(&mut self, path: &Path) -> Vec<PathBuf> {
        match fs::read_dir(path) {
            Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => {
                self.failures.push(format!("cannot list {}: {error}", path.display()));
                Vec::new()
            }
        }
    }

    fn states(&mut self, registry: &Registry) -> Vec<State> {
        registry.look().unwrap_or_else(|error| {
            self.failures.push(one_line(&error));
            Vec::new()
        })
    }

    fn instances(&mut self, global: &Path, mode: Mode) {
        for build in self.names(&global.join("app")) {
            let place = build.join("instance");
            if place.is_dir() {
                self.add(Kind::Instance, &place, instance::leftovers(&place, mode == Mode::Remove));
            }
        }
    }

    fn servers(&mut self, global: &Path, mode: Mode) {
        let app = AppDirs::new(global.to_owned());
        for path in self.names(&app.servers()) {
            let key = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let Some(place) = Place::of_text(&app, key) else { continue };
            let was = place.is_left(mode == Mode::Remove);
            self.add(Kind::Server, &path, was.map(|was| if was { vec![path.clone()] } else { Vec::new() }));
        }
    }

    /// Those of processes of the host: of them we can know that they are gone.
    fn sockets(&mut self, states: &[State], mode: Mode) {
        let Ok(own) = Identity::own() else { return };
        for state in
            states.iter().filter(|state| state.ended.is_none() && state.identity.namespace == own.namespace)
        {
            let place = state.directory.join("portal/dispatcher/guest");
            let is_gone = |path: &PathBuf| {
                let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                name.parse::<u32>().is_ok() && !Path::new("/proc").join(name).exists()
            };
            let gone: Vec<PathBuf> = self.names(&place).into_iter().filter(is_gone).collect();
            self.add(Kind::Socket, &place, removed(&place, gone, mode));
        }
    }

    fn mounts(&mut self, mode: Mode) {
        let way = Way::of_user(effective_ids().0);
        match unmount::dead_mounts() {
            Ok(dead) => {
                for target in dead {
                    let gone = match mode {
                        Mode::Remove => unmount::run(&target, way).map(|_| ()),
                        Mode::List => Ok(()),
                    };
                    self.add(Kind::Mount, &target, gone.map(|()| vec![target.clone()]));
                }
            }
            Err(error) => self.failures.push(format!("cannot read the table of mounts: {error}")),
        }
    }

    /// In the data directories of images whose instances are on record.
    fn staged(&mut self, host: &Host, global: &Path, states: &[State], mode: Mode) {
        let app = AppDirs::new(global.to_owned());
        let mut images: Vec<(&Path, &str)> =
            states.iter().map(|state| (state.image.as_path(), state.image_id.as_str())).collect();
        images.sort_unstable();
        images.dedup();
        for (image, id) in images {
            for data in site::data_places(host, image, id) {
                let parts = commit::scraps(&data);
                if !matches!(&parts, Ok(parts) if parts.is_empty()) {
                    let removed = remove_scraps(&app, id, &data, mode);
                    self.add(Kind::Staged, data.path(), removed);
                }
            }
        }
    }
}

/// While the lock is held nobody stages anything.
fn remove_scraps(app: &AppDirs, id: &str, data: &DataDirs, mode: Mode) -> io::Result<Vec<PathBuf>> {
    let place = Place::new(app, ServerKey::new(id, data.identity().map_err(io::Error::other)?));
    let scraps = || commit::scraps(data).map_err(io::Error::other);
    if mode == Mode::List {
        // Taking the lock would make the place, and letting go of it take it away.
        let is_free = !place.path().exists() || place.is_left(false).map_err(io::Error::other)?;
        return if is_free { scraps() } else { Ok(Vec::new()) };
    }
    let Some(locked) = alone(&place).map_err(io::Error::other)? else { return Ok(Vec::new()) };
    let done = scraps().and_then(|paths| paths.iter().try_for_each(fs::remove_file).map(|()| paths));
    locked.leave()?;
    done
}

fn removed(place: &Path, paths: Vec<PathBuf>, mode: Mode) -> io::Result<Vec<PathBuf>> {
    if mode == Mode::Remove && !paths.is_empty() {
        let place = DirFd::open(place)?;
        paths.iter().filter_map(|path| path.file_name()).try_for_each(|name| place.remove(name))?;
    }
    Ok(paths)
}

impl Leftover {
    /// A line for people: a terminal must not obey what is in a path.
    #[must_use]
    pub fn line(&self) -> String {
        let kind = format!("{:?}", self.kind).to_lowercase();
        let path = String::from_utf8_lossy(self.path.as_os_str().as_bytes());
        let path: String =
            path.chars().map(|letter| if letter.is_control() { '?' } else { letter }).collect();
        format!("{kind} {path}")
    }
}
