//! Mount points in the merged root, made by the engine before bubblewrap looks at them.
//!
//! bubblewrap would make them by path and follow an image's symlink (`/etc/resolv.conf` to `/run/...`) as the host sees
//! it. Here every path is resolved inside the merged root and handed on without symlinks.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    SandboxError,
    plan::{Access, Cause, Known, Missing, Mount, Plan, What},
};
use crate::{
    instance::accounts::{self, ACCOUNTS_LIMIT},
    sys::in_root::{Kind, RootDir},
};

/// Where the users and groups of a root are.
const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";

/// Makes the mount points of `plan` in `root`, writes its paths anew where symlinks lead elsewhere, and adds the
/// caller's account where the root does not know it; `instance` is where generated files are kept.
///
/// # Errors
///
/// [`SandboxError::MountPoint`].
pub(super) fn prepare(plan: &mut Plan, root: &RootDir, instance: &Path) -> Result<(), SandboxError> {
    if let Some(known) = plan.known_user.clone() {
        plan.mounts.extend(account_mounts(&known, root, instance));
    }
    let mut covered: Vec<Cover> = Vec::new();
    let mut made = Vec::with_capacity(plan.mounts.len());
    for mut mount in std::mem::take(&mut plan.mounts) {
        let Some((kind, mode)) = kind_of(&mount.what)? else {
            // Sealed, or left out: for what is sealed the mount point is there.
            if mount.what == What::Seal
                && let Some(cover) = find(&covered, &mount.to).filter(|cover| cover.asked == mount.to)
            {
                mount.to.clone_from(&cover.real);
                made.push(mount);
            }
            continue;
        };
        let place = place(root, &covered, &mount.to, kind, mode);
        match place {
            Ok(real) => {
                if kind == Kind::Directory && mount.what != What::Directory {
                    covered.push(Cover::new(&mount, real.clone()));
                }
                mount.to = real;
                made.push(mount);
            }
            Err(error) if is_optional(&mount.what) => {
                tracing::warn!(%error, path = %mount.to.display(), "left out: no mount point");
            }
            Err(source) => return Err(SandboxError::MountPoint { path: mount.to, source }),
        }
    }
    plan.mounts = made;
    make_home(plan, root, &covered);
    Ok(())
}

/// A directory that a mount has covered: what lies in it is no longer the root's.
struct Cover {
    /// Its path as the plan has it.
    asked: PathBuf,
    /// Its path without symlinks.
    real: PathBuf,
    /// The directory of the host that is shown there, and how; none for one in memory, in which bubblewrap makes what
    /// is missing.
    from: Option<(PathBuf, Access)>,
}

impl Cover {
    fn new(mount: &Mount, real: PathBuf) -> Self {
        let from = match &mount.what {
            What::Bind { from, access, .. } => Some((from.clone(), *access)),
            _ => None,
        };
        Self { asked: mount.to.clone(), real, from }
    }

    /// As [`RootDir::ensure`] in what is shown here: whoever could write there cannot lead a mount elsewhere either.
    fn ensure(&self, real: &Path, kind: Kind, mode: u32) -> io::Result<PathBuf> {
        let rest = real.strip_prefix(&self.real).unwrap_or(real);
        if rest.as_os_str().is_empty() {
            return Ok(self.real.clone());
        }
        let Some((from, access)) = &self.from else { return Ok(self.real.join(rest)) };
        let (from, path) = (RootDir::open(from)?, Path::new("/").join(rest));
        let inside = match access {
            // What may not be written to gets no new mount point either.
            Access::ReadOnly => from.find(&path, kind)?,
            Access::ReadWrite | Access::Devices => from.ensure(&path, kind, mode)?,
        };
        Ok(self.real.join(inside.strip_prefix("/").unwrap_or(&inside)))
    }
}

/// Makes a mount point where the path leads when the mounts before it have been made.
fn place(root: &RootDir, covered: &[Cover], path: &Path, kind: Kind, mode: u32) -> io::Result<PathBuf> {
    let real = match find(covered, path) {
        Some(cover) => cover.real.join(path.strip_prefix(&cover.asked).unwrap_or(path)),
        None => root.ensure(path, kind, mode)?,
    };
    // An image's symlink must not put a place over what every sandbox has, and mount points into that place then.
    if real != path && covered.iter().any(|cover| cover.asked != path && cover.real.starts_with(&real)) {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    match covered.iter().rev().find(|cover| real.starts_with(&cover.real)) {
        Some(top) => top.ensure(&real, kind, mode),
        None => Ok(real),
    }
}

/// The mount that covers a path: the last one is on top.
fn find<'a>(covered: &'a [Cover], path: &Path) -> Option<&'a Cover> {
    covered.iter().rev().find(|cover| path.starts_with(&cover.asked))
}

/// What the mount point has to be, and the mode of a new one; none where there is nothing to mount.
fn kind_of(what: &What) -> Result<Option<(Kind, u32)>, SandboxError> {
    Ok(match what {
        What::Proc | What::Dev | What::Directory => Some((Kind::Directory, 0o755)),
        What::Tmpfs { mode } => Some((Kind::Directory, *mode)),
        What::Program { .. } => Some((Kind::File, 0o555)),
        What::Seal => None,
        What::Bind { from, missing, .. } => match fs::metadata(from) {
            Ok(status) if status.is_dir() => Some((Kind::Directory, 0o755)),
            Ok(_) => Some((Kind::File, 0o644)),
            Err(_) if *missing == Missing::Skip => None,
            Err(source) => return Err(SandboxError::MountPoint { path: from.clone(), source }),
        },
    })
}

const fn is_optional(what: &What) -> bool {
    matches!(what, What::Bind { missing: Missing::Skip, .. })
}

/// A home that is missing is made; programs do without where that fails.
fn make_home(plan: &mut Plan, root: &RootDir, covered: &[Cover]) {
    if !plan.home.is_absolute() {
        return;
    }
    let made = place(root, covered, &plan.home, Kind::Directory, 0o700).map(|real| {
        let top = covered.iter().rev().find(|cover| real.starts_with(&cover.real));
        if top.is_some_and(|cover| cover.from.is_none()) {
            plan.mounts.push(Mount { what: What::Directory, to: real, cause: Cause::Accounts });
        }
    });
    if let Err(error) = made {
        tracing::warn!(%error, home = %plan.home.display(), "cannot make the home directory");
    }
}

/// Files over `/etc/passwd` and `/etc/group` where the root's own do not know the caller.
fn account_mounts(known: &Known, root: &RootDir, instance: &Path) -> Vec<Mount> {
    let Known { user, explicit } = known;
    let with = if *explicit { accounts::passwd_naming } else { accounts::passwd_with };
    let passwd = root.read(Path::new(PASSWD), ACCOUNTS_LIMIT);
    let group = root.read(Path::new(GROUP), ACCOUNTS_LIMIT);
    let files = [
        (PASSWD, "passwd", passwd.map(|file| with(&file.unwrap_or_default(), user))),
        (
            GROUP,
            "group",
            group.map(|file| accounts::group_with(&file.unwrap_or_default(), &user.name, user.gid)),
        ),
    ];
    files
        .into_iter()
        .filter_map(|(to, name, generated)| account_mount(to, name, generated, instance))
        .collect()
}

fn account_mount(
    to: &str,
    name: &str,
    generated: io::Result<Option<Vec<u8>>>,
    instance: &Path,
) -> Option<Mount> {
    let from = instance.join(name);
    match generated.and_then(|file| file.map(|file| fs::write(&from, file)).transpose()) {
        Ok(Some(())) => {
            let what = What::Bind { from, access: Access::ReadOnly, missing: Missing::Fail };
            Some(Mount { what, to: to.into(), cause: Cause::Accounts })
        }
        Ok(None) => None,
        Err(error) => {
            tracing::warn!(%error, file = to, "the caller stays unknown inside");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, os::unix::fs::symlink};

    use super::*;
    use crate::{
        instance::accounts::User,
        sandbox::{Capabilities, Identity, Program},
    };

    fn plan(mounts: Vec<(What, &str)>) -> Plan {
        Plan {
            identity: Identity::HostRoot,
            capabilities: Capabilities::None,
            namespaces: BTreeMap::new(),
            mounts: mounts
                .into_iter()
                .map(|(what, to)| Mount { what, to: to.into(), cause: Cause::Basis })
                .collect(),
            home: "/home/alice".into(),
            known_user: None,
            init: "/init".into(),
            portal: "/portal".into(),
            starts_on_host: false,
            program: Program {
                arguments: vec![],
                environment: BTreeMap::new(),
                reasons: BTreeMap::new(),
                directories: vec![],
            },
            warnings: vec![],
        }
    }

    fn bind(from: &Path, missing: Missing) -> What {
        What::Bind { from: from.into(), access: Access::ReadOnly, missing }
    }

    #[test]
    fn symlinks_of_the_image_are_resolved_inside_it() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().join("root");
        fs::create_dir_all(base.join("etc")).unwrap();
        symlink("/var/tmp", base.join("tmp")).unwrap();
        symlink("../../../run/resolv.conf", base.join("etc/resolv.conf")).unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let mut plan = plan(vec![
            (What::Tmpfs { mode: 0o1777 }, "/tmp"),
            (What::Tmpfs { mode: 0o755 }, "/tmp/fim"),
            (bind(&file, Missing::Fail), "/etc/resolv.conf"),
            (bind(Path::new("/nowhere"), Missing::Skip), "/nowhere"),
            (What::Seal, "/tmp/fim"),
        ]);
        prepare(&mut plan, &RootDir::open(&base).unwrap(), folder.path()).unwrap();
        let places: Vec<_> = plan.mounts.iter().map(|mount| mount.to.to_str().unwrap()).collect();
        assert_eq!(places, ["/var/tmp", "/var/tmp/fim", "/run/resolv.conf", "/var/tmp/fim"]);
        assert!(base.join("run/resolv.conf").is_file() && base.join("home/alice").is_dir());
        assert!(!base.join("nowhere").exists());
    }

    #[test]
    fn a_symlink_puts_nothing_over_what_every_sandbox_has() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in ["root/tmp", "given"] {
            fs::create_dir_all(path(name)).unwrap();
        }
        symlink("/tmp", path("root/media")).unwrap();
        symlink("/", path("root/mnt")).unwrap();
        symlink("/tmp/x", path("root/inside")).unwrap();
        let given = || What::Bind { from: path("given"), access: Access::ReadWrite, missing: Missing::Skip };
        let mut plan = plan(vec![
            (What::Tmpfs { mode: 0o1777 }, "/tmp"),
            (given(), "/media"),
            (given(), "/mnt"),
            (given(), "/inside"),
            (What::Tmpfs { mode: 0o755 }, "/tmp/fim"),
        ]);
        prepare(&mut plan, &RootDir::open(&path("root")).unwrap(), folder.path()).unwrap();
        let places: Vec<_> = plan.mounts.iter().map(|mount| mount.to.to_str().unwrap()).collect();
        assert_eq!(places, ["/tmp", "/tmp/x", "/tmp/fim"]);
        assert_eq!(fs::read_dir(path("given")).unwrap().count(), 0);
    }

    #[test]
    fn what_lies_in_a_place_of_the_host_is_made_where_it_may_be_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in ["root", "given/real", "outside", "file"] {
            fs::create_dir_all(path(name)).unwrap();
        }
        symlink("../outside", path("given/out")).unwrap();
        symlink("real", path("given/in")).unwrap();
        let given = |access| What::Bind { from: path("given"), access, missing: Missing::Fail };
        let inner = || bind(&path("file"), Missing::Skip);
        let mut writable = plan(vec![
            (given(Access::ReadWrite), "/given"),
            (inner(), "/given/out/made"),
            (inner(), "/given/in/made"),
        ]);
        prepare(&mut writable, &RootDir::open(&path("root")).unwrap(), folder.path()).unwrap();
        let places: Vec<_> = writable.mounts.iter().map(|mount| mount.to.to_str().unwrap()).collect();
        assert_eq!(places, ["/given", "/given/outside/made", "/given/real/made"]);
        assert_eq!(fs::read_dir(path("outside")).unwrap().count(), 0);
        let mut read_only = plan(vec![
            (given(Access::ReadOnly), "/given"),
            (inner(), "/given/new"),
            (inner(), "/given/in/made"),
        ]);
        prepare(&mut read_only, &RootDir::open(&path("root")).unwrap(), folder.path()).unwrap();
        let places: Vec<_> = read_only.mounts.iter().map(|mount| mount.to.to_str().unwrap()).collect();
        assert_eq!(places, ["/given", "/given/real/made"]);
        assert!(!path("given/new").exists());
    }

    #[test]
    fn the_caller_is_added_only_where_the_root_does_not_know_him() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().join("root");
        fs::create_dir_all(base.join("etc")).unwrap();
        fs::write(base.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\n").unwrap();
        fs::write(base.join("etc/group"), "root:x:0:\nstaff:x:50:\n").unwrap();
        let root = RootDir::open(&base).unwrap();
        let alice = User {
            name: "alice".into(),
            uid: 1000,
            gid: 50,
            home: "/home/alice".into(),
            shell: "/bin/sh".into(),
        };
        let mut with = plan(vec![]);
        with.known_user = Some(Known { user: alice.clone(), explicit: false });
        prepare(&mut with, &root, folder.path()).unwrap();
        assert_eq!(with.mounts.iter().map(|mount| mount.to.to_str().unwrap()).collect::<Vec<_>>(), [PASSWD]);
        assert!(fs::read_to_string(folder.path().join("passwd")).unwrap().contains("alice:x:1000:50"));
        let mut without = plan(vec![]);
        without.known_user = Some(Known { user: User { uid: 0, ..alice }, explicit: false });
        prepare(&mut without, &root, folder.path()).unwrap();
        assert!(without.mounts.is_empty());
    }

    #[test]
    fn a_required_place_that_is_missing_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let mut plan = plan(vec![(bind(Path::new("/nowhere"), Missing::Fail), "/x")]);
        let error = prepare(&mut plan, &RootDir::open(folder.path()).unwrap(), folder.path()).unwrap_err();
        assert!(error.to_string().contains("/nowhere"), "{error}");
    }
}
