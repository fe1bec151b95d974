//! Exit statuses: the program's own, or the engine's with one line.

use std::{fs::File, process::Stdio};

use crate::support::{Who, for_each_user, status};

#[test]
fn the_programs_status_is_exact() {
    for_each_user(|world| {
        for (script, expected) in [
            ("exit 0", 0),
            ("exit 3", 3),
            ("exit 125", 125),
            ("exit 255", 255),
            ("kill -9 $$", 137),
            ("kill -15 $$", 143),
            ("kill -SEGV $$", 139),
        ] {
            assert_eq!(status(world.shell(script).status().unwrap()), expected, "{script}");
        }
    });
}

#[test]
fn what_cannot_be_started_is_126_or_127() {
    for_each_user(|world| {
        for (program, expected) in [
            ("nothing", 127),
            ("/nothing", 127),
            ("/opt/plain", 126),
            ("/opt", 126),
            ("/opt/plain/x", 127),
            ("/opt/broken", 127),
        ] {
            let output = world.command(&["fim-exec", program]).output().unwrap();
            let said = String::from_utf8(output.stderr).unwrap();
            assert_eq!(status(output.status), expected, "{program}: {said}");
            assert!(
                said.starts_with(&format!("fim: cannot run {program}: ")) && said.lines().count() == 1,
                "{said}"
            );
        }
    });
}

#[test]
fn errors_of_the_engine_are_125_and_one_line() {
    for_each_user(|world| {
        let mut cases = vec![
            (world.shell("true"), ("FIM_BWRAP", "/nothing"), "cannot use bubblewrap /nothing"),
            (world.shell("true"), ("FIM_LAYERS", "/nothing.layer"), "/nothing.layer"),
            (world.shell("true"), ("FIM_THREADS", "many"), "cannot understand FIM_THREADS"),
            (world.shell("true"), ("FIM_DIR_GLOBAL", "/proc"), "/proc"),
        ];
        if world.who == Who::Plain {
            cases.push((world.shell("true"), ("FIM_DIR_GLOBAL", "/usr"), "/usr"));
        }
        for (mut command, (name, value), expected) in cases {
            let output = command.env(name, value).output().unwrap();
            let said = String::from_utf8(output.stderr).unwrap();
            assert_eq!(status(output.status), 125, "{name}={value}: {said}");
            assert!(
                said.starts_with("fim: ") && said.lines().count() == 1 && said.contains(expected),
                "{said}"
            );
        }
    });
}

#[test]
fn a_broken_bubblewrap_is_named_with_its_cause() {
    for_each_user(|world| {
        let output = world.shell("true").env("FIM_BWRAP", "/bin/false").output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(status(output.status), 125);
        assert!(said.contains("cannot use bubblewrap /bin/false"), "{said}");
    });
}

#[test]
fn a_directory_as_stdin_is_refused() {
    for_each_user(|world| {
        let directory = File::open("/").unwrap();
        let output = world.shell("true").stdin(Stdio::from(directory)).output().unwrap();
        assert_eq!(status(output.status), 125);
        assert!(String::from_utf8(output.stderr).unwrap().contains("stdin"));
    });
}

#[test]
fn a_layer_that_cannot_be_opened_stops_the_start_and_is_named() {
    for_each_user(|world| {
        let bad = world.path("own/bad.layer");
        std::fs::write(&bad, "no archive").unwrap();
        let output = world.shell("true").env("FIM_LAYERS", &bad).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(status(output.status), 125, "{said}");
        assert!(said.contains("bad.layer") && said.lines().count() == 1, "{said}");
    });
}

#[test]
fn closed_standard_descriptors_are_no_obstacle() {
    for_each_user(|world| {
        let image = world.shell("exit 7");
        let mut words: Vec<_> = vec![image.get_program().to_owned()];
        words.extend(image.get_args().map(ToOwned::to_owned));
        let mut outer = std::process::Command::new("sh");
        outer.args(["-c", "exec \"$@\" <&- >&- 2>&-", "sh"]).args(words).env_clear();
        for (name, value) in image.get_envs() {
            if let Some(value) = value {
                outer.env(name, value);
            }
        }
        assert_eq!(status(outer.status().unwrap()), 7);
    });
}
