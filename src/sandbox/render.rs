//! A plan as arguments of bubblewrap. Pure.

use std::{
    ffi::{OsStr, OsString},
    path::Path,
};

use super::plan::{Access, Capabilities, Identity, Missing, Mount, Plan, What};
use crate::config::Namespace;

/// Renders everything up to the program; `root` is where the merged root is on the host. The mount points of `plan`
/// are there, and their paths have no symlinks.
#[must_use]
pub fn render(plan: &Plan, root: &Path) -> Vec<OsString> {
    let mut arguments = Arguments(Vec::new());
    // A process in the sandbox has a session of its own: no terminal of the caller can be reached by /dev/tty.
    arguments.add(["--unshare-pid", "--as-pid-1", "--die-with-parent", "--new-session"]);
    match plan.identity {
        Identity::HostRoot => {}
        Identity::Mapped { uid, gid } => {
            arguments.add(["--unshare-user"]);
            arguments.add(["--uid", &uid.to_string(), "--gid", &gid.to_string()]);
        }
    }
    match &plan.capabilities {
        Capabilities::None => arguments.add(["--cap-drop", "ALL"]),
        Capabilities::Only(few) => {
            arguments.add(["--cap-drop", "ALL"]);
            few.iter().for_each(|capability| arguments.add(["--cap-add", capability]));
        }
    }
    for namespace in plan.namespaces.keys() {
        match namespace {
            Namespace::Ipc => arguments.add(["--unshare-ipc"]),
            Namespace::Net => arguments.add(["--unshare-net"]),
            Namespace::Uts => arguments.add(["--unshare-uts"]),
            Namespace::Cgroup => arguments.add(["--unshare-cgroup"]),
            // Said above: always, and where the ids are mapped.
            Namespace::Pid | Namespace::User | Namespace::All => {}
        }
    }
    arguments.add([OsStr::new("--bind"), root.as_os_str(), OsStr::new("/")]);
    plan.mounts.iter().for_each(|mount| arguments.mount(mount));
    arguments.add(["--chdir", "/"]);
    arguments.0
}

struct Arguments(Vec<OsString>);

impl Arguments {
    fn add<T: AsRef<OsStr>>(&mut self, words: impl IntoIterator<Item = T>) {
        self.0.extend(words.into_iter().map(|word| word.as_ref().to_owned()));
    }

    fn mount(&mut self, mount: &Mount) {
        let to = mount.to.as_os_str();
        match &mount.what {
            What::Proc => self.add([OsStr::new("--proc"), to]),
            What::Dev => self.add([OsStr::new("--dev"), to]),
            What::Tmpfs { mode } => {
                self.add(["--perms", &format!("{mode:04o}")]);
                self.add([OsStr::new("--tmpfs"), to]);
            }
            What::Directory => self.add([OsStr::new("--dir"), to]),
            What::Program { number } => {
                self.add(["--perms", "0555", "--file", &number.to_string()]);
                self.add([to]);
            }
            What::Seal => self.add([OsStr::new("--remount-ro"), to]),
            What::Bind { from, access, missing } => {
                let option = match (access, missing) {
                    (Access::ReadOnly, Missing::Fail) => "--ro-bind",
                    (Access::ReadOnly, Missing::Skip) => "--ro-bind-try",
                    (Access::ReadWrite, Missing::Fail) => "--bind",
                    (Access::ReadWrite, Missing::Skip) => "--bind-try",
                    (Access::Devices, Missing::Fail) => "--dev-bind",
                    (Access::Devices, Missing::Skip) => "--dev-bind-try",
                };
                self.add([OsStr::new(option), from.as_os_str(), to]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::sandbox::{Cause, Program};

    fn plan(identity: Identity, capabilities: Capabilities, what: What) -> Plan {
        Plan {
            identity,
            capabilities,
            namespaces: BTreeMap::new(),
            mounts: vec![Mount { what, to: "/to".into(), cause: Cause::Basis }],
            home: "/".into(),
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

    fn words(plan: &Plan) -> String {
        let rendered = render(plan, Path::new("/root dir"));
        rendered.iter().map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join("|")
    }

    const START: &str = "--unshare-pid|--as-pid-1|--die-with-parent|--new-session";
    const ROOT: &str = "--bind|/root dir|/";

    #[test]
    fn identities_and_capabilities() {
        for (identity, capabilities, expected) in [
            (Identity::HostRoot, Capabilities::Only(vec!["CAP_CHOWN"]), "--cap-drop|ALL|--cap-add|CAP_CHOWN"),
            (
                Identity::Mapped { uid: 5, gid: 6 },
                Capabilities::None,
                "--unshare-user|--uid|5|--gid|6|--cap-drop|ALL",
            ),
            (
                Identity::Mapped { uid: 0, gid: 0 },
                Capabilities::Only(vec![]),
                "--unshare-user|--uid|0|--gid|0|--cap-drop|ALL",
            ),
        ] {
            let words = words(&plan(identity, capabilities, What::Proc));
            assert_eq!(words, format!("{START}|{expected}|{ROOT}|--proc|/to|--chdir|/"));
        }
    }

    #[test]
    fn namespaces() {
        let mut plan = plan(Identity::HostRoot, Capabilities::None, What::Proc);
        let all = [Namespace::Pid, Namespace::Ipc, Namespace::Net, Namespace::Uts, Namespace::Cgroup];
        plan.namespaces = all.map(|namespace| (namespace, Cause::Unshare)).into();
        let words = words(&plan);
        let expected = "--unshare-ipc|--unshare-net|--unshare-uts|--unshare-cgroup";
        assert_eq!(words, format!("{START}|--cap-drop|ALL|{expected}|{ROOT}|--proc|/to|--chdir|/"));
    }

    #[test]
    fn mounts() {
        let bind = |access, missing| What::Bind { from: "/from".into(), access, missing };
        for (what, expected) in [
            (What::Dev, "--dev|/to"),
            (What::Tmpfs { mode: 0o1777 }, "--perms|1777|--tmpfs|/to"),
            (What::Directory, "--dir|/to"),
            (What::Program { number: 7 }, "--perms|0555|--file|7|/to"),
            (What::Seal, "--remount-ro|/to"),
            (bind(Access::ReadOnly, Missing::Fail), "--ro-bind|/from|/to"),
            (bind(Access::ReadWrite, Missing::Skip), "--bind-try|/from|/to"),
            (bind(Access::Devices, Missing::Fail), "--dev-bind|/from|/to"),
        ] {
            let words = words(&plan(Identity::HostRoot, Capabilities::None, what));
            assert!(words.ends_with(&format!("|{ROOT}|{expected}|--chdir|/")), "{words}");
        }
    }
}
