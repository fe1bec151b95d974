//! The image on the desktop of its user: menu entry, file type, icons, all below `$XDG_DATA_HOME`.
//!
//! ```text
//! XDG_DATA_HOME/applications/fim-ID.desktop                     entry.rs   (Desktop Entry 1.5)
//! XDG_DATA_HOME/mime/packages/fim-ID.xml                        mime.rs    (shared-mime-info 0.21)
//! XDG_DATA_HOME/icons/hicolor/NxN/{apps,mimetypes}/fim-ID.png   icon.rs    (icon theme 0.13)
//! XDG_DATA_HOME/icons/hicolor/scalable/…/fim-ID.svg
//! XDG_DATA_HOME/fim/desktop/ID.json                             written.rs what was written: clean removes no more
//! ```
//!
//! ID is the image's own, so that images of one name do not meet. The entry names the image by its path; who moves the
//! image enables it again, or starts it.
//!
//! Plan, then act: [`files`] says what there is to be, [`Home::put`] makes it so.

mod entry;
mod icon;
mod mime;
mod written;

use std::{
    io,
    path::{Path, PathBuf},
};

use thiserror::Error;

use crate::config::{ConfigError, Desktop, ImageId, Integration};

pub use written::Home;

/// What the desktop is told about.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Who the image is.
    pub id: ImageId,
    /// Its absolute path.
    pub image: &'a Path,
    /// How it shows itself.
    pub desktop: &'a Desktop,
}

/// A file that is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// Its path below `$XDG_DATA_HOME`.
    pub path: PathBuf,
    /// What is in it.
    pub contents: Vec<u8>,
}

/// Why the desktop is not as it should be.
#[derive(Debug, Error)]
pub enum DesktopError {
    /// A setting.
    #[error(transparent)]
    Setting(#[from] ConfigError),
    /// The image's path cannot stand in an entry.
    #[error("cannot make an entry for {}: its path is not UTF-8 or has a line break", path.display())]
    Path {
        /// The path.
        path: PathBuf,
    },
    /// The icon cannot be read or resized.
    #[error("cannot use the icon")]
    Icon(#[source] image::ImageError),
    /// A file of the desktop.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was being done.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the host said.
        source: io::Error,
    },
    /// The list of what was written.
    #[error("cannot understand {}", path.display())]
    Record {
        /// The list.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

impl Subject<'_> {
    /// What its files are called, without their endings.
    #[must_use]
    pub fn name(&self) -> String {
        format!("fim-{}", self.id)
    }

    /// The menu entry.
    ///
    /// # Errors
    ///
    /// The image's path cannot stand in one.
    pub fn entry(&self) -> Result<String, DesktopError> {
        entry::render(self)
    }

    /// The file type.
    ///
    /// # Errors
    ///
    /// The image's path cannot stand in one.
    pub fn mimetype(&self) -> Result<String, DesktopError> {
        mime::render(self)
    }
}

/// The files of an image, as its integrations ask for.
///
/// # Errors
///
/// The path or the icon cannot be used.
pub fn files(subject: &Subject<'_>) -> Result<Vec<Planned>, DesktopError> {
    let mut files = texts(subject)?;
    if subject.desktop.integrations.contains(Integration::Icon)
        && let Some(icon) = &subject.desktop.icon
    {
        files.extend(icon::files(icon, &subject.name())?);
    }
    Ok(files)
}

/// Those of them that name the image by its path.
///
/// # Errors
///
/// The path cannot be used.
pub fn texts(subject: &Subject<'_>) -> Result<Vec<Planned>, DesktopError> {
    let wanted = |part| subject.desktop.integrations.contains(part);
    let name = subject.name();
    let mut files = Vec::new();
    if wanted(Integration::Entry) {
        let path = Path::new("applications").join(format!("{name}.desktop"));
        files.push(Planned { path, contents: subject.entry()?.into_bytes() });
    }
    if wanted(Integration::Mimetype) {
        let path = Path::new("mime/packages").join(format!("{name}.xml"));
        files.push(Planned { path, contents: subject.mimetype()?.into_bytes() });
    }
    Ok(files)
}

/// Checks that an icon can be made into files.
///
/// # Errors
///
/// [`DesktopError::Icon`].
pub fn check_icon(icon: &crate::config::Icon) -> Result<(), DesktopError> {
    icon::files(icon, "check").map(drop)
}

/// The image's path as text of one line.
fn path_text<'a>(subject: &Subject<'a>) -> Result<&'a str, DesktopError> {
    let text = subject.image.to_str().filter(|text| !text.chars().any(char::is_control));
    text.ok_or_else(|| DesktopError::Path { path: subject.image.to_owned() })
}

#[cfg(test)]
mod tests;
