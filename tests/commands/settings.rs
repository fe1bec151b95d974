//! Settings and the layer table under crashes at every boundary of a write, and what a change of them costs.
//!
//! [`Disk`] stands for the image: it remembers every step of a change. A writer that is stopped before any step leaves
//! what was synced, any part of the rest, and perhaps a write that is torn somewhere.

use std::{cell::RefCell, fs, io, path::Path, process::Command, rc::Rc};

use fim::{
    config::{
        self, Bind, BindKind, Boot, Casefold, CasefoldMode, ImageId, OverlayKind, Permission, Settings,
        StoredProfile,
    },
    image::{
        ArchiveKind, ImageEdit, LayerEntry, LayerTable, publish,
        reserved::Reserved,
        store::{Medium, Store},
        twin::Twin,
    },
};

use crate::place::Place;

/// Finer than any disk tears a write.
const PIECE: usize = 64;

#[derive(Clone, Debug)]
enum Step {
    Write(usize, Vec<u8>),
    Sync,
}

#[derive(Default)]
struct State {
    now: Vec<u8>,
    steps: Vec<Step>,
}

/// An image in memory; clones are the same one.
#[derive(Clone, Default)]
struct Disk(Rc<RefCell<State>>);

impl Disk {
    fn of(bytes: Vec<u8>) -> Self {
        Self(Rc::new(RefCell::new(State { now: bytes, steps: Vec::new() })))
    }

    fn written(&self) -> usize {
        let length = |step: &Step| if let Step::Write(_, bytes) = step { bytes.len() } else { 0 };
        self.0.borrow().steps.iter().map(length).sum()
    }
}

impl Store for Disk {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.0.borrow();
        let rest = state.now.get(usize::try_from(offset).unwrap()..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        let offset = usize::try_from(offset).unwrap();
        put(&mut state.now, offset, bytes);
        state.steps.push(Step::Write(offset, bytes.to_vec()));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.0.borrow_mut().steps.push(Step::Sync);
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.0.borrow().now.len() as u64)
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.0.borrow_mut().now.resize(usize::try_from(length).unwrap(), 0);
        Ok(())
    }
}

impl Medium for Disk {
    type Writer = Self;

    fn writer(&self) -> io::Result<Self> {
        Ok(self.clone())
    }
}

fn put(bytes: &mut Vec<u8>, at: usize, data: &[u8]) {
    if bytes.len() < at + data.len() {
        bytes.resize(at + data.len(), 0);
    }
    bytes[at..at + data.len()].copy_from_slice(data);
}

/// What may be found of a change whose writer was stopped: before each step, with each prefix and each suffix of the
/// write that was under way. `visit` gets the number of the step and the bytes.
fn stopped(before: &[u8], steps: &[Step], visit: &mut dyn FnMut(usize, &[u8])) {
    let mut durable = before.to_vec();
    let mut open: Vec<(usize, Vec<u8>)> = Vec::new();
    for (number, step) in steps.iter().chain([&Step::Sync]).enumerate() {
        let mut state = durable.clone();
        visit(number, &state);
        for (at, data) in &open {
            for cut in (0..=data.len()).step_by(PIECE).chain([data.len()]) {
                // A front or a back of the write has reached the disk.
                let undo = state[*at..*at + data.len()].to_vec();
                put(&mut state, *at, &data[..cut]);
                visit(number, &state);
                put(&mut state, *at, &undo);
                put(&mut state, *at + cut, &data[cut..]);
                visit(number, &state);
                put(&mut state, *at, &undo);
            }
        }
        for (at, data) in &open {
            put(&mut state, *at, data);
        }
        visit(number, &state);
        match step {
            Step::Write(at, data) => open.push((*at, data.clone())),
            Step::Sync => open.drain(..).for_each(|(at, data)| put(&mut durable, at, &data)),
        }
    }
}

/// Changes of every setting there is, one after the other.
fn histories() -> Vec<Settings> {
    let mut now = Settings::new(ImageId::from_random([3; 16]));
    let mut all = vec![now.clone()];
    let mut then = |change: &dyn Fn(&mut Settings)| {
        change(&mut now);
        all.push(now.clone());
    };
    then(&|s| s.permissions.add([Permission::Home, Permission::Network]));
    then(&|s| s.environment.add([("A".to_owned(), "1".to_owned())]));
    then(&|s| {
        let bind = Bind { source: "/a".into(), destination: "/b".into(), kind: BindKind::Ro };
        s.binds.add(bind).unwrap();
    });
    then(&|s| s.boot = Some(Boot { program: "x".into(), args: vec!["y".into(); 50] }));
    then(&|s| s.casefold = Casefold::new(CasefoldMode::Windows, &["/a".to_owned()]).unwrap());
    then(&|s| s.overlay = OverlayKind::Auto);
    then(&|s| s.notify = true);
    then(&|s| s.remote = Some("https://example.org".into()));
    then(&|s| s.scripts.start = Some("#!/bin/sh\n".repeat(400)));
    then(&|s| s.labels.extend([("a".to_owned(), "b".to_owned())]));
    then(&|s| s.profile = None::<StoredProfile>);
    then(&|s| s.environment.add([("LONG".to_owned(), "v".repeat(20_000))]));
    then(&|s| s.environment.clear());
    all
}

fn tables() -> Vec<LayerTable> {
    let mut table = LayerTable::default();
    let mut all = vec![table.clone()];
    for number in 0_u64..6 {
        let entry = LayerEntry {
            kind: if number == 0 { ArchiveKind::Base } else { ArchiveKind::Layer },
            offset: (number + 10_000) << 12,
            length: 4096,
            content: format!("sections:{number}"),
            created: number,
            message: "m".repeat(usize::try_from(number * 200).unwrap()),
            unknown: serde_json::Map::new(),
        };
        table.push(entry).unwrap();
        all.push(table.clone());
    }
    table.remove_layer(2).unwrap();
    all.push(table.clone());
    all
}

/// Publishes values one after the other, and looks at every state in which a stopped writer may leave the image.
fn old_or_new(twin: Twin, values: &[Vec<u8>]) -> usize {
    let disk = Disk::of(vec![0; usize::try_from(twin.end()).unwrap()]);
    twin.create(&disk, values[0].clone()).unwrap();
    let mut points = 0;
    for pair in values.windows(2) {
        let before = disk.0.borrow().now.clone();
        let change = Disk::of(before.clone());
        publish(&change, twin, pair[1].clone(), Path::new("app")).unwrap();
        let steps = change.0.borrow().steps.clone();
        assert!(matches!(steps.last(), Some(Step::Sync)), "what is reported is synced");
        let end = steps.len();
        stopped(&before, &steps, &mut |number, bytes| {
            points += 1;
            let found = twin.read(&Disk::of(bytes.to_vec())).unwrap().payload;
            assert!(found == pair[0] || found == pair[1], "neither old nor new before step {number}");
            assert!(number < end || found == pair[1], "a change that was reported is there");
        });
        disk.0.borrow_mut().now = change.0.borrow().now.clone();
    }
    points
}

#[test]
fn settings_and_table_are_old_or_new_at_every_boundary() {
    // A small place for the area: 6 MiB for each of thousands of states would be read for nothing.
    let small = |twin: Twin| Twin { offset: 0, room: 128 << 10, ..twin };
    let area = Reserved::behind(0);
    let settings: Vec<_> = histories().iter().map(|settings| config::encode(settings).unwrap()).collect();
    let tables: Vec<_> = tables().iter().map(|table| table.encode().unwrap()).collect();
    let points = (old_or_new(small(area.settings()), &settings), old_or_new(small(area.table()), &tables));
    println!("{} points of settings, {} of the layer table: old or new each time", points.0, points.1);
    assert!(points.0 > 500 && points.1 > 100, "{points:?}");
}

#[test]
fn a_change_costs_the_same_whatever_the_image_holds() {
    let settings = config::encode(&histories().pop().unwrap()).unwrap();
    let cost = |length: usize| {
        let twin = Twin { offset: 4096, room: 1 << 20, ..Reserved::behind(0).settings() };
        let disk = Disk::of(vec![0; length]);
        twin.create(&disk, settings.clone()).unwrap();
        disk.0.borrow_mut().steps.clear();
        publish(&disk, twin, settings.clone(), Path::new("app")).unwrap();
        disk.written()
    };
    assert_eq!(cost(4 << 20), cost(64 << 20));
}

/// Bytes that a command line writes, as the kernel counts them, and its time.
fn written_by(place: &Place, line: &str) -> (u64, std::time::Duration) {
    let script = format!("{} {line} && cat /proc/$$/io", env!("CARGO_BIN_EXE_fim"));
    let started = std::time::Instant::now();
    let done = Command::new("sh").args(["-c", &script]).current_dir(place.directory()).output().unwrap();
    let time = started.elapsed();
    assert!(done.status.success(), "{line}: {}", String::from_utf8_lossy(&done.stderr));
    let text = String::from_utf8(done.stdout).unwrap();
    let count = text.lines().find_map(|line| line.strip_prefix("wchar: ")).unwrap();
    (count.parse().unwrap(), time)
}

#[test]
fn a_change_of_a_large_image_writes_as_much_as_of_a_small_one() {
    if fs::read("/proc/self/io").is_err() {
        return crate::support::skip("/proc/self/io");
    }
    let place = Place::new();
    place.image();
    fs::copy(place.path("app"), place.path("large")).unwrap();
    // A layer of 1 GB, all of it a hole.
    let mut edit = ImageEdit::open(place.path("large")).unwrap();
    let mut table = edit.table().unwrap();
    let offset = table.next_offset(0);
    let length = 1 << 30;
    fs::File::options().write(true).open(place.path("large")).unwrap().set_len(offset + length).unwrap();
    let entry = LayerEntry {
        kind: ArchiveKind::Layer,
        offset,
        length,
        content: "bytes:0".to_owned(),
        created: 0,
        message: String::new(),
        unknown: serde_json::Map::new(),
    };
    table.push(entry).unwrap();
    edit.set_table(&table).unwrap();
    drop(edit);
    for line in ["env IMAGE add A=1", "perms IMAGE add home", "casefold IMAGE on", "notify IMAGE on"] {
        let (small, small_time) = written_by(&place, &line.replace("IMAGE", "app"));
        let (large, large_time) = written_by(&place, &line.replace("IMAGE", "large"));
        println!(
            "{line}: {small} bytes in {small_time:?}, with a layer of 1 GB {large} bytes in {large_time:?}"
        );
        assert_eq!(small, large, "{line}");
        assert!(large < 64 << 10, "{line}: {large} bytes");
    }
}
