//! Access profiles of images: recorded by a run, stored, used, and never in the way.

use std::fs;

use fim::{
    config::{PROFILE_LIMIT, StoredProfile},
    image::ImageEdit,
};

use crate::{
    place::{Done, Place},
    support::{World, for_each_owner, for_each_user, said},
};

fn shows(world: &World, arguments: &[&str]) -> String {
    said(world.command(arguments).output().unwrap())
}

#[test]
fn a_run_is_recorded_stored_and_started_from() {
    for_each_owner(|world| {
        let script = "cat /opt/plain /etc/known; cat /opt/broken; exit 7";
        let arguments = ["fim-exec", "--record", "p", "sh", "-c", script];
        let done = Done::of(world.command(&arguments).output().unwrap());
        assert_eq!((done.status, done.stderr.as_str()), (7, ""), "the status is the program's: {done:?}");
        let recorded = fs::read_to_string(world.path("cwd/p")).unwrap();
        let place =
            |path: &str| recorded.find(&format!("\n{path}\t")).unwrap_or_else(|| panic!("{recorded}"));
        assert!(place("/bin/busybox") < place("/opt/plain"), "{recorded}");
        assert!(place("/opt/plain") < place("/etc/known") && place("/etc/known") < place("/opt/broken"));
        assert!(!recorded.contains("/etc/hosts\t"), "what is bound over is not read: {recorded}");

        assert_eq!(shows(world, &["fim-layer", "profile", "show"]), "");
        let before = fs::metadata(world.image()).unwrap().len();
        assert_eq!(shows(world, &["fim-layer", "profile", "set", "p"]), "");
        assert_eq!(shows(world, &["fim-layer", "PROFILE", "SHOW"]), recorded.trim_end());
        assert_eq!(
            fs::metadata(world.image()).unwrap().len(),
            before,
            "nothing lies behind the last archive"
        );
        assert_eq!(world.says("cat /etc/known"), "known");
        assert_eq!(shows(world, &["fim-layer", "profile", "clear"]), "");
        assert_eq!(shows(world, &["fim-layer", "profile", "show", "--json"]), "[]");
    });
}

#[test]
fn recording_needs_an_image_that_does_not_run() {
    for_each_user(|world| {
        let running = world.start("echo ready; cat /opt/plain; sleep 100");
        let record = ["fim-exec", "--record", "p", "true"];
        let done = Done::of(world.command(&record).output().unwrap());
        assert_eq!(done.status, 125);
        assert!(
            done.stderr.contains("the image is running") && done.stderr.contains("(end its other"),
            "{done:?}"
        );
        assert!(!world.path("cwd/p").exists());
        assert_eq!(world.says("echo works"), "works", "the other instance is unharmed");
        running.signal(fim::sys::signal::Signal::SIGTERM);
        drop(running);
        // Right behind another run, whose server may not have ended yet.
        for _ in 0..3 {
            world.says("true");
            said(world.command(&record).output().unwrap());
            assert!(fs::read_to_string(world.path("cwd/p")).unwrap().contains("/bin/busybox\t"));
            fs::remove_file(world.path("cwd/p")).unwrap();
        }
        let nowhere = ["fim-exec", "--record", "no/place", "true"];
        let done = Done::of(world.command(&nowhere).output().unwrap());
        assert_eq!(done.status, 125);
        assert!(done.stderr.contains("cannot record to"), "{done:?}");
    });
}

#[test]
fn others_may_join_a_run_that_is_recorded() {
    for_each_user(|world| {
        let script = "echo ready; while ! test -e /var/go; do usleep 10000; done; cat /opt/broken";
        let mut command = world.command(&["fim-exec", "--record", "p", "sh", "-c", script]);
        let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
        let mut first = [0; 6];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut first).unwrap();
        let second = world.start("cat /opt/plain >/dev/null; echo ready; sleep 100");
        world.says("touch /var/go");
        assert!(child.wait().unwrap().success());
        // It is there while the other one still runs.
        let recorded = fs::read_to_string(world.path("cwd/p")).unwrap();
        assert!(recorded.contains("/opt/plain\t") && recorded.contains("/opt/broken\t"), "{recorded}");
        fs::remove_file(world.path("cwd/p")).unwrap();
        second.signal(fim::sys::signal::Signal::SIGTERM);
        drop(second);
        world.assert_nothing_left();
        assert!(!world.path("cwd/p").exists(), "it is written once");
    });
}

#[test]
fn a_front_that_is_killed_does_not_lose_the_recording() {
    for_each_user(|world| {
        let mut command =
            world.command(&["fim-exec", "--record", "p", "sh", "-c", "cat /opt/plain; echo; sleep 100"]);
        let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
        let mut first = [0; 11];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut first).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        world.assert_nothing_left();
        assert!(fs::read_to_string(world.path("cwd/p")).unwrap().contains("/opt/plain\t"));
    });
}

#[test]
fn a_profile_is_a_setting_of_an_image() {
    let place = Place::new();
    let image = place.image();
    fs::write(place.path("p"), "fim-profile 1\nhello\n/etc/os-release\t0-10,20-30\n/a\\x0ab\n").unwrap();
    place.ok("fim layer app profile set p");
    place.ok("fim layer app profile set p");
    let expected = "fim-profile 1\n/hello\n/etc/os-release\t0-10,20-30\n/a\\nb\n";
    assert_eq!(place.ok("./app fim-layer profile show"), expected);
    assert_eq!(
        place.ok("fim layer app profile show --json"),
        "[{\"path\":\"/hello\",\"ranges\":null},{\"path\":\"/etc/os-release\",\"ranges\":[[0,10],[20,30]]},\
         {\"path\":\"/a\\\\nb\",\"ranges\":null}]\n"
    );
    fs::write(place.path("bad"), "/hello\n").unwrap();
    assert!(place.refused("fim layer app profile set bad").contains("the first line is not"));
    assert!(place.refused("fim layer app profile set none").contains("No such file"));
    assert!(place.refused("fim layer root profile show").contains("not a regular file"));
    assert_eq!(place.ok("fim layer app profile show"), expected, "what was refused has changed nothing");
    // What does not fit is left out from the end, and said.
    let many: String =
        (0..20_000).map(|number| format!("/usr/lib/python3/dist-packages/{number}\n")).collect();
    fs::write(place.path("many"), format!("fim-profile 1\n{many}")).unwrap();
    let said = place.ok("fim layer app profile set many");
    assert!(said.starts_with("stored the first ") && said.ends_with(" of 20000 files\n"), "{said}");
    let stored = place.ok("fim layer app profile show");
    assert!(stored.len() <= PROFILE_LIMIT && stored.len() > PROFILE_LIMIT - 100);
    assert_eq!(stored.lines().count() - 1, said.split(' ').nth(3).unwrap().parse::<usize>().unwrap());
    place.ok("fim layer app profile clear");
    assert_eq!(place.ok("fim layer app profile show"), "");
    assert!(image.is_file());
}

#[test]
fn a_damaged_profile_is_not_in_the_way() {
    for_each_owner(|world| {
        let mut edit = ImageEdit::open(world.image()).unwrap();
        let mut settings = edit.settings().unwrap();
        settings.profile =
            Some(StoredProfile::new("fim-profile 1\n/../etc/passwd\n\u{0}".to_owned()).unwrap());
        edit.set_settings(&settings).unwrap();
        drop(edit);
        assert_eq!(world.says("cat /etc/known"), "known");
        let done = Done::of(world.command(&["fim-layer", "profile", "show"]).output().unwrap());
        assert_eq!(done.status, 125);
        assert!(done.stderr.contains("line 2"), "{done:?}");
        assert_eq!(shows(world, &["fim-layer", "profile", "clear"]), "");
        assert_eq!(shows(world, &["fim-layer", "profile", "show"]), "");
    });
}
