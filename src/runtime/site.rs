//! Where an image lives: the image itself, its data directory, its layers and the key of its server.

use std::{
    ffi::{OsStr, OsString},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use super::{
    host::Host,
    plan,
    run::RunError,
    server::Place,
    stack::{ProfileSource, StackPlan, UpperPlan},
    tools::{self, ToolPaths},
};
use crate::{
    config::Casefold,
    image::ImageFile,
    instance::{
        ServerKey,
        dirs::{self, AppDirs, DataDirs, DirsError},
    },
    sys::process,
};

/// An image with everything that belongs to it on this host.
#[derive(Debug)]
pub struct Site {
    /// The image.
    pub image: ImageFile,
    /// The directories of this build.
    pub app: AppDirs,
    /// The data directory.
    pub data: DataDirs,
    /// What its instances have in common: the name of their records, and of the server of those that share the upper.
    pub key: ServerKey,
    /// What the server of this run is called.
    pub server: ServerKey,
    /// The upper of this run.
    pub upper: Upper,
    /// The layers that the user named, lowest first: part of `layers`.
    pub named: Vec<PathBuf>,
    /// Layers that are not in the image, lowest first.
    pub layers: Vec<PathBuf>,
    /// Which names are one: as stored, unless the environment says otherwise.
    pub casefold: Casefold,
}

/// Which upper a run has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Upper {
    /// That of the data directory.
    #[default]
    Shared,
    /// One of its own, which goes with it.
    Ephemeral,
    /// This directory.
    At(PathBuf),
}

impl Site {
    /// Finds what belongs to the image at `path`, and makes the directories that are missing.
    ///
    /// # Errors
    ///
    /// The image cannot be opened, or a directory not be used.
    pub fn find(host: &Host, path: &Path) -> Result<Self, RunError> {
        let path = std::fs::canonicalize(path)
            .map_err(|source| RunError::Image { path: path.to_owned(), source })?;
        let image = ImageFile::open(path)?;
        let global = dirs::choose_global(host.choices.global.as_deref())?;
        let app = AppDirs::new(global.path().to_owned());
        app.create()?;
        let image_id = image.settings().image_id.to_string();
        let data = data_dirs(host, image.path(), &image_id)?;
        let key = ServerKey::new(&image_id, data.identity()?);
        let named = further_layers(&host.choices.layers, None)?;
        let mut layers = named.clone();
        layers.extend(further_layers(&[], Some(data.layers()))?);
        let stored = &image.settings().casefold;
        let casefold = host.choices.casefold.map_or_else(|| stored.clone(), |choice| choice.over(stored));
        Ok(Self { image, app, data, key, server: key, upper: Upper::Shared, named, layers, casefold })
    }

    /// The same for a run with further `layers`, above all others, and this upper.
    ///
    /// # Errors
    ///
    /// One of them is not there.
    pub fn with(mut self, layers: &[PathBuf], upper: &Upper) -> Result<Self, RunError> {
        let more = further_layers(layers, None)?;
        self.layers.extend(more.iter().cloned());
        self.named.extend(more);
        let real = |path: &Path| std::fs::canonicalize(path);
        (self.upper, self.server) = match upper {
            Upper::Shared => (Upper::Shared, self.key),
            Upper::Ephemeral => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                (Upper::Ephemeral, self.key.alone(process::id(), since.as_nanos()))
            }
            Upper::At(path) => {
                let failed = |source| RunError::Upper { path: path.clone(), source };
                let path = real(path).map_err(failed)?;
                let status = std::fs::metadata(&path).map_err(failed)?;
                // The image's own is shared by whatever name it is called.
                let is_shared = real(&self.data.root()).is_ok_and(|own| own == path);
                match is_shared {
                    true => (Upper::Shared, self.key),
                    false => (Upper::At(path), self.key.with_upper((status.dev(), status.ino()))),
                }
            }
        };
        Ok(self)
    }

    /// Where the ephemeral upper of this run is, with all that belongs to it.
    #[must_use]
    pub fn ephemeral(&self) -> Option<PathBuf> {
        (self.upper == Upper::Ephemeral).then(|| self.data.tmp().join(format!("{EPHEMERAL}{}", self.server)))
    }

    /// Removes ephemeral uppers whose servers were killed.
    ///
    /// # Errors
    ///
    /// The directory cannot be read; one that cannot be removed is passed over.
    pub fn sweep(&self) -> io::Result<()> {
        for entry in std::fs::read_dir(self.data.tmp())? {
            let entry = entry?;
            let name = entry.file_name();
            let key = name.to_str().and_then(|name| name.strip_prefix(EPHEMERAL));
            let Some(place) = key.and_then(|key| Place::of_text(&self.app, key)) else { continue };
            if place.is_over().unwrap_or(false)
                && let Err(error) = std::fs::remove_dir_all(entry.path())
            {
                tracing::warn!(%error, path = %entry.path().display(), "cannot remove an ephemeral upper");
            }
        }
        Ok(())
    }

    /// The stack: the archives of the image, the further layers, and the upper.
    #[must_use]
    pub fn stack(&self) -> StackPlan {
        let (image, settings) = (self.image.path(), self.image.settings());
        let upper = match (&self.upper, self.ephemeral()) {
            (Upper::At(root), _) => Some(UpperPlan { root: root.clone(), work: beside(root) }),
            (_, Some(own)) => Some(UpperPlan { root: own.join("root"), work: own.join("work") }),
            (_, None) => None,
        };
        let shared = plan::stack(image, self.image.table(), self.layers.clone(), &self.data);
        StackPlan {
            upper: upper.or_else(|| shared.upper.clone()),
            profile: settings.profile.as_ref().map(|_| ProfileSource::Image(image.to_owned())),
            casefold: self.casefold.clone(),
            ..shared
        }
    }

    /// Puts the programs in place that the image carries.
    ///
    /// # Errors
    ///
    /// The archive is damaged, or the place cannot be used.
    pub fn tools(&self) -> Result<ToolPaths, RunError> {
        Ok(tools::provide(&self.image, &self.app.open_app()?)?)
    }
}

/// What an ephemeral upper is called, before the key of its server.
const EPHEMERAL: &str = "ephemeral-";

/// The scratch space of an upper that the user named: `.NAME.work` beside it.
fn beside(root: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(root.file_name().unwrap_or_default());
    name.push(".work");
    root.with_file_name(name)
}

/// The layers above those of an image, lowest first, as a run would have them; makes nothing.
///
/// # Errors
///
/// A layer that the user named is not there, or a directory cannot be read.
pub fn layers_above(host: &Host, image: &ImageFile) -> Result<Vec<PathBuf>, RunError> {
    further_layers(&host.choices.layers, layers_directory(host, image))
}

/// Those of them that are in the data directory.
///
/// # Errors
///
/// The directory cannot be read.
pub fn own_layers(host: &Host, image: &ImageFile) -> Result<Vec<PathBuf>, RunError> {
    further_layers(&[], layers_directory(host, image))
}

/// `FIM_DIR_LAYERS`, where it is there.
fn layers_directory(host: &Host, image: &ImageFile) -> Option<PathBuf> {
    let own = own_data(host, &image.settings().image_id.to_string());
    let places = match &host.choices.data {
        Some(asked) => vec![DataDirs::at(asked.clone())],
        None => vec![DataDirs::beside(&real_path(image.path())), own],
    };
    places.into_iter().map(|data| data.layers()).find(|layers| layers.is_dir())
}

/// The path without links on the way, where it still leads somewhere.
pub(super) fn real_path(path: &Path) -> PathBuf {
    std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

/// Makes the data directory: the one the user named, the one beside the image, or, where nothing can be written
/// there, one of the user's own.
fn data_dirs(host: &Host, image: &Path, image_id: &str) -> Result<DataDirs, DirsError> {
    if let Some(asked) = &host.choices.data {
        let data = DataDirs::at(asked.clone());
        data.create()?;
        return Ok(data);
    }
    let beside = DataDirs::beside(image);
    match beside.create() {
        Ok(()) => Ok(beside),
        Err(DirsError::Make { path, source })
            if matches!(
                source.kind(),
                io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied
            ) =>
        {
            let own = own_data(host, image_id);
            tracing::info!(%source, path = %path.display(), own = %own.path().display(), "changes are kept elsewhere");
            own.create()?;
            Ok(own)
        }
        Err(error) => Err(error),
    }
}

/// The data directory of an image beside which nothing can be written.
fn own_data(host: &Host, image_id: &str) -> DataDirs {
    let place = host
        .variable("XDG_DATA_HOME")
        .map(PathBuf::from)
        .filter(|place| place.is_absolute())
        .unwrap_or_else(|| host.user.home.join(".local/share"));
    DataDirs::at(place.join("fim/data").join(image_id))
}

/// The layers that are not in the image, lowest first: those that the user named, then those of the data directory.
fn further_layers(asked: &[PathBuf], data: Option<PathBuf>) -> Result<Vec<PathBuf>, RunError> {
    let mut layers = Vec::new();
    for place in asked.iter().cloned().chain(data) {
        let failed = |source| RunError::Layers { path: place.clone(), source };
        let place = std::fs::canonicalize(&place).map_err(failed)?;
        if place.is_dir() {
            layers.extend(layers_in(&place).map_err(failed)?);
        } else {
            layers.push(place.clone());
        }
    }
    Ok(layers)
}

/// The layer files of a directory, lowest first.
pub(super) fn layers_in(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension() == Some(OsStr::new("layer")) {
            found.push(path);
        }
    }
    plan::sort_layers(&mut found);
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_come_in_order_and_directories_contribute_their_layer_files() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataDirs::at(folder.path().join("data"));
        data.create().unwrap();
        let more = folder.path().join("more");
        std::fs::create_dir(&more).unwrap();
        for name in ["more/b-10.layer", "more/b-9.layer", "more/note.txt", "single", "data/layers/z.layer"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let layers = further_layers(&[folder.path().join("single"), more], Some(data.layers())).unwrap();
        let names: Vec<_> = layers.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["single", "b-9.layer", "b-10.layer", "z.layer"]);
        assert!(further_layers(&["/nowhere".into()], None).is_err());
    }
}
