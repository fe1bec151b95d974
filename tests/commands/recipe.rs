//! `fim-recipe` with a server of our own on this machine.

use std::{
    collections::BTreeMap,
    fs::{self, Permissions},
    io::{BufRead as _, BufReader, Write as _},
    net::{TcpListener, TcpStream},
    os::unix::fs::{PermissionsExt as _, symlink},
    sync::{Arc, Mutex},
    thread,
};

use crate::{
    place::Place,
    support::{find, skip},
};

/// What a path leads to: status and body.
type Pages = BTreeMap<String, (u16, Vec<u8>)>;

/// A server of pages; it remembers what was asked for.
pub struct Server {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn new(pages: &[(&str, u16, &str)]) -> Self {
        let pages: Pages = pages
            .iter()
            .map(|(path, status, body)| ((*path).to_owned(), (*status, body.as_bytes().to_vec())))
            .collect();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        // By name: looking it up is part of the way.
        let url = format!("http://localhost:{}", listener.local_addr().unwrap().port());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A client that goes away is no trouble of ours.
                let _ = answer(stream, &pages, &log);
            }
        });
        Self { url, asked }
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

fn answer(mut stream: TcpStream, pages: &Pages, log: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().unwrap_or_else(|| Ok(String::new()))?;
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let (status, body) = pages.get(&path).cloned().unwrap_or((404, b"not here".to_vec()));
    log.lock().unwrap().push(path);
    // A redirection names its target in its body.
    let place = if status == 302 {
        format!("Location: {}\r\n", String::from_utf8_lossy(&body))
    } else {
        String::new()
    };
    write!(
        stream,
        "HTTP/1.1 {status} X\r\n{place}Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    )?;
    stream.write_all(&body)
}

const GPU: &str =
    r#"{"description":"graphics","packages":["mesa","libdrm"],"dependencies":["xorg","vulkan"]}"#;

fn pages() -> Vec<(&'static str, u16, &'static str)> {
    vec![
        ("/debian/latest/gpu.json", 200, GPU),
        ("/debian/latest/xorg.json", 200, r#"{"packages":["xserver"],"dependencies":["base"]}"#),
        ("/debian/latest/vulkan.json", 302, "/elsewhere"),
        ("/elsewhere", 200, r#"{"packages":["vulkan","mesa"],"dependencies":["base"]}"#),
        ("/debian/latest/base.json", 200, r#"{"packages":[],"desktop":{"name":"Base"}}"#),
        ("/debian/latest/a.json", 200, r#"{"dependencies":["b"]}"#),
        ("/debian/latest/b.json", 200, r#"{"dependencies":["c"]}"#),
        ("/debian/latest/c.json", 200, r#"{"dependencies":["a"]}"#),
        ("/debian/latest/broken.json", 200, "{\"packages\": ["),
        ("/debian/latest/evil.json", 200, r#"{"packages":["--allow-downgrades"]}"#),
        ("/debian/latest/down.json", 500, "{}"),
        ("/debian/latest/loop.json", 302, "/debian/latest/loop.json"),
    ]
}

/// An image of a Debian, as far as its name goes.
fn debian(place: &Place) {
    fs::write(place.path("root/etc/os-release"), "ID=debian\n").unwrap();
    place.ok("fim create -o app --from root --no-tools");
}

fn served(place: &Place) -> Server {
    debian(place);
    let server = Server::new(&pages());
    place.ok(&format!("fim remote app set {}/", server.url));
    server
}

pub fn fetch_works(place: &Place) {
    let server = served(place);
    assert_eq!(place.ok("./app fim-recipe fetch gpu"), "");
    let shelf = place.path(".app.data/recipes/debian/latest");
    assert_eq!(fs::read_to_string(shelf.join("gpu.json")).unwrap(), GPU);
    let mut names: Vec<_> = fs::read_dir(&shelf)
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["base.json", "gpu.json", "vulkan.json", "xorg.json"]);
    let asked = server.asked();
    assert_eq!(asked.iter().filter(|path| path.ends_with("base.json")).count(), 1, "each once: {asked:?}");
}

pub fn info_works(place: &Place) {
    let server = served(place);
    assert!(place.refused("fim recipe app info gpu").contains("fim-recipe fetch"));
    place.ok("fim recipe app fetch gpu");
    server.asked();
    let said = place.ok("fim recipe app info gpu");
    assert!(
        said.contains("  packages     mesa libdrm\n") && said.contains("  dependencies xorg vulkan\n"),
        "{said}"
    );
    let json: serde_json::Value = serde_json::from_str(&place.ok("fim recipe app info gpu --json")).unwrap();
    let order: Vec<_> =
        json.as_array().unwrap().iter().map(|entry| entry["name"].as_str().unwrap()).collect();
    assert_eq!(order, ["base", "xorg", "vulkan", "gpu"], "dependencies first");
    assert!(server.asked().is_empty(), "nothing is fetched for that");
}

pub fn install_works(place: &Place) {
    let (Some(busybox), Some(_)) = (find("busybox"), find("bwrap")) else { return skip("busybox and bwrap") };
    for folder in ["bin", "dev", "proc", "sys", "tmp", "home", "root", "run", "var", "usr/bin"] {
        fs::create_dir_all(place.path("root").join(folder)).unwrap();
    }
    fs::copy(busybox, place.path("root/bin/busybox")).unwrap();
    for name in ["sh", "env", "echo"] {
        symlink("busybox", place.path("root/bin").join(name)).unwrap();
    }
    // It says what it is told, and fails where it should install what is not there.
    let manager = "#!/bin/sh\necho \"apt-get $* ($DEBIAN_FRONTEND)\"\ncase \"$*\" in *xserver*) exit ${FAIL:-0} ;; esac\n";
    fs::write(place.path("root/usr/bin/apt-get"), manager).unwrap();
    fs::set_permissions(place.path("root/usr/bin/apt-get"), Permissions::from_mode(0o755)).unwrap();
    let _server = served(place);
    assert_eq!(
        place.ok("./app fim-recipe install gpu"),
        "apt-get update (noninteractive)\napt-get install -y -- xserver vulkan mesa libdrm (noninteractive)\n"
    );
    assert!(
        place.ok("fim desktop app dump entry").contains("Name=Base\n"),
        "what a recipe says of the desktop"
    );
    place.ok("fim env app add FAIL=7");
    assert_eq!(place.run("fim recipe app install gpu").status, 7, "the status of the package manager");
}

#[test]
fn what_the_web_says_no_to_is_one_clear_line() {
    let place = Place::new();
    place.image();
    debian(&place);
    assert!(place.refused("fim recipe app fetch gpu").contains("no remote is stored"), "nobody said where");
    let server = Server::new(&pages());
    place.ok(&format!("fim remote app set {}", server.url));
    for (recipe, said) in [
        ("missing", "missing.json: the server answers 404"),
        ("down", "down.json: the server answers 500"),
        ("broken", "cannot understand the recipe broken from http://localhost"),
        ("evil", "cannot take \"--allow-downgrades\" for the name of a package"),
        ("a", "a -> b -> c -> a depend on each other in a circle"),
        ("loop", "loop.json: "),
        ("gpu,../x", "cannot take \"../x\" for the name of a recipe"),
    ] {
        let line = place.refused(&format!("fim recipe app fetch {recipe}"));
        assert!(line.contains(said), "{recipe}: {line}");
    }
    assert!(!place.path(".app.data/recipes/debian/latest/broken.json").exists(), "nothing is kept of it");
    // It does not speak TLS.
    place.ok(&format!("fim remote app set {}", server.url.replace("http:", "https:")));
    let line = place.refused("fim recipe app fetch gpu");
    assert!(line.contains("gpu.json: "), "{line}");
    // Nobody listens there.
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    place.ok(&format!("fim remote app set http://{closed}"));
    let line = place.refused("fim recipe app fetch gpu");
    assert!(line.contains("refused"), "{line}");
}

#[test]
fn a_recipe_without_an_end_is_cut_off() {
    let place = Place::new();
    place.image();
    debian(&place);
    let long = format!("{{\"description\":\"{}\"}}", "x".repeat(3 << 20));
    let server = Server::new(&[("/debian/latest/long.json", 200, &long)]);
    place.ok(&format!("fim remote app set {}", server.url));
    let line = place.refused("fim recipe app fetch long");
    assert!(line.contains("it is longer than 1048576 bytes"), "{line}");
}

#[test]
fn every_family_of_distributions_is_known_and_others_are_told() {
    let place = Place::new();
    place.image();
    for (id, known) in [("alpine", true), ("arch", true), ("beos", false)] {
        fs::write(place.path("root/etc/os-release"), format!("ID={id}\n")).unwrap();
        place.ok("fim create -o app --from root --no-tools");
        let page = format!("/{id}/latest/x.json");
        let server = Server::new(&[(&page, 200, "{}")]);
        place.ok(&format!("fim remote app set {}", server.url));
        let done = place.run("fim recipe app fetch x");
        assert_eq!(done.status, if known { 0 } else { 125 }, "{id}: {done:?}");
        assert_eq!(server.asked().len(), usize::from(known));
    }
}
