//! `fim doctor` on machines that lack one thing each: nested namespaces of this one.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use serde_json::Value;

use crate::support::{find, skip};

const FIM: &str = env!("CARGO_BIN_EXE_fim");
/// An ordinary user.
const UID: &str = "47114";

/// A directory that everybody may use, with a `/dev/fuse` for everybody in it.
struct Machine {
    dir: tempfile::TempDir,
}

impl Machine {
    /// `None`, and a line, where this machine cannot be made another.
    fn new() -> Option<Self> {
        for program in ["unshare", "setpriv", "mknod", "bwrap", "nsenter"] {
            if find(program).is_none() {
                skip(&format!("{program} on PATH"));
                return None;
            }
        }
        if !fim::sys::users::Ids::of_caller().unwrap().uid.eq(&0) || !Path::new("/dev/fuse").exists() {
            skip("root and /dev/fuse");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o777)).unwrap();
        for (name, mode) in [("fuse", "0666"), ("closed", "0600")] {
            let path = dir.path().join(name);
            let made =
                Command::new("mknod").args(["-m", mode]).arg(path).args(["c", "10", "229"]).status().unwrap();
            assert!(made.success());
        }
        Some(Self { dir })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What doctor says as an ordinary user, after `prepare` (a script, as root) in a private mount namespace.
    fn doctor(&self, prepare: &str, variables: &[(&str, &str)]) -> (i32, Value, String) {
        let said = |json: &str| {
            let script = format!(
                "set -e\n{prepare}\nexec setpriv --reuid {UID} --regid {UID} --clear-groups \"$0\" doctor {json}"
            );
            let mut command = Command::new("unshare");
            command.args(["-m", "sh", "-c", &script, FIM]).current_dir(self.dir.path());
            told(command.env("FIM_DIR_GLOBAL", self.path("global")).envs(variables.iter().copied()))
        };
        let (status, json) = said("--json");
        let (again, text) = said("");
        assert_eq!(status, again);
        (status, serde_json::from_str(&json).expect(&json), text)
    }

    fn with_fuse(&self) -> String {
        format!("mount --bind {} /dev/fuse", self.path("fuse").display())
    }
}

fn told(command: &mut Command) -> (i32, String) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(errors, "");
    (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
}

/// The finding about a subject.
fn about<'v>(json: &'v Value, subject: &str) -> &'v Value {
    let findings = json["findings"].as_array().unwrap();
    findings
        .iter()
        .find(|finding| finding["subject"] == subject)
        .unwrap_or_else(|| panic!("{subject}: {json}"))
}

/// Names the trouble with its cause and cure, in both forms.
fn assert_names(said: &(i32, Value, String), subject: &str, cause: &str, cure: &str) {
    let (status, json, text) = said;
    let finding = about(json, subject);
    assert_eq!(
        (*status, finding["state"].as_str().unwrap(), json["well"].as_bool()),
        (1, "bad", Some(false)),
        "{json}"
    );
    assert!(finding["cause"].as_str().unwrap().contains(cause), "{finding}");
    assert!(finding["cure"].as_str().unwrap().contains(cure), "{finding}");
    assert!(
        text.contains(&format!("BAD   {subject}: ")) && text.contains(cause) && text.contains(cure),
        "{text}"
    );
    println!("{subject}: {} | because {} | cure: {}", finding["found"], finding["cause"], finding["cure"]);
}

#[test]
fn a_good_machine_is_well() {
    let Some(machine) = Machine::new() else { return };
    let (status, json, text) = machine.doctor(&machine.with_fuse(), &[]);
    assert_eq!((status, json["well"].as_bool()), (0, Some(true)), "{text}");
    for subject in ["kernel", "FUSE device", "user namespaces", "bubblewrap", "place for programs"] {
        assert_eq!(about(&json, subject)["state"], "good", "{json}");
    }
}

#[test]
fn a_machine_without_access_to_fuse() {
    let Some(machine) = Machine::new() else { return };
    let closed = format!("mount --bind {} /dev/fuse", machine.path("closed").display());
    let said = machine.doctor(&closed, &[]);
    assert_names(&said, "FUSE device", "permissions shut this user out", "chmod 0666 /dev/fuse");
    assert_eq!(about(&said.1, "user namespaces")["state"], "good", "not blamed");
    // A container's /dev, which has none at all.
    let none = "mount -t tmpfs tmpfs /dev; mknod -m 666 /dev/null c 1 3";
    let said = machine.doctor(none, &[]);
    assert_names(&said, "FUSE device", "no such device", "modprobe fuse");
}

#[test]
fn a_machine_without_bubblewrap() {
    let Some(machine) = Machine::new() else { return };
    fs::create_dir(machine.path("bin")).unwrap();
    for program in ["setpriv", "mount", "sh"] {
        std::os::unix::fs::symlink(find(program).unwrap(), machine.path("bin").join(program)).unwrap();
    }
    let bin = machine.path("bin").display().to_string();
    let said = machine.doctor(&format!("{}\nPATH={bin}", machine.with_fuse()), &[]);
    assert_names(&said, "bubblewrap", "not installed", "apt install bubblewrap");
    let named = machine.doctor(&machine.with_fuse(), &[("FIM_BWRAP", "/nowhere/bwrap")]);
    assert_eq!(about(&named.1, "bubblewrap")["state"], "bad");
    assert!(about(&named.1, "bubblewrap")["found"].as_str().unwrap().contains("/nowhere/bwrap"));
}

/// A user namespace of root's, as large as this one, that lives as long as this value.
struct Nested(Child);

impl Nested {
    fn new() -> Self {
        let child = Command::new("unshare").args(["-U", "sleep", "60"]).spawn().unwrap();
        let pid = child.id();
        crate::support::eventually("a user namespace", || {
            let own = fs::read_link("/proc/self/ns/user").unwrap();
            let theirs = fs::read_link(format!("/proc/{pid}/ns/user")).map_err(|error| error.to_string())?;
            if own == theirs { Err("still ours".to_owned()) } else { Ok(()) }
        });
        for map in ["uid_map", "gid_map"] {
            fs::write(format!("/proc/{pid}/{map}"), "0 0 65536").unwrap();
        }
        Self(child)
    }

    /// A script in it, as its root.
    fn enter(&self, script: &str) -> Command {
        let mut command = Command::new("nsenter");
        let pid = self.0.id().to_string();
        command.args([
            "-U", "-t", &pid, "--setuid", "0", "--setgid", "0", "unshare", "-m", "sh", "-c", script, FIM,
        ]);
        command
    }
}

impl Drop for Nested {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_machine_without_user_namespaces() {
    let Some(machine) = Machine::new() else { return };
    let nested = Nested::new();
    // The limit is that of the namespace: this machine's own stays as it is.
    let off = "set -e\necho 0 > /proc/sys/user/max_user_namespaces\n";
    let run = |json: &str| {
        let script =
            format!("{off}exec setpriv --reuid {UID} --regid {UID} --clear-groups \"$0\" doctor {json}");
        told(
            nested
                .enter(&script)
                .env("FIM_DIR_GLOBAL", machine.path("global"))
                .current_dir(machine.dir.path()),
        )
    };
    let (status, json) = run("--json");
    let (_, text) = run("");
    let said = (status, serde_json::from_str(&json).expect(&json), text);
    assert_names(
        &said,
        "user namespaces",
        "user.max_user_namespaces is 0",
        "sysctl -w user.max_user_namespaces=",
    );
    assert_names(&said, "bubblewrap", "user.max_user_namespaces is 0", "sysctl -w user.max_user_namespaces=");
    let own = fs::read_to_string("/proc/sys/user/max_user_namespaces").unwrap();
    assert_ne!(own.trim(), "0");
}
