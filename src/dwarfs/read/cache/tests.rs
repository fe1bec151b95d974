use std::{
    collections::HashMap as Map,
    sync::atomic::{AtomicBool, AtomicU32},
    time::Instant,
};

use super::{
    block::{Decode, Step},
    *,
};
use crate::sys::block_memory::{Memory, UNIT, Writer};

/// Length of a block of the archive below, and of a step of its decoder.
const LEN: usize = 1_000;
const STEP: usize = 100;

/// What a block costs beside its bytes.
const OVERHEAD: usize = size_of::<Block>();

/// Bytes that a decoder of the archive below says it holds.
const HELD: usize = 77;

/// An archive whose blocks are full of their own numbers.
#[derive(Debug)]
struct Fake {
    opened: AtomicU32,
    /// Steps that decoders may take: they wait for more.
    allowed: (Mutex<usize>, crate::sync::Condvar),
    /// Blocks whose payload cannot be read.
    unreadable: AtomicBool,
    /// Where decoders find damage, and whether they panic instead.
    damaged_at: Option<usize>,
    panics: AtomicBool,
    left: Mutex<Map<u32, &'static AtomicU64>>,
}

impl Fake {
    fn new() -> Arc<Self> {
        Self::damaged(None)
    }

    fn damaged(damaged_at: Option<usize>) -> Arc<Self> {
        Arc::new(Self {
            opened: AtomicU32::new(0),
            allowed: (Mutex::new(usize::MAX / 2), crate::sync::Condvar::new()),
            unreadable: AtomicBool::new(false),
            damaged_at,
            panics: AtomicBool::new(false),
            left: Mutex::default(),
        })
    }

    fn opened(&self) -> u32 {
        self.opened.load(Ordering::Relaxed)
    }

    fn allow(&self, steps: usize) {
        *self.allowed.0.lock() = steps;
        self.allowed.1.notify_all();
    }

    fn take_step(&self) {
        let mut allowed = self.allowed.0.lock();
        while *allowed == 0 {
            self.allowed.1.wait(&mut allowed);
        }
        *allowed -= 1;
    }
}

#[derive(Debug)]
struct Shared(Arc<Fake>);

impl Origin for Shared {
    fn open(&self, block: u32) -> Result<Option<Opened>, Error> {
        let fake = &self.0;
        fake.opened.fetch_add(1, Ordering::Relaxed);
        if fake.unreadable.load(Ordering::Relaxed) {
            return Err(Error::NotFound { offset: 3 });
        }
        let (memory, writer) = Memory::reserve(LEN).unwrap();
        let decoder = Numbers { block, fake: Arc::clone(fake) };
        Ok(Some(Opened::new((decoder, memory, writer))))
    }

    fn longest(&self) -> usize {
        LEN
    }

    fn left(&self, block: u32) -> Option<&AtomicU64> {
        Some(self.0.left.lock().entry(block).or_insert_with(|| Box::leak(Box::default())))
    }
}

struct Numbers {
    block: u32,
    fake: Arc<Fake>,
}

impl Decode for Numbers {
    fn advance(&mut self, out: &mut Writer) -> Result<Step, Error> {
        self.fake.take_step();
        if self.fake.damaged_at.is_some_and(|at| out.published() >= at) {
            assert!(!self.fake.panics.load(Ordering::Relaxed), "in the decoder");
            return Err(Error::NotFound { offset: 5 });
        }
        let step = out.spare().len().min(STEP);
        out.spare()[..step].fill(u8::try_from(self.block % 256).unwrap());
        out.publish(step);
        Ok(if out.spare().is_empty() { Step::End } else { Step::More })
    }

    fn held(&self) -> usize {
        HELD
    }
}

/// A cache and an archive whose blocks are read through it.
struct Setting {
    cache: Arc<BlockCache>,
    fake: Arc<Fake>,
    origin: Arc<dyn Origin>,
}

impl Setting {
    fn new(options: CacheOptions, fake: Arc<Fake>) -> Self {
        let origin = Arc::new(Shared(Arc::clone(&fake)));
        Self { cache: BlockCache::with(options), fake, origin }
    }

    fn quiet(blocks: usize) -> Self {
        Self::new(CacheOptions::quiet(blocks * (LEN + OVERHEAD)), Fake::new())
    }

    fn serving(blocks: usize, idle: Duration) -> Self {
        let threads = NonZeroUsize::new(2);
        let options = CacheOptions { idle, ..CacheOptions::serving(blocks * (LEN + OVERHEAD), threads) };
        Self::new(options, Fake::new())
    }

    fn read(&self, block: u32, range: Range<usize>) -> Result<Slice, Error> {
        let slice = self.cache.slice(key(block), &self.origin, range.clone(), &|_| Next::InArchive)?;
        let expected = vec![u8::try_from(block % 256).unwrap(); range.len()];
        assert_eq!(slice.as_bytes(), expected, "block {block}, {range:?}");
        Ok(slice)
    }

    fn whole(&self, block: u32) {
        self.read(block, 0..LEN).unwrap();
    }

    fn has(&self, block: u32) -> bool {
        self.cache.peek(key(block)).is_some()
    }
}

fn key(block: u32) -> Key {
    Key { archive: 1, block }
}

/// Waits until something that threads do in the background has happened.
fn wait_for(what: &str, happened: impl Fn() -> bool) {
    let start = Instant::now();
    while !happened() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what}");
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn many_who_ask_at_once_load_once() {
    let setting = Setting::quiet(10);
    thread::scope(|scope| {
        for at in 0..8 {
            let setting = &setting;
            scope.spawn(move || setting.read(1, at * 100..at * 100 + 150).unwrap());
        }
    });
    assert_eq!(setting.fake.opened(), 1);
    setting.whole(1);
    assert_eq!((setting.fake.opened(), setting.cache.used()), (1, LEN + OVERHEAD));
}

#[test]
fn a_range_is_served_before_the_rest_is_there() {
    let setting = Setting::quiet(10);
    setting.fake.allow(1);
    let published = |bytes| setting.cache.peek(key(1)).is_some_and(|block| block.published() == bytes);
    thread::scope(|scope| {
        // The decoder of this one stands still at 100 bytes, waiting for more steps.
        let last = scope.spawn(|| setting.read(1, 900..LEN).map(|_| ()));
        wait_for("the first step", || published(100));
        let (early, first) = std::sync::mpsc::channel();
        let reader = &setting;
        scope.spawn(move || early.send(reader.read(1, 150..250).map(|_| ())));
        thread::sleep(Duration::from_millis(50));
        // Now it stands still at 300.
        setting.fake.allow(2);
        let served = first.recv_timeout(Duration::from_secs(10));
        let still_at_it = !last.is_finished();
        setting.fake.allow(1_000);
        served.expect("what is there is served while the decoder stands still").unwrap();
        assert!(still_at_it);
        last.join().unwrap().unwrap();
    });
    assert_eq!(setting.fake.opened(), 1);
}

#[test]
fn only_what_is_asked_for_is_decoded() {
    let setting = Setting::quiet(10);
    setting.read(1, 120..130).unwrap();
    let block = setting.cache.peek(key(1)).unwrap();
    assert_eq!((block.published(), block.is_resting()), (200, true));
    assert_eq!(setting.cache.used(), LEN + OVERHEAD + HELD, "the decoder counts");
    setting.read(1, 0..200).unwrap();
    assert_eq!(block.published(), 200);
    setting.whole(1);
    assert!(block.is_settled());
    assert_eq!(setting.cache.used(), LEN + OVERHEAD, "the decoder is gone");
    let error = setting.read(1, 0..LEN + 1).unwrap_err();
    assert!(matches!(error, Error::OutOfRange { bound: 1_001, .. }), "{error}");
}

#[test]
fn a_failure_goes_to_all_and_is_not_kept() {
    let setting = Setting::quiet(10);
    setting.fake.unreadable.store(true, Ordering::Relaxed);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let error = setting.read(1, 0..1).unwrap_err();
                assert!(error.to_string().contains("offset 0x3"), "{error}");
            });
        }
    });
    setting.fake.unreadable.store(false, Ordering::Relaxed);
    setting.whole(1);
}

#[test]
fn what_stands_before_the_damage_stays_readable() {
    let setting = Setting::new(CacheOptions::quiet(1 << 20), Fake::damaged(Some(500)));
    for _ in 0..2 {
        let error = setting.read(1, 400..600).unwrap_err();
        assert!(error.to_string().contains("offset 0x5"), "{error}");
        setting.read(1, 400..500).unwrap();
    }
    assert_eq!(setting.fake.opened(), 1);
}

#[test]
fn a_panic_leaves_nobody_waiting() {
    let setting = Setting::new(CacheOptions::quiet(1 << 20), Fake::damaged(Some(500)));
    setting.fake.panics.store(true, Ordering::Relaxed);
    setting.fake.allow(2);
    thread::scope(|scope| {
        let first = scope.spawn(|| setting.read(1, 0..600).map(|_| ()));
        wait_for("the first is at it", || {
            setting.cache.peek(key(1)).is_some_and(|block| block.published() == 200)
        });
        let second = scope.spawn(|| setting.read(1, 0..700).map(|_| ()));
        thread::sleep(Duration::from_millis(20));
        setting.fake.allow(1_000);
        assert!(first.join().is_err());
        assert!(matches!(second.join(), Ok(Err(_)) | Err(_)));
    });
    // It is tried again, not remembered.
    setting.fake.panics.store(false, Ordering::Relaxed);
    assert!(setting.read(1, 0..700).is_err());
    setting.read(1, 0..500).unwrap();
    assert_eq!(setting.fake.opened(), 2);
}

#[test]
fn the_bound_holds_and_what_is_used_stays() {
    let setting = Setting::quiet(10);
    setting.whole(0);
    for block in 1..100 {
        setting.whole(block);
        setting.whole(0);
        assert!(setting.cache.used() <= 10 * (LEN + OVERHEAD), "{}", setting.cache.used());
        assert!(setting.cache.figures().blocks <= 10);
    }
    assert_eq!(setting.fake.opened(), 100, "block 0 is loaded once");
    setting.cache.unregister(2);
    assert!(setting.cache.used() > 0);
    setting.cache.unregister(1);
    assert_eq!((setting.cache.used(), setting.has(0)), (0, false));
}

#[test]
fn one_pass_through_everything_drives_out_nothing_that_is_used() {
    let setting = Setting::quiet(20);
    // Five blocks are used now and then, among others.
    for round in 0..4 {
        (0..5).for_each(|block| setting.whole(block));
        (0..12).for_each(|other| setting.whole(100 + round * 12 + other));
    }
    // Somebody reads ten times what the cache holds, each block in several bites.
    for block in 1_000..1_200 {
        (0..10).for_each(|bite| drop(setting.read(block, bite * 100..bite * 100 + 100).unwrap()));
    }
    let opened = setting.fake.opened();
    (0..5).for_each(|block| setting.whole(block));
    assert_eq!(setting.fake.opened(), opened, "all five are still there");
}

#[test]
fn what_comes_back_soon_is_kept() {
    let setting = Setting::quiet(10);
    // Going round through more than there is room for: what is let go too early is protected when it comes back.
    for _ in 0..6 {
        (0..13).for_each(|block| setting.whole(block));
    }
    let opened = setting.fake.opened();
    (0..13).for_each(|block| setting.whole(block));
    assert!(setting.fake.opened() - opened < 13, "some are found");
}

#[test]
fn incomplete_blocks_count_and_can_be_evicted() {
    let setting = Setting::quiet(10);
    for block in 0..200 {
        setting.read(block, 0..1).unwrap();
        assert!(setting.cache.used() <= 10 * (LEN + OVERHEAD), "{}", setting.cache.used());
    }
    assert!(setting.cache.figures().blocks < 10);
    setting.whole(0);
}

#[test]
fn a_block_beyond_the_bound_is_still_served() {
    let setting = Setting::new(CacheOptions::quiet(10), Fake::new());
    let slice = setting.read(1, 0..LEN).unwrap();
    assert_eq!(setting.cache.used(), 0);
    setting.read(2, 10..20).unwrap();
    assert_eq!((setting.cache.used(), slice.len()), (0, LEN));
}

#[test]
fn pinned_slices_outlive_eviction() {
    let setting = Setting::quiet(10);
    let slice = setting.read(7, 2..6).unwrap();
    setting.cache.clear();
    assert_eq!(setting.cache.used(), 0);
    assert_eq!(slice.as_bytes(), [7; 4]);
}

#[test]
fn blocks_that_are_asked_for_ahead_are_loaded_as_far_as_there_is_room() {
    let setting = Setting::quiet(10);
    setting.cache.prefetch((0..3).map(|block| (key(block), Arc::clone(&setting.origin))));
    wait_for("three blocks", || setting.cache.figures().opened == 3);
    wait_for("whole blocks", || (0..3).all(|block| setting.cache.peek(key(block)).unwrap().is_settled()));
    setting.cache.prefetch((0..100).map(|block| (key(block), Arc::clone(&setting.origin))));
    wait_for("the end of the work", || setting.cache.workers.is_at_rest());
    let figures = setting.cache.figures();
    assert!(figures.blocks >= 7 && figures.blocks < 10 && figures.opened < 10, "{figures:?}");
}

#[test]
fn a_block_that_is_walked_through_is_finished_by_a_worker() {
    let setting = Setting::serving(100, Duration::from_secs(60));
    setting.read(0, 0..1).unwrap();
    setting.read(0, 600..750).unwrap();
    wait_for("the rest of the block", || setting.cache.peek(key(0)).unwrap().is_settled());
    // The blocks behind it are loaded as well, one for each worker.
    wait_for("blocks ahead", || [1, 2].iter().all(|block| setting.has(*block)) && setting.fake.opened() == 3);
    wait_for("the end of the work", || setting.cache.workers.is_at_rest());
    assert_eq!(setting.fake.opened(), 3);
}

#[test]
fn several_walkers_have_what_each_comes_to_loaded() {
    let setting = Setting::serving(100, Duration::from_secs(60));
    for (block, next) in [(10, 40), (20, 30), (60, 50)] {
        let next = |most: usize| Next::of(block, [block, next].into_iter(), most, true);
        for range in [0..100, 100..300] {
            setting.cache.slice(key(block), &setting.origin, range, &next).unwrap();
        }
    }
    wait_for("the blocks that they come to", || [40, 30, 50].iter().all(|block| setting.has(*block)));
    // At the end of a long file nothing is known of what comes next.
    setting.cache.slice(key(0), &setting.origin, 0..500, &|_| Next::of(0, [].into_iter(), 2, true)).unwrap();
    wait_for("the end of the work", || setting.cache.workers.is_at_rest());
    assert!(!setting.has(1));
    assert_eq!(setting.fake.opened(), 7);
}

#[test]
fn single_reads_at_random_places_load_nothing_else() {
    let setting = Setting::serving(100, Duration::from_secs(60));
    for block in [9, 3, 77, 50] {
        setting.read(block, 300..310).unwrap();
    }
    thread::sleep(Duration::from_millis(50));
    assert_eq!(setting.fake.opened(), 4);
    assert!([9, 3, 77, 50].iter().all(|block| setting.cache.peek(key(*block)).unwrap().published() == 400));
}

#[test]
fn what_nobody_uses_is_let_go_and_then_nobody_wakes() {
    let setting = Setting::serving(100, Duration::from_millis(40));
    setting.whole(1);
    setting.read(2, 0..10).unwrap();
    assert!(setting.cache.used() > 0);
    wait_for("an empty cache", || setting.cache.used() == 0);
    wait_for("no thread", || setting.cache.workers.threads() == 0);
    setting.whole(1);
    assert_eq!((setting.fake.opened(), setting.cache.workers.threads()), (3, 1));
}

#[test]
fn threads_end_with_the_cache() {
    let setting = Setting::serving(100, Duration::from_secs(600));
    setting.whole(1);
    let workers = Arc::downgrade(&setting.cache.workers);
    drop(setting);
    wait_for("the end of all threads", || workers.strong_count() == 0);
}

#[test]
fn readers_workers_and_eviction_get_along() {
    let setting = Setting::serving(6, Duration::from_millis(5));
    thread::scope(|scope| {
        for seed in 1..=6_u64 {
            let setting = &setting;
            scope.spawn(move || {
                let mut state = seed;
                for _ in 0..3_000 {
                    state =
                        state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    let block = u32::try_from((state >> 33) % 20).unwrap();
                    let start = usize::try_from((state >> 40) % 900).unwrap();
                    setting.read(block, start..start + 100).unwrap();
                }
            });
        }
    });
    wait_for("an empty cache", || setting.cache.used() == 0);
}

/// An archive whose blocks are long: full of the number of the place, in units of 4 KiB.
#[derive(Debug)]
struct Long(AtomicU32, Vec<u32>);

impl Long {
    fn origin() -> Arc<dyn Origin> {
        Arc::new(Self(AtomicU32::new(0), vec![u32::try_from(UNIT).unwrap(); LONG / UNIT]))
    }
}

/// Length of its blocks.
const LONG: usize = 40 * UNIT;

struct Places;

fn place(at: usize) -> u8 {
    u8::try_from(at / 4_096 % 251).unwrap()
}

impl Decode for Places {
    fn advance(&mut self, out: &mut Writer) -> Result<Step, Error> {
        let (start, step) = (out.published(), out.spare().len().min(UNIT));
        out.spare()[..step].iter_mut().zip(start..).for_each(|(byte, at)| *byte = place(at));
        out.publish(step);
        Ok(if out.spare().is_empty() { Step::End } else { Step::More })
    }

    fn held(&self) -> usize {
        0
    }
}

impl Origin for Long {
    fn open(&self, _block: u32) -> Result<Option<Opened>, Error> {
        self.0.fetch_add(1, Ordering::Relaxed);
        let (memory, writer) = Memory::reserve(LONG).unwrap();
        Ok(Some(Opened::new((Places, memory, writer))))
    }

    fn references(&self, _block: u32) -> Option<&[u32]> {
        Some(&self.1)
    }

    fn longest(&self) -> usize {
        LONG
    }

    fn left(&self, _block: u32) -> Option<&AtomicU64> {
        None
    }
}

#[test]
fn what_has_been_served_goes_first_and_comes_back_when_asked_for() {
    let origin = Long::origin();
    let cache = BlockCache::new(2 * LONG + LONG / 2);
    let read = |block: u32, range: Range<usize>| {
        let slice =
            cache.slice(Key { archive: 1, block }, &origin, range.clone(), &|_| Next::InArchive).unwrap();
        assert!(slice.as_bytes().iter().zip(range).all(|(byte, at)| *byte == place(at)), "block {block}");
    };
    // Half of each block is served, in bites that do not keep to units; the last byte completes it.
    for block in 0..2 {
        for start in (0..LONG / 2).step_by(10_000) {
            read(block, start..(start + 10_000).min(LONG / 2));
        }
        read(block, LONG - 1..LONG);
    }
    assert_eq!((cache.figures().opened, cache.figures().blocks), (2, 2));
    // A third one fits where the served halves were.
    read(2, LONG - 10..LONG);
    assert!(cache.used() <= 2 * LONG + LONG / 2);
    assert_eq!(cache.figures().blocks, 3, "nobody had to go");
    read(0, LONG / 2..LONG);
    assert_eq!(cache.figures().opened, 3, "the rest is there still");
    // What is gone is decoded anew, as often as it takes.
    for _ in 0..3 {
        read(0, 0..10);
        read(1, LONG / 2 - 5..LONG / 2 + 5);
    }
    assert!(cache.figures().opened > 3);
}

#[test]
fn what_is_looked_at_stays() {
    let origin = Long::origin();
    let cache = BlockCache::new(LONG + LONG / 2);
    let read =
        |block: u32| cache.slice(Key { archive: 1, block }, &origin, 0..LONG, &|_| Next::InArchive).unwrap();
    let pinned = read(0);
    for block in 1..5 {
        let _ = read(block);
        assert!(pinned.as_bytes().iter().enumerate().all(|(at, byte)| *byte == place(at)));
    }
}

#[test]
fn readers_of_blocks_that_are_given_back_see_what_belongs_there() {
    let origin = Long::origin();
    let cache = BlockCache::new(3 * LONG);
    thread::scope(|scope| {
        for seed in 1..=4_usize {
            let (cache, origin) = (&cache, &origin);
            scope.spawn(move || {
                let mut state = seed;
                for _ in 0..400 {
                    state =
                        state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    let block = u32::try_from(state >> 33 & 7).unwrap();
                    let start = (state >> 20) % (LONG - 3 * UNIT);
                    let range = start..start + 3 * UNIT;
                    let slice = cache
                        .slice(Key { archive: 1, block }, origin, range.clone(), &|_| Next::InArchive)
                        .unwrap();
                    assert!(
                        slice.as_bytes().iter().zip(range).step_by(997).all(|(byte, at)| *byte == place(at))
                    );
                }
            });
        }
    });
}
