//! `fim gc`: what killed processes have left goes, what lives stays.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::{fs::MetadataExt as _, net::UnixListener},
    path::{Path, PathBuf},
    process::Command,
};

use fim::sys::{process::Pidfd, signal::Signal};

use crate::support::{Who, World, eventually, for_each_user, said};

/// A command of the world in mounts of its own: dead ones of others on this machine are not ours to take away.
fn apart(world: &World, words: &[&str]) -> Command {
    let like = world.tool(words);
    let mut command = Command::new("unshare");
    command.arg("-m").args(words).env_clear().current_dir(world.path("cwd"));
    command.envs(like.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command
}

fn run(world: &World, words: &[&str]) -> String {
    let mut command = match world.who {
        Who::Myself => apart(world, &[env!("CARGO_BIN_EXE_fim"), "gc"]),
        // Apart anyway.
        Who::Plain => world.tool(&["gc"]),
    };
    said(command.args(words).output().unwrap())
}

fn gc(world: &World, words: &[&str]) -> BTreeSet<(String, PathBuf)> {
    let said = run(world, words);
    let lines = said.lines().map(|line| line.split_once(' ').unwrap());
    lines.map(|(kind, path)| (kind.to_owned(), PathBuf::from(path))).collect()
}

fn instance(world: &World, words: &[&str]) -> String {
    let words: Vec<&str> = ["fim-instance"].iter().chain(words).copied().collect();
    said(world.command(&words).output().unwrap())
}

/// Makes a copy of a small tree that belongs to whom the original does.
fn copy(from: &Path, to: &Path) {
    let done = Command::new("cp").arg("-a").args([from, to]).status();
    assert!(done.unwrap().success());
}

fn folders(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path());
    entries.filter(|path| path.is_dir()).collect()
}

fn only_folder(folder: &Path) -> PathBuf {
    let found = folders(folder);
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].clone()
}

/// Kills the server of an instance together with everybody who would tidy up; returns the directories that stay.
fn killed(world: &World) -> [PathBuf; 2] {
    let running = world.start("echo ready; sleep 100");
    let janitor = world.processes().into_iter().find(|pid| {
        fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|words| words.starts_with(b"fim_janitor\0"))
    });
    let left = [world.instances().remove(0), world.servers().remove(0)];
    for pid in [janitor.unwrap(), running.pid()] {
        Pidfd::open(pid).unwrap().signal(Signal::SIGSTOP).unwrap();
    }
    for pid in [world.server_pid(), janitor.unwrap(), running.pid()] {
        Pidfd::open(pid).unwrap().signal(Signal::SIGKILL).unwrap();
    }
    drop(running);
    eventually("all processes have ended", || match world.processes() {
        left if left.is_empty() => Ok(()),
        left => Err(format!("{left:?}")),
    });
    left
}

#[test]
fn leftovers_go_and_the_living_stay() {
    for_each_user(|world| {
        assert!(gc(world, &[]).is_empty());
        let [home, server] = killed(world);
        let mut expected: BTreeSet<(String, PathBuf)> =
            [("instance".to_owned(), home.clone()), ("server".to_owned(), server)].into();
        // What another build has left, and what lives under another key.
        let other = world.path("global/app/0000000_20000101000000/instance");
        fs::create_dir_all(&other).unwrap();
        copy(&home, &other.join("17"));
        for folder in [&other, other.parent().unwrap(), &world.path("data/layers")] {
            let owner = fs::metadata(&home).unwrap().uid();
            std::os::unix::fs::chown(folder, Some(owner), None).unwrap();
        }
        expected.insert(("instance".to_owned(), other.join("17")));
        // One record that tells of somebody dead, 25 that have ended, one that was never written.
        let records = only_folder(&world.path("global/state/instances"));
        let dead = only_folder(&records);
        for number in 0..25 {
            let name = format!("old@{number}");
            copy(&dead, &records.join(&name));
            if number < 6 {
                expected.insert(("record".to_owned(), records.join(name)));
            }
        }
        copy(&dead, &records.join("empty"));
        fs::remove_file(records.join("empty/state.json")).unwrap();
        expected.insert(("record".to_owned(), records.join("empty")));
        copy(&dead, &records.join("newer"));
        fs::write(records.join("newer/state.json"), "{\"version\":99}").unwrap();
        // Parts of layers, beside files that nobody but their owner knows.
        for part in ["tmp/commit.layer", "tmp/.commit.layer.12.part", "layers/.layer-001.layer.9.part"] {
            fs::write(world.path("data").join(part), "x").unwrap();
            expected.insert(("staged".to_owned(), world.path("data").join(part)));
        }
        fs::write(world.path("data/tmp/mine"), "x").unwrap();

        assert_eq!(gc(world, &["--dry-run"]), expected);
        let json = run(world, &["--dry-run", "--json"]);
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json.as_array().unwrap().len(), expected.len());
        assert!(expected.iter().all(|(_, path)| path.exists()), "a dry run has removed something");
        assert_eq!(gc(world, &[]), expected);
        assert!(!expected.iter().any(|(_, path)| path.exists()));
        assert!(records.join("newer").exists() && world.path("data/tmp/mine").exists());
        assert_eq!(folders(&records).len(), 21);
        assert!(gc(world, &[]).is_empty());
    });
}

#[test]
fn nothing_of_the_living_is_taken() {
    for_each_user(|world| {
        instance(world, &["start", "web"]);
        let home = world.instances().remove(0);
        // The socket of a client that was killed, and one of a client that lives.
        let dispatcher = home.join("portal/dispatcher/guest");
        let gone = Command::new("true").spawn().map(|mut child| {
            child.wait().unwrap();
            child.id().to_string()
        });
        let (gone, here) = (gone.unwrap(), std::process::id().to_string());
        for name in [&gone, &here] {
            drop(UnixListener::bind(dispatcher.join(name)).unwrap());
        }
        fs::write(world.path("data/tmp/commit.layer"), "somebody may be at it").unwrap();
        let expected: BTreeSet<_> = [("socket".to_owned(), dispatcher.join(&gone))].into();
        assert_eq!(gc(world, &["--dry-run"]), expected);
        assert_eq!(gc(world, &[]), expected);
        assert!(dispatcher.join(&here).exists());
        assert_eq!(instance(world, &["exec", "web", "echo", "x"]), "x");
        instance(world, &["stop", "web"]);
        world.assert_nothing_left();
    });
}

/// Mounts twice, kills one of the servers, and sweeps.
const MOUNTS: &str = r#"
fim=$1; lower=$2
mkdir dead alive
pid=$("$fim" mount --json --layer "$lower" dead | grep -o '"pid":[0-9]*' | cut -d: -f2)
"$fim" mount --layer "$lower" alive
kill -9 "$pid"
until ls dead 2>&1 | grep -q 'not connected'; do sleep 0.01; done
for words in --dry-run '' ''; do "$fim" gc $words | grep "$PWD"; echo --; done
ls dead | wc -l; ls alive | grep -c bin
"$fim" umount alive
"#;

#[test]
fn a_mount_without_a_server_is_taken_away() {
    let Some(world) = World::new(Who::Myself) else { return };
    let mut command = apart(&world, &["sh", "-c", MOUNTS, "sh", env!("CARGO_BIN_EXE_fim")]);
    let said = said(command.arg(world.root()).output().unwrap());
    let line = format!("mount {}", world.path("cwd/dead").display());
    assert_eq!(said, format!("{line}\n--\n{line}\n--\n--\n0\n1"));
}
