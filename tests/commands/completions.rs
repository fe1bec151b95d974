//! Completions in real shells: what each offers for a command line.

use std::process::Command;

use crate::{
    place::Place,
    support::{find, skip},
};

/// A place with an image `app.flatimage` that has two layers, and `fim` on PATH.
fn place() -> Place {
    let place = Place::new();
    place.root("root");
    place.ok("fim create -o app.flatimage --from root --no-tools");
    place.layer("fonts");
    place.ok("fim layer app.flatimage add fonts.layer --message fonts");
    place.ok("fim perms app.flatimage add home,gpu");
    std::fs::create_dir(place.path("bin")).unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_fim"), place.path("bin/fim")).unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let script = place.ok(&format!("fim completions {shell}"));
        std::fs::write(place.path(&format!("completions.{shell}")), script).unwrap();
    }
    place
}

/// What a shell prints, with our program on PATH.
fn shell(place: &Place, program: &str, arguments: &[&str], script: &str) -> String {
    let path = format!("{}:{}", place.path("bin").display(), std::env::var("PATH").unwrap());
    let output = Command::new(program)
        .args(arguments)
        .arg(script)
        .current_dir(place.directory())
        .env("PATH", path)
        .env("HOME", place.directory())
        .env("TERM", "dumb")
        .env("FIM_DIR_GLOBAL", place.path("global"))
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{script}");
    String::from_utf8(output.stdout).unwrap()
}

/// Command lines, and words that must be among those offered.
const LINES: [(&str, &[&str]); 6] = [
    ("fim umou", &["umount"]),
    ("fim layer app.flatimage ", &["list", "rm", "discard"]),
    ("fim layer app.flatimage rm ", &["0", "1"]),
    ("fim perms app.flatimage del ", &["gpu", "home"]),
    ("fim perms app.flatimage add wayl", &["wayland"]),
    ("fim info fon", &["fonts.layer"]),
];

#[test]
fn bash_completes_live_values() {
    if find("bash").is_none() {
        return skip("bash");
    }
    let place = place();
    for (line, expected) in LINES {
        let script = format!(
            "source ./completions.bash; read -ra COMP_WORDS <<< '{line}'; \
             case '{line}' in *' ') COMP_WORDS+=('');; esac; \
             COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 )); _fim; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        );
        let offered = shell(&place, "bash", &["--norc", "-c"], &script);
        for word in expected {
            assert!(offered.lines().any(|line| line == *word), "{line}{word}: {offered}");
        }
    }
}

#[test]
fn fish_completes_live_values() {
    if find("fish").is_none() {
        return skip("fish");
    }
    let place = place();
    for (line, expected) in LINES {
        let script = format!("source ./completions.fish; complete -C '{line}'");
        let offered = shell(&place, "fish", &["--no-config", "-c"], &script);
        for word in expected {
            assert!(
                offered.lines().any(|line| line.split('\t').next() == Some(word)),
                "{line}{word}: {offered}"
            );
        }
    }
    let offered = shell(
        &place,
        "fish",
        &["--no-config", "-c"],
        "source ./completions.fish; complete -C 'fim layer app.flatimage rm '",
    );
    assert!(offered.contains("fonts"), "layers are told by their messages: {offered}");
}

#[test]
fn zsh_completes_live_values() {
    if find("zsh").is_none() {
        return skip("zsh");
    }
    let place = place();
    for (line, expected) in LINES {
        // The function as the shell calls it, with what it offers printed instead of shown.
        let script = format!(
            "compdef() {{ : }}; compadd() {{ print -rl -- \"${{(@)found}}\" }}; _files() {{ print -l *(N) }}; \
             source ./completions.zsh; words=(${{=:-{line}}}); \
             case '{line}' in *' ') words+=('');; esac; CURRENT=$#words; _fim"
        );
        let offered = shell(&place, "zsh", &["-f", "-c"], &script);
        for word in expected {
            assert!(offered.lines().any(|line| line == *word), "{line}{word}: {offered}");
        }
    }
}

#[test]
fn running_instances_are_offered_by_name() {
    let place = crate::table::image();
    if !crate::table::runnable(&place) {
        return;
    }
    let state = place.path("state");
    let fim = |line: &str| {
        let output =
            place.command("fim").args(line.split(' ')).env("XDG_STATE_HOME", &state).output().unwrap();
        assert!(output.status.success(), "{line}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    fim("instance app start web -- sleep 60");
    let offered = fim("complete -- fim instance app stop w");
    fim("instance app stop web --force");
    assert_eq!(offered, "web\tinstance 0\n");
    assert_eq!(fim("complete -- fim instance app stop w"), "", "it has ended");
}
