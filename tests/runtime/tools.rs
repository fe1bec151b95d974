//! The tools that an image brings along.

use std::{fs, process::Command};

use fim::{
    image::ImageFile,
    runtime::tools::{ToolPaths, manifest, provide},
    sys::own_dir::OwnDir,
};

use crate::place::{Done, Place, script, spoil};

/// The shortest static program there is: a header. It does not run.
fn static_program() -> Vec<u8> {
    let mut bytes = vec![0; 64];
    bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
    bytes
}

/// An image whose tools are stand-ins: the machine's dynamic `sh` for bubblewrap, something static for bash.
fn image(place: &Place) -> ImageFile {
    place.root("root");
    fs::create_dir_all(place.path("tools/usr/bin")).unwrap();
    fs::copy("/bin/sh", place.path("tools/usr/bin/bwrap")).unwrap();
    fs::write(place.path("tools/usr/bin/bash-static"), static_program()).unwrap();
    let done = place.run("fim create -o app --from root --tools tools");
    assert_eq!(done.status, 0, "{done:?}");
    ImageFile::open(place.path("app")).unwrap()
}

fn app_directory(place: &Place) -> OwnDir {
    OwnDir::open_or_make(&place.path("place"), 0o755).unwrap()
}

fn run(paths: &ToolPaths) -> Done {
    let [program, rest @ ..] = paths.bwrap.as_deref().unwrap() else { panic!("no program") };
    Done::of(Command::new(program).args(rest).args(["-c", "echo works"]).env_clear().output().unwrap())
}

#[test]
fn tools_are_put_in_place_and_run_with_their_own_libraries() {
    let place = Place::new();
    let image = image(&place);
    let app = app_directory(&place);
    let paths = provide(&image, &app).unwrap();
    assert_eq!(run(&paths).stdout, "works\n");
    let arguments = paths.bwrap.clone().unwrap();
    assert_eq!(arguments.len(), 4, "loader, option, libraries, program");
    assert!(
        arguments.iter().all(|word| word == "--library-path" || word.to_str().unwrap().contains("/tools-"))
    );
    let bash = paths.bash.clone().unwrap();
    assert!(bash.is_file());
    assert_eq!(fs::canonicalize(app.path().join("bin/bash")).unwrap(), fs::canonicalize(&bash).unwrap());
    assert_eq!(provide(&image, &app).unwrap(), paths, "a second time");
}

#[test]
fn tampered_tools_are_replaced() {
    let place = Place::new();
    let image = image(&place);
    let app = app_directory(&place);
    let paths = provide(&image, &app).unwrap();
    let program = paths.bwrap.clone().unwrap()[3].clone();
    fs::remove_file(&program).unwrap();
    script(program.as_ref(), "#!/bin/sh\necho bad\n");
    assert_eq!(run(&provide(&image, &app).unwrap()).stdout, "works\n");
    let manifest = paths.bash.unwrap().parent().unwrap().with_file_name("manifest.json");
    fs::remove_file(&manifest).unwrap();
    fs::write(&manifest, "{}").unwrap();
    let again = provide(&image, &app).unwrap();
    assert_eq!(run(&again).stdout, "works\n");
}

#[test]
fn damaged_tools_are_an_error_and_the_image_still_opens() {
    let place = Place::new();
    let image = image(&place);
    let entry = image.table().tools().unwrap().clone();
    let path = place.path("app");
    for at in [0, 70, entry.length / 2, entry.length - 70] {
        spoil(&path, entry.offset + at);
    }
    let image = ImageFile::open(&path).unwrap();
    let error = provide(&image, &app_directory(&place)).unwrap_err().to_string();
    assert!(
        error.starts_with(&format!("cannot use the tools archive at offset {:#x} of ", entry.offset)),
        "{error}"
    );
    assert!(place.ok("fim layer app list").starts_with("0:"));
}

#[test]
fn what_is_embedded_is_named() {
    let place = Place::new();
    let image = image(&place);
    let known = manifest(&image).unwrap().unwrap();
    assert!(known.files.iter().any(|file| file.path == "bin/bwrap"));
    let printed: serde_json::Value = serde_json::from_str(&place.ok("./app fim-version deps")).unwrap();
    let packages = printed.as_array().unwrap();
    assert!(!packages.is_empty());
    let c_library = packages.iter().find(|package| package["package"] == "libc6");
    match c_library {
        Some(package) => {
            assert_eq!(package["source"], "glibc");
            assert!(package["licence"].as_str().unwrap().starts_with("licences/"));
        }
        None => println!("skipped: no Debian machine"),
    }
    assert!(place.ok("fim layer app list").lines().count() == 1, "tools are no layer");
}

#[test]
fn an_image_without_tools_names_none() {
    let place = Place::new();
    place.image();
    assert_eq!(place.ok("./app fim-version deps"), "[]\n");
    assert_eq!(place.ok("fim version deps"), "[]\n");
    let image = ImageFile::open(place.path("app")).unwrap();
    assert_eq!(provide(&image, &app_directory(&place)).unwrap(), ToolPaths::default());
}

#[test]
fn missing_tools_are_named_with_their_package() {
    let place = Place::new();
    place.root("root");
    fs::create_dir_all(place.path("tools/usr/bin")).unwrap();
    script(&place.path("tools/usr/bin/busybox"), "#!/bin/sh\n");
    let done = place.run("fim create -o app --from root --tools tools");
    assert_eq!(done.status, 0, "{done:?}");
    if fs::metadata("/bin/busybox").is_err() && fs::metadata("/usr/bin/busybox").is_err() {
        assert!(done.stderr.contains("without busybox: cannot use "), "{done:?}");
        assert!(done.stderr.contains("(apt install busybox-static)"), "{done:?}");
    }
}
