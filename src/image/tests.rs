//! Settings, table and appended archives under crashes and failures at every step.
//!
//! [`Disk`] remembers every write. [`Disk::crashes`] replays them as a disk may after a loss of power: what was synced
//! is there; of what was not, any subset is, and the last write of a subset may be torn at any sector, its front or its
//! back lost.

use std::{cell::RefCell, io, path::Path, rc::Rc};

use super::{
    ArchiveKind, ImageError, LayerTable, NewArchive, Published, append, publish,
    reserved::Reserved,
    store::{Medium, Store},
    twin::{Current, Twin, TwinError},
};

const SECTOR: usize = 512;

#[derive(Clone, Debug)]
enum Step {
    Write(u64, Vec<u8>),
    Length(u64),
    Sync,
}

#[derive(Debug, Default)]
struct State {
    /// What was there before the first remembered step.
    before: Vec<u8>,
    now: Vec<u8>,
    steps: Vec<Step>,
    /// The step that fails, counted from 0.
    fails_at: Option<usize>,
}

/// A store in memory; clones are the same disk.
#[derive(Clone, Debug, Default)]
struct Disk(Rc<RefCell<State>>);

fn apply(bytes: &mut Vec<u8>, step: &Step) {
    match step {
        Step::Write(offset, data) => {
            let (from, to) =
                (usize::try_from(*offset).unwrap(), usize::try_from(*offset).unwrap() + data.len());
            if bytes.len() < to {
                bytes.resize(to, 0);
            }
            bytes[from..to].copy_from_slice(data);
        }
        Step::Length(length) => bytes.resize(usize::try_from(*length).unwrap(), 0),
        Step::Sync => {}
    }
}

impl Disk {
    fn of(bytes: Vec<u8>) -> Self {
        Self(Rc::new(RefCell::new(State { before: bytes.clone(), now: bytes, ..State::default() })))
    }

    fn bytes(&self) -> Vec<u8> {
        self.0.borrow().now.clone()
    }

    fn take(&self, step: &Step) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        let number = state.steps.len();
        state.steps.push(step.clone());
        if state.fails_at == Some(number) {
            if let Step::Write(offset, data) = step {
                let torn = Step::Write(*offset, data[..data.len() / 2].to_vec());
                apply(&mut state.now, &torn);
            }
            return Err(io::Error::from_raw_os_error(5));
        }
        apply(&mut state.now, step);
        Ok(())
    }

    /// Every state in which the disk may be found if the power fails before step `steps`.
    fn crashes(&self) -> Vec<(usize, Vec<u8>)> {
        let state = self.0.borrow();
        let mut found = Vec::new();
        for cut in 0..=state.steps.len() {
            let synced =
                state.steps[..cut].iter().rposition(|step| matches!(step, Step::Sync)).map_or(0, |at| at + 1);
            let mut durable = state.before.clone();
            state.steps[..synced].iter().for_each(|step| apply(&mut durable, step));
            let open = &state.steps[synced..cut];
            for subset in 0_u32..1 << open.len() {
                let chosen: Vec<&Step> = open
                    .iter()
                    .enumerate()
                    .filter(|(at, _)| subset >> at & 1 == 1)
                    .map(|(_, step)| step)
                    .collect();
                let mut whole = durable.clone();
                if let Some((Step::Write(offset, data), earlier)) = chosen.split_last() {
                    earlier.iter().for_each(|step| apply(&mut whole, step));
                    for at in (0..data.len()).step_by(SECTOR) {
                        let (front, back) = data.split_at(at);
                        for (offset, part) in [(*offset, front), (*offset + at as u64, back)] {
                            let mut torn = whole.clone();
                            apply(&mut torn, &Step::Write(offset, part.to_vec()));
                            found.push((cut, torn));
                        }
                    }
                }
                let mut whole = durable.clone();
                chosen.iter().for_each(|step| apply(&mut whole, step));
                found.push((cut, whole));
            }
        }
        found
    }

    fn steps(&self) -> usize {
        self.0.borrow().steps.len()
    }
}

impl Store for Disk {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.0.borrow();
        let rest = state.now.get(usize::try_from(offset).unwrap_or(usize::MAX)..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.take(&Step::Write(offset, bytes.to_vec()))
    }

    fn sync(&self) -> io::Result<()> {
        self.take(&Step::Sync)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.0.borrow().now.len() as u64)
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.take(&Step::Length(length))
    }
}

impl Medium for Disk {
    type Writer = Self;

    fn writer(&self) -> io::Result<Self> {
        Ok(self.clone())
    }
}

const SMALL: Twin = Twin { what: "value", magic: *b"TESTTWIN", offset: 512, room: 4096 };

fn value(disk: &Disk) -> Result<Current, TwinError> {
    SMALL.read(disk)
}

fn payload(byte: u8) -> Vec<u8> {
    vec![byte; 1700]
}

fn written(values: &[u8]) -> Disk {
    let disk = Disk::default();
    SMALL.create(&disk, payload(values[0])).unwrap();
    for value in &values[1..] {
        publish(&disk, SMALL, payload(*value), Path::new("x")).unwrap();
    }
    Disk::of(disk.bytes())
}

#[test]
fn a_change_is_old_or_new_after_any_crash() {
    let mut points = 0;
    for before in [&b"a"[..], b"ab", b"abc"] {
        let disk = written(before);
        let old = value(&disk).unwrap();
        publish(&disk, SMALL, payload(b'z'), Path::new("x")).unwrap();
        let new = value(&disk).unwrap();
        assert_eq!(new.payload, payload(b'z'));
        assert_eq!(new.generation, old.generation + 1);
        for (cut, state) in disk.crashes() {
            points += 1;
            let found = value(&Disk::of(state)).unwrap();
            assert!(found == old || found == new, "before step {cut}: {}", found.generation);
            assert!(cut < disk.steps() || found == new, "a change that was reported is there");
        }
    }
    println!("{points} crash points");
    assert!(points > 30, "the test tries something");
}

#[test]
fn a_change_that_fails_leaves_the_old_value_readable() {
    for step in 0..2 {
        let disk = written(b"ab");
        let old = value(&disk).unwrap();
        disk.0.borrow_mut().fails_at = Some(step);
        assert!(publish(&disk, SMALL, payload(b'z'), Path::new("x")).is_err());
        let found = value(&disk).unwrap();
        assert!(found == old || (step == 1 && found.payload == payload(b'z')));
        disk.0.borrow_mut().fails_at = None;
        publish(&disk, SMALL, payload(b'y'), Path::new("x")).unwrap();
        assert_eq!(value(&disk).unwrap().payload, payload(b'y'));
    }
}

#[test]
fn one_damaged_copy_does_no_harm_and_two_are_named() {
    let bytes = written(b"ab").bytes();
    let second = 512 + 4096;
    for at in [0, 8, 16, 17, 24, 39, 64, 1000] {
        for (place, expected) in [(512, b'b'), (second, b'b')] {
            let mut damaged = bytes.clone();
            damaged[place + at] ^= 0x40;
            let found = value(&Disk::of(damaged)).unwrap().payload;
            assert!(found == payload(expected) || found == payload(b'a'), "{at}");
        }
        if at >= 8 {
            let mut damaged = bytes.clone();
            damaged[512 + at] ^= 0x40;
            damaged[second + at] ^= 0x40;
            let error = value(&Disk::of(damaged)).unwrap_err();
            let expected = "both copies of the value are damaged, at offsets 0x200 and 0x1200";
            assert_eq!(error.to_string(), expected);
        }
    }
    assert!(matches!(value(&Disk::of(Vec::new())), Err(TwinError::Missing { offset: 512, .. })));
    assert!(matches!(value(&Disk::of(bytes[..600].to_vec())), Err(TwinError::Damaged { .. })));
}

#[test]
fn a_value_that_does_not_fit_is_refused() {
    let disk = written(b"a");
    assert_eq!(SMALL.limit(), 4096 - 64);
    publish(&disk, SMALL, vec![1; SMALL.limit()], Path::new("x")).unwrap();
    assert_eq!(value(&disk).unwrap().payload.len(), SMALL.limit());
    let error = publish(&disk, SMALL, vec![1; SMALL.limit() + 1], Path::new("x")).unwrap_err();
    assert!(matches!(error, ImageError::Twin { source: TwinError::TooLong { .. }, .. }), "{error}");
}

fn table_of(disk: &Disk) -> LayerTable {
    let reserved = Reserved::behind(0);
    LayerTable::decode(&reserved.table().read(disk).unwrap().payload, reserved.end()).unwrap()
}

fn new_archive(message: &str) -> NewArchive {
    NewArchive { kind: ArchiveKind::Layer, created: 7, message: message.to_owned() }
}

/// Appends `bytes`; verification reads them back.
fn append_bytes(disk: &Disk, bytes: &[u8]) -> Result<(), ImageError> {
    append(
        disk,
        Reserved::behind(0),
        Path::new("x"),
        new_archive("m"),
        |writer, offset| {
            writer.write_all_at(bytes, offset).map_err(|source| ImageError::Io {
                action: "write",
                path: "x".into(),
                offset,
                source,
            })?;
            Ok(bytes.len() as u64)
        },
        |disk, offset, length| {
            let mut found = vec![0; usize::try_from(length).unwrap()];
            disk.read_exact_at(&mut found, offset).unwrap();
            assert_eq!(found, bytes);
            Ok(Published { content: "c".to_owned() })
        },
    )
    .map(|_| ())
}

fn image_with(archives: &[&[u8]]) -> Disk {
    let disk = Disk::default();
    let reserved = Reserved::behind(0);
    reserved.table().create(&disk, LayerTable::default().encode().unwrap()).unwrap();
    disk.set_length(reserved.end()).unwrap();
    for bytes in archives {
        append_bytes(&disk, bytes).unwrap();
    }
    Disk::of(disk.bytes())
}

fn holds(disk: &Disk, expected: &[&[u8]]) -> bool {
    let table = table_of(disk);
    table.archives().len() == expected.len()
        && table.archives().iter().zip(expected).all(|(entry, bytes)| {
            let mut found = vec![0; bytes.len()];
            entry.length == bytes.len() as u64
                && disk.read_exact_at(&mut found, entry.offset).is_ok()
                && found == *bytes
        })
}

#[test]
fn an_append_is_there_or_not_after_any_crash() {
    let (first, second) = (vec![1; 5000], vec![2; 3000]);
    let disk = image_with(&[&first]);
    append_bytes(&disk, &second).unwrap();
    let crashes = disk.crashes();
    for (cut, state) in &crashes {
        let found = Disk::of(state.clone());
        let (old, new) = (holds(&found, &[&first]), holds(&found, &[&first, &second]));
        assert!(old || new, "before step {cut}");
        assert!(*cut < disk.steps() || new);
        assert!(!(old && new));
    }
    println!("{} crash points", crashes.len());
    assert!(crashes.len() > 20);
}

#[test]
fn a_failed_append_changes_nothing_and_the_next_one_works() {
    let (first, second, third) = (vec![1; 5000], vec![2; 3000], vec![3; 100]);
    for step in 0..4 {
        let disk = image_with(&[&first]);
        disk.0.borrow_mut().fails_at = Some(step);
        assert!(append_bytes(&disk, &second).is_err(), "step {step}");
        assert!(holds(&disk, &[&first]), "step {step}");
        disk.0.borrow_mut().fails_at = None;
        append_bytes(&disk, &third).unwrap();
        assert!(holds(&disk, &[&first, &third]));
        assert_eq!(table_of(&disk).archives()[1].offset, 8192 + Reserved::behind(0).end());
    }
}

#[test]
fn an_append_that_does_not_verify_is_cut_off() {
    let disk = image_with(&[&[1; 10]]);
    let length = disk.length().unwrap();
    let refused = append(
        &disk,
        Reserved::behind(0),
        Path::new("x"),
        new_archive("m"),
        |writer, offset| {
            writer.write_all_at(&[9; 9999], offset).unwrap();
            Ok(9999)
        },
        |_, offset, _| Err(ImageError::NoArea { path: "x".into(), offset }),
    );
    assert!(refused.is_err());
    assert!(holds(&disk, &[&[1; 10]]));
    assert!(disk.length().unwrap() < length + 4096, "the rest is cut off");
}
