//! What the verbs that read or change stored settings have in common.

use std::{
    fmt::Display,
    io::{self, Write as _},
    path::Path,
};

use serde::Serialize;

use crate::{
    cli::Failure,
    config::Settings,
    image::{ImageEdit, ImageFile},
};

/// Reads the settings of an image.
pub(super) fn read(image: &Path) -> Result<Settings, Failure> {
    Ok(ImageFile::open(image)?.settings().clone())
}

/// Changes the settings of an image; nothing is written where `change` fails.
pub(super) fn change<T>(
    image: &Path,
    change: impl FnOnce(&mut Settings) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let mut edit = ImageEdit::open(image)?;
    let mut settings = edit.settings()?;
    let value = change(&mut settings)?;
    edit.set_settings(&settings)?;
    Ok(value)
}

/// Asks the user; only a terminal can be asked, and only `y` or `yes` is a yes.
pub(super) fn confirmed(question: &str) -> Result<bool, Failure> {
    use std::io::{BufRead as _, IsTerminal as _};
    if !io::stdin().is_terminal() {
        return Ok(false);
    }
    let mut screen = io::stderr().lock();
    write!(screen, "{question} [y/N] ").and_then(|()| screen.flush())?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// Prints a line.
pub(super) fn line(text: impl Display) -> Result<(), Failure> {
    lines([text])
}

/// Prints lines, until the reader has read enough.
pub(super) fn lines<T: Display>(texts: impl IntoIterator<Item = T>) -> Result<(), Failure> {
    let mut output = io::stdout().lock();
    for text in texts {
        match writeln!(output, "{text}") {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            other => other?,
        }
    }
    Ok(())
}

/// Prints a value as one line of JSON.
pub(super) fn json(value: &impl Serialize) -> Result<(), Failure> {
    line(serde_json::to_string(value)?)
}

/// An argument that is stored, and stored settings are text.
pub(super) fn text(argument: &std::ffi::OsStr) -> Result<String, Failure> {
    argument.to_str().map(str::to_owned).ok_or_else(|| {
        Failure::new(format!("cannot store {argument:?}: it is not UTF-8"))
            .cure("settings of an image are text")
    })
}
