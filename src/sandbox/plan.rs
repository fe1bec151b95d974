//! What will be inside, and why. Pure: nothing here touches disk or clock.
//!
//! The order of mounts is the order in which they are made; a later one may lie inside an earlier one.
//!
//! ```text
//! /                 the merged root
//! /proc /dev /sys   new, minimal, read-only
//! /tmp              private
//! /tmp/fim          FIM_DIR_GLOBAL: a skeleton with the engine's own files, sealed read-only at the end
//!   run/host        the host's root, read-only, private places covered
//! ```

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fmt,
    os::fd::RawFd,
    path::{Path, PathBuf},
};

use super::{Facts, Hidden, Rights, SandboxError, rights::Asker};
use crate::{
    config::{Bind, Binds, Namespace, Permission, Unshare},
    instance::{InstanceId, accounts::User, dirs::AppDirs},
};

mod environment;
mod grant;
mod identity;
mod mounts;

/// Capabilities of root inside, of the host's and of a user namespace's: enough to own, change and install files and to
/// become other users; not enough to mount, to trace processes outside or to open files by handle.
const ROOT_CAPABILITIES: [&str; 13] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// Capabilities that process 1 has and no program: to see what programs ask for that a root with one user cannot have
/// ([`guest`](super::guest)), and to give the same up for them.
pub(super) const OVERSEER_CAPABILITIES: [&str; 2] = ["CAP_SETPCAP", "CAP_SYS_PTRACE"];

/// As whom the program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// As the calling user.
    User,
    /// As uid 0.
    Root,
}

/// Who the program is inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// The host's root, no user namespace.
    HostRoot,
    /// These ids, in a user namespace where they stand for the caller's.
    Mapped {
        /// User id inside.
        uid: u32,
        /// Group id inside.
        gid: u32,
    },
}

/// What root inside may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Capabilities {
    /// Nothing special.
    None,
    /// These only.
    Only(Vec<&'static str>),
}

/// How a place of the host is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It can be read.
    ReadOnly,
    /// It can be read and written.
    ReadWrite,
    /// Devices in it can be used as well.
    Devices,
}

/// What happens where a place of the host is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// It is left out.
    Skip,
    /// The start fails.
    Fail,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// The processes of the sandbox.
    Proc,
    /// A minimal set of devices.
    Dev,
    /// An empty directory in memory, with this mode.
    Tmpfs {
        /// Its mode.
        mode: u32,
    },
    /// A directory without a mount of its own, inside a `Tmpfs`.
    Directory,
    /// A place of the host.
    Bind {
        /// Which one.
        from: PathBuf,
        /// How.
        access: Access,
        /// What if it is not there.
        missing: Missing,
    },
    /// A program, copied from this descriptor: for one that has no path.
    Program {
        /// Number of the descriptor in the process that becomes bubblewrap.
        number: RawFd,
    },
    /// The mount made here before becomes read-only.
    Seal,
}

/// Where the engine's own program is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine<'a> {
    /// In a file.
    At(&'a Path),
    /// In memory, or in a file without a name: open under this number.
    Open(RawFd),
}

/// What is the reason for something in a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Every program needs it.
    Basis,
    /// The engine's own files, and variables that name them.
    Runtime,
    /// What images have that do not run under deny-all.
    Default,
    /// Who the program is.
    Accounts,
    /// A permission of the image.
    Permission(Permission),
    /// The bind of the image with this index.
    Bind(usize),
    /// A bind of the caller's.
    Given,
    /// A namespace that the image adds.
    Unshare,
    /// A variable that the image sets.
    Settings,
    /// A variable of the caller.
    Caller,
    /// Deny-all, and who wants it.
    Strict(Asker),
    /// The user's policy.
    Policy,
}

impl Cause {
    /// Which bind it is.
    #[must_use]
    pub fn bind(&self) -> String {
        match self {
            Self::Bind(index) => format!("bind {index}"),
            _ => "a bind".to_owned(),
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use crate::config::Word as _;
        f.write_str(match self {
            Self::Basis => "every program needs it",
            Self::Runtime => "the engine's own",
            Self::Default => "the default profile",
            Self::Accounts => "who the program is",
            Self::Permission(permission) => return write!(f, "permission {}", permission.name()),
            Self::Bind(index) => return write!(f, "fim-bind {index}"),
            Self::Given => "--bind",
            Self::Unshare => "fim-unshare",
            Self::Settings => "fim-env",
            Self::Caller => "the caller's environment",
            Self::Strict(Asker::Caller) => "--strict",
            Self::Strict(Asker::Image) => "permission strict",
            Self::Strict(Asker::Policy) => "strict in the user's policy",
            Self::Policy => "the user's policy",
        })
    }
}

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// What.
    pub what: What,
    /// Where, as a path inside.
    pub to: PathBuf,
    /// Why.
    pub cause: Cause,
}

/// A user whom the account files inside know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// The user.
    pub user: User,
    /// Whether the image's settings say who it is, so that its own account files have to follow.
    pub explicit: bool,
}

/// The program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Its arguments, name first.
    pub arguments: Vec<OsString>,
    /// Its environment.
    pub environment: BTreeMap<OsString, OsString>,
    /// Why each variable of it is there.
    pub reasons: BTreeMap<OsString, Cause>,
    /// Directories to start in: the first one that is there.
    pub directories: Vec<PathBuf>,
}

/// A whole sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Who the program is.
    pub identity: Identity,
    /// What it may do.
    pub capabilities: Capabilities,
    /// The kinds of namespace that it has for itself, and why.
    pub namespaces: BTreeMap<Namespace, Cause>,
    /// Its file systems besides the root, in order.
    pub mounts: Vec<Mount>,
    /// Its home, made where it is missing.
    pub home: PathBuf,
    /// The user who must be known inside; none where the accounts are left as they are.
    pub known_user: Option<Known>,
    /// Where process 1 finds itself inside.
    pub init: PathBuf,
    /// Where it hears requests of others, as a path inside.
    pub portal: PathBuf,
    /// Whether programs inside may start programs of the host.
    pub starts_on_host: bool,
    /// The program itself.
    pub program: Program,
    /// What was asked for and is left out, in words for the user.
    pub warnings: Vec<String>,
}

/// What a plan is made of.
#[derive(Clone, Debug)]
pub struct Inputs<'a> {
    /// As whom the program runs.
    pub role: Role,
    /// The calling user: the ids are the real ones, the rest is what passwd says, or a stand-in.
    pub user: &'a User,
    /// The directories of this build.
    pub app: &'a AppDirs,
    /// `FIM_DIR_INSTANCE`.
    pub instance: &'a Path,
    /// Number of the instance.
    pub instance_id: InstanceId,
    /// Process id of the instance.
    pub pid: i32,
    /// `FIM_DIR_DATA`.
    pub data: &'a Path,
    /// `FIM_DIR_LAYERS`.
    pub layers: &'a Path,
    /// Path of the image.
    pub image: &'a Path,
    /// Name of the distribution inside.
    pub distribution: &'a str,
    /// The program that process 1 inside is.
    pub engine: Engine<'a>,
    /// Places below the host's root that `run/host` does not show; empty paths and `/` are left out.
    pub hidden: &'a Hidden,
    /// What the run may reach.
    pub rights: &'a Rights,
    /// Namespaces that the image adds.
    pub unshare: &'a Unshare,
    /// Places of the host that the image wants.
    pub binds: &'a Binds,
    /// Places of the host that the caller gives.
    pub given: &'a [Bind],
    /// What the host has.
    pub facts: &'a Facts,
    /// Environment of the caller.
    pub environment: &'a BTreeMap<OsString, OsString>,
    /// Whether all of it is passed on.
    pub pass_all: bool,
    /// Variables that the image sets, as stored.
    pub settings: &'a [(String, String)],
    /// Working directory of the caller.
    pub directory: Option<&'a Path>,
    /// The command.
    pub command: &'a [OsString],
}

impl Plan {
    /// Makes the plan.
    ///
    /// # Errors
    ///
    /// [`SandboxError::Identity`]: the image's environment says who the program is, and nobody can be that.
    pub fn new(inputs: &Inputs<'_>) -> Result<Self, SandboxError> {
        let who = identity::identity(inputs)?;
        let grants = grant::grants(inputs, &who.user);
        let (environment, reasons) = environment::environment(inputs, &who, &grants);
        let (binds, warnings) = mounts::binds(inputs, &environment);
        let home = environment.get(OsStr::new("HOME")).map_or_else(|| "/".into(), PathBuf::from);
        let directories = inputs
            .directory
            .into_iter()
            .chain([home.as_path(), Path::new("/")])
            .map(Path::to_owned)
            .collect();
        Ok(Self {
            capabilities: capabilities(inputs, who.identity),
            identity: who.identity,
            namespaces: namespaces(inputs, &who),
            mounts: mounts::mounts(inputs, &grants, binds),
            home,
            known_user: (inputs.role == Role::User)
                .then_some(Known { user: who.user, explicit: who.explicit }),
            init: init(inputs),
            portal: inputs.instance.join("portal"),
            starts_on_host: inputs.rights.holds(Permission::Portal),
            program: Program { arguments: inputs.command.to_vec(), environment, reasons, directories },
            warnings,
        })
    }
}

/// Root inside must not mount: it could take away what covers the host's private places, and make writable what is
/// shown read-only.
fn capabilities(inputs: &Inputs<'_>, identity: Identity) -> Capabilities {
    let is_root = match identity {
        Identity::HostRoot => true,
        Identity::Mapped { uid, .. } => uid == 0 && (inputs.role == Role::Root || inputs.user.uid == 0),
    };
    let mut few = ROOT_CAPABILITIES.to_vec();
    if inputs.user.uid != 0 {
        few.extend(OVERSEER_CAPABILITIES);
    }
    if is_root { Capabilities::Only(few) } else { Capabilities::None }
}

/// The namespaces of its own; the mount namespace goes without saying.
fn namespaces(inputs: &Inputs<'_>, who: &identity::Who) -> BTreeMap<Namespace, Cause> {
    let rights = inputs.rights;
    let mut namespaces = BTreeMap::from([(Namespace::Pid, Cause::Basis)]);
    if who.identity != Identity::HostRoot {
        namespaces.insert(Namespace::User, who.cause);
    }
    let net = Permission::Network;
    if rights.denies(net) {
        namespaces.insert(Namespace::Net, Cause::Policy);
    }
    if let Some(asker) = rights.strict() {
        let unless = [
            (Namespace::Net, rights.holds(net)),
            (Namespace::Ipc, rights.holds(Permission::Shm)),
            (Namespace::Uts, false),
            (Namespace::Cgroup, false),
        ];
        for (namespace, _) in unless.into_iter().filter(|(_, shared)| !shared) {
            namespaces.entry(namespace).or_insert(Cause::Strict(asker));
        }
    }
    for namespace in [Namespace::Ipc, Namespace::Net, Namespace::Uts, Namespace::Cgroup] {
        if inputs.unshare.contains(namespace) {
            namespaces.entry(namespace).or_insert(Cause::Unshare);
        }
    }
    namespaces
}

/// Where process 1 finds itself: its name there is the role that it plays.
fn init(inputs: &Inputs<'_>) -> PathBuf {
    inputs.app.runtime().join("fim_init")
}

#[cfg(test)]
mod tests;
