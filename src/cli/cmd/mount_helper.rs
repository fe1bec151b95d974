//! `mount.fuse.fim`: what mount(8) calls for the type `fuse.fim`, so that mounts can stand in fstab(5).
//!
//! ```text
//! mount.fuse.fim SOURCE DIR [-sfnv] [-o OPTION[,OPTION]...] [-t fuse.fim]
//! ```
//!
//! With `lowerdir` (the highest layer first, `\:` for a colon in a name) or `upperdir` the source is the name that the
//! table of mounts shows; without them it is what is mounted. Layers are archives, images and directories.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use super::mount::{MountArgs, MountOption, apply, plan};
use crate::{
    cli::{Failure, Outcome},
    runtime::{
        host::Choices,
        mount::{self, MountPlan},
    },
    sys::{
        mount::{Unmount, unmount},
        mount_flags::{MountFlags, remount},
        users::effective_ids,
    },
};

/// Names by which the program takes this role.
const NAMES: [&str; 2] = ["mount.fuse.fim", "mount.fim"];

/// What a helper of mount(8) exits with: the call cannot be understood.
const MISUSED: u8 = 1;
/// The mount failed.
const FAILED: u8 = 32;

/// Options of mount(8) and fstab(5) that mean nothing to who mounts, and those that hold for every mount of ours.
const WITHOUT_MEANING: [&str; 10] = [
    "auto",
    "noauto",
    "nofail",
    "_netdev",
    "user",
    "users",
    "nouser",
    "group",
    "owner",
    "default_permissions",
];

/// What the table of mounts shows of every FUSE mount, and mount(8) repeats when it remounts.
const SHOWN: [&[u8]; 5] = [b"user_id", b"group_id", b"max_read", b"blksize", b"subtype"];

/// Whether the program was called as a helper of mount(8).
#[must_use]
pub fn is_called(name: &OsStr) -> bool {
    NAMES.iter().any(|known| name == *known)
}

/// Carries the call out; `arguments` begin with the program's name.
///
/// # Errors
///
/// None: mount(8) reads the exit status, and who called it the line that says why.
pub fn run(arguments: &[OsString]) -> Outcome {
    let failed = |status: u8| {
        move |failure: Failure| {
            complain(&failure);
            ExitCode::from(status)
        }
    };
    let call = match Call::parse(arguments) {
        Ok(call) => call,
        Err(failure) => return Ok(failed(MISUSED)(failure)),
    };
    Ok(carry_out(call).map_or_else(failed(FAILED), |()| ExitCode::SUCCESS))
}

fn carry_out(call: Call) -> Result<(), Failure> {
    let flags = call.flags;
    if call.remount {
        return remount(&call.target, flags).map_err(|errno| cannot("remount", &call.target, errno));
    }
    let fake = call.fake;
    let plan = call.plan(effective_ids().0, &Choices::read()?)?;
    if fake {
        return Ok(());
    }
    let mut restricted = Ok(());
    mount::run(&plan, |_| {
        if flags.says_more() {
            restricted = remount(&plan.target, flags);
        }
    })
    .map_err(|error| {
        let cure = error.cure();
        let failure = Failure::from(error);
        match cure {
            Some(cure) => failure.cure(cure),
            None => failure,
        }
    })?;
    restricted.map_err(|errno| {
        // A mount that permits more than was asked for must not stay.
        let _ = unmount(&plan.target, Unmount::Lazy);
        cannot("set the options of", &plan.target, errno)
    })
}

fn cannot(do_what: &str, target: &Path, errno: crate::sys::errno::Errno) -> Failure {
    Failure::new(format!("cannot {do_what} {}: {}", target.display(), errno.desc()))
}

/// A call, understood.
#[derive(Debug, Default)]
struct Call {
    source: OsString,
    target: PathBuf,
    /// The highest first.
    layers: Vec<PathBuf>,
    upper: Option<PathBuf>,
    work: Option<PathBuf>,
    flags: MountFlags,
    /// Words of `fim mount -o`.
    options: Vec<MountOption>,
    remount: bool,
    /// Everything but the mount itself.
    fake: bool,
    /// Unknown options are not an error.
    sloppy: bool,
}

impl Call {
    fn parse(arguments: &[OsString]) -> Result<Self, Failure> {
        let mut call = Self::default();
        let mut places = Vec::new();
        let mut options = Vec::new();
        let mut words = arguments.iter().skip(1);
        while let Some(word) = words.next() {
            let mut value =
                || words.next().ok_or_else(|| Failure::new(format!("no value behind {}", word.display())));
            match word.as_bytes() {
                b"-o" => options.push(value()?.clone()),
                b"-t" | b"-N" => drop(value()?),
                [b'-', flags @ ..] if !flags.is_empty() => {
                    for flag in flags {
                        match flag {
                            b's' => call.sloppy = true,
                            b'f' => call.fake = true,
                            b'n' | b'v' => {}
                            _ => return Err(Failure::new(format!("no such option: {}", word.display()))),
                        }
                    }
                }
                _ => places.push(word),
            }
        }
        let [source, target] = places.as_slice() else {
            return Err(Failure::new("usage: mount.fuse.fim SOURCE DIR [-o OPTIONS]"));
        };
        (call.source, call.target) = ((*source).clone(), target.into());
        for option in options.iter().flat_map(|words| split(words.as_bytes(), b',')) {
            call.take(&option)?;
        }
        Ok(call)
    }

    fn take(&mut self, option: &[u8]) -> Result<(), Failure> {
        let path = |bytes: &[u8]| PathBuf::from(OsStr::from_bytes(bytes));
        let word = String::from_utf8_lossy(option);
        let mut halves = option.splitn(2, |byte| *byte == b'=');
        match (halves.next().unwrap_or_default(), halves.next()) {
            (b"lowerdir", Some(paths)) => {
                self.layers = split(paths, b':').iter().map(|bytes| path(&unescape(bytes))).collect();
            }
            (b"lowerdir+", Some(one)) => self.layers.push(path(one)),
            (b"upperdir", Some(dir)) => self.upper = Some(path(&unescape(dir))),
            (b"workdir", Some(dir)) => self.work = Some(path(&unescape(dir))),
            (b"remount", None) => self.remount = true,
            (b"", None) => {}
            (name, _) if name.starts_with(b"x-") || name == b"comment" => {}
            (name, Some(_)) if SHOWN.contains(&name) => {}
            (_, None) if WITHOUT_MEANING.contains(&word.as_ref()) => {}
            _ => match (self.flags.with(&word), word.parse()) {
                (Some(flags), _) => self.flags = flags,
                (None, Ok(option)) => self.options.push(option),
                (None, Err(_)) if self.sloppy => {}
                (None, Err(error)) => return Err(Failure::new(format!("{word}: {error}"))),
            },
        }
        Ok(())
    }

    fn plan(self, uid: u32, choices: &Choices) -> Result<MountPlan, Failure> {
        let is_name = !self.layers.is_empty() || self.upper.is_some();
        let mut places: Vec<PathBuf> = (!is_name).then(|| self.source.clone().into()).into_iter().collect();
        places.push(self.target);
        let direct = uid == 0;
        if !direct && self.flags.says_more() && !self.flags.read_only() {
            return Err(Failure::new("only root can mount with these options"));
        }
        let mut args = MountArgs::default();
        (args.places, args.upper, args.work) = (places, self.upper, self.work);
        args.layers = self.layers.into_iter().rev().collect();
        // Root makes the mount read-only, so that it can be made writable later.
        args.ro = !direct && self.flags.read_only();
        let mut plan = plan(args, uid, choices)?;
        plan.source = self.source;
        (plan.devices, plan.set_id) = (self.flags.devices(), self.flags.set_id());
        for option in self.options {
            apply(&mut plan, option);
        }
        Ok(plan)
    }
}

/// The parts between separators that no backslash stands before; backslashes stay.
fn split(text: &[u8], separator: u8) -> Vec<Vec<u8>> {
    let mut parts = vec![Vec::new()];
    let mut escaped = false;
    for byte in text {
        if *byte == separator && !escaped {
            parts.push(Vec::new());
            continue;
        }
        escaped = *byte == b'\\' && !escaped;
        if let Some(part) = parts.last_mut() {
            part.push(*byte);
        }
    }
    parts
}

/// Without the backslashes that protect the byte behind them.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.iter();
    while let Some(byte) = rest.next() {
        bytes.push(if *byte == b'\\' { *rest.next().unwrap_or(byte) } else { *byte });
    }
    OsString::from_vec(bytes).into_vec()
}

#[expect(clippy::print_stderr, reason = "mount(8) shows what its helper says")]
fn complain(failure: &Failure) {
    eprintln!("mount.fuse.fim: {failure}");
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::runtime::stack::{LayerSource, UpperPlan};

    fn call(words: &[&str]) -> Result<Call, Failure> {
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        Call::parse(&words)
    }

    fn planned(words: &[&str], uid: u32) -> MountPlan {
        let choices = Choices::of(&BTreeMap::new()).expect("no variable is set");
        call(words).and_then(|call| call.plan(uid, &choices)).expect("a plan")
    }

    #[test]
    fn a_stack_of_directories_is_mounted_under_a_name() {
        let options = "rw,lowerdir=/usr:/etc,upperdir=/var/lib,workdir=/var/lib/../work,nosuid,threads=3";
        let plan = planned(&["mount.fuse.fim", "name", "/tmp", "-o", options, "-t", "fuse.fim"], 0);
        let layers = ["/etc", "/usr"].map(|path| LayerSource::Path(path.into()));
        assert_eq!(
            (plan.stack.layers.as_slice(), plan.source.as_os_str()),
            (&layers[..], OsStr::new("name"))
        );
        let upper = UpperPlan { root: "/var/lib".into(), work: "/var/lib/../work".into() };
        assert_eq!(plan.stack.upper, Some(upper));
        assert!(plan.devices && !plan.set_id);
        assert_eq!(plan.session.threads.get(), 3);
    }

    #[test]
    fn without_layers_the_source_is_what_is_mounted() {
        let plan =
            planned(&["mount.fim", "/usr", "/tmp", "-sn", "-o", "_netdev,x-systemd.automount,nodev,odd"], 0);
        assert_eq!(plan.stack.layers, [LayerSource::Path("/usr".into())]);
        assert_eq!((plan.source.as_os_str(), plan.stack.upper), (OsStr::new("/usr"), None));
        assert!(!plan.devices && plan.set_id);
    }

    #[test]
    fn who_is_not_root_mounts_read_only_at_once() {
        let words = ["mount.fim", "x", "/tmp", "-o", "ro,nosuid,nodev,lowerdir=/usr,upperdir=/var/lib"];
        let plan = planned(&words, 1000);
        assert_eq!((plan.stack.upper, plan.stack.layers.len()), (None, 2));
        let words = ["mount.fim", "x", "/tmp", "-o", "noexec,lowerdir=/usr"];
        assert!(call(&words).unwrap().plan(1000, &Choices::of(&BTreeMap::new()).unwrap()).is_err());
    }

    #[test]
    fn backslashes_protect_colons_and_commas() {
        let layers = call(&["m", "x", "/", "-o", r"lowerdir=/a\:b:/c\,d:/e\\f"]).unwrap().layers;
        assert_eq!(layers, ["/a:b", "/c,d", r"/e\f"].map(PathBuf::from));
    }

    #[test]
    fn what_cannot_be_understood_is_refused() {
        for words in [&["m", "x"][..], &["m", "x", "/", "y"], &["m", "x", "/", "-o"], &["m", "x", "/", "-q"]]
        {
            assert!(call(words).is_err(), "{words:?}");
        }
        assert!(call(&["m", "x", "/", "-o", "odd"]).is_err());
        assert!(call(&["m", "x", "/", "-o", "remount,ro,user_id=0,allow_other"]).unwrap().remount);
    }
}
