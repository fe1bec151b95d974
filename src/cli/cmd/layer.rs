//! `fim-layer`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Subcommand, ValueEnum};

use super::{
    archive,
    archive::MakeArgs,
    check::{self, How},
    info,
    making::{self, Compression},
    settings,
};
use crate::{
    cli::{Failure, Outcome},
    dwarfs::profile::{FileUse, Part},
    image::ImageFile,
    runtime::{
        commit::{self, CommitError, Committed, Target},
        create::Report,
        diff::Change,
        discard,
        host::Host,
        info::layers as layer_facts,
        layer, profile,
        rewrite::{self, RewriteError},
        site::{self, Site},
    },
};

/// The layers of an image.
#[derive(Args, Debug)]
#[command(after_help = "Example: fim layer app.flatimage add extras.layer --message 'fonts and themes'")]
pub struct LayerArgs {
    /// The image.
    image: PathBuf,
    /// What to do.
    #[command(subcommand)]
    action: LayerAction,
}

/// What to do with the layers.
#[derive(Subcommand, Debug)]
pub enum LayerAction {
    /// Archives a directory into a layer file.
    #[command(after_help = "Example: fim layer app.flatimage create fonts fonts.layer")]
    Create(MakeArgs),
    /// Verifies a layer file and appends it to the image.
    #[command(after_help = "Example: app.flatimage fim-layer add fonts.layer --message 'more fonts'")]
    Add {
        /// The layer file: a DwarFS archive.
        file: PathBuf,
        /// A word about it.
        #[arg(short, long, default_value = "")]
        message: String,
    },
    /// Makes a layer of what has changed, also while programs run: in the image (binary), in the data directory
    /// (layer), or in a file, which leaves the changes where they are.
    #[command(after_help = "Example: app.flatimage fim-layer commit binary --message 'with gcc'")]
    Commit {
        /// Where the layer goes.
        #[arg(value_enum, ignore_case = true)]
        target: CommitTarget,
        /// The file, for the target `file`.
        #[arg(required_if_eq("target", "file"))]
        path: Option<PathBuf>,
        /// A word about it.
        #[arg(short, long, default_value = "")]
        message: String,
        /// How hard to compress.
        #[command(flatten)]
        compression: Compression,
        /// Prints the result as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Prints what has changed since the last commit: A (added), M (modified) or D (deleted), and the path.
    #[command(after_help = "Example: app.flatimage fim-layer diff")]
    Diff {
        /// As a JSON array.
        #[arg(long)]
        json: bool,
    },
    /// Checks all archives of the image and the layers above it, as fim check does.
    #[command(after_help = "Example: app.flatimage fim-layer verify --quick")]
    Verify {
        /// How to check and to tell.
        #[command(flatten)]
        how: How,
    },
    /// The stored access profile: what it names is brought in early when the image starts.
    #[command(
        after_help = "Example: app.flatimage fim-exec --record start.profile firefox --version\n         \
                            app.flatimage fim-layer profile set start.profile"
    )]
    Profile {
        /// What to do with it.
        #[command(subcommand)]
        action: ProfileAction,
    },
    /// Prints index:offset:size:path of each layer, lowest first.
    #[command(after_help = "Example: app.flatimage fim-layer list")]
    List {
        /// As a JSON array.
        #[arg(long)]
        json: bool,
    },
    /// Tells what is known of each layer, lowest first: sizes, digest, how it is stored, who made it.
    #[command(after_help = "Example: app.flatimage fim-layer info --json")]
    Info {
        /// As a JSON array.
        #[arg(long)]
        json: bool,
    },
    /// Takes a layer away, by its number in `list`. The image is written anew without it, beside the old one, and takes
    /// its place in one step; what runs goes on with the old one until it ends.
    #[command(after_help = "Example: app.flatimage fim-layer rm 2")]
    Rm {
        /// The number of the layer, from 0.
        #[arg(value_name = "N")]
        index: usize,
    },
    /// Throws away what has changed since the last commit, after asking.
    #[command(after_help = "Example: app.flatimage fim-layer discard --yes")]
    Discard {
        /// Does not ask.
        #[arg(short, long)]
        yes: bool,
    },
}

/// What to do with the access profile.
#[derive(Subcommand, Debug)]
pub enum ProfileAction {
    /// Stores a profile in the image, in place of the one that is there.
    #[command(after_help = "Example: app.flatimage fim-layer profile set start.profile")]
    Set {
        /// A file that --record wrote, or a list of paths behind the line `fim-profile 1`.
        file: PathBuf,
    },
    /// Prints the stored profile; nothing where there is none.
    #[command(after_help = "Example: app.flatimage fim-layer profile show")]
    Show {
        /// As a JSON array; paths with their escapes.
        #[arg(long)]
        json: bool,
    },
    /// Takes the profile out of the image.
    #[command(after_help = "Example: app.flatimage fim-layer profile clear")]
    Clear,
}

/// Where a committed layer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CommitTarget {
    /// Into the image.
    Binary,
    /// Into the data directory, as layers/layer-NNN.layer.
    Layer,
    /// Into a file.
    File,
}

/// Carries the command out.
///
/// # Errors
///
/// A layer is damaged, or the image cannot be read or changed; it is then as it was.
pub fn run(args: &LayerArgs, report: &dyn Report) -> Outcome {
    match &args.action {
        LayerAction::Create(make) => return archive::create(make, report),
        LayerAction::Add { file, message } => {
            let created = making::created()?;
            let mut watch = making::copying(report, "adding the layer");
            layer::add(&args.image, file, message, created, &mut watch)?;
        }
        LayerAction::Commit { target, path, message, compression, json } => {
            let target = match (target, path) {
                (CommitTarget::Binary, None) => Target::Image,
                (CommitTarget::Layer, None) => Target::Layers,
                (CommitTarget::File, Some(path)) => Target::File(path.clone()),
                _ => return Err(Failure::new("cannot commit: only the target file takes a path")),
            };
            let host = Host::read()?;
            let (options, _) = compression.options(&host)?;
            commit::check_target(&args.image, &target)?;
            commit::become_able(host.ids.uid)?;
            let site = Site::find(&host, &args.image)?;
            let committed = commit::commit(&site, &target, message, &options, report).map_err(failed)?;
            report.done();
            match committed {
                None => settings::line("nothing has changed")?,
                Some(Committed { made, file, length, .. }) => {
                    making::tell(&file, length, &made.summary, made.time, *json)?;
                }
            }
        }
        LayerAction::Diff { json } => {
            let host = Host::read()?;
            commit::become_able(host.ids.uid)?;
            let changes = commit::diff(&Site::find(&host, &args.image)?)?;
            if *json {
                let entries: Vec<_> = changes.iter().map(as_json).collect();
                settings::json(&entries)?;
            } else {
                settings::lines(changes.iter().map(ToString::to_string))?;
            }
        }
        LayerAction::Verify { how } => {
            let host = Host::read()?;
            let above = site::layers_above(&host, &ImageFile::open(&args.image)?)?;
            let threads = host.choices.threads.map(std::num::NonZeroUsize::get);
            return check::verify(&args.image, &above, threads, *how, report);
        }
        LayerAction::Info { json } => {
            let image = ImageFile::open(&args.image)?;
            let above = site::layers_above(&Host::read()?, &image)?;
            info::tell(&layer_facts(&image, &above)?, *json)?;
        }
        LayerAction::Rm { index } => remove(&args.image, *index, report)?,
        LayerAction::Discard { yes } => discard(&args.image, *yes)?,
        LayerAction::Profile { action } => profile(&args.image, action)?,
        LayerAction::List { json } => {
            let image = ImageFile::open(&args.image)?;
            let layers = layer::list(&image, &site::layers_above(&Host::read()?, &image)?)?;
            if *json {
                settings::json(&layers)?;
            } else {
                settings::lines(layers.iter().map(|layer| {
                    format!("{}:{}:{}:{}", layer.index, layer.offset, layer.size, layer.path.display())
                }))?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Takes a layer out of the image, or a file of the data directory away.
fn remove(image: &Path, index: usize, report: &dyn Report) -> Result<(), Failure> {
    let opened = ImageFile::open(image)?;
    let host = Host::read()?;
    let above = index.checked_sub(opened.table().layers().count());
    let Some(above) = above else {
        rewrite::remove_layer(image, index, &mut making::copying(report, "copying the other layers"))?;
        return Ok(());
    };
    let layers = site::layers_above(&host, &opened)?;
    let own = site::own_layers(&host, &opened)?;
    match layers.get(above) {
        Some(file) if own.contains(file) => fs::remove_file(file)
            .map_err(|error| Failure::new(format!("cannot remove {}: {error}", file.display()))),
        Some(file) => Err(Failure::new(format!(
            "cannot remove layer {index}: {} was named by FIM_LAYERS",
            file.display()
        ))
        .cure("take it out of FIM_LAYERS")),
        None => Err(RewriteError::NoSuchLayer {
            path: image.to_owned(),
            index,
            count: opened.table().layers().count() + layers.len(),
        }
        .into()),
    }
}

/// Empties the upper, if the user means it.
fn discard(image: &Path, yes: bool) -> Result<(), Failure> {
    let host = Host::read()?;
    let site = Site::find(&host, image)?;
    if discard::is_empty(&site) {
        return settings::line("nothing has changed");
    }
    if !yes && !settings::confirmed(&format!("throw away all changes in {}?", site.data.root().display()))? {
        return Err(Failure::new("nothing was thrown away").cure("--yes does not ask"));
    }
    commit::become_able(host.ids.uid)?;
    Ok(discard::discard(&site)?)
}

fn profile(image: &Path, action: &ProfileAction) -> Result<(), Failure> {
    match action {
        ProfileAction::Set { file } => {
            let given = profile::read(file)?;
            let stored = profile::set(image, &given)?;
            if stored < given.files.len() {
                settings::line(format!("stored the first {stored} of {} files", given.files.len()))?;
            }
        }
        ProfileAction::Show { json: false } => {
            if let Some(stored) = profile::stored(&ImageFile::open(image)?)? {
                settings::lines(String::from_utf8_lossy(&stored.encode()).lines())?;
            }
        }
        ProfileAction::Show { json: true } => {
            let files = profile::stored(&ImageFile::open(image)?)?.unwrap_or_default().files;
            settings::json(&files.iter().map(use_as_json).collect::<Vec<_>>())?;
        }
        ProfileAction::Clear => profile::clear(image)?,
    }
    Ok(())
}

fn use_as_json(file: &FileUse) -> serde_json::Value {
    let ranges = match &file.part {
        Part::Whole => None,
        Part::Ranges(ranges) => Some(ranges.iter().map(|range| [range.start, range.end]).collect::<Vec<_>>()),
    };
    serde_json::json!({ "path": file.path_text(), "ranges": ranges })
}

fn failed(error: CommitError) -> Failure {
    let cure = error.cure();
    let failure = Failure::from(error);
    match cure {
        Some(cure) => failure.cure(cure),
        None => failure,
    }
}

fn as_json(change: &Change) -> serde_json::Value {
    serde_json::json!({ "kind": change.kind.letter().to_string(), "path": String::from_utf8_lossy(&change.path) })
}
