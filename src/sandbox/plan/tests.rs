use super::*;

struct Case {
    app: AppDirs,
    user: User,
    environment: BTreeMap<OsString, OsString>,
    settings: Vec<(String, String)>,
    hidden: Vec<PathBuf>,
    command: Vec<OsString>,
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
            ]
            .map(|(name, value)| (name.into(), value.into()))
            .into(),
            settings: Vec::new(),
            hidden: ["/home", "/home/alice", "/root", "/", "/tmp"].map(PathBuf::from).into(),
            command: vec!["id".into()],
        }
    }

    fn plan(&self, role: Role, pass_all: bool) -> Plan {
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
            environment: &self.environment,
            pass_all,
            settings: &self.settings,
            directory: Some(Path::new("/work")),
            command: &self.command,
        })
    }
}

fn value<'a>(plan: &'a Plan, name: &str) -> Option<&'a str> {
    plan.program.environment.get(OsStr::new(name)).and_then(|value| value.to_str())
}

#[test]
fn who_runs_decides_ids_and_capabilities() {
    for (uid, role, identity, all) in [
        (0, Role::User, Identity::HostRoot, false),
        (0, Role::Root, Identity::HostRoot, false),
        (1000, Role::User, Identity::Mapped { uid: 1000, gid: 1000 }, false),
        (1000, Role::Root, Identity::Mapped { uid: 0, gid: 0 }, true),
    ] {
        let plan = Case::new(uid).plan(role, false);
        assert_eq!(plan.identity, identity, "{uid} {role:?}");
        assert_eq!(plan.capabilities == Capabilities::All, all, "{uid} {role:?}");
        assert_eq!(plan.known_user.is_some(), role == Role::User);
    }
    let Capabilities::Only(few) = Case::new(0).plan(Role::Root, false).capabilities else { panic!() };
    for dangerous in ["CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH", "CAP_SYS_MODULE"] {
        assert!(!few.contains(&dangerous));
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
    assert_eq!(value(&plan, "PATH"), Some(format!("{PATH}{ends}").as_str()));
    let plan = Case::new(1000).plan(Role::User, true);
    assert_eq!(value(&plan, "SECRET"), Some("x"));
    assert_eq!(value(&plan, "FIM_DEBUG"), None);
    assert_eq!(value(&plan, "PATH"), Some(format!("/h{ends}").as_str()));
}

#[test]
fn settings_are_expanded_and_root_stays_root() {
    let mut case = Case::new(1000);
    case.settings = [("A", "$TERM-${NONE:-x}"), ("PATH", "/opt:$SECRET"), ("HOME", "/elsewhere")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
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
        .filter(|mount| mount.cause == Cause::HostView && matches!(mount.what, What::Tmpfs { .. }))
        .map(|mount| mount.to.to_str().unwrap())
        .collect();
    assert_eq!(covered, ["/tmp/fim/run/host/home", "/tmp/fim/run/host/root", "/tmp/fim/run/host/tmp"]);
    let last = plan.mounts.last().unwrap();
    assert_eq!((&last.what, last.to.as_path()), (&What::Seal, Path::new("/tmp/fim")));
}
