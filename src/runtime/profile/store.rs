//! A profile in an image: one of its settings.
//!
//! So it changes by one flip, touches no layer, and leaves the last archive at the end of the file, where upstream's
//! tools look for it. An engine that does not know the setting keeps it.

use std::{fs::File, path::Path};

use super::ProfileError;
use crate::{
    config::{PROFILE_LIMIT, StoredProfile},
    dwarfs::profile::Profile,
    image::{ImageEdit, ImageFile},
};

/// Stores a profile in an image, in place of the one that is there, and returns how many of its files fitted.
///
/// # Errors
///
/// The image cannot be changed; it is then as it was.
pub fn set(image: &Path, profile: &Profile) -> Result<usize, ProfileError> {
    let bytes = profile.encode_within(PROFILE_LIMIT);
    // A line each, behind the first.
    let files = bytes.iter().filter(|byte| **byte == b'\n').count() - 1;
    // It is written in ASCII.
    let text = StoredProfile::new(String::from_utf8_lossy(&bytes).into_owned())?;
    change(image, Some(text))?;
    Ok(files)
}

/// Takes the profile out of an image.
///
/// # Errors
///
/// The image cannot be changed; it is then as it was.
pub fn clear(image: &Path) -> Result<(), ProfileError> {
    change(image, None)
}

fn change(image: &Path, profile: Option<StoredProfile>) -> Result<(), ProfileError> {
    let mut edit = ImageEdit::open(image)?;
    let mut settings = edit.settings()?;
    settings.profile = profile;
    Ok(edit.set_settings(&settings)?)
}

/// The profile of an image; `None` where it has none.
///
/// # Errors
///
/// The image or its profile is damaged.
pub fn stored(image: &ImageFile) -> Result<Option<Profile>, ProfileError> {
    let Some(stored) = &image.settings().profile else { return Ok(None) };
    let decoded = Profile::decode(stored.text().as_bytes());
    decoded.map(Some).map_err(|source| ProfileError::Decode { path: image.path().to_owned(), source })
}

/// The profile of whatever is at a path: `None` as well where that is no image.
///
/// # Errors
///
/// As [`stored`].
pub(super) fn stored_at(path: &Path) -> Result<Option<Profile>, ProfileError> {
    let failed = |source| ProfileError::Read { path: path.to_owned(), source };
    if !path.metadata().map_err(failed)?.is_file() {
        return Ok(None);
    }
    let file = File::open(path).map_err(failed)?;
    if !matches!(ImageFile::probe(&file), Ok(Some(_))) {
        return Ok(None);
    }
    stored(&ImageFile::of(file, path.to_owned())?)
}
