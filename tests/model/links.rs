//! Files of a layer that have several names.

use std::{fs, path::Path};

use fim::{
    overlay::OverlayOptions,
    vfs::{FileSystem as _, Ino, SetAttr},
};

use crate::{
    fixture::{Fixture, mount, name, xattr},
    ours::ROOT,
};

/// Three names of a file in the layer, of which the first is changed.
fn linked() -> Fixture {
    let fixture = Fixture::with(OverlayOptions::default(), |root| {
        fs::write(root.join("a"), b"old").unwrap();
        for (name, dir) in [("b", "d"), ("c", "e")] {
            fs::create_dir(root.join(dir)).unwrap();
            fs::hard_link(root.join("a"), root.join(dir).join(name)).unwrap();
        }
    });
    let ino = fixture.ino("a");
    fixture.fs.write(ROOT, ino, 0, b"new", false).unwrap();
    fixture.fs.forget(ino, 1);
    fixture.create(ROOT, "", "other", 0o644);
    fixture
}

fn links_note(fixture: &Fixture, path: &str) -> String {
    let value = xattr(&fixture.upper(path), "user.fim.links").unwrap();
    String::from_utf8(value).unwrap().split(' ').next().unwrap().to_owned()
}

#[test]
fn names_of_one_file_stay_that_over_remounts() {
    let mut fixture = linked();
    let ino = fixture.ino("a");
    for _ in 0..2 {
        for path in ["d/b", "a", "e/c"] {
            let attr = fixture.attr(path);
            assert_eq!((attr.ino, attr.nlink, attr.size), (ino.get(), 3, 3), "{path}");
            assert_eq!(fixture.fs.read(fixture.ino(path), 0, 9).unwrap().contiguous().as_ref(), b"new");
        }
        fixture = fixture.remounted();
    }
    assert!(!fixture.upper("d").exists(), "other names are left where they are");
    // One goes, one moves, one is added.
    fixture.fs.unlink(fixture.ino("d"), name("b")).unwrap();
    fixture.mv("e/c", "e/moved");
    fixture.fs.link(fixture.ino("e/moved"), fixture.ino("d"), name("added")).unwrap();
    let fixture = fixture.remounted();
    fixture.fs.write(ROOT, fixture.ino("d/added"), 0, b"N", false).unwrap();
    for path in ["a", "e/moved", "d/added"] {
        let attr = fixture.attr(path);
        assert_eq!((attr.ino, attr.nlink), (ino.get(), 3), "{path}");
        assert_eq!(fs::read(fixture.upper(path)).unwrap(), b"New", "{path}");
    }
    // With the last name the index lets go of it.
    let index = fixture.scratch.path().join("work/index");
    assert_eq!(fs::read_dir(&index).unwrap().count(), 1);
    fixture.fs.unlink(Ino::ROOT, name("a")).unwrap();
    fixture.fs.unlink(fixture.ino("d"), name("added")).unwrap();
    fixture.mv("e", "d/e");
    assert_eq!(fixture.attr("d/e/moved").nlink, 1);
    fixture.fs.unlink(fixture.ino("d/e"), name("moved")).unwrap();
    assert_eq!(fs::read_dir(&index).unwrap().count(), 0);
    assert_eq!(fixture.fs.getattr(ino).unwrap().nlink, 0);
    assert!(fixture.work_is_clean());
}

#[test]
fn removing_a_name_of_a_layer_leaves_the_right_number_of_links() {
    let fixture = Fixture::with(OverlayOptions::default(), |root| {
        for (one, other) in [("a", "b"), ("x", "y")] {
            fs::write(root.join(one), b"low").unwrap();
            fs::hard_link(root.join(one), root.join(other)).unwrap();
        }
        fs::write(root.join("f"), b"f").unwrap();
    });
    fixture.fs.unlink(Ino::ROOT, name("a")).unwrap();
    fixture.mv("f", "x");
    let fixture = fixture.remounted();
    assert_eq!([fixture.attr("b").nlink, fixture.attr("y").nlink], [1, 1]);
    assert_eq!(fixture.fs.read(fixture.ino("y"), 0, 9).unwrap().contiguous().as_ref(), b"low");
    assert_eq!(fixture.fs.read(fixture.ino("x"), 0, 9).unwrap().contiguous().as_ref(), b"f");
}

#[test]
fn a_crash_between_the_names_of_a_file_leaves_them_one_file() {
    // In the index, and not yet under the name for which it was copied up.
    let fixture = linked();
    assert_eq!(links_note(&fixture, "a"), "=3");
    fs::remove_file(fixture.upper("a")).unwrap();
    let fixture = fixture.remounted();
    for path in ["a", "d/b", "e/c"] {
        assert_eq!((fixture.attr(path).nlink, fixture.attr(path).ino), (3, fixture.attr("a").ino), "{path}");
        assert_eq!(fixture.fs.read(fixture.ino(path), 0, 9).unwrap().contiguous().as_ref(), b"new");
    }
    // About to get a name, with and without it.
    fixture.mv("d/b", "d/x");
    assert_eq!((links_note(&fixture, "d/x"), fixture.attr("a").nlink), ("=3".to_owned(), 3));
    fs::hard_link(fixture.upper("d/x"), fixture.upper("a")).unwrap();
    let fixture = fixture.remounted();
    assert_eq!(fixture.attr("e/c").nlink, 3);
    // About to lose one, and without it.
    fixture.fs.unlink(fixture.ino("d"), name("x")).unwrap();
    assert_eq!((links_note(&fixture, "a"), fixture.attr("e/c").nlink), ("+1".to_owned(), 2));
    fs::remove_file(fixture.upper("a")).unwrap();
    let whiteout = |path: &Path| {
        let kind = rustix::fs::FileType::CharacterDevice;
        rustix::fs::mknodat(rustix::fs::CWD, path, kind, rustix::fs::Mode::empty(), 0).unwrap();
    };
    whiteout(&fixture.upper("a"));
    let fixture = fixture.remounted();
    assert_eq!(fixture.attr("e/c").nlink, 1);
    assert_eq!(fixture.fs.read(fixture.ino("e/c"), 0, 9).unwrap().contiguous().as_ref(), b"new");
    // Without any name, and still in the index.
    fixture
        .fs
        .setattr(ROOT, fixture.ino("e/c"), &SetAttr { perm: Some(0o600), ..SetAttr::default() })
        .unwrap();
    let index = fixture.scratch.path().join("work/index");
    let copy = fs::read_dir(&index).unwrap().next().unwrap().unwrap().path();
    let note = String::from_utf8(xattr(&copy, "user.fim.links").unwrap()).unwrap().replace("+1", "+0");
    rustix::fs::setxattr(&copy, "user.fim.links", note.as_bytes(), rustix::fs::XattrFlags::empty()).unwrap();
    let _swept = fixture.remounted();
    assert_eq!(fs::read_dir(&index).unwrap().count(), 0, "the next start sweeps it");
}

#[test]
fn changes_that_are_thrown_away_are_gone_under_every_name() {
    let fixture = linked();
    for path in ["a", "other"] {
        fs::remove_file(fixture.upper(path)).unwrap();
    }
    let fixture = fixture.remounted();
    for path in ["a", "d/b", "e/c"] {
        assert_eq!(fixture.fs.read(fixture.ino(path), 0, 9).unwrap().contiguous().as_ref(), b"old");
    }
}

#[test]
fn an_index_of_another_layer_is_not_believed() {
    let fixture = linked();
    let scratch = fixture.scratch;
    drop(fixture.fs);
    // Another file with several names has the number now.
    let lower = scratch.path().join("lower");
    fs::write(lower.join("a"), b"other").unwrap();
    fs::remove_file(scratch.path().join("upper/a")).unwrap();
    let fixture = Fixture { fs: mount(scratch.path(), OverlayOptions::default()), scratch };
    for path in ["a", "d/b", "e/c"] {
        assert_eq!(fixture.fs.read(fixture.ino(path), 0, 9).unwrap().contiguous().as_ref(), b"other");
    }
    fixture.fs.write(ROOT, fixture.ino("d/b"), 0, b"O", false).unwrap();
    assert_eq!(fixture.fs.read(fixture.ino("e/c"), 0, 9).unwrap().contiguous().as_ref(), b"Other");
    assert_eq!(fixture.attr("a").nlink, 3);
}
