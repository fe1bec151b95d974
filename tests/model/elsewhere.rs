//! Directories and data that are elsewhere: redirects, and files that were copied up without their data.

use std::{fs, os::unix::fs::MetadataExt as _, sync::Arc};

use fim::{
    layer::Memory,
    overlay::{Overlay, OverlayOptions},
    vfs::{
        Errno, FileKind, FileSystem as _, Ino, Layer, Lookup, NoInvalidate, RenameFlags, SetAttr, XattrFlags,
    },
};

use crate::{
    fixture::{Fixture, dir, errno, file, is_whiteout, list, mount, name, xattr},
    ours::ROOT,
};

#[test]
fn a_directory_of_a_layer_moves_by_a_redirect_alone() {
    let fixture = Fixture::new(&dir([("a", dir([("b", dir([("f", file(b"x"))]))])), ("o", dir([]))]));
    let (ino, inner) = (fixture.ino("a/b"), fixture.ino("a/b/f"));
    fixture.mv("a/b", "a/c");
    assert_eq!(xattr(&fixture.upper("a/c"), "user.fim.redirect").as_deref(), Some(&b"b"[..]));
    assert!(is_whiteout(&fixture.upper("a/b")));
    assert_eq!(fs::read_dir(fixture.upper("a/c")).unwrap().count(), 0, "nothing is copied");
    // In another directory only the whole path says where it was; a path stays as it is.
    fixture.mv("a/c", "o/d");
    assert_eq!(xattr(&fixture.upper("o/d"), "user.fim.redirect").as_deref(), Some(&b"/a/b"[..]));
    fixture.mv("o", "p");
    fixture.mv("p/d", "d");
    assert_eq!(xattr(&fixture.upper("d"), "user.fim.redirect").as_deref(), Some(&b"/a/b"[..]));
    // Moved again from inside it: the way leads through the redirects above.
    fixture.fs.mkdir(ROOT, Ino::ROOT, name("new"), 0o755).unwrap();
    fixture.mv("d/f", "new/f");
    fixture.mv("d", "new/d");
    let fixture = fixture.remounted();
    assert_eq!((fixture.ino("new/d"), fixture.ino("new/f")), (ino, inner));
    assert_eq!(fixture.fs.lookup(fixture.ino("new/d"), name("f")).unwrap(), Lookup::Absent);
    assert!(fixture.work_is_clean());
}

#[test]
fn merged_directories_change_places_and_do_not_enter_themselves() {
    let tree = |text: &str| dir([(text, file(b"")), ("s", dir([]))]);
    let fixture = Fixture::new(&dir([("a", tree("x")), ("b", tree("y"))]));
    let rename = |from: &str, to: (&str, &str), flags| {
        fixture.fs.rename(Ino::ROOT, name(from), fixture.ino(to.0), name(to.1), flags)
    };
    rename("a", ("", "b"), RenameFlags::EXCHANGE).unwrap();
    assert_eq!(fixture.attr("a/y").size + fixture.attr("b/x").size, 0);
    for text in ["a", "b"] {
        assert!(xattr(&fixture.upper(text), "user.fim.redirect").is_some(), "{text}");
    }
    assert_eq!(errno(rename("a", ("a/s", "t"), RenameFlags::empty())), Errno::EINVAL);
    assert_eq!(errno(rename("a", ("a/s", "t"), RenameFlags::EXCHANGE)), Errno::ENOENT);
    assert_eq!(errno(rename("a", ("b", "s"), RenameFlags::NOREPLACE)), Errno::EEXIST);
    assert_eq!(errno(rename("a", ("", "b"), RenameFlags::empty())), Errno::ENOTEMPTY);
    rename("a", ("b", "s"), RenameFlags::empty()).unwrap();
    assert_eq!(fixture.remounted().attr("b/s/y").size, 0);
}

#[test]
fn hostile_redirects_lead_nowhere() {
    let fixture = Fixture::new(&dir([
        ("secret", dir([("f", file(b"x")), ("inner", dir([("hidden", file(b""))]))])),
        ("plain", file(b"")),
    ]));
    let scratch = fixture.scratch;
    drop(fixture.fs);
    let values = [
        "..",
        ".",
        "",
        "/",
        "/../secret",
        "../secret",
        "/none/there",
        "/plain",
        "/plain/x",
        "none",
        "inner",
        "/a/./b",
    ];
    for (number, value) in values.iter().enumerate() {
        let path = scratch.path().join(format!("upper/d{number}"));
        fs::create_dir(&path).unwrap();
        fs::write(path.join("own"), b"").unwrap();
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(&path, "user.overlay.redirect", value.as_bytes(), flags).unwrap();
    }
    let fixture = Fixture { fs: mount(scratch.path(), OverlayOptions::default()), scratch };
    for (number, value) in values.iter().enumerate() {
        let names = fixture.names(&format!("d{number}"));
        assert_eq!(names, ["own"], "{value:?}");
        // It goes on working, and what it says does not come to life in another directory.
        fixture.mv(&format!("d{number}"), &format!("secret/d{number}"));
        fixture.mv(&format!("secret/d{number}"), "secret/moved");
        assert_eq!(fixture.names("secret/moved"), ["own"], "{value:?}");
        fixture.fs.unlink(fixture.ino("secret/moved"), name("own")).unwrap();
        fixture.fs.rmdir(fixture.ino("secret"), name("moved")).unwrap();
    }
    assert_eq!(fixture.names("secret"), ["f", "inner"]);
}

#[test]
fn redirects_of_layers_are_followed_downwards_only_and_not_for_ever() {
    let memory = |fill: &dyn Fn(&mut Memory)| {
        let mut layer = Memory::new();
        fill(&mut layer);
        Arc::new(layer) as Arc<dyn Layer>
    };
    let add = |layer: &mut Memory, text: &str, redirect: &str| {
        let dir = layer.add(layer.root(), name(text), FileKind::Directory, 0o755, b"");
        if !redirect.is_empty() {
            layer.set_xattr(dir, b"user.overlay.redirect", redirect.as_bytes());
        }
        dir
    };
    // Each layer leads its two directories through both of the layer below: the ways double with every layer.
    let mut layers = vec![memory(&|layer| {
        let dir = add(layer, "a", "");
        layer.add(dir, name("deep"), FileKind::Regular, 0o644, b"found");
    })];
    for (text, redirect, itself) in [("b", "a", "loop"), ("c", "/b", "/loop")] {
        layers.push(memory(&|layer| {
            add(layer, text, redirect);
            add(layer, "loop", itself);
        }));
    }
    for _ in 0..60 {
        layers.push(memory(&|layer| {
            let many = "/x".repeat(200);
            let dir = add(layer, "x", &many);
            let inner = layer.add(dir, name("x"), FileKind::Directory, 0o755, b"");
            layer.set_xattr(inner, b"user.fim.redirect", many.as_bytes());
        }));
    }
    let fs = Overlay::new(layers, None, OverlayOptions::default(), Arc::new(NoInvalidate)).unwrap();
    let ino = |dir, text| match fs.lookup(dir, name(text)).unwrap() {
        Lookup::Found(entry) => entry.ino,
        other => panic!("{text}: {other:?}"),
    };
    let deep = ino(ino(Ino::ROOT, "c"), "deep");
    assert_eq!(fs.read(deep, 0, 9).unwrap().contiguous().as_ref(), b"found");
    assert_eq!(fs.lookup(ino(Ino::ROOT, "loop"), name("deep")).unwrap(), Lookup::Absent);
    let started = std::time::Instant::now();
    let found = fs.lookup(Ino::ROOT, name("x")).map(|_| ()).map_err(|error| error.errno());
    assert!(matches!(found, Ok(()) | Err(Errno::ELOOP)), "{found:?}");
    assert!(started.elapsed().as_secs() < 5, "{:?}", started.elapsed());
    assert!(list(&fs, Ino::ROOT).contains(&"c".to_owned()));
}

#[test]
fn changing_attributes_copies_no_data_until_they_change() {
    const SIZE: usize = 3 << 20;
    const LEN: u64 = SIZE as u64;
    let fixture = Fixture::with(OverlayOptions::default(), |root| {
        fs::create_dir(root.join("d")).unwrap();
        for name in ["a", "b", "c", "d/e"] {
            fs::write(root.join(name), vec![b'x'; SIZE]).unwrap();
        }
        fs::write(root.join("short"), b"x").unwrap();
        dir([]).write(root);
    });
    let changes = SetAttr { uid: Some(7), perm: Some(0o640), ..SetAttr::default() };
    let inos = ["a", "b", "c", "d/e", "short"].map(|path| {
        fixture.fs.setattr(ROOT, fixture.ino(path), &changes).unwrap();
        fixture.ino(path)
    });
    fixture.fs.setxattr(ROOT, fixture.ino("b"), b"user.note", b"kept", XattrFlags::empty()).unwrap();
    let is_hole = |path: &str| {
        let meta = fs::metadata(fixture.upper(path)).unwrap();
        (meta.len(), meta.blocks() < 100) == (LEN, true)
            && xattr(&fixture.upper(path), "user.fim.metacopy").is_some()
    };
    assert!(["a", "b", "c", "d/e"].iter().all(|path| is_hole(path)));
    assert_eq!(xattr(&fixture.upper("short"), "user.fim.metacopy"), None);
    assert!(fixture.attr("a").blocks >= LEN / 512, "the space of the data");
    // Names come and go without data.
    fixture.mv("a", "d/moved");
    fixture.fs.link(fixture.ino("b"), fixture.ino("d"), name("linked")).unwrap();
    fixture.fs.unlink(Ino::ROOT, name("b")).unwrap();
    fixture.mv("d", "dir");
    assert!(["dir/moved", "dir/linked", "dir/e", "c"].iter().all(|path| is_hole(path)));
    let fixture = fixture.remounted();
    assert_eq!(["dir/moved", "dir/linked", "c", "dir/e", "short"].map(|path| fixture.ino(path)), inos);
    for path in ["dir/moved", "dir/linked", "dir/e", "c"] {
        let data = fixture.fs.read(fixture.ino(path), LEN - 4, 99).unwrap();
        assert_eq!(data.contiguous().as_ref(), b"xxxx", "{path}");
    }
    // A change of data brings all the others along, once.
    let moved = fixture.ino("dir/moved");
    fixture.fs.write(ROOT, moved, 1 << 20, b"new", false).unwrap();
    fixture.fs.setattr(ROOT, fixture.ino("c"), &SetAttr { size: Some(5), ..SetAttr::default() }).unwrap();
    fixture
        .fs
        .setattr(ROOT, fixture.ino("dir/e"), &SetAttr { size: Some(LEN + 9), ..SetAttr::default() })
        .unwrap();
    let mut expected = vec![b'x'; SIZE];
    expected[1 << 20..][..3].copy_from_slice(b"new");
    assert!(fs::read(fixture.upper("dir/moved")).unwrap() == expected);
    assert_eq!(fs::read(fixture.upper("c")).unwrap(), b"xxxxx");
    let extended = fs::read(fixture.upper("dir/e")).unwrap();
    assert!(extended[..SIZE].iter().all(|byte| *byte == b'x') && extended[SIZE..] == [0; 9]);
    for path in ["dir/moved", "c", "dir/e"] {
        assert_eq!(xattr(&fixture.upper(path), "user.fim.metacopy"), None, "{path}");
        assert_eq!((fixture.attr(path).uid, fixture.attr(path).perm), (7, 0o640));
    }
    assert!(fixture.work_is_clean());
}

#[test]
fn data_that_are_not_there_are_an_error_and_not_zeros() {
    let fixture = Fixture::new(&dir([("f", file(b"x"))]));
    let scratch = fixture.scratch;
    drop(fixture.fs);
    let flags = rustix::fs::XattrFlags::empty();
    for (name, redirect) in [("none", None), ("wrong", Some("/none/f")), ("dots", Some("../f"))] {
        let path = scratch.path().join("upper").join(name);
        fs::File::create(&path).unwrap().set_len(1000).unwrap();
        rustix::fs::setxattr(&path, "user.overlay.metacopy", b"", flags).unwrap();
        if let Some(value) = redirect {
            rustix::fs::setxattr(&path, "user.overlay.redirect", value.as_bytes(), flags).unwrap();
        }
    }
    let fixture = Fixture { fs: mount(scratch.path(), OverlayOptions::default()), scratch };
    for name in ["none", "wrong", "dots"] {
        let ino = fixture.ino(name);
        assert_eq!(fixture.attr(name).size, 1000);
        assert_eq!(errno(fixture.fs.read(ino, 0, 1)), Errno::EIO);
        assert_eq!(errno(fixture.fs.write(ROOT, ino, 0, b"y", false)), Errno::EIO);
    }
}
