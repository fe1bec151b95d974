//! What a program finds inside.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, symlink},
    path::Path,
    process::Stdio,
};

use crate::support::{HOME, PLAIN_UID, Who, World, for_each_user, said};

#[test]
fn a_program_runs_as_the_caller() {
    for_each_user(|world| {
        let expected = if world.who == Who::Plain { PLAIN_UID.to_string() } else { "0".to_owned() };
        assert_eq!(world.says("id -u; id -g"), format!("{expected}\n{expected}"));
    });
}

#[test]
fn root_is_uid_0_at_home_in_root() {
    for_each_user(|world| {
        let output = world.command(&[
            "fim-root",
            "sh",
            "-c",
            "id -u; echo $HOME $USER; touch /made; stat -c %u /made",
        ]);
        assert_eq!(said({ output }.output().unwrap()), "0\n/root root\n0");
        let owner = fs::metadata(world.upper().join("made")).unwrap().uid();
        assert_eq!(owner, if world.who == Who::Plain { PLAIN_UID } else { 0 });
    });
}

#[test]
fn a_true_root_owns_files_by_others_and_makes_devices() {
    let Some(world) = World::new(Who::Myself) else { return };
    let script = "touch /f && chown 7:8 /f && stat -c %u:%g /f && mknod /n c 1 3 && stat -c %t:%T /n && chmod 4755 /f && stat -c %a /f";
    let output = world.command(&["fim-root", "sh", "-c", script]).output().unwrap();
    assert_eq!(said(output), "7:8\n1:3\n4755");
    world.assert_nothing_left();
}

#[test]
fn changes_persist_in_the_upper_and_the_layer_stays_as_it_was() {
    for_each_user(|world| {
        world.says("echo new > ~/note; rm -r /opt");
        assert_eq!(world.says("cat ~/note; ls /opt 2>/dev/null || echo gone"), "new\ngone");
        assert!(!world.root().join("home/tester").exists() && world.root().join("opt").exists());
    });
}

#[test]
fn the_environment_is_what_the_documentation_says() {
    for_each_user(|world| {
        let mut command = world.shell("env");
        command.env("TERM", "vt100").env("LC_ALL", "C").env("SECRET", "s").env("FIM_LOG", "debug");
        let environment = said(command.output().unwrap());
        let value = |name: &str| {
            environment.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).map(str::to_owned)
        };
        for (name, expected) in [("TERM", "vt100"), ("LC_ALL", "C"), ("FIM_INSTANCE", "0")] {
            assert_eq!(value(name).as_deref(), Some(expected), "{name}");
        }
        assert_eq!(value("SECRET"), None);
        assert_eq!(value("FIM_LOG"), None);
        let user = value("USER").unwrap();
        assert_eq!(value("FROM_IMAGE"), Some(format!("{user}-x")));
        for name in ["FIM_VERSION", "FIM_COMMIT", "FIM_TIMESTAMP", "FIM_PID", "FIM_BIN_SELF", "FIM_DIR_SELF"]
        {
            assert!(value(name).is_some(), "{name}");
        }
        let global = world.path("global");
        assert_eq!(value("FIM_DIR_GLOBAL"), global.to_str().map(str::to_owned));
        assert_eq!(value("FIM_DIR_DATA"), world.path("data").to_str().map(str::to_owned));
        let (bin, sbin) = (value("FIM_DIR_APP_BIN").unwrap(), value("FIM_DIR_APP_SBIN").unwrap());
        assert!(value("PATH").unwrap().ends_with(&format!(":{bin}:{sbin}")));
        let mut all = world.shell("echo $SECRET");
        assert_eq!(said(all.env("SECRET", "s").env("FIM_ENV_PASS", "all").output().unwrap()), "s");
    });
}

#[test]
fn only_the_own_processes_are_seen_and_init_is_first() {
    for_each_user(|world| {
        assert_eq!(
            world.says("ls /proc | grep -c '^[0-9]*$' || true; cat /proc/1/comm").lines().last(),
            Some("fim_init")
        );
        let pids = world.says("for p in /proc/[0-9]*; do echo ${p##*/}; done");
        assert!(pids.lines().count() <= 3, "{pids}");
    });
}

#[test]
fn the_caller_is_known_by_name() {
    for_each_user(|world| {
        let name = if world.who == Who::Plain { format!("user{PLAIN_UID}") } else { "root".to_owned() };
        assert_eq!(world.says("id -un"), name);
        let passwd = fs::read_to_string(world.root().join("etc/passwd")).unwrap();
        assert_eq!(passwd.lines().count(), 1, "the image's own file is as it was");
    });
}

#[test]
fn the_working_directory_is_kept_where_it_exists_inside() {
    for_each_user(|world| {
        assert_eq!(world.says("pwd"), HOME, "home, where it does not");
        let mut command = world.shell("pwd");
        assert_eq!(said(command.current_dir("/etc").output().unwrap()), "/etc");
    });
}

#[test]
fn the_host_is_shown_read_only_without_private_places() {
    for_each_user(|world| {
        let host = world.path("global").join("run/host");
        let host = host.display();
        assert_eq!(
            world.says(&format!("cd {host}; echo tmp/* proc/* home/* root/*; ls usr >/dev/null && echo usr")),
            "tmp/* proc/* home/* root/*\nusr"
        );
        assert_eq!(
            world.says(&format!(
                "touch {host}/usr/x 2>/dev/null || echo no; touch {host}/tmp/x 2>/dev/null || echo no"
            )),
            "no\nno"
        );
    });
}

#[test]
fn the_engines_files_are_read_only_inside() {
    for_each_user(|world| {
        let script = "for f in $FIM_DIR_GLOBAL/x $FIM_DIR_APP_BIN/x $FIM_DIR_INSTANCE/x $FIM_DIR_INSTANCE/bashrc $FIM_DIR_RUNTIME/fim_init; do
            ( : >> $f ) 2>/dev/null && echo wrote $f; done; echo done; touch /tmp/mine && stat -c %a /tmp";
        assert_eq!(world.says(script), "done\n1777");
    });
}

#[test]
fn names_are_resolved_as_on_the_host() {
    for_each_user(|world| {
        let Ok(host) = fs::read_to_string("/etc/resolv.conf") else { return };
        assert_eq!(world.says("cat /etc/resolv.conf"), host.trim_end_matches('\n'));
    });
}

#[test]
fn an_images_symlinks_do_not_lead_the_engine_out() {
    for_each_user(|world| {
        let outside = world.path("cwd");
        symlink(outside.join("deep/resolv.conf"), world.root().join("etc/resolv.conf")).unwrap();
        symlink(&outside, world.root().join("etc/hosts")).unwrap();
        fs::remove_dir(world.root().join("sys")).unwrap();
        symlink("../../../../../../../../escape/sys", world.root().join("sys")).unwrap();
        assert_eq!(world.says("echo in"), "in");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
        assert!(!Path::new("/escape").exists());
        assert!(world.upper().join("escape/sys").is_dir());
    });
}

#[test]
fn instances_share_one_server_and_see_each_other() {
    for_each_user(|world| {
        let one = world.start("echo ready; while [ ! -e /var/stop ]; do usleep 10000; done; cat /var/stop");
        let server = world.server_pid();
        assert_eq!(world.says("echo $FIM_INSTANCE"), "1");
        assert_eq!(world.server_pid(), server);
        assert_eq!((world.servers().len(), world.instances().len()), (1, 1));
        world.says("echo coherent > /var/stop.new; mv /var/stop.new /var/stop");
        assert_eq!(one.end(), (0, "coherent\n".to_owned()));
    });
}

#[test]
fn many_fronts_at_once_start_one_server() {
    for_each_user(|world| {
        for _ in 0..5 {
            let fronts: Vec<_> = (0..6)
                .map(|_| {
                    world
                        .shell("echo $FIM_INSTANCE")
                        .stdout(Stdio::piped())
                        .stderr(Stdio::piped())
                        .spawn()
                        .unwrap()
                })
                .collect();
            for front in fronts {
                said(front.wait_with_output().unwrap());
            }
            world.assert_nothing_left();
        }
    });
}

#[test]
fn another_data_directory_has_another_server() {
    let Some(world) = World::new(Who::Myself) else { return };
    let other = World::new(Who::Myself).unwrap();
    let running = world.start("echo ready; sleep 60");
    let mut command = other.shell("echo $FIM_INSTANCE");
    assert_eq!(said(command.env("FIM_DIR_GLOBAL", world.path("global")).output().unwrap()), "0");
    drop(running);
    world.assert_nothing_left();
}

#[test]
fn the_mount_is_not_seen_outside() {
    for_each_user(|world| {
        let _running = world.start("echo ready; sleep 60");
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let ours = world.folder.path().to_str().unwrap();
        assert!(!table.lines().any(|line| line.contains("fuse.fim") && line.contains(ours)), "{table}");
    });
}

#[test]
fn bin_sh_may_be_the_boot_command() {
    for_each_user(|world| {
        let output = world.command(&["-c", "echo $0"]).output().unwrap();
        assert_eq!(output.status.code(), Some(127), "the default is bash, which this root lacks");
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(said, "fim: cannot run bash: not found in the image\n");
    });
}
