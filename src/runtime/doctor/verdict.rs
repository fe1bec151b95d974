//! From what was found to what is wrong, why, and what helps. Nothing is read here.

use super::{
    Finding, State,
    probe::{Facts, Helper, Refusal, Trial},
};

/// The oldest kernel that is supported.
const OLDEST_KERNEL: (u32, u32) = (5, 8);

/// What there is to say, the most basic thing first.
#[must_use]
pub fn findings(facts: &Facts) -> Vec<Finding> {
    let mut found = vec![kernel(&facts.release), device(facts)];
    found.push(namespaces(facts));
    found.push(bubblewrap(facts));
    found.push(place(facts));
    found.push(helper(facts));
    found.extend(profile(facts));
    found.push(subordinate_ids(facts));
    found
}

fn kernel(release: &str) -> Finding {
    const SUBJECT: &str = "kernel";
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit()).map(str::parse);
    let version = (numbers.next(), numbers.next());
    let (major, minor) = OLDEST_KERNEL;
    match version {
        (Some(Ok(found)), Some(Ok(part))) if (found, part) < OLDEST_KERNEL => Finding::wrong(
            SUBJECT,
            State::Bad,
            format!("Linux {release}"),
            format!("{major}.{minor} or later is needed"),
            "run a newer kernel",
        ),
        _ => Finding::good(SUBJECT, format!("Linux {release}")),
    }
}

fn device(facts: &Facts) -> Finding {
    const SUBJECT: &str = "FUSE device";
    let Err(Refusal { errno, text }) = &facts.device else {
        return Finding::good(SUBJECT, "/dev/fuse opens");
    };
    let (cause, cure) = match *errno {
        libc::ENOENT => (
            "there is no such device: the kernel module is not loaded, or a container hides it",
            "as root: modprobe fuse; for a container: start it with --device /dev/fuse",
        ),
        libc::ENODEV | libc::ENXIO => ("the kernel module is not loaded", "as root: modprobe fuse"),
        libc::EACCES => (
            "its permissions shut this user out",
            "as root: chmod 0666 /dev/fuse, and a udev rule KERNEL==\"fuse\", MODE=\"0666\" to make it last",
        ),
        libc::EPERM => {
            ("the device rules of a container forbid it", "start the container with --device /dev/fuse")
        }
        _ => ("the host refuses it", "see the message"),
    };
    Finding::wrong(SUBJECT, State::Bad, format!("/dev/fuse does not open: {text}"), cause, cure)
}

fn namespaces(facts: &Facts) -> Finding {
    let subject = if facts.uid == 0 { "private mounts" } else { "user namespaces" };
    let wrong = |found: String, (cause, cure): (String, String)| {
        Finding::wrong(subject, State::Bad, found, cause, cure)
    };
    match &facts.trial {
        Trial::Mounted => Finding::good(subject, "a private namespace can be made and mounted in"),
        Trial::Namespace(Refusal { text, .. }) => {
            wrong(format!("no namespace can be made: {text}"), refused_namespace(facts))
        }
        Trial::Rights(Refusal { text, .. }) => {
            wrong(format!("a namespace gives no rights: {text}"), powerless_namespace(facts))
        }
        // Told with the device.
        Trial::Device(_) => Finding::good(subject, "a private namespace can be made"),
        Trial::Mount(Refusal { text, .. }) => {
            wrong(format!("nothing can be mounted in a namespace: {text}"), powerless_namespace(facts))
        }
        Trial::Unknown(text) => wrong(
            format!("the trial did not end well: {text}"),
            ("the process that tried was stopped".to_owned(), "see the log of the host".to_owned()),
        ),
    }
}

/// Why no namespace can be made, and what helps.
fn refused_namespace(facts: &Facts) -> (String, String) {
    let (cause, cure) = match (facts.switches.max_user_namespaces, facts.switches.userns_clone) {
        (Some(0), _) => {
            ("user.max_user_namespaces is 0", "as root: sysctl -w user.max_user_namespaces=10000")
        }
        (_, Some(0)) => {
            ("kernel.unprivileged_userns_clone is 0", "as root: sysctl -w kernel.unprivileged_userns_clone=1")
        }
        _ if facts.uid == 0 => (
            "this root may not make namespaces, as in a container without CAP_SYS_ADMIN",
            "start the container with --cap-add SYS_ADMIN, or run as an ordinary user",
        ),
        _ => (
            "a security module or the seccomp filter of a container forbids user namespaces",
            "start the container with --security-opt seccomp=unconfined, or allow unshare and clone in its filter",
        ),
    };
    (cause.to_owned(), cure.to_owned())
}

/// Why a namespace comes without rights, and what helps.
fn powerless_namespace(facts: &Facts) -> (String, String) {
    if facts.apparmor.restricts_namespaces && facts.uid != 0 {
        return (
            "AppArmor takes the rights from user namespaces of programs without a profile \
             (kernel.apparmor_restrict_unprivileged_userns is 1)"
                .to_owned(),
            "as root: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or a profile with the rules \
             \"userns,\" and \"mount,\" for this program in /etc/apparmor.d, then apparmor_parser -r on it"
                .to_owned(),
        );
    }
    (
        "a security module or the container around forbids mounts".to_owned(),
        "allow mount(2) there, for instance by --security-opt apparmor=unconfined".to_owned(),
    )
}

fn bubblewrap(facts: &Facts) -> Finding {
    const SUBJECT: &str = "bubblewrap";
    match &facts.bwrap {
        Ok(path) => Finding::good(SUBJECT, format!("{} makes sandboxes", path.display())),
        Err(text) if facts.no_bwrap => Finding::wrong(
            SUBJECT,
            State::Bad,
            text.clone(),
            "it is not installed",
            "apt install bubblewrap, or fim doctor IMAGE for an image that brings its own",
        ),
        Err(text) => {
            let (cause, cure) = match (facts.switches.max_user_namespaces, facts.switches.userns_clone) {
                (Some(0), _) | (_, Some(0)) => refused_namespace(facts),
                _ if facts.apparmor.restricts_namespaces => powerless_namespace(facts),
                _ => (
                    "it was started, and said so itself".to_owned(),
                    "apt install --reinstall bubblewrap, or set FIM_BWRAP to one that works".to_owned(),
                ),
            };
            Finding::wrong(SUBJECT, State::Bad, text.clone(), cause, cure)
        }
    }
}

fn place(facts: &Facts) -> Finding {
    const SUBJECT: &str = "place for programs";
    match &facts.global {
        Ok((path, true)) => Finding::good(SUBJECT, path.display().to_string()),
        Ok((path, false)) => Finding::wrong(
            SUBJECT,
            State::Note,
            format!("nothing may be executed from {}", path.display()),
            "its file system is mounted noexec",
            "set FIM_DIR_GLOBAL to a directory of yours elsewhere; until then the engine runs from memory",
        ),
        Err(text) => Finding::wrong(
            SUBJECT,
            State::Bad,
            text.clone(),
            "neither /tmp/fim nor a directory of your own can be used",
            "set FIM_DIR_GLOBAL to a directory of yours",
        ),
    }
}

fn helper(facts: &Facts) -> Finding {
    const SUBJECT: &str = "fusermount3";
    let wrong = |found: String, cause: &str, cure: &str| {
        let cause = format!("{cause}; fim mount of an ordinary user needs it, running an image does not");
        Finding::wrong(SUBJECT, State::Note, found, cause, cure)
    };
    match &facts.helper {
        Helper::NotNeeded => Finding::good(SUBJECT, "root mounts without it"),
        Helper::Works => Finding::good(SUBJECT, "it mounts and unmounts"),
        Helper::Missing => wrong("it is not on PATH".to_owned(), "it is not installed", "apt install fuse3"),
        Helper::Powerless(path) => wrong(
            format!("{} is not set-uid root", path.display()),
            "it was copied, or unpacked without its mode",
            "as root: chmod u+s on it, or apt install --reinstall fuse3",
        ),
        Helper::Refused(text) => wrong(
            text.clone(),
            "it was started, and said so itself",
            "mount where its AppArmor profile allows it, or use fim mount ... -- COMMAND, which needs no helper",
        ),
    }
}

/// Where AppArmor lets fusermount3 mount.
fn profile(facts: &Facts) -> Option<Finding> {
    const SUBJECT: &str = "AppArmor profile of fusermount3";
    let profile = facts.apparmor.fusermount.as_ref()?;
    if facts.uid == 0 {
        return Some(Finding::good(SUBJECT, "root mounts without fusermount3"));
    }
    Some(Finding::wrong(
        SUBJECT,
        State::Note,
        format!("fim mount works at {}", profile.places.join(" ")),
        "/etc/apparmor.d/fusermount3 allows mounts at these places only",
        "as root: add \"mount fstype=fuse.fim options=(nosuid,nodev) -> /PLACE/**/,\" to \
         /etc/apparmor.d/local/fusermount3, then apparmor_parser -r /etc/apparmor.d/fusermount3",
    ))
}

fn subordinate_ids(facts: &Facts) -> Finding {
    const SUBJECT: &str = "subordinate ids";
    if facts.uid == 0 {
        return Finding::good(SUBJECT, "root needs none");
    }
    if facts.subordinate_ids {
        return Finding::good(SUBJECT, "this user has ranges, and newuidmap is there");
    }
    Finding::wrong(
        SUBJECT,
        State::Note,
        "this user has no range, or newuidmap is missing",
        "programs inside see one user id beside root's",
        "as root: apt install uidmap; usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER",
    )
}

#[cfg(test)]
mod tests {
    use super::{
        super::{AppArmor, FuseProfile, Switches, is_well},
        *,
    };

    fn refusal(errno: i32) -> Refusal {
        Refusal { errno, text: std::io::Error::from_raw_os_error(errno).to_string() }
    }

    fn healthy(uid: u32) -> Facts {
        Facts {
            uid,
            release: "6.1.0-9-amd64".to_owned(),
            device: Ok(()),
            trial: Trial::Mounted,
            switches: Switches { max_user_namespaces: Some(1000), userns_clone: Some(1) },
            apparmor: AppArmor::default(),
            helper: if uid == 0 { Helper::NotNeeded } else { Helper::Works },
            bwrap: Ok("/usr/bin/bwrap".into()),
            no_bwrap: false,
            global: Ok(("/tmp/fim".into(), true)),
            subordinate_ids: true,
        }
    }

    /// The finding about a subject, of facts that one thing is wrong with.
    fn about(subject: &str, spoil: impl FnOnce(&mut Facts)) -> Finding {
        let mut facts = healthy(1000);
        spoil(&mut facts);
        findings(&facts).into_iter().find(|finding| finding.subject == subject).expect(subject)
    }

    #[test]
    fn a_good_machine_has_nothing_to_cure() {
        for uid in [0, 1000] {
            let found = findings(&healthy(uid));
            assert!(is_well(&found));
            assert!(found.iter().all(|finding| finding.state == State::Good && finding.cure.is_none()));
        }
    }

    #[test]
    fn each_trouble_is_named_with_cause_and_cure() {
        type Spoil = fn(&mut Facts);
        let table: [(&str, Spoil, State, &str, &str); 13] = [
            ("kernel", |f| f.release = "5.4.0-1".into(), State::Bad, "5.8 or later", "newer kernel"),
            ("FUSE device", |f| f.device = Err(refusal(libc::ENOENT)), State::Bad, "module", "modprobe fuse"),
            (
                "FUSE device",
                |f| f.device = Err(refusal(libc::EACCES)),
                State::Bad,
                "permissions",
                "chmod 0666",
            ),
            ("FUSE device", |f| f.device = Err(refusal(libc::EPERM)), State::Bad, "container", "--device"),
            (
                "user namespaces",
                |f| {
                    f.trial = Trial::Namespace(refusal(libc::ENOSPC));
                    f.switches.max_user_namespaces = Some(0);
                },
                State::Bad,
                "max_user_namespaces is 0",
                "sysctl -w user.max_user_namespaces",
            ),
            (
                "user namespaces",
                |f| {
                    f.trial = Trial::Namespace(refusal(libc::EPERM));
                    f.switches.userns_clone = Some(0);
                },
                State::Bad,
                "unprivileged_userns_clone is 0",
                "sysctl -w kernel.unprivileged_userns_clone=1",
            ),
            (
                "user namespaces",
                |f| f.trial = Trial::Namespace(refusal(libc::EPERM)),
                State::Bad,
                "seccomp",
                "seccomp=unconfined",
            ),
            (
                "user namespaces",
                |f| {
                    f.trial = Trial::Rights(refusal(libc::EACCES));
                    f.apparmor = AppArmor { enabled: true, restricts_namespaces: true, fusermount: None };
                },
                State::Bad,
                "AppArmor takes the rights",
                "apparmor_restrict_unprivileged_userns=0",
            ),
            (
                "bubblewrap",
                |f| {
                    f.bwrap = Err("cannot find bubblewrap".into());
                    f.no_bwrap = true;
                },
                State::Bad,
                "not installed",
                "apt install bubblewrap",
            ),
            ("place for programs", |f| f.global = Err("x".into()), State::Bad, "neither", "FIM_DIR_GLOBAL"),
            (
                "fusermount3",
                |f| f.helper = Helper::Missing,
                State::Note,
                "not installed",
                "apt install fuse3",
            ),
            (
                "AppArmor profile of fusermount3",
                |f| {
                    f.apparmor.fusermount = Some(FuseProfile { places: vec!["@{HOME}/**/".into()] });
                },
                State::Note,
                "these places only",
                "local/fusermount3",
            ),
            ("subordinate ids", |f| f.subordinate_ids = false, State::Note, "one user id", "usermod"),
        ];
        for (subject, spoil, state, cause, cure) in table {
            let found = about(subject, spoil);
            assert_eq!(found.state, state, "{subject}");
            assert!(found.cause.as_ref().unwrap().contains(cause), "{found:?}");
            assert!(found.cure.as_ref().unwrap().contains(cure), "{found:?}");
            assert_eq!(is_well(&[found]), state != State::Bad);
        }
    }

    #[test]
    fn a_namespace_is_not_blamed_for_the_device() {
        let found = about("user namespaces", |f| f.trial = Trial::Device(refusal(libc::EACCES)));
        assert_eq!(found.state, State::Good);
    }
}
