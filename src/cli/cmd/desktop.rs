//! `fim-desktop`.

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Subcommand, ValueEnum};
use serde::Deserialize;

use super::settings;
use crate::{
    cli::{Failure, Outcome},
    config::{Desktop, ICON_LIMIT, Icon, Integration, Integrations, Settings},
    desktop::{self, Home, Subject},
    runtime::{host::Host, recipe},
};

/// Length of a description in bytes.
const SETUP_LIMIT: u64 = 64 << 10;

/// The image on the desktop: an entry in the menu, a file type, icons, all in `$XDG_DATA_HOME`.
#[derive(Args, Debug)]
#[command(after_help = "Example: fim desktop app.flatimage setup desktop.json\n         \
                        fim desktop app.flatimage enable entry,mimetype,icon\n\n\
                        desktop.json: {\"name\": \"App\", \"icon\": \"./app.png\", \"categories\": [\"Network\"]}")]
pub struct DesktopArgs {
    /// The image.
    image: PathBuf,
    /// What to do.
    #[command(subcommand)]
    action: DesktopAction,
}

/// What to do with the desktop.
#[derive(Subcommand, Debug)]
pub enum DesktopAction {
    /// Stores name, icon (PNG or SVG: a file beside the description, or an address) and categories of the menu. Further
    /// fields: comment, terminal (true or false), integrations.
    #[command(after_help = "Example: app.flatimage fim-desktop setup desktop.json")]
    Setup {
        /// The description: JSON.
        #[arg(value_name = "JSON")]
        file: PathBuf,
    },
    /// Shows the image on the desktop, in these parts and no others: entry, mimetype, icon, or none.
    #[command(after_help = "Example: app.flatimage fim-desktop enable entry,icon")]
    Enable {
        /// The parts, divided by commas or spaces.
        #[arg(required = true, value_name = "entry,mimetype,icon|none")]
        parts: Vec<String>,
    },
    /// Takes everything away that was written to the desktop, and nothing else; what is stored stays.
    #[command(after_help = "Example: app.flatimage fim-desktop clean")]
    Clean,
    /// Prints what is shown: the entry or the file type; or writes the stored icon to a file.
    #[command(after_help = "Example: app.flatimage fim-desktop dump icon app-icon")]
    Dump {
        /// What.
        #[arg(value_enum, ignore_case = true)]
        what: Dump,
        /// The file for the icon; its ending is added where it has none.
        #[arg(required_if_eq("what", "icon"))]
        file: Option<PathBuf>,
        /// As JSON; of the icon where it was written.
        #[arg(long)]
        json: bool,
    },
}

/// What can be dumped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Dump {
    /// The picture.
    Icon,
    /// The entry of the menu.
    Entry,
    /// The type of the file.
    Mimetype,
}

/// A description, as FlatImage has it.
#[derive(Debug, Deserialize)]
struct Description {
    name: String,
    #[serde(default)]
    comment: Option<String>,
    #[serde(default)]
    icon: Option<String>,
    #[serde(default)]
    categories: Vec<String>,
    #[serde(default)]
    terminal: bool,
    #[serde(default)]
    integrations: Vec<String>,
}

/// Carries the command out.
///
/// # Errors
///
/// The description, the icon or the image cannot be used, or a file of the desktop not be written.
pub fn run(args: &DesktopArgs) -> Outcome {
    let image = &args.image;
    match &args.action {
        DesktopAction::Setup { file } => setup(image, file)?,
        DesktopAction::Enable { parts } => enable(image, parts)?,
        DesktopAction::Clean => {
            let stored = settings::read(image)?;
            tell_changed(&home(&Host::read()?, &stored).clean()?);
        }
        DesktopAction::Dump { what, file, json } => dump(image, *what, file.as_deref(), *json)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn setup(image: &Path, file: &Path) -> Result<(), Failure> {
    let text = bounded(file, SETUP_LIMIT)?;
    let description = serde_json::from_slice(&text)
        .map_err(|error| Failure::new(format!("cannot understand {}: {error}", file.display())))?;
    store(image, description, file.parent().unwrap_or(Path::new("")))
}

/// Stores what a recipe says about the desktop.
pub(super) fn setup_from(image: &Path, description: serde_json::Value) -> Result<(), Failure> {
    let description = serde_json::from_value(description).map_err(|error| {
        Failure::new(format!("cannot understand what the recipe says of the desktop: {error}"))
    })?;
    store(image, description, Path::new(""))
}

fn store(image: &Path, description: Description, beside: &Path) -> Result<(), Failure> {
    let icon = description.icon.as_deref().map(|icon| read_icon(icon, beside)).transpose()?;
    let words = Integrations::parse(description.integrations.iter().map(String::as_str))?;
    let mut desktop = Desktop {
        name: description.name,
        comment: description.comment,
        categories: description.categories,
        terminal: description.terminal,
        icon,
        integrations: Integrations::default(),
        unknown: serde_json::Map::new(),
    };
    desktop.check()?;
    if let Some(icon) = &desktop.icon {
        desktop::check_icon(icon)?;
    }
    settings::change(image, |settings| {
        // What was enabled before stays so, unless the description says otherwise.
        match &settings.desktop {
            Some(before) if words.is_empty() => desktop.integrations = before.integrations.clone(),
            _ => desktop.integrations.set(words),
        }
        settings.desktop = Some(desktop);
        Ok(())
    })?;
    show(image)
}

fn enable(image: &Path, parts: &[String]) -> Result<(), Failure> {
    let words = Integrations::parse(parts.iter().map(String::as_str))?;
    if words.contains(&Integration::None) && words.iter().any(|word| *word != Integration::None) {
        return Err(Failure::new("cannot enable none together with other parts"));
    }
    settings::change(image, |settings| match &mut settings.desktop {
        Some(desktop) => {
            desktop.integrations.set(words.into_iter().filter(|word| *word != Integration::None));
            Ok(())
        }
        None => Err(not_set_up(image)),
    })?;
    show(image)
}

/// Shows an image anew that was moved since it was shown here; the first time is for the user to ask for. What goes
/// wrong is no reason not to start it.
pub(super) fn follow(host: &Host, image: &Path, stored: &Settings) {
    let Some(described) = &stored.desktop else { return };
    let moved = |path: PathBuf| -> Result<(), Failure> {
        let subject = Subject { id: stored.image_id, image: &path, desktop: described };
        let home = home(host, stored);
        if home.is_outdated(&desktop::texts(&subject)?)? {
            home.put(&desktop::files(&subject)?)?;
        }
        Ok(())
    };
    if let Err(error) = fs::canonicalize(image).map_err(Failure::from).and_then(moved) {
        tracing::warn!(%error, "cannot bring the desktop up to date");
    }
}

/// Makes the desktop as the settings say.
fn show(image: &Path) -> Result<(), Failure> {
    let host = Host::read()?;
    let stored = settings::read(image)?;
    let Some(described) = &stored.desktop else { return Ok(()) };
    let path = fs::canonicalize(image)?;
    let planned = desktop::files(&Subject { id: stored.image_id, image: &path, desktop: described })?;
    Ok(home(&host, &stored).put(&planned)?)
}

fn dump(image: &Path, what: Dump, file: Option<&Path>, json: bool) -> Result<(), Failure> {
    let stored = settings::read(image)?;
    let described = stored.desktop.as_ref().ok_or_else(|| not_set_up(image))?;
    let path = fs::canonicalize(image)?;
    let subject = Subject { id: stored.image_id, image: &path, desktop: described };
    let print = |text: &str| if json { settings::json(&text) } else { settings::line(text.trim_end()) };
    match (what, file) {
        (Dump::Entry, None) => print(&subject.entry()?),
        (Dump::Mimetype, None) => print(&subject.mimetype()?),
        (Dump::Icon, Some(file)) => {
            let icon = described.icon.as_ref();
            let icon = icon.ok_or_else(|| Failure::new(format!("{} has no icon", image.display())))?;
            let file = match file.extension() {
                Some(_) => file.to_owned(),
                None => file.with_extension(icon.kind.extension()),
            };
            fs::write(&file, icon.data())
                .map_err(|error| Failure::new(format!("cannot write {}: {error}", file.display())))?;
            if json { settings::json(&file) } else { Ok(()) }
        }
        _ => Err(Failure::new("only the icon is written to a file")),
    }
}

/// An icon: a file, or what an address leads to.
fn read_icon(place: &str, beside: &Path) -> Result<Icon, Failure> {
    let data = if place.starts_with("http://") || place.starts_with("https://") {
        recipe::get(place, ICON_LIMIT as u64)?
    } else {
        bounded(&beside.join(place), ICON_LIMIT as u64)?
    };
    Ok(Icon::new(data)?)
}

/// Reads a file that is not longer than it may be.
fn bounded(path: &Path, limit: u64) -> Result<Vec<u8>, Failure> {
    let failed = |error: std::io::Error| Failure::new(format!("cannot read {}: {error}", path.display()));
    let file = crate::image::open_regular(path)?;
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > limit {
        return Err(Failure::new(format!("cannot take {}: it is longer than {limit} bytes", path.display())));
    }
    Ok(bytes)
}

fn home(host: &Host, stored: &Settings) -> Home {
    let place = host.variable("XDG_DATA_HOME").map(PathBuf::from).filter(|place| place.is_absolute());
    Home::new(place.unwrap_or_else(|| host.user.home.join(".local/share")), stored.image_id)
}

fn not_set_up(image: &Path) -> Failure {
    Failure::new(format!("{} has no description for the desktop", image.display()))
        .cure("fim-desktop setup JSON stores one")
}

#[expect(clippy::print_stderr, reason = "a warning for each")]
fn tell_changed(changed: &[PathBuf]) {
    for path in changed {
        eprintln!("fim: warning: {} stays: somebody has changed it", path.display());
    }
}
