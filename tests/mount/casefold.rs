//! Names that differ in case alone, on real mounts: as root, and as a user without a name or rights.

use std::{fs, path::Path};

use crate::support::{Machine, User, can_mount, finish, text};

/// Runs a script in a mount that folds names; returns what it printed.
fn folded(machine: &Machine, options: &[&str], script: &str) -> String {
    let layers = ["--layer", "lower", "--upper", "upper", "mount", "--", "sh", "-ec"];
    let mut words = vec!["mount"];
    words.extend(options.iter().chain(&layers));
    let mut command = machine.fim(&words);
    command.arg(format!("cd mount\n{script}"));
    let output = finish(command);
    assert!(output.status.success(), "{script}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

fn on_each_user(body: impl Fn(&Machine)) {
    if can_mount() {
        for user in [User::Root, User::Nameless] {
            body(&Machine::new(user));
        }
    }
}

/// What a person types, what ciopfs 0.4 answers, and what is right. The second column is what its source and reports of its
/// users say (`-` where it fails); it is not run here.
const BESIDE_CIOPFS: [(&str, &str, &str); 9] = [
    // A name with a capital letter that was there before.
    ("cat UPPER", "-", "up"),
    ("ls | grep -ix upper", "-", "Upper"),
    // Both names of a file keep their case.
    ("echo hi >Foo; ln Foo Bar; ls | grep -ixE 'foo|bar'", "bar foo", "Bar Foo"),
    // So does the name of a symlink.
    ("ln -s Foo SymLink; ls | grep -ix symlink", "symlink", "SymLink"),
    ("echo 1 >Straße; cat STRASSE", "1", "1"),
    // Accents in their two forms.
    ("echo 2 >\"$(printf 'caf\\303\\251')\"; cat \"$(printf 'CAFE\\314\\201')\"", "-", "2"),
    ("mv Foo FOO; ls | grep -x FOO; cat foo", "-", "FOO hi"),
    // Removed by one spelling, gone by the other, at once.
    ("echo new >foo; cat FOO; rm FOO; test ! -e foo && test ! -e Foo && echo gone", "new", "new gone"),
    ("printf 'x' >\"$(printf 'A\\377')\"; test ! -e \"$(printf 'a\\377')\" && echo bytes", "-", "bytes"),
];

#[test]
fn does_what_ciopfs_does_not() {
    on_each_user(|machine| {
        fs::write(machine.path("lower/Upper"), "up\n").unwrap();
        let script: String =
            BESIDE_CIOPFS.iter().map(|(script, ..)| format!("({script}) || true; echo ==\n")).collect();
        let said = folded(machine, &["--casefold"], &script);
        let answers: Vec<String> = said
            .split("==\n")
            .map(|answer| answer.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        for ((script, ciopfs, expected), answer) in BESIDE_CIOPFS.iter().zip(&answers) {
            println!("{script:70} ciopfs: {ciopfs:10} here: {answer}");
            assert_eq!(answer, expected, "{:?}: {script}", machine.user);
        }
    });
}

#[test]
fn a_name_is_one_whatever_its_spelling_from_one_call_to_the_next() {
    on_each_user(|machine| {
        let python = r#"
import os
for turn in range(16):
    for use in ('zz', 'ZZ', 'zZ', 'Zz'):
        for kill in ('zz', 'Zz', 'ZZ'):
            open('zz', 'w').write('old'); os.stat(use); open('Other', 'w').write('other'); os.stat('OTHER')
            os.unlink(kill) if turn % 2 else os.rename('Other', kill)
            if turn % 2:
                assert not any(map(os.path.exists, ('zz', 'ZZ', 'zZ', 'Zz'))), (use, kill)
                with open(use, 'w') as made: made.write('new')
            else:
                assert not os.path.exists('OTHER')
            want = 'new' if turn % 2 else 'other'
            for name in ('zz', 'ZZ', 'zZ'): assert open(name).read() == want, (use, kill, name)
            os.unlink('zZ')
os.makedirs('Tree/Sub'); os.chdir('TREE/SUB'); open('F', 'w').close(); os.chdir('../..')
assert os.stat('tree/sub').st_ino == os.stat('Tree/Sub').st_ino and os.path.exists('tREE/sUB/f')
a, b = os.open('Tree/sub/f', os.O_RDWR), os.open('TREE/SUB/F', os.O_RDWR)
os.write(a, b'seen'); assert os.read(b, 9) == b'seen'
try: os.mkdir('TREE'); raise SystemExit('made twice')
except FileExistsError: pass
os.rename('Tree/Sub', 'TREE/Other'); assert os.listdir('tree') == ['Other']
os.unlink('tree/other/F'); os.rmdir('TREE/OTHER'); os.rmdir('tREE'); assert not os.path.exists('Tree')
"#;
        fs::write(machine.path("script.py"), python).unwrap();
        folded(machine, &["--casefold"], "python3 ../script.py");
    });
}

#[test]
fn case_alone_can_be_changed() {
    on_each_user(|machine| {
        let script = "mv file FILE; mv DIR Dir; mv dir/a dir/A; mv Dir/b DIR/B; echo x >Mine; mv mine MINE; ls . dir; cat File";
        let said = folded(machine, &["--casefold"], script);
        let names: Vec<_> = said.split_whitespace().collect();
        for expected in ["FILE", "Dir", "A", "B", "MINE"] {
            assert!(names.contains(&expected), "{:?}: {expected} in {said}", machine.user);
        }
        assert!(said.ends_with("lower file\n"), "{said}");
        let again = folded(machine, &["--casefold"], "ls . dir; cat dir/b");
        assert!(again.contains("FILE") && again.contains("\nB\n") && again.ends_with('b'), "{again}");
        // By whoever asks, and not by others at the same time.
        let both = "mv FILE file & stat -c %n FILe >/dev/null & wait; test -e FilE; ls | grep -x file";
        assert_eq!(folded(machine, &["--casefold"], both), "file\n");
    });
}

#[test]
fn a_sticky_directory_protects_names_in_every_spelling() {
    if !can_mount() {
        return;
    }
    let machine = Machine::new(User::Root);
    let script = "mkdir shared; chmod 1777 shared; cd shared; echo root >Mine; chmod 644 Mine
        python3 - <<'END'
import os
os.setuid(12345)
open('theirs', 'w').close()
for act in (lambda: os.unlink('MINE'), lambda: os.rename('theirs', 'MINE'), lambda: os.rename('Mine', 'MINE')):
    try: act(); raise SystemExit('allowed')
    except PermissionError: pass
os.rename('THEIRS', 'Theirs')
END
        cat mine";
    assert_eq!(folded(&machine, &["--casefold", "-o", "allow_other"], script), "root\n");
}

#[test]
fn only_subtrees_fold_and_say_so() {
    on_each_user(|machine| {
        let script = "test -e dir/A; test ! -e FILE; test -e dir/.ciopfs; test ! -e .ciopfs; ls -A dir; ls -A
            lsattr -d . dir 2>/dev/null | cut -d' ' -f1 || true";
        let said = folded(machine, &["--casefold=/dir", "--casefold-mode", "windows"], script);
        assert!(said.starts_with("a\nb\nc\n") && !said.contains("ciopfs"), "{said}");
        let flags: Vec<_> = said.lines().filter(|line| line.contains("----")).collect();
        if let [root, dir] = flags[..] {
            assert!(!root.contains('F') && dir.contains('F'), "{said}");
        } else {
            crate::support::skip("lsattr");
        }
        // Without a change nothing is looked up twice, and nothing is written.
        let upper = fs::read_dir(machine.path("upper")).unwrap().count();
        assert_eq!(upper, 0, "{:?}", machine.user);
        assert_eq!(folded(machine, &["--casefold"], "cat FILE"), "lower file\n");
        let read_only = [
            "mount",
            "--casefold",
            "lower",
            "mount",
            "--",
            "sh",
            "-ec",
            "cat mount/FILE MOUNT/file mount/file",
        ];
        let output = finish(machine.fim(&read_only));
        assert_eq!(text(&output.stdout), "lower file\nlower file\n", "a name outside is not folded");
    });
}

#[test]
fn names_of_many_layers_and_links_meet_on_a_mount() {
    on_each_user(|machine| {
        let other = machine.path("other");
        fs::create_dir_all(other.join("DIR")).unwrap();
        fs::write(other.join("DIR/D"), "d").unwrap();
        std::os::unix::fs::symlink("dIr/A", other.join("Link2")).unwrap();
        let words = [
            "--casefold",
            "--layer",
            "lower",
            "--layer",
            "other",
            "--upper",
            "upper",
            "mount",
            "--",
            "sh",
            "-ec",
        ];
        let mut command = machine.fim(&["mount"]);
        command
            .args(words)
            .arg("cd mount; ls dir | tr '\\n' ' '; cat link2; echo new >dir/new; ls; readlink LINK2");
        let output = finish(command);
        let said = text(&output.stdout);
        assert!(said.starts_with("D a b c aDIR\n"), "{said}{}", text(&output.stderr));
        assert!(said.ends_with("dIr/A\n"), "the target of a link is not touched");
        assert!(Path::new(&machine.path("upper/DIR/new")).exists());
    });
}
