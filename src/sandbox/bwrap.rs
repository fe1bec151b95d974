//! Which bubblewrap, and whether it works here.
//!
//! `FIM_BWRAP`, else the one that the image carries, else the one on PATH. A version and a trial decide; the verdict of
//! a trial is remembered for this boot, so that only the first start pays for it.

use std::{
    ffi::{OsStr, OsString},
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::SandboxError;

/// The oldest version with every option that is used (`--perms`).
const OLDEST: (u32, u32) = (0, 5);

/// A bubblewrap: its program, and arguments that come before all others (a loader's, for the embedded one).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bwrap {
    program: PathBuf,
    first: Vec<OsString>,
}

impl Bwrap {
    /// A program that is started as it is.
    #[must_use]
    pub const fn at(program: PathBuf) -> Self {
        Self { program, first: Vec::new() }
    }

    /// A program that is started through `first`, for instance by a loader with its options and the real program.
    #[must_use]
    pub const fn through(program: PathBuf, first: Vec<OsString>) -> Self {
        Self { program, first }
    }

    /// Chooses: the one that the user named, the embedded one, the first on `path`.
    ///
    /// # Errors
    ///
    /// [`SandboxError::NoBwrap`].
    pub fn choose(
        asked: Option<&Path>,
        embedded: Option<Self>,
        path: Option<&OsStr>,
    ) -> Result<Self, SandboxError> {
        if let Some(asked) = asked {
            return Ok(Self::at(asked.to_owned()));
        }
        embedded.or_else(|| on_path(path?)).ok_or(SandboxError::NoBwrap)
    }

    /// The program.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// The arguments that come before all others.
    #[must_use]
    pub fn first(&self) -> &[OsString] {
        &self.first
    }

    /// Tries it, unless the trial of this very file has passed in this boot already; `notes` is a directory of ours.
    ///
    /// # Errors
    ///
    /// [`SandboxError::BwrapBroken`] with the cause.
    pub fn check(&self, notes: &Path) -> Result<(), SandboxError> {
        let note = notes.join("bwrap.works");
        let passed = self.identity().map_err(|error| self.broken(error.to_string()))?;
        if fs::read_to_string(&note).is_ok_and(|noted| noted == passed) {
            return Ok(());
        }
        self.check_version()?;
        self.trial()?;
        // Not noted, the next start tries again.
        let _ = fs::write(&note, passed);
        Ok(())
    }

    /// What the verdict depends on.
    fn identity(&self) -> std::io::Result<String> {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let mut identity = format!("{}\n", boot.trim());
        for file in
            std::iter::once(self.program.as_os_str()).chain(self.first.iter().map(OsString::as_os_str))
        {
            if let Ok(status) = fs::metadata(file) {
                let (inode, size, changed) = (status.ino(), status.size(), status.mtime());
                identity.push_str(&format!("{} {inode} {size} {changed}\n", file.to_string_lossy()));
            }
        }
        fs::metadata(&self.program)?;
        Ok(identity)
    }

    fn check_version(&self) -> Result<(), SandboxError> {
        let said = self.said(&["--version"])?;
        let version = parse_version(&said)
            .ok_or_else(|| self.broken(format!("its version is not understood: {}", said.trim())))?;
        if version < OLDEST {
            let (major, minor) = OLDEST;
            return Err(self.broken(format!("it is too old ({}), {major}.{minor} is needed", said.trim())));
        }
        Ok(())
    }

    /// Makes a sandbox over the host's root, in which it prints its version.
    fn trial(&self) -> Result<(), SandboxError> {
        let mut arguments: Vec<&OsStr> =
            ["--unshare-pid", "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "--"]
                .map(OsStr::new)
                .into();
        arguments.push(self.program.as_os_str());
        arguments.extend(self.first.iter().map(OsString::as_os_str));
        arguments.push(OsStr::new("--version"));
        self.said(&arguments).map(drop)
    }

    /// Runs it and returns what it said on stdout.
    fn said<T: AsRef<OsStr>>(&self, arguments: &[T]) -> Result<String, SandboxError> {
        let output = Command::new(&self.program)
            .args(&self.first)
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .map_err(|error| self.broken(error.to_string()))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.lines().next().unwrap_or_default().trim_start_matches("bwrap: ").to_owned();
        let said = if said.is_empty() { format!("it ended with {}", output.status) } else { said };
        Err(self.broken(with_hint(said)))
    }

    fn broken(&self, cause: String) -> SandboxError {
        SandboxError::BwrapBroken { path: self.program.clone(), cause }
    }
}

/// Adds what in the system's settings is known to stop bubblewrap.
pub(super) fn with_hint(said: String) -> String {
    let refused = |file: &str, value: &str| fs::read_to_string(file).is_ok_and(|text| text.trim() == value);
    for (file, value, cure) in [
        ("/proc/sys/user/max_user_namespaces", "0", "sysctl user.max_user_namespaces=10000"),
        ("/proc/sys/kernel/unprivileged_userns_clone", "0", "sysctl kernel.unprivileged_userns_clone=1"),
        (
            "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "sysctl kernel.apparmor_restrict_unprivileged_userns=0, or an AppArmor profile for it",
        ),
    ] {
        if refused(file, value) {
            return format!("{said}; user namespaces are restricted ({file} is {value}; as root: {cure})");
        }
    }
    said
}

fn on_path(path: &OsStr) -> Option<Bwrap> {
    std::env::split_paths(path)
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join("bwrap"))
        .find(|program| {
            fs::metadata(program).is_ok_and(|status| status.is_file() && status.mode() & 0o111 != 0)
        })
        .map(Bwrap::at)
}

/// `bubblewrap 0.8.0` → (0, 8).
fn parse_version(said: &str) -> Option<(u32, u32)> {
    let mut numbers = said.trim().strip_prefix("bubblewrap ")?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn script(folder: &Path, text: &str) -> Bwrap {
        let path = folder.join("bwrap");
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        Bwrap::at(path)
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        assert_eq!(parse_version("bubblewrap 0.11.0\n"), Some((0, 11)));
        assert_eq!(parse_version("bwrap 1"), None);
        assert!(parse_version("bubblewrap 0.10.0").unwrap() > OLDEST);
    }

    #[test]
    fn the_named_one_wins_then_the_embedded_one_then_path() {
        let folder = tempfile::tempdir().unwrap();
        let on_path = script(folder.path(), "exit 0");
        let embedded = Bwrap::at("/embedded".into());
        let path = Some(folder.path().as_os_str());
        let named = Bwrap::choose(Some(Path::new("/named")), Some(embedded.clone()), path).unwrap();
        assert_eq!(named.program(), Path::new("/named"));
        assert_eq!(Bwrap::choose(None, Some(embedded.clone()), path).unwrap(), embedded);
        assert_eq!(Bwrap::choose(None, None, path).unwrap(), on_path);
        assert!(matches!(Bwrap::choose(None, None, Some("".as_ref())), Err(SandboxError::NoBwrap)));
    }

    #[test]
    fn a_broken_one_is_named_with_its_cause() {
        let folder = tempfile::tempdir().unwrap();
        let old = script(folder.path(), "echo bubblewrap 0.4.1");
        assert!(old.check(folder.path()).unwrap_err().to_string().contains("too old"));
        let failing = script(folder.path(), "echo 'bwrap: No permissions' >&2; exit 1");
        let error = failing.check(folder.path()).unwrap_err().to_string();
        assert!(error.contains(": No permissions"), "{error}");
        let missing = Bwrap::at(folder.path().join("none")).check(folder.path()).unwrap_err();
        assert!(missing.to_string().contains("none"));
    }

    #[test]
    fn a_verdict_is_remembered_for_the_same_file() {
        let folder = tempfile::tempdir().unwrap();
        let count = folder.path().join("count");
        let text = format!("echo x >> {}; echo bubblewrap 0.8.0", count.display());
        let bwrap = script(folder.path(), &text);
        bwrap.check(folder.path()).unwrap();
        let tried = fs::read_to_string(&count).unwrap();
        bwrap.check(folder.path()).unwrap();
        assert_eq!(fs::read_to_string(&count).unwrap(), tried);
        script(folder.path(), &format!("{text} # another"));
        bwrap.check(folder.path()).unwrap();
        assert_ne!(fs::read_to_string(&count).unwrap(), tried);
    }
}
