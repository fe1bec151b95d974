//! Root of an ordinary user, whose user namespace has one id: what it gives away is recorded, shown, and committed as
//! what it is.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, chown, lchown, symlink},
    path::Path,
    process::{Command, Stdio},
};

use crate::support::{Who, World, said};

fn world() -> Option<World> {
    let world = World::new(Who::Plain)?;
    fs::write(world.root().join("etc/passwd"), "root:x:0:0::/root:/bin/sh\ndaemon:x:1:1::/:/bin/sh\n")
        .unwrap();
    Some(world)
}

/// What a script says that an ordinary user runs as root.
fn root_says(world: &World, script: &str) -> String {
    said(world.command(&["fim-root", "sh", "-e", "-c", script]).output().unwrap())
}

/// Owners, mode and kind of each path, as the script of [`root_says`] sees them.
const LOOK: &str = "look() { stat -c '%u:%g %a %F %n' \"$@\"; }; ";

fn xattr(path: &Path, name: &str) -> Option<String> {
    let fd = fs::File::open(path).unwrap();
    let value = fim::sys::xattr::get(std::os::fd::AsFd::as_fd(&fd), name.as_bytes()).unwrap()?;
    Some(String::from_utf8_lossy(&value).replace('\0', "|"))
}

#[test]
fn owners_that_are_asked_for_are_shown_and_recorded() {
    let Some(world) = world() else { return };
    let script = "cd /var; mkdir d; touch f g; ln -s f l; mkfifo p; chmod 4755 f; chown 101:102 f; look f
        chmod 2750 f; chown 7 d; chown :8 g; chown -h 9:10 l; chown 11:12 p; look d f g l p
        chown 0:0 f; look f; id -u";
    let expected = "101:102 755 regular empty file f
7:0 755 directory d
101:102 2750 regular empty file f
0:8 644 regular empty file g
9:10 777 symbolic link l
11:12 644 fifo p
0:0 750 regular empty file f
0";
    assert_eq!(root_says(&world, &format!("{LOOK}umask 022; {script}")), expected);
    let upper = world.upper().join("var");
    let record = "user.containers.override_stat";
    assert_eq!(xattr(&upper.join("d"), record).unwrap(), "7:0:0755");
    assert_eq!(xattr(&upper.join("g"), record).unwrap(), "0:8:0644");
    assert_eq!(xattr(&upper.join("f"), record), None);
    // To the program itself such attributes are not there, and cannot be set.
    assert_eq!(world.says("touch /var/n; ls /var"), "d\nf\ng\nl\nn\np");
    world.assert_nothing_left();
}

#[test]
fn owners_move_with_what_they_belong_to() {
    let Some(world) = world() else { return };
    let script = "cd /var; mkdir a b; ln -s x a/one; ln -s y a/two; ln -s z b/three; touch a/plain
        chown -h 1:1 a/one; chown -h 2:2 a/two; chown -h 3:3 b/three
        mv a/one b/one; look b/one; mv a/two b/three; look b/three; mv b c; look c/one c/three
        ln -s w a/one; look a/one; ln c/one a/again; look a/again; mv a/plain c/three; rm c/three; ln -s v c/three
        look c/three; touch f; chown 5:5 f; mv f a/g; look a/g";
    let expected = "1:1 777 symbolic link b/one
2:2 777 symbolic link b/three
1:1 777 symbolic link c/one
2:2 777 symbolic link c/three
0:0 777 symbolic link a/one
1:1 777 symbolic link a/again
0:0 777 symbolic link c/three
5:5 644 regular empty file a/g";
    assert_eq!(root_says(&world, &format!("{LOOK}umask 022; {script}")), expected);
    assert_eq!(
        root_says(&world, &format!("{LOOK}cd /var; rm c/one; look a/again")),
        "1:1 777 symbolic link a/again"
    );
    assert_eq!(xattr(&world.upper().join("var/c"), "user.fim.owners"), None);
    world.assert_nothing_left();
}

#[test]
fn calls_that_fail_for_root_fail() {
    let Some(world) = world() else { return };
    let says = root_says(
        &world,
        "cd /var; for what in none opt/plain/x 'self'; do chown 1 $what 2>&1 || true; done
        ln -s loop loop; chown 1 loop 2>&1 || true; chown 1 /proc/version /tmp && echo elsewhere",
    );
    let expected = "chown: none: No such file or directory
chown: opt/plain/x: No such file or directory
chown: self: No such file or directory
chown: loop: Symbolic link loop
elsewhere";
    // busybox and C libraries have different words for the same number.
    assert_eq!(says.replace("Too many levels of symbolic links", "Symbolic link loop"), expected);
    world.assert_nothing_left();
}

#[test]
fn owners_of_layers_are_shown_and_kept_by_copies() {
    let Some(world) = world() else { return };
    let tree = world.path("tree");
    fs::create_dir_all(tree.join("opt")).unwrap();
    fs::write(tree.join("opt/shadow"), "x").unwrap();
    symlink("shadow", tree.join("opt/link")).unwrap();
    chown(tree.join("opt/shadow"), Some(0), Some(42)).unwrap();
    lchown(tree.join("opt/link"), Some(3), Some(4)).unwrap();
    let layer = world.path("data/layers/owners.layer");
    let mut archive = Command::new(env!("CARGO_BIN_EXE_fim"));
    said(archive.args(["archive", "create"]).args([&tree, &layer]).output().unwrap());
    // As shadow, sed -i and editors do it: the copy gets the owner of what it replaces.
    let script = "cd /opt; look shadow link; cp -p shadow copy; look copy; mv copy shadow; look shadow; chmod 600 shadow
        look shadow; mv link moved; look moved; touch -h moved; echo more >> shadow";
    let expected = "0:42 644 regular file shadow
3:4 777 symbolic link link
0:42 644 regular file copy
0:42 644 regular file shadow
0:42 600 regular file shadow
3:4 777 symbolic link moved";
    assert_eq!(root_says(&world, &format!("{LOOK}umask 022; {script}")), expected);
    assert_eq!(
        xattr(&world.upper().join("opt/shadow"), "user.containers.override_stat").unwrap(),
        "0:42:0600"
    );
    world.assert_nothing_left();
}

#[test]
fn a_commit_makes_real_owners_that_root_sees() {
    let Some(world) = World::with_image(Who::Plain) else { return };
    root_says(
        &world,
        "umask 022; cd /var; mkdir spool; chown 0:43 spool; chmod 2775 spool; touch spool/letter; touch f plain
        chown 101:102 f; chmod 4711 f; ln -s f l; chown -h 9:10 l; mkfifo p; chown 11:12 p; mknod tty c 4 7; chown 0:5 tty
        chmod 620 tty; chown 13:0 /opt/plain; chroot / /bin/chown 14:14 /bin/true; echo maker:x:120:120::/:/bin/sh >> /etc/passwd
        echo maker:x:120: >> /etc/group; touch /home/made; chown maker:maker /home/made",
    );
    said(world.command(&["fim-layer", "commit", "binary"]).output().unwrap());
    let look = "cd /var; stat -c '%u:%g %a %F %n' spool spool/letter f plain l p tty /opt/plain /bin/busybox /home/made";
    let expected = "0:43 2775 directory spool
0:43 644 regular empty file spool/letter
101:102 4711 regular empty file f
0:0 644 regular empty file plain
9:10 777 symbolic link l
11:12 644 fifo p
0:5 620 character special file tty
13:0 644 regular file /opt/plain
14:14 755 regular file /bin/busybox
120:120 644 regular empty file /home/made";
    assert_eq!(root_says(&world, look), expected);
    world.assert_nothing_left();
    // The same image, run by the host's root.
    let output = Command::new(world.image())
        .args(["fim-exec", "sh", "-c", look])
        .env("FIM_DIR_DATA", world.path("of-root"))
        .env("FIM_DIR_GLOBAL", world.path("global-of-root"))
        .stdin(Stdio::null())
        .output();
    assert_eq!(said(output.unwrap()), expected);
}

#[test]
fn becoming_somebody_else_is_answered() {
    let Some(world) = world() else { return };
    // It gives up unless setgroups, setgid and setuid succeed.
    let says = root_says(&world, "busybox su -s /bin/sh daemon -c 'echo as daemon'");
    assert_eq!(says, "as daemon");
    world.assert_nothing_left();
}

#[test]
fn what_is_made_belongs_to_the_caller_on_the_host() {
    let Some(world) = world() else { return };
    root_says(&world, "touch /var/f; chown 5:5 /var/f; mknod /var/d b 8 1");
    for name in ["f", "d"] {
        let stat = fs::symlink_metadata(world.upper().join("var").join(name)).unwrap();
        assert_eq!(
            (stat.uid(), stat.gid()),
            (crate::support::PLAIN_UID, crate::support::PLAIN_UID),
            "{name}"
        );
        assert!(stat.is_file());
    }
    world.assert_nothing_left();
}
