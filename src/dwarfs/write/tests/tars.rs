//! Tar files, hostile ones above all.

use std::{
    io::{Cursor, Read as _},
    path::Path,
};

use tar::{Builder, EntryType, Header};

use crate::dwarfs::write::{
    Content, Device, Faults, Object, Source as _, TarLimits, TarProblem, TarSource, Timestamp, Tree,
    Unreadable, WriteError,
};

/// Makes tar files entry by entry, whatever sense they make.
#[derive(Default)]
struct Maker {
    bytes: Vec<u8>,
}

impl Maker {
    fn raw(mut self, kind: u8, path: &str, link: &str, data: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_gnu_mut().unwrap().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(EntryType::new(kind));
        header.set_mode(0o644);
        header.set_uid(1);
        header.set_gid(2);
        header.set_mtime(3);
        header.set_size(data.len() as u64);
        header.set_device_major(5).unwrap();
        header.set_device_minor(6).unwrap();
        header.set_cksum();
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(data);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, path: &str, data: &[u8]) -> Self {
        self.raw(b'0', path, "", data)
    }

    fn directory(self, path: &str) -> Self {
        self.raw(b'5', path, "", b"")
    }

    fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut data = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let len = (rest + 1..).find(|len| *len == rest + len.to_string().len()).unwrap();
            data.extend_from_slice(format!("{len} {key}=").as_bytes());
            data.extend_from_slice(value);
            data.push(b'\n');
        }
        self.raw(b'x', "pax", "", &data)
    }

    fn end(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 1024, 0);
        self.bytes
    }

    fn tree(self) -> Result<Tree, WriteError> {
        source(&self.end())?.scan(&Faults::new(Unreadable::Refuse, &()), &())
    }

    fn problem(self) -> TarProblem {
        match self.tree() {
            Err(WriteError::Tar { problem, .. }) => problem,
            other => panic!("{other:?}"),
        }
    }
}

fn source(bytes: &[u8]) -> Result<TarSource, WriteError> {
    TarSource::from_reader(bytes, Path::new("/tmp"), TarLimits::default())
}

fn find<'t>(tree: &'t Tree, path: &str) -> &'t Object {
    let entry = tree.entry_ids().find(|id| tree.path(*id) == path.as_bytes()).unwrap();
    tree.object(tree.object_of(entry)).unwrap()
}

fn paths(tree: &Tree) -> Vec<String> {
    tree.entry_ids().map(|id| tree.path(id).escape_ascii().to_string()).collect()
}

fn read(source: &TarSource, file: &Object) -> Vec<u8> {
    let contents = source.open(b"", file).unwrap();
    let mut bytes = vec![0; usize::try_from(file.file().unwrap().size).unwrap()];
    for range in file.file().unwrap().data() {
        let (mut at, end) = (usize::try_from(range.start).unwrap(), usize::try_from(range.end).unwrap());
        while at < end {
            at += contents.read_at(&mut bytes[at..end], at as u64).unwrap();
        }
    }
    bytes
}

#[test]
fn every_kind_of_member() {
    let made = Maker::default()
        .directory("./")
        .file("./file", b"contents")
        .raw(b'1', "./hard", "./file", b"")
        .raw(b'2', "soft", "somewhere/else", b"")
        .raw(b'3', "char", "", b"")
        .raw(b'4', "block", "", b"")
        .raw(b'6', "fifo", "", b"")
        .file("/made/up/file", b"");
    let bytes = made.end();
    let source = source(&bytes).unwrap();
    let tree = source.scan(&Faults::new(Unreadable::Refuse, &()), &()).unwrap();
    let expected = ["", "block", "char", "fifo", "file", "hard", "made", "soft", "made/up", "made/up/file"];
    assert_eq!(paths(&tree), expected);
    let file = find(&tree, "file");
    assert_eq!(
        (file.uid, file.gid, file.perm, file.mtime),
        (1, 2, 0o644, Timestamp { seconds: 3, nanos: 0 })
    );
    assert_eq!(read(&source, file), b"contents");
    assert_eq!(tree.objects().len(), 9);
    assert_eq!(find(&tree, "soft").content, Content::Symlink(b"somewhere/else"[..].into()));
    assert_eq!(find(&tree, "char").content, Content::CharDevice(Device { major: 5, minor: 6 }));
    assert_eq!(find(&tree, "made/up").mtime.seconds, 3);
}

#[test]
fn extended_headers_win() {
    let name = "n".repeat(255);
    let long = format!("{}/{name}", "d".repeat(200));
    let tree = Maker::default()
        .pax(&[
            ("path", long.as_bytes()),
            ("mtime", b"-1.5"),
            ("uid", b"4000000000"),
            ("SCHILY.xattr.user.k", b"a\nb\0"),
            ("SCHILY.xattr.security.selinux", b"no"),
        ])
        .file("short", b"")
        .raw(b'L', "././@LongLink", "", &[b"g/".repeat(60), b"x\0".to_vec()].concat())
        .raw(b'K', "././@LongLink", "", &[b't'; 300])
        .raw(b'2', "short", "short", b"")
        .tree()
        .unwrap();
    let file = find(&tree, &long);
    assert_eq!((file.uid, file.mtime), (4_000_000_000, Timestamp { seconds: -2, nanos: 500_000_000 }));
    let id = tree.object_ids().find(|id| tree.object(*id) == Some(file)).unwrap();
    let xattrs: Vec<_> = tree.xattrs(id).unwrap().iter().collect();
    assert_eq!(xattrs, [(&b"user.k".to_vec(), &b"a\nb\0".to_vec())]);
    let link = find(&tree, &["g/".repeat(60), "x".into()].concat());
    assert_eq!(link.content, Content::Symlink(vec![b't'; 300].into()));
}

#[test]
fn the_later_entry_wins() {
    let made = Maker::default()
        .file("a", b"first")
        .raw(b'1', "b", "a", b"")
        .file("a", b"second")
        .file("d/x", b"")
        .raw(b'5', "d", "", b"")
        .file("e/x", b"")
        .file("e", b"now a file")
        .raw(b'2', "f", "d", b"")
        .directory("f")
        .file("f/inside", b"");
    let bytes = made.end();
    let source = source(&bytes).unwrap();
    let tree = source.scan(&Faults::new(Unreadable::Refuse, &()), &()).unwrap();
    assert_eq!(paths(&tree), ["", "a", "b", "d", "e", "f", "d/x", "f/inside"]);
    assert_eq!(read(&source, find(&tree, "a")), b"second");
    assert_eq!(read(&source, find(&tree, "b")), b"first");
    assert_eq!(read(&source, find(&tree, "e")), b"now a file");
}

#[test]
fn nothing_leaves_the_root_or_passes_through_a_link() {
    let escape = |path: &str| Maker::default().file(path, b"").problem();
    for path in ["../x", "a/../../x", "a/..", "/.."] {
        assert_eq!(escape(path), TarProblem::Escapes(path.as_bytes().into()));
    }
    let through = |link: &str| Maker::default().raw(b'2', "l", link, b"").file("l/passwd", b"").problem();
    for link in ["/etc", ".", "../../etc"] {
        assert_eq!(through(link), TarProblem::Below(b"l/passwd".as_slice().into()));
    }
    let below_file = Maker::default().file("f", b"").directory("f/x").problem();
    assert_eq!(below_file, TarProblem::Below(b"f/x".as_slice().into()));
    assert_eq!(Maker::default().file(".", b"").problem(), TarProblem::Below(b".".as_slice().into()));
    let links: [(&str, &str); 5] = [("x", "nothing"), ("x", "x"), ("x", "d"), ("x", ""), ("l2", "l/passwd")];
    for (path, target) in links {
        let made = Maker::default().directory("d").raw(b'2', "l", "/etc", b"").raw(b'1', path, target, b"");
        assert_eq!(made.problem(), TarProblem::Dangling(path.as_bytes().into()), "{path} -> {target}");
    }
    assert!(matches!(
        Maker::default().raw(b'1', "x", "../../etc/passwd", b"").problem(),
        TarProblem::Escapes(_)
    ));
}

#[test]
fn sizes_are_bounded() {
    let long = [vec![b'a'; 20_000], b"\0".to_vec()].concat();
    let made = Maker::default().raw(b'L', "l", "", &long).file("x", b"");
    assert!(matches!(made.problem(), TarProblem::Limit { what: "length of a path", .. }));
    let made = Maker::default().pax(&[("path", &[b'n'; 256])]).file("x", b"");
    assert_eq!(made.problem(), TarProblem::Field("name"));
    let made = Maker::default().pax(&[("linkpath", &[b'n'; 5_000])]).raw(b'2', "x", "", b"");
    assert!(matches!(made.problem(), TarProblem::Limit { what: "length of a link target", .. }));
    let made = Maker::default().pax(&[("size", b"18446744073709551615")]).file("x", b"data");
    assert_eq!(made.problem(), TarProblem::Truncated);
    let made = Maker::default().pax(&[("GNU.sparse.major", b"1"), ("GNU.sparse.realsize", b"9")]);
    assert_eq!(made.file("x", &[b'9'; 512]).problem(), TarProblem::Field("map of a sparse file"));
    let map: &[u8] = b"0,18446744073709551615,5,1";
    let made =
        Maker::default().pax(&[("GNU.sparse.map", map), ("GNU.sparse.size", b"9")]).file("x", b"12345");
    assert_eq!(made.problem(), TarProblem::Field("map of a sparse file"));
    assert!(matches!(
        TarSource::from_reader(&[0; 5_000][..], Path::new("/tmp"), TarLimits { unpacked_len: 4_999 }),
        Err(WriteError::Tar { problem: TarProblem::Limit { found: 5_000, .. }, .. })
    ));
}

#[test]
fn damage_is_an_error_at_every_byte() {
    let whole = Maker::default().directory("d").file("d/file", &[7; 700]).end();
    for end in 0..whole.len() - 1_024 {
        let result =
            source(&whole[..end]).and_then(|source| source.scan(&Faults::new(Unreadable::Refuse, &()), &()));
        assert!(result.is_err(), "cut at {end}");
    }
    for at in 0..512 {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x11;
        // Whatever it says now, it does not panic; a changed header is never taken for a good one.
        let result =
            source(&damaged).and_then(|source| source.scan(&Faults::new(Unreadable::Refuse, &()), &()));
        assert!(result.is_err(), "damaged at {at}");
    }
}

#[test]
fn packed_streams_are_unpacked() {
    let plain = Maker::default().file("file", &[7; 70_000]).end();
    let zstd = zstd::encode_all(plain.as_slice(), 3).unwrap();
    let mut xz = Vec::new();
    liblzma::read::XzEncoder::new(plain.as_slice(), 1).read_to_end(&mut xz).unwrap();
    let mut gzip = Vec::new();
    flate2::read::GzEncoder::new(plain.as_slice(), flate2::Compression::fast())
        .read_to_end(&mut gzip)
        .unwrap();
    for packed in [plain, zstd, xz, gzip] {
        let source = source(&packed).unwrap();
        let tree = source.scan(&Faults::new(Unreadable::Refuse, &()), &()).unwrap();
        assert_eq!(read(&source, find(&tree, "file")), vec![7; 70_000]);
        if packed.len() < 70_000 {
            assert!(
                self::source(&packed[..packed.len() / 2])
                    .and_then(|source| source.scan(&Faults::new(Unreadable::Refuse, &()), &()))
                    .is_err()
            );
        }
    }
}

#[test]
fn what_the_crate_makes_is_understood() {
    let mut builder = Builder::new(Cursor::new(Vec::new()));
    let path = "long ".repeat(50);
    let mut header = Header::new_gnu();
    header.set_size(3);
    header.set_mode(0o600);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    builder.append_data(&mut header, &path, &b"abc"[..]).unwrap();
    let bytes = builder.into_inner().unwrap().into_inner();
    let source = source(&bytes).unwrap();
    let tree = source.scan(&Faults::new(Unreadable::Refuse, &()), &()).unwrap();
    assert_eq!(read(&source, find(&tree, &path)), b"abc");
}
