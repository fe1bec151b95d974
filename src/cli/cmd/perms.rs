//! `fim-perms`.

use std::path::PathBuf;

use clap::Args;

use super::words::{self, WordAction};
use crate::cli::Outcome;

/// What programs in an image may reach.
///
/// Words: all strict audio `dbus_system` `dbus_user` dev gpu home host input media network optical portal shm udev usb
/// wayland xorg. None is stored in a new image. `strict` takes away what programs have without any: the network, and the
/// view of the host. `fim exec IMAGE --dry-run` shows what each of them gives here; `~/.config/fim/policy.json` can take
/// them away.
#[derive(Args, Debug)]
#[command(after_help = "Example: fim perms app.flatimage add home,network,wayland")]
pub struct PermsArgs {
    /// The image.
    image: PathBuf,
    /// What to do.
    #[command(subcommand)]
    action: WordAction,
}

/// Carries the command out.
///
/// # Errors
///
/// An unknown word, or the image cannot be read or changed.
pub fn run(args: &PermsArgs) -> Outcome {
    words::run(&args.image, &args.action, |settings| &mut settings.permissions)
}
