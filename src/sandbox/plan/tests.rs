//! The plan as a table of its inputs: no disk, no clock.

use std::os::unix::ffi::OsStrExt as _;

use super::*;
use crate::{
    config::{Bind, BindKind, ImageId, Permissions, Policy, Word as _},
    sandbox::{Drivers, Row, Sockets, Subject, explain},
};

struct Case {
    app: AppDirs,
    user: User,
    environment: BTreeMap<OsString, OsString>,
    settings: Vec<(String, String)>,
    hidden: Hidden,
    command: Vec<OsString>,
    permissions: Permissions,
    strict: bool,
    policy: Policy,
    unshare: Unshare,
    binds: Binds,
    facts: Facts,
}

impl Case {
    fn new(uid: u32) -> Self {
        Self {
            app: AppDirs::new("/tmp/fim".into()),
            user: User {
                name: "alice".into(),
                uid,
                gid: uid,
                home: "/home/alice".into(),
                shell: "/bin/zsh".into(),
            },
            environment: [
                ("TERM", "xterm"),
                ("SECRET", "x"),
                ("LC_ALL", "C"),
                ("FIM_DEBUG", "1"),
                ("PATH", "/h"),
                ("http_proxy", "p"),
            ]
            .map(|(name, value)| (name.into(), value.into()))
            .into(),
            settings: Vec::new(),
            hidden: Hidden {
                state: ["/proc", "/run", "/tmp", "/"].map(PathBuf::from).into(),
                homes: ["/home", "/home/alice", "/root"].map(PathBuf::from).into(),
            },
            command: vec!["id".into()],
            permissions: Permissions::default(),
            strict: false,
            policy: Policy::default(),
            unshare: Unshare::default(),
            binds: Binds::default(),
            facts: everything(),
        }
    }

    fn with(uid: u32, permissions: &[Permission]) -> Self {
        let mut case = Self::new(uid);
        case.permissions.add(permissions.iter().copied());
        case
    }

    fn set(&mut self, settings: &[(&str, &str)]) {
        self.settings =
            settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    }

    fn plan(&self, role: Role, pass_all: bool) -> Plan {
        self.try_plan(role, pass_all).unwrap()
    }

    fn try_plan(&self, role: Role, pass_all: bool) -> Result<Plan, SandboxError> {
        let image = ImageId::from_random([7; 16]);
        Plan::new(&Inputs {
            role,
            user: &self.user,
            app: &self.app,
            instance: Path::new("/tmp/fim/app/x/instance/7"),
            instance_id: InstanceId::new(3),
            pid: 7,
            data: Path::new("/x/.app.data"),
            layers: Path::new("/x/.app.data/layers"),
            image: Path::new("/x/app"),
            distribution: "debian",
            engine: Engine::At(Path::new("/x/engine")),
            hidden: &self.hidden,
            rights: &Rights::new(&self.permissions, self.strict, &self.policy.limits_of(&image)),
            unshare: &self.unshare,
            binds: &self.binds,
            given: &[],
            facts: &self.facts,
            environment: &self.environment,
            pass_all,
            settings: &self.settings,
            directory: Some(Path::new("/work")),
            command: &self.command,
        })
    }
}

/// A host that has everything.
fn everything() -> Facts {
    let path = |path: &str| Some(PathBuf::from(path));
    Facts {
        home: path("/home/alice"),
        devices: [
            "bus", "cdrom", "dri", "hidraw0", "input", "kvm", "null", "nvidia0", "ptmx", "pts", "sda", "shm",
            "snd", "sr0", "tty", "tty1", "ttyS0", "ttyUSB0", "uinput", "vcs1",
        ]
        .map(OsString::from)
        .into(),
        optical: vec!["sg1".into()],
        sockets: Sockets {
            wayland: path("/run/user/1000/wayland-1"),
            display: Some(":3.0".into()),
            x11: path("/tmp/.X11-unix/X3"),
            x11_cookie: path("/home/alice/.Xauthority"),
            pulse: path("/run/user/1000/pulse/native"),
            pulse_cookie: path("/home/alice/.config/pulse/cookie"),
            pipewire: path("/run/user/1000/pipewire-0"),
            session_bus: path("/run/user/1000/bus"),
            system_bus: path("/run/dbus/system_bus_socket"),
        },
        drivers: Drivers {
            libraries: vec!["/usr/lib64/libcuda.so.1".into()],
            vulkan: vec!["/usr/share/vulkan/icd.d/nvidia_icd.json".into()],
            egl: vec!["/usr/share/glvnd/egl_vendor.d/10_nvidia.json".into()],
        },
    }
}

fn value<'a>(plan: &'a Plan, name: &str) -> Option<&'a str> {
    plan.program.environment.get(OsStr::new(name)).and_then(|value| value.to_str())
}

#[test]
fn who_runs_decides_ids_and_capabilities() {
    for (uid, role, identity, is_root) in [
        (0, Role::User, Identity::HostRoot, true),
        (0, Role::Root, Identity::HostRoot, true),
        (1000, Role::User, Identity::Mapped { uid: 1000, gid: 1000 }, false),
        (1000, Role::Root, Identity::Mapped { uid: 0, gid: 0 }, true),
    ] {
        let plan = Case::new(uid).plan(role, false);
        assert_eq!(plan.identity, identity, "{uid} {role:?}");
        assert_eq!(plan.known_user.is_some(), role == Role::User);
        let Capabilities::Only(few) = plan.capabilities else {
            assert!(!is_root, "{uid} {role:?}");
            continue;
        };
        assert!(is_root && few.contains(&"CAP_CHOWN"));
        for dangerous in ["CAP_SYS_ADMIN", "CAP_DAC_READ_SEARCH", "CAP_SYS_MODULE"] {
            assert!(!few.contains(&dangerous));
        }
        // What the overseer has besides is for a user namespace only.
        let besides: Vec<_> = few.into_iter().filter(|name| !ROOT_CAPABILITIES.contains(name)).collect();
        assert_eq!(besides, if uid == 0 { &[] } else { &OVERSEER_CAPABILITIES[..] }, "{uid} {role:?}");
    }
}

#[test]
fn the_environment_is_an_allow_list() {
    let plan = Case::new(1000).plan(Role::User, false);
    assert_eq!(value(&plan, "TERM"), Some("xterm"));
    assert_eq!(value(&plan, "LC_ALL"), Some("C"));
    assert_eq!(value(&plan, "SECRET"), None);
    assert_eq!(value(&plan, "FIM_DEBUG"), None);
    assert_eq!(value(&plan, "HOME"), Some("/home/alice"));
    assert_eq!(value(&plan, "FIM_INSTANCE"), Some("3"));
    let ends = format!(":{}:{}", Case::new(0).app.bin().display(), Case::new(0).app.sbin().display());
    assert_eq!(value(&plan, "PATH"), Some(format!("{}{ends}", environment::PATH).as_str()));
    let plan = Case::new(1000).plan(Role::User, true);
    assert_eq!(value(&plan, "SECRET"), Some("x"));
    assert_eq!(value(&plan, "FIM_DEBUG"), None);
    assert_eq!(value(&plan, "PATH"), Some(format!("/h{ends}").as_str()));
}

#[test]
fn settings_are_expanded_and_root_stays_root() {
    let mut case = Case::new(1000);
    case.set(&[("A", "$TERM-${NONE:-x}"), ("PATH", "/opt:$SECRET"), ("HOME", "/elsewhere")]);
    let plan = case.plan(Role::User, false);
    assert_eq!(value(&plan, "A"), Some("xterm-x"));
    assert_eq!(plan.home, Path::new("/elsewhere"));
    assert!(value(&plan, "PATH").unwrap().starts_with("/opt:x:/tmp/fim/app/"));
    let plan = case.plan(Role::Root, false);
    assert_eq!((value(&plan, "HOME"), value(&plan, "USER")), (Some("/root"), Some("root")));
}

#[test]
fn the_host_view_covers_private_places_once() {
    let plan = Case::new(1000).plan(Role::User, false);
    let covered: Vec<_> = plan
        .mounts
        .iter()
        .filter(|mount| mount.to.starts_with("/tmp/fim/run/host") && matches!(mount.what, What::Tmpfs { .. }))
        .map(|mount| mount.to.to_str().unwrap())
        .collect();
    assert_eq!(
        covered,
        ["home", "proc", "root", "run", "tmp"].map(|place| format!("/tmp/fim/run/host/{place}"))
    );
    let last = plan.mounts.last().unwrap();
    assert_eq!((&last.what, last.to.as_path()), (&What::Seal, Path::new("/tmp/fim")));
}

/// What a plan has that another one has not, in words.
fn more(with: &Plan, without: &Plan) -> Vec<String> {
    let known = explain(without);
    let is_new = |row: &Row| {
        !known
            .iter()
            .any(|other| (other.subject, &other.name, &other.what) == (row.subject, &row.name, &row.what))
    };
    explain(with).into_iter().filter(is_new).map(|row| row.to_string()).collect()
}

#[test]
fn each_permission_gives_what_its_name_says_and_nothing_else() {
    let session = "mount /run/user/1000: empty, in memory, mode 0700";
    let directory = "variable XDG_RUNTIME_DIR: /run/user/1000";
    for (permission, expected) in [
        (
            Permission::Home,
            &[
                "mount /home/alice: /home/alice of the host, writable",
                "mount /tmp/fim/run/host/home/alice: /home/alice of the host, read-only",
            ][..],
        ),
        (
            Permission::Media,
            &[
                "mount /media: /media of the host, writable",
                "mount /run/media: /run/media of the host, writable",
                "mount /mnt: /mnt of the host, writable",
            ],
        ),
        (
            Permission::Audio,
            &[
                session,
                "mount /run/user/1000/pulse/native: /run/user/1000/pulse/native of the host, read-only",
                "mount /run/user/1000/pipewire-0: /run/user/1000/pipewire-0 of the host, read-only",
                "mount /dev/snd: /dev/snd of the host, writable, devices work",
                "mount /tmp/fim/run/pulse-cookie: /home/alice/.config/pulse/cookie of the host, read-only",
                "variable PULSE_COOKIE: /tmp/fim/run/pulse-cookie",
                "variable PULSE_SERVER: unix:/run/user/1000/pulse/native",
                directory,
            ],
        ),
        (
            Permission::Wayland,
            &[
                session,
                "mount /run/user/1000/wayland-1: /run/user/1000/wayland-1 of the host, read-only",
                "variable WAYLAND_DISPLAY: wayland-1",
                directory,
            ],
        ),
        (
            Permission::Xorg,
            &[
                "mount /tmp/.X11-unix/X3: /tmp/.X11-unix/X3 of the host, read-only",
                "mount /tmp/fim/run/Xauthority: /home/alice/.Xauthority of the host, read-only",
                "variable DISPLAY: :3.0",
                "variable XAUTHORITY: /tmp/fim/run/Xauthority",
            ],
        ),
        (
            Permission::DbusUser,
            &[
                session,
                "mount /run/user/1000/bus: /run/user/1000/bus of the host, read-only",
                "variable DBUS_SESSION_BUS_ADDRESS: unix:path=/run/user/1000/bus",
                directory,
            ],
        ),
        (
            Permission::DbusSystem,
            &[
                "mount /run/dbus/system_bus_socket: /run/dbus/system_bus_socket of the host, read-only",
                "variable DBUS_SYSTEM_BUS_ADDRESS: unix:path=/run/dbus/system_bus_socket",
            ],
        ),
        (Permission::Udev, &["mount /run/udev: /run/udev of the host, read-only"]),
        (
            Permission::Usb,
            &[
                "mount /dev/bus: /dev/bus of the host, writable, devices work",
                "mount /dev/ttyUSB0: /dev/ttyUSB0 of the host, writable, devices work",
            ],
        ),
        (
            Permission::Input,
            &[
                "mount /dev/hidraw0: /dev/hidraw0 of the host, writable, devices work",
                "mount /dev/input: /dev/input of the host, writable, devices work",
                "mount /dev/uinput: /dev/uinput of the host, writable, devices work",
            ],
        ),
        (
            Permission::Gpu,
            &[
                "mount /dev/dri: /dev/dri of the host, writable, devices work",
                "mount /dev/nvidia0: /dev/nvidia0 of the host, writable, devices work",
                "mount /tmp/fim/run/gpu/lib/libcuda.so.1: /usr/lib64/libcuda.so.1 of the host, read-only",
                "mount /tmp/fim/run/gpu/vulkan/nvidia_icd.json: /usr/share/vulkan/icd.d/nvidia_icd.json of the host, read-only",
                "mount /tmp/fim/run/gpu/egl/10_nvidia.json: /usr/share/glvnd/egl_vendor.d/10_nvidia.json of the host, read-only",
                "variable LD_LIBRARY_PATH: /tmp/fim/run/gpu/lib",
                "variable VK_ADD_DRIVER_FILES: /tmp/fim/run/gpu/vulkan/nvidia_icd.json",
                "variable __EGL_VENDOR_LIBRARY_DIRS: /tmp/fim/run/gpu/egl:/etc/glvnd/egl_vendor.d:/usr/share/glvnd/egl_vendor.d",
            ],
        ),
        (Permission::Shm, &["mount /dev/shm: /dev/shm of the host, writable"]),
        (
            Permission::Optical,
            &[
                "mount /dev/cdrom: /dev/cdrom of the host, writable, devices work",
                "mount /dev/sr0: /dev/sr0 of the host, writable, devices work",
                "mount /dev/sg1: /dev/sg1 of the host, writable, devices work",
            ],
        ),
        (Permission::Host, &["mount /tmp/fim/run/host: / of the host, writable"]),
        (
            Permission::Portal,
            &[
                "mount /tmp/fim/app/x/instance/7/portal/dispatcher/host: /tmp/fim/app/x/instance/7/portal/dispatcher/host of the host, writable",
            ],
        ),
        // There by default.
        (Permission::Network, &[]),
    ] {
        let without = Case::new(1000).plan(Role::User, false);
        let with = Case::with(1000, &[permission]).plan(Role::User, false);
        let expected: Vec<String> =
            expected.iter().map(|line| format!("{line}  [permission {}]", permission.name())).collect();
        assert_eq!(more(&with, &without), expected, "{permission:?}");
    }
}

#[test]
fn a_host_that_has_nothing_gives_nothing() {
    let mut case = Case::with(1000, &[Permission::All]);
    case.facts = Facts::default();
    let plan = case.plan(Role::User, false);
    for name in
        ["XDG_RUNTIME_DIR", "DISPLAY", "WAYLAND_DISPLAY", "PULSE_SERVER", "LD_LIBRARY_PATH", "XAUTHORITY"]
    {
        assert_eq!(value(&plan, name), None, "{name}");
    }
    let mut case = Case::with(1000, &[Permission::Xorg]);
    case.facts.sockets.x11_cookie = None;
    let plan = case.plan(Role::User, false);
    assert_eq!((value(&plan, "DISPLAY"), value(&plan, "XAUTHORITY")), (Some(":3.0"), None));
    assert!(plan.mounts.iter().any(|mount| mount.to == Path::new("/tmp/.X11-unix/X3")));
}

#[test]
fn all_devices_are_no_terminals_and_no_shared_memory() {
    let with = Case::with(1000, &[Permission::Dev]).plan(Role::User, false);
    let devices: Vec<_> = with
        .mounts
        .iter()
        .filter(|mount| mount.cause == Cause::Permission(Permission::Dev))
        .map(|mount| mount.to.file_name().unwrap().to_str().unwrap())
        .collect();
    let expected = [
        "bus", "cdrom", "dri", "hidraw0", "input", "kvm", "nvidia0", "sda", "snd", "sr0", "ttyS0", "ttyUSB0",
        "uinput",
    ];
    assert_eq!(devices, expected);
}

#[test]
fn the_host_with_its_permission_shows_homes_and_no_state() {
    let plan = Case::with(1000, &[Permission::Host, Permission::Home]).plan(Role::User, false);
    let covered: Vec<_> = plan
        .mounts
        .iter()
        .filter(|mount| mount.to.starts_with("/tmp/fim/run/host") && matches!(mount.what, What::Tmpfs { .. }))
        .map(|mount| mount.to.to_str().unwrap())
        .collect();
    assert_eq!(covered, ["proc", "run", "tmp"].map(|place| format!("/tmp/fim/run/host/{place}")));
}

#[test]
fn deny_all_is_nothing_but_what_is_named() {
    let strict = |more: &[Permission]| {
        let mut case = Case::with(1000, more);
        case.strict = true;
        case.plan(Role::User, false)
    };
    let none = strict(&[]);
    let names: Vec<_> = none.namespaces.keys().map(|name| name.name()).collect();
    assert_eq!(names, ["user", "ipc", "pid", "net", "uts", "cgroup"]);
    assert_eq!(value(&none, "http_proxy"), None);
    let places = |plan: &Plan| -> Vec<String> {
        let outside =
            |mount: &&Mount| matches!(mount.what, What::Bind { .. }) && mount.cause != Cause::Runtime;
        plan.mounts.iter().filter(outside).map(|mount| mount.to.to_str().unwrap().to_owned()).collect()
    };
    assert_eq!(places(&none), [""; 0]);
    let some = strict(&[Permission::Network, Permission::Shm, Permission::Usb, Permission::Gpu]);
    let names: Vec<_> = some.namespaces.keys().map(|name| name.name()).collect();
    assert_eq!(names, ["user", "pid", "uts", "cgroup"]);
    assert_eq!(places(&some).iter().filter(|place| *place == "/sys").count(), 1);
    assert!(places(&some).contains(&"/etc/resolv.conf".to_owned()));
    assert!(places(&strict(&[Permission::Host])).contains(&"/tmp/fim/run/host".to_owned()));
    let stored = Case::with(1000, &[Permission::Strict]).plan(Role::User, false);
    assert_eq!(stored.namespaces.get(&Namespace::Net), Some(&Cause::Strict(Asker::Image)));
}

#[test]
fn namespaces_are_added() {
    for (word, added) in [
        (Namespace::Ipc, &[Namespace::Ipc][..]),
        (Namespace::Net, &[Namespace::Net]),
        (Namespace::Uts, &[Namespace::Uts]),
        (Namespace::Cgroup, &[Namespace::Cgroup]),
        (Namespace::Pid, &[]),
        (Namespace::User, &[]),
        (Namespace::All, &[Namespace::Ipc, Namespace::Net, Namespace::Uts, Namespace::Cgroup]),
    ] {
        let without = Case::new(1000).plan(Role::User, false).namespaces;
        let mut case = Case::new(1000);
        case.unshare.add([word]);
        let with = case.plan(Role::User, false).namespaces;
        let new: Vec<_> = with.keys().filter(|name| !without.contains_key(name)).copied().collect();
        assert_eq!(new, added, "{word:?}");
    }
    let mut case = Case::new(0);
    case.unshare.add([Namespace::User]);
    let plan = case.plan(Role::Root, false);
    assert_eq!(plan.identity, Identity::Mapped { uid: 0, gid: 0 });
    assert_eq!(plan.namespaces.get(&Namespace::User), Some(&Cause::Unshare));
}

#[test]
fn the_image_says_who_the_program_is() {
    let mut case = Case::new(0);
    case.set(&[("UID", "4000"), ("GID", "5"), ("USER", "bob"), ("HOME", "$HOME/b"), ("SHELL", "/bin/ash")]);
    let plan = case.plan(Role::User, false);
    assert_eq!(
        (plan.identity, &plan.capabilities),
        (Identity::Mapped { uid: 4000, gid: 5 }, &Capabilities::None)
    );
    let known = plan.known_user.as_ref().unwrap();
    assert!(known.explicit);
    assert_eq!((known.user.name.as_str(), known.user.uid, known.user.gid), ("bob", 4000, 5));
    assert_eq!(
        (known.user.home.as_path(), known.user.shell.as_path()),
        (Path::new("/home/alice/b"), Path::new("/bin/ash"))
    );
    for (name, expected) in [
        ("UID", "4000"),
        ("USER", "bob"),
        ("LOGNAME", "bob"),
        ("HOME", "/home/alice/b"),
        ("SHELL", "/bin/ash"),
    ] {
        assert_eq!(value(&plan, name), Some(expected), "{name}");
    }
    let root = case.plan(Role::Root, false);
    assert_eq!(
        (root.identity, value(&root, "USER"), value(&root, "UID")),
        (Identity::HostRoot, Some("root"), None)
    );
    assert_eq!(value(&root, "SHELL"), Some("/bin/ash"));
    case.set(&[("UID", "4000")]);
    let plan = case.plan(Role::User, false);
    assert_eq!((value(&plan, "USER"), value(&plan, "HOME")), (Some("user4000"), Some("/home/user4000")));
    for (name, wrong) in [
        ("UID", "x"),
        ("UID", "4294967295"),
        ("GID", "-1"),
        ("HOME", "relative"),
        ("USER", "a:b"),
        ("USER", ""),
    ] {
        case.set(&[(name, wrong)]);
        let error = case.try_plan(Role::User, false).unwrap_err().to_string();
        assert!(error.contains(name), "{error}");
        assert!(case.try_plan(Role::Root, false).is_ok());
    }
}

#[test]
fn binds_are_expanded_and_cover_nothing_of_the_sandbox() {
    let bind = |source: &str, destination: &str, kind| Bind {
        destination: destination.into(),
        source: source.into(),
        kind,
    };
    let mut case = Case::new(1000);
    case.environment.insert("MUSIC".into(), "/data/music".into());
    case.set(&[("PLACE", "/inside")]);
    for (source, destination, kind) in [
        ("$MUSIC", "$PLACE/music", BindKind::Rw),
        ("~/x", "/x", BindKind::Ro),
        ("relative", "/rel", BindKind::Dev),
        ("/a", "$NOTHING", BindKind::Ro),
        ("/a", "/tmp/fim/app", BindKind::Rw),
        ("/a", "$PLACE/../proc", BindKind::Rw),
        ("/a", "/proc/sys", BindKind::Rw),
        ("/a", "/dev", BindKind::Dev),
    ] {
        case.binds.add(bind(source, destination, kind)).unwrap();
    }
    case.binds.add(bind("/a", "/", BindKind::Ro)).unwrap();
    let shown = |case: &Case| -> Vec<(String, String, Access)> {
        let plan = case.plan(Role::User, false);
        let binds = plan.mounts.into_iter().filter(|mount| matches!(mount.cause, Cause::Bind(_)));
        binds
            .map(|mount| match mount.what {
                What::Bind { from, access, .. } => {
                    (from.to_str().unwrap().to_owned(), mount.to.to_str().unwrap().to_owned(), access)
                }
                other => panic!("{other:?}"),
            })
            .collect()
    };
    let expected = |accesses: [Access; 3]| {
        [("/data/music", "/inside/music"), ("/home/alice/x", "/x"), ("/work/relative", "/rel")]
            .into_iter()
            .zip(accesses)
            .map(|((from, to), access)| (from.to_owned(), to.to_owned(), access))
            .collect::<Vec<_>>()
    };
    assert_eq!(shown(&case), expected([Access::ReadWrite, Access::ReadOnly, Access::Devices]));
    let plan = case.plan(Role::User, false);
    assert_eq!(plan.warnings.len(), 6, "{:?}", plan.warnings);
    assert!(plan.warnings[0].contains("bind 3"), "{:?}", plan.warnings);
    case.policy = Policy::decode(br#"{"default":{"binds":"ro"}}"#).unwrap();
    assert_eq!(shown(&case), expected([Access::ReadOnly; 3]));
    case.policy = Policy::decode(br#"{"default":{"binds":"none"}}"#).unwrap();
    assert_eq!(shown(&case), []);
}

#[test]
fn a_policy_only_narrows() {
    let mut case = Case::with(1000, &[Permission::All]);
    let whole = case.plan(Role::User, false);
    case.policy = Policy::decode(br#"{"default":{"deny":["home","network","host","gpu"]}}"#).unwrap();
    let narrow = case.plan(Role::User, false);
    assert_eq!(narrow.namespaces.get(&Namespace::Net), Some(&Cause::Policy));
    let given = |row: &&Row| row.subject != Subject::Namespace;
    let known = explain(&whole);
    assert!(explain(&narrow).iter().filter(given).all(|row| known.contains(row)));
    for gone in ["/home/alice", "/etc/resolv.conf", "/tmp/fim/run/host", "/dev/dri"] {
        let has = |plan: &Plan| plan.mounts.iter().any(|mount| mount.to == Path::new(gone));
        // Graphics devices are devices: `dev` is still held.
        assert!(has(&whole) && (gone == "/dev/dri" || !has(&narrow)), "{gone}");
    }
}

#[test]
fn everything_inside_has_a_reason() {
    let mut case = Case::with(1000, &[Permission::All]);
    case.set(&[("A", "b")]);
    let plan = case.plan(Role::User, true);
    assert!(plan.program.environment.keys().all(|name| plan.program.reasons.contains_key(name)));
    let reason = |name: &str| plan.program.reasons.get(OsStr::new(name)).copied();
    assert_eq!(reason("A"), Some(Cause::Settings));
    assert_eq!(reason("SECRET"), Some(Cause::Caller));
    assert_eq!(reason("DISPLAY"), Some(Cause::Permission(Permission::Xorg)));
    assert_eq!(reason("FIM_PID"), Some(Cause::Runtime));
    assert!(plan.program.environment.keys().all(|name| !name.as_bytes().is_empty()));
}

#[test]
fn the_hosts_root_switches_nothing_in_the_kernel() {
    for (uid, expected) in [(0, true), (1000, false)] {
        for role in [Role::User, Role::Root] {
            let plan = Case::new(uid).plan(role, false);
            let sealed = |mount: &Mount| {
                mount.to == Path::new("/proc/sys")
                    && matches!(mount.what, What::Bind { access: Access::ReadOnly, .. })
            };
            assert_eq!(plan.mounts.iter().any(sealed), expected, "{uid} {role:?}");
        }
    }
}
