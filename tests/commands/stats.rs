//! `fim stats` of real mounts.

use std::fs;

use crate::{place::Place, support::skip};

fn figures(place: &Place) -> serde_json::Value {
    serde_json::from_str(&place.ok("fim stats m --json")).unwrap()
}

#[test]
fn a_mount_tells_what_it_has_done() {
    if fs::metadata("/dev/fuse").is_err() {
        return skip("/dev/fuse");
    }
    let place = Place::new();
    place.root("root");
    // Text that is worth compressing, larger than what is decoded at a time.
    let text: String = (0..200_000).map(|number| format!("line {number}\n")).collect();
    fs::write(place.path("root/long"), &text).unwrap();
    place.ok("fim archive create root a.dwarfs");
    fs::create_dir(place.path("m")).unwrap();
    place.ok("fim mount a.dwarfs m");
    let before = figures(&place);
    assert_eq!(fs::read_to_string(place.path("m/long")).unwrap(), text);
    let after = figures(&place);
    place.ok("fim umount m");
    assert_eq!(before["cache"]["decoded"], 0, "{before}");
    let decoded = after["cache"]["decoded"].as_u64().unwrap();
    assert!(decoded >= text.len() as u64, "{after}");
    let count = |figures: &serde_json::Value, name: &str| figures["cache"][name].as_u64().unwrap();
    assert!(
        count(&after, "asked") > 0 && count(&after, "missed") > 0 && count(&after, "opened") > 0,
        "{after}"
    );
    assert!(count(&after, "missed") <= count(&after, "asked"));
    assert!(after["requests"]["Read"].as_u64().unwrap() > 0);
    assert!(after["memory"]["peak"].as_u64().unwrap() >= after["memory"]["resident"].as_u64().unwrap());
    assert!(fs::metadata(format!("/proc/{}", after["pid"])).is_err() || after["pid"].as_u64().unwrap() > 1);
    assert!(place.refused("fim stats m").contains("not in a mount of fim"), "it is gone");
}

#[test]
fn the_folding_that_an_image_stores_holds_for_its_mount() {
    if fs::metadata("/dev/fuse").is_err() {
        return skip("/dev/fuse");
    }
    let place = Place::new();
    place.image();
    fs::create_dir(place.path("m")).unwrap();
    let read = |line: &str| place.run(&format!("fim mount {line} app m -- cat m/HELLO")).status;
    assert_ne!(read("--ro"), 0, "nothing is stored");
    place.ok("fim casefold app on");
    assert_eq!(read("--ro"), 0, "as stored");
    assert_ne!(read("--casefold=/etc"), 0, "what is asked for here wins");
    let off = place
        .command("fim")
        .args(["mount", "app", "m", "--", "cat", "m/HELLO"])
        .env("FIM_CASEFOLD", "0")
        .output();
    assert!(!off.unwrap().status.success(), "the environment wins");
}
