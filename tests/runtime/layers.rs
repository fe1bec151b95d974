//! Each layer of a running image by itself, at `FIM_DIR_INSTANCE/layers/N`.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
};

use crate::support::{World, find, for_each_owner, for_each_user, said, status};

/// Everything about every object below the working directory, but for owners: an ordinary user is shown as the owner of
/// what he cannot own.
const LISTING: &str = r#"busybox find . | busybox sort | while IFS= read -r name; do
    if [ -d "$name" ] && [ ! -h "$name" ]
    then busybox stat -c '%n %F %a %y' "$name"
    else busybox stat -c '%n %F %a %y %s %h %t:%T %N' "$name"
    fi
    if [ -f "$name" ]; then busybox md5sum "$name"; fi
done"#;

/// The listing of what a mount of one layer file, image or directory alone shows.
fn alone(world: &World, layer: &Path) -> String {
    let place = world.path("alone");
    fs::create_dir_all(&place).unwrap();
    let script = format!("cd \"$1\"; {LISTING}");
    let output = Command::new(env!("CARGO_BIN_EXE_fim"))
        .args(["mount", "--ro"])
        .args([layer, &place])
        .arg("--")
        .arg(find("busybox").unwrap())
        .args(["sh", "-c", &script, "sh"])
        .arg(&place)
        .stdin(Stdio::null())
        .output();
    said(output.unwrap())
}

#[test]
fn a_layer_by_itself_is_what_a_mount_of_it_shows() {
    for_each_owner(|world| {
        // What the image holds before anything is committed.
        let first = world.path("first.flatimage");
        fs::copy(world.image(), &first).unwrap();
        let folder = world.path("more");
        fs::create_dir_all(folder.join("dir.layer/opt")).unwrap();
        fs::write(folder.join("dir.layer/opt/given"), "given").unwrap();
        world.says("echo added > /etc/added; echo more >> /etc/known; rm /opt/plain; ln -s x /etc/sym; mkdir -m 700 /var/own; truncate -s 5000000 /var/hole; ln /etc/added /var/hard");
        said(world.command(&["fim-layer", "commit", "layer"]).output().unwrap());
        world.says("rm /etc/added; rm -r /opt; mkdir /opt; echo only > /opt/only; mkfifo /var/fifo");
        said(world.command(&["fim-layer", "commit", "layer"]).output().unwrap());

        let shell = |script: &str| {
            let mut command = world.shell(&format!("cd $FIM_DIR_INSTANCE/layers; {script}"));
            said(command.env("FIM_LAYERS", &folder).output().unwrap())
        };
        assert_eq!(shell("ls"), "0\n1\n2\n3");
        let layers = world.path("data/layers");
        let sources =
            [first, folder.join("dir.layer"), layers.join("layer-001.layer"), layers.join("layer-002.layer")];
        let mut listings = Vec::new();
        for (number, source) in sources.iter().enumerate() {
            let shown = shell(&format!("cd {number}; {LISTING}"));
            assert_eq!(shown, alone(world, source), "layer {number}");
            listings.push(shown);
        }
        // A layer that deletes shows nothing there; the one below still has it.
        let has = |number: usize, name: &str| listings[number].lines().any(|line| line.starts_with(name));
        assert!(has(0, "./opt/plain ") && has(2, "./etc/added ") && has(3, "./opt/only "));
        assert!(!has(2, "./opt/plain ") && !has(3, "./etc/added ") && !has(3, "./opt/plain "));
        assert_eq!(shell("cat 0/opt/plain 1/opt/given 3/opt/only; ls /opt"), "no programgivenonly\nonly");
        assert_eq!(shell("tail -n 1 0/etc/known; tail -n 1 2/etc/known; md5sum < 0/bin/busybox"), {
            shell("echo known; echo more; md5sum < /bin/busybox")
        });
    });
}

#[test]
fn nobody_can_change_a_layer() {
    for_each_user(|world| {
        for verb in ["fim-exec", "fim-root"] {
            let script = "cd $FIM_DIR_INSTANCE/layers; for change in 'touch 0/new' 'touch 1' 'mkdir new' 'rm 0/opt/plain' \
                'mv 0/opt 0/etc' 'chmod 777 0/opt/broken' 'ln 0/opt/plain 0/x' 'truncate -s 0 0/opt/plain' \
                'mount -o remount,rw .'; do \
                $change 2>/dev/null && echo \"$change\"; done; touch 0/new 2>&1; cat 0/opt/plain";
            let output = world.command(&[verb, "sh", "-c", script]).output().unwrap();
            assert_eq!(said(output), "touch: 0/new: Read-only file system\nno program", "{verb}");
        }
        assert!(world.root().join("opt/plain").exists());
    });
}

#[test]
fn a_committed_layer_appears_beside_running_programs() {
    for_each_owner(|world| {
        let running = world.start(
            r#"cd $FIM_DIR_INSTANCE/layers; ls > /tmp/before; [ -e 1 ] && exit 9; echo ready
            while [ ! -e /etc/go ]; do usleep 5000; done
            cat 1/etc/new || exit 8
            i=0; while ! ls | grep -qx 1; do i=$((i+1)); [ $i -gt 100 ] && exit 7; usleep 10000; done
            cat /tmp/before; ls; ls 1/etc; cat 0/etc/known"#,
        );
        world.says("echo new > /etc/new; rm /etc/known");
        said(world.command(&["fim-layer", "commit", "binary"]).output().unwrap());
        world.says("touch /etc/go");
        let (code, said_there) = running.end();
        assert_eq!((code, said_there.as_str()), (0, "new\n0\n0\n1\nnew\nknown\n"));
        assert_eq!(world.says("cd $FIM_DIR_INSTANCE/layers; ls; cat 1/etc/new"), "0\n1\nnew");
    });
}

#[test]
fn every_instance_sees_the_layers_and_the_host_sees_none() {
    for_each_user(|world| {
        let look = "cat $FIM_DIR_INSTANCE/layers/0/opt/plain";
        let running = world.start(&format!("{look} > /var/first; echo ready; sleep 60"));
        assert_eq!(world.says(look), "no program");
        assert_eq!(world.says("cat /var/first"), "no program");
        for place in world.instances().into_iter().chain(world.servers()) {
            assert_eq!(fs::read_dir(place.join("layers")).unwrap().count(), 0, "{}", place.display());
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(world.folder.path().to_str().unwrap()), "{mounts}");
        running.signal(fim::sys::signal::Signal::SIGTERM);
        assert_ne!(running.end().0, 0);
    });
}

#[test]
fn the_modes_of_a_layer_hold() {
    for_each_user(|world| {
        let secret = world.root().join("etc/secret");
        fs::write(&secret, "secret").unwrap();
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o000)).unwrap();
        let output = world.shell("cat $FIM_DIR_INSTANCE/layers/0/etc/secret").output().unwrap();
        let may = world.who == crate::support::Who::Myself;
        assert_eq!(status(output.status) == 0, may, "{output:?}");
    });
}
