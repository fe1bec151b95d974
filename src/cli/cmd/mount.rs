//! `fim mount`.

use std::{
    ffi::{OsStr, OsString},
    fs,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    process::ExitCode,
    str::FromStr,
};

use clap::Args;

#[cfg(feature = "libdwarfs")]
use crate::runtime::stack::Reader;
use crate::{
    cli::{Failure, Outcome},
    config::{Casefold, CasefoldMode, ConfigError, OverlayKind},
    image::ImageFile,
    runtime::{
        host::{self, CasefoldChoice, Choices},
        mount::{self, Life, Lists, MountPlan, Opens, Report, SessionOptions, Way, WriteCache},
        stack::{CachePlan, LayerSource, ProfileSource, StackPlan, UpperPlan},
    },
    sys::{mount::Visitors, users::effective_ids},
};

/// Shows archives and directories as one merged tree.
///
/// Layers lie on each other in the order given: IMAGE lowest, each --layer above the one before it, the upper
/// directory on top. Without --upper the tree is read-only.
#[derive(Args, Debug, Default)]
#[command(after_help = "Example: fim mount --upper changes app.flatimage /mnt")]
pub struct MountArgs {
    /// An image or archive, and the directory to mount on.
    #[arg(value_name = "[IMAGE] DIR", num_args = 1..=2, required = true)]
    pub(super) places: Vec<PathBuf>,
    /// A further layer: an archive or a directory of the host.
    #[arg(long = "layer", value_name = "FILE|DIR")]
    pub(super) layers: Vec<PathBuf>,
    /// The directory that takes all changes, in the format of kernel overlayfs.
    #[arg(long, value_name = "DIR")]
    pub(super) upper: Option<PathBuf>,
    /// Scratch space on the file system of the upper directory [default: `.NAME.work` beside it].
    #[arg(long, value_name = "DIR", requires = "upper")]
    pub(super) work: Option<PathBuf>,
    /// Writable; the upper directory of an IMAGE is `.IMAGE.data/root` beside it unless --upper names another.
    #[arg(long, conflicts_with = "ro")]
    rw: bool,
    /// Read-only; the upper directory is shown but not written.
    #[arg(long)]
    pub(super) ro: bool,
    /// Who merges the upper directory with the layers: fuse and auto are the engine; kernel is for images only.
    #[arg(long, value_name = "KIND", value_parser = OverlayKind::parse)]
    overlay: Option<OverlayKind>,
    /// Writes to FILE which files are read, in the order of their first reads, when it is unmounted: an access profile,
    /// for --profile, `fim layer IMAGE profile set` and `fim archive create --order`.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Brings in early what this access profile names [default: the profile stored in IMAGE, if it has one].
    #[arg(long, value_name = "FILE")]
    profile: Option<PathBuf>,
    /// Names that differ in case alone are one name, below SUBTREE (`--casefold=/games`) or everywhere; may be repeated
    /// [default: as IMAGE has it stored].
    #[arg(
        long,
        value_name = "SUBTREE",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "/"
    )]
    casefold: Vec<String>,
    /// Which names are one: unicode (full folding, accents in either form), windows (as NTFS) or ascii.
    #[arg(long, value_name = "MODE", requires = "casefold", value_parser = CasefoldMode::parse)]
    casefold_mode: Option<CasefoldMode>,
    /// Stay in the foreground until it is unmounted.
    #[arg(short, long)]
    foreground: bool,
    /// Say what was mounted.
    #[arg(long)]
    json: bool,
    /// `allow_other`, dev, suid, `fsname=NAME`, write-through, announce-opens, noacl,
    /// `threads=N`, `cache=SIZE`; several with commas.
    #[arg(short, value_name = "OPTION", value_delimiter = ',')]
    options: Vec<MountOption>,
    /// Run this command in a private namespace with the mount at DIR, and end with its exit status.
    #[arg(last = true, value_name = "CMD", conflicts_with = "foreground")]
    command: Vec<OsString>,
}

/// A word behind `-o`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum MountOption {
    AllowOther,
    Devices,
    SetId,
    Source(OsString),
    WriteThrough,
    AnnounceOpens,
    NoLists,
    Threads(NonZeroUsize),
    Cache(usize),
    #[cfg(feature = "libdwarfs")]
    Libdwarfs,
}

impl FromStr for MountOption {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        Ok(match word.split_once('=') {
            None => match word {
                "allow_other" => Self::AllowOther,
                "dev" => Self::Devices,
                "suid" => Self::SetId,
                "write-through" => Self::WriteThrough,
                "announce-opens" => Self::AnnounceOpens,
                "noacl" => Self::NoLists,
                _ => return Err("no such option".to_owned()),
            },
            Some(("fsname", name)) => Self::Source(name.into()),
            #[cfg(feature = "libdwarfs")]
            Some(("reader", "libdwarfs")) => Self::Libdwarfs,
            Some(("threads", count)) => Self::Threads(count.parse().map_err(|_| "not a number of threads")?),
            Some(("cache", size)) => Self::Cache(
                host::parse_size(size.as_bytes())
                    .and_then(|size| usize::try_from(size).ok())
                    .ok_or("not a size such as 512M or 2G")?,
            ),
            Some(_) => return Err("no such option".to_owned()),
        })
    }
}

/// Carries the command out.
///
/// # Errors
///
/// A [`Failure`] says what could not be mounted, on what, and the cure.
pub fn run(args: MountArgs) -> Outcome {
    let json = args.json;
    let choices = Choices::read()?;
    let plan = plan(args, effective_ids().0, &choices)?;
    match mount::run(&plan, |report| tell(report, json)) {
        Ok(status) => Ok(ExitCode::from(status)),
        Err(error) => match (error.command_status(), error.cure()) {
            (Some(status), _) => {
                complain(&Failure::from(error));
                Ok(ExitCode::from(status))
            }
            (None, Some(cure)) => Err(Failure::from(error).cure(cure)),
            (None, None) => Err(error.into()),
        },
    }
}

/// What the arguments mean for a user; paths are made absolute, nothing is changed.
pub(super) fn plan(args: MountArgs, uid: u32, choices: &Choices) -> Result<MountPlan, Failure> {
    let mut places = args.places;
    let target = places.pop().ok_or_else(|| Failure::new("no directory to mount on"))?;
    let target = existing(&target)?;
    if args.overlay == Some(OverlayKind::Kernel) {
        // One mount over the other at a place that everybody sees: neither umount(8) nor who looks would know which is which.
        return Err(Failure::new("cannot mount with kernel overlayfs: that is for running images")
            .cure("mount the layers without --upper, and kernel overlayfs over DIR with mount -t overlay"));
    }
    let image = places.pop().map(|image| existing(&image)).transpose()?;
    let upper = upper(args.upper.as_deref(), args.work.as_deref(), image.as_deref(), args.rw)?;

    let mut layers: Vec<LayerSource> = image.iter().cloned().map(LayerSource::Path).collect();
    for layer in &args.layers {
        layers.push(LayerSource::Path(existing(layer)?));
    }
    let upper = match upper {
        Some(shown) if args.ro => {
            layers.push(LayerSource::Path(shown.root));
            None
        }
        upper => upper,
    };
    if layers.is_empty() && upper.is_none() {
        return Err(Failure::new("nothing to mount").cure("give an IMAGE, --layer or --upper"));
    }
    let profile = match args.profile {
        Some(file) => Some(ProfileSource::File(existing(&file)?)),
        None => image.clone().map(ProfileSource::Image),
    };
    let stored = image.as_deref().map(stored_casefold).unwrap_or_default();
    let casefold = casefold(&args.casefold, args.casefold_mode, choices, &stored)?;
    let record = args.record.as_deref().map(absolute).transpose()?;
    let private = !args.command.is_empty();
    let mut plan = MountPlan {
        target,
        source: image.map_or_else(|| OsString::from("fim"), PathBuf::into_os_string),
        stack: StackPlan {
            layers,
            upper,
            profile,
            record,
            cache: CachePlan::of(choices),
            casefold,
            ..StackPlan::default()
        },
        way: if private { Way::Direct } else { Way::of_user(uid) },
        visitors: if private || uid == 0 { Visitors::All } else { Visitors::Owner },
        devices: false,
        set_id: false,
        session: session(choices),
        life: match (private, args.foreground) {
            (true, _) => Life::Command(args.command),
            (false, true) => Life::Foreground,
            (false, false) => Life::Background,
        },
    };
    for option in args.options {
        apply(&mut plan, option);
    }
    Ok(plan)
}

/// Which names are one in an image, as its settings have it; none in an archive.
fn stored_casefold(image: &Path) -> Casefold {
    // What is wrong with an image is told by whoever opens its layers.
    ImageFile::open(image).map(|image| image.settings().casefold.clone()).unwrap_or_default()
}

/// Which names are one: as asked for here, else as the environment has it, else as `stored`.
fn casefold(
    subtrees: &[String],
    mode: Option<CasefoldMode>,
    choices: &Choices,
    stored: &Casefold,
) -> Result<Casefold, ConfigError> {
    match (subtrees, choices.casefold) {
        ([], choice) => Ok(choice.map_or_else(|| stored.clone(), |choice| choice.over(stored))),
        (subtrees, Some(CasefoldChoice::On(chosen))) => Casefold::new(mode.unwrap_or(chosen), subtrees),
        (subtrees, _) => Casefold::new(mode.unwrap_or_default(), subtrees),
    }
}

/// How the environment wants it to be served.
fn session(choices: &Choices) -> SessionOptions {
    let mut session = SessionOptions::default();
    session.threads = choices.threads.unwrap_or(session.threads);
    session
}

/// Changes a plan as a word behind `-o` says.
pub(super) fn apply(plan: &mut MountPlan, option: MountOption) {
    match option {
        MountOption::AllowOther => plan.visitors = Visitors::All,
        MountOption::Devices => plan.devices = true,
        MountOption::SetId => plan.set_id = true,
        MountOption::Source(name) => plan.source = name,
        MountOption::WriteThrough => plan.session.write_cache = WriteCache::Through,
        MountOption::NoLists => plan.session.lists = Lists::Ignored,
        MountOption::AnnounceOpens => plan.session.opens = Opens::Announced,
        MountOption::Threads(threads) => {
            plan.session.threads = threads;
            plan.stack.cache.threads = Some(threads);
        }
        MountOption::Cache(max_bytes) => plan.stack.cache.max_bytes = Some(max_bytes),
        #[cfg(feature = "libdwarfs")]
        MountOption::Libdwarfs => plan.stack.reader = Reader::Libdwarfs,
    }
}

/// The upper directory with its scratch space: as given, or that of the image where it is to be writable.
fn upper(
    given: Option<&Path>,
    work: Option<&Path>,
    image: Option<&Path>,
    writable: bool,
) -> Result<Option<UpperPlan>, Failure> {
    if let Some(root) = given {
        return upper_plan(root, work).map(Some);
    }
    match (writable, image) {
        (false, _) => Ok(None),
        (true, Some(image)) => {
            let data = hidden_beside(image, "data")?;
            Ok(Some(UpperPlan { root: data.join("root"), work: data.join("work") }))
        }
        (true, None) => {
            Err(Failure::new("cannot mount writable without an upper directory").cure("give --upper DIR"))
        }
    }
}

/// An upper directory that was named, with its scratch space.
pub(super) fn upper_plan(root: &Path, work: Option<&Path>) -> Result<UpperPlan, Failure> {
    let root = existing(root)?;
    let work = match work {
        Some(work) => absolute(work)?,
        None => hidden_beside(&root, "work")?,
    };
    Ok(UpperPlan { root, work })
}

/// `.NAME.suffix` beside `path`.
fn hidden_beside(path: &Path, suffix: &str) -> Result<PathBuf, Failure> {
    let name = path.file_name().ok_or_else(|| {
        Failure::new(format!("{} has no place beside it", path.display())).cure("give --work DIR")
    })?;
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(OsStr::new("."));
    hidden.push(suffix);
    Ok(path.with_file_name(hidden))
}

pub(super) fn existing(path: &Path) -> Result<PathBuf, Failure> {
    fs::canonicalize(path).map_err(|error| Failure::new(format!("cannot find {}: {error}", path.display())))
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path)
        .map_err(|error| Failure::new(format!("cannot find {}: {error}", path.display())))
}

#[expect(clippy::print_stdout, reason = "the answer of the command")]
fn tell(report: &Report, json: bool) {
    if json && let Ok(text) = serde_json::to_string(report) {
        println!("{text}");
    }
}

#[expect(clippy::print_stderr, reason = "the command's own status leaves no other way to say why")]
fn complain(failure: &Failure) {
    eprintln!("fim: {failure}");
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Tool {
        #[command(flatten)]
        mount: MountArgs,
    }

    #[test]
    fn kernel_overlayfs_is_for_images() {
        let dir = env!("CARGO_MANIFEST_DIR");
        let words = |kind| ["--overlay", kind, "--upper", dir, dir];
        for kind in ["fuse", "AUTO"] {
            assert!(planned(&words(kind), 0).expect("the engine does it").stack.upper.is_some());
        }
        let refused = planned(&words("kernel"), 0).expect_err("not here").to_string();
        assert!(refused.contains("for running images") && refused.contains("mount -t overlay"), "{refused}");
    }

    fn planned(words: &[&str], uid: u32) -> Result<MountPlan, Failure> {
        let words = std::iter::once("mount").chain(words.iter().copied());
        let choices = Choices::of(&BTreeMap::new()).expect("no variable is set");
        let args = Tool::try_parse_from(words).map_err(|error| Failure::new(error.to_string()))?;
        plan(args.mount, uid, &choices)
    }

    fn path(text: &str) -> LayerSource {
        LayerSource::Path(text.into())
    }

    #[test]
    fn layers_lie_in_the_order_given() {
        let plan = planned(&["--layer", "/usr", "--layer", "/proc/..", "/etc", "/tmp"], 0).expect("a plan");
        assert_eq!(plan.stack.layers, [path("/etc"), path("/usr"), path("/")]);
        assert_eq!((plan.target.as_path(), plan.source.as_os_str()), (Path::new("/tmp"), OsStr::new("/etc")));
        assert_eq!((plan.stack.upper, plan.way, plan.life), (None, Way::Direct, Life::Background));
        assert_eq!(plan.visitors, Visitors::All);
    }

    #[test]
    fn a_user_goes_through_the_helper_unless_the_mount_is_private() {
        let plan = planned(&["/usr", "/tmp"], 1000).expect("a plan");
        assert_eq!((plan.way, plan.visitors), (Way::Helper, Visitors::Owner));
        let plan = planned(&["/usr", "/tmp", "--", "ls", "-l"], 1000).expect("a plan");
        assert_eq!((plan.way, plan.visitors), (Way::Direct, Visitors::All));
        assert_eq!(plan.life, Life::Command(vec!["ls".into(), "-l".into()]));
    }

    #[test]
    fn the_upper_directory_has_its_scratch_space_beside_it() {
        let plan = planned(&["--layer", "/usr", "--upper", "/var/lib", "/tmp"], 0).expect("a plan");
        let upper = UpperPlan { root: "/var/lib".into(), work: "/var/.lib.work".into() };
        assert_eq!(plan.stack.upper, Some(upper));
        let plan = planned(&["--rw", "/usr/bin", "/tmp"], 0).expect("a plan");
        let upper = UpperPlan { root: "/usr/.bin.data/root".into(), work: "/usr/.bin.data/work".into() };
        assert_eq!(plan.stack.upper, Some(upper));
        let plan = planned(&["--ro", "--upper", "/var/lib", "/usr", "/tmp"], 0).expect("a plan");
        assert_eq!(
            plan.stack,
            StackPlan {
                layers: vec![path("/usr"), path("/var/lib")],
                profile: Some(ProfileSource::Image("/usr".into())),
                ..StackPlan::default()
            }
        );
    }

    #[test]
    fn profiles_are_those_of_the_image_unless_one_is_named() {
        let plan = planned(&["/usr", "/tmp"], 0).expect("a plan");
        assert_eq!(plan.stack.profile, Some(ProfileSource::Image("/usr".into())));
        assert_eq!(plan.stack.record, None);
        let words = ["--profile", "/etc/passwd", "--record", "/tmp/x/../y", "--layer", "/usr", "/tmp"];
        let plan = planned(&words, 0).expect("a plan");
        assert_eq!(plan.stack.profile, Some(ProfileSource::File("/etc/passwd".into())));
        assert_eq!(plan.stack.record, Some("/tmp/x/../y".into()));
        assert_eq!(planned(&["--layer", "/usr", "/tmp"], 0).expect("a plan").stack.profile, None);
        assert!(planned(&["--profile", "/no/such/file", "/usr", "/tmp"], 0).is_err());
    }

    #[test]
    fn names_fold_where_it_is_asked_for() {
        for (words, expected) in [
            (&["/usr", "/tmp"][..], "off"),
            (&["--casefold", "/usr", "/tmp"], "unicode"),
            (
                &["--casefold=/b", "--casefold=/a/", "--casefold-mode", "Windows", "/usr", "/tmp"],
                "windows /a /b",
            ),
        ] {
            let plan = planned(words, 0).expect("a plan");
            assert_eq!(plan.stack.casefold.to_string(), expected, "{words:?}");
        }
        assert!(planned(&["--casefold=relative", "/usr", "/tmp"], 0).is_err());
        assert!(planned(&["--casefold", "--casefold-mode", "latin", "/usr", "/tmp"], 0).is_err());
    }

    #[test]
    fn options_change_the_plan() {
        let words = [
            "-o",
            "dev,suid,fsname=name,write-through",
            "-o",
            "announce-opens,threads=3,cache=2M",
            "/usr",
            "/tmp",
        ];
        let plan = planned(&words, 0).expect("a plan");
        assert!(plan.devices && plan.set_id);
        assert_eq!(plan.source, "name");
        assert_eq!(plan.session.write_cache, WriteCache::Through);
        assert_eq!(plan.session.opens, Opens::Announced);
        assert_eq!(plan.session.threads.get(), 3);
        assert_eq!(plan.stack.cache, CachePlan { max_bytes: Some(2 << 20), threads: NonZeroUsize::new(3) });
        assert!(planned(&["-o", "cache=much", "/usr", "/tmp"], 0).is_err());
        assert!(planned(&["-o", "nonsense", "/usr", "/tmp"], 0).is_err());
        let other_reader = planned(&["-o", "reader=libdwarfs", "/usr", "/tmp"], 0);
        assert_eq!(other_reader.is_ok(), cfg!(feature = "libdwarfs"), "an option of the feature");
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_a_cure() {
        let failure = planned(&["/tmp"], 0).expect_err("nothing to mount");
        assert_eq!(failure.to_string(), "nothing to mount (give an IMAGE, --layer or --upper)");
        assert!(planned(&["--rw", "/tmp"], 0).is_err());
        assert!(planned(&["--rw", "--ro", "/usr", "/tmp"], 0).is_err());
        assert!(planned(&["/usr", "/no/such/place"], 0).is_err());
    }
}
