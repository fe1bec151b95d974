//! The server is killed in the middle of everything, and the machine lives on: what was answered is there, names and
//! attributes as well as what was written to files that were closed.

use std::{fs, thread, time::Duration};

use fim::sys::signal::Signal;

use crate::{
    history::{Allowed, dump},
    machine::{Fim, Volume, can_crash, check_swept, format, scratch},
    rng::Rng,
    workload::{Workload, make_lower},
};

/// How many servers are killed.
const CASES: u64 = 12;

#[test]
fn a_server_that_is_killed_leaves_what_it_answered() {
    if !can_crash() {
        return;
    }
    let cases = std::env::var("FIM_CRASH_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(CASES);
    let scratch = scratch();
    let at = |name: &str| scratch.path().join(name);
    make_lower(&at("lower"), &mut Rng::new(1));
    fs::write(at("image"), format(scratch.path(), 512 << 20, &[])).unwrap();
    let volume = Volume::mount(&at("image"), &at("volume"), "ext4", "");
    let mut steps = 0;
    for seed in 0..cases {
        let round = volume.join(&format!("{seed}"));
        let upper = round.join("upper");
        for dir in [&round, &upper, &round.join("work")] {
            fs::create_dir(dir).unwrap();
        }
        let fim = Fim::mount(&at("lower"), &upper, &at("mount"));
        let mut workload = Workload::new(&fim.path, seed, &|| 0);
        workload.closing_is_enough = true;
        let server = fim.server();
        let mut rng = Rng::new(seed);
        workload.run(rng.below(150)).unwrap();
        let killer = thread::spawn(move || {
            thread::sleep(Duration::from_micros(rng.next() % 20_000));
            server.signal(Signal::SIGKILL).unwrap();
        });
        let error = workload.run(100_000).expect_err("the server is killed");
        killer.join().unwrap();
        let expected = [libc::ENOTCONN, libc::ECONNABORTED, libc::EIO];
        assert!(expected.contains(&error.raw_os_error().unwrap()), "seed {seed}: {error}");
        drop(fim);

        let (done, history) = (workload.done, &workload.history);
        // What was under way is done or not.
        let begun = history.trees.len() - 1;
        let allowed = Allowed { steps: (done, begun), ..history.allowed(0) };
        steps += begun;
        for start in ["first", "second"] {
            let fim = Fim::mount(&at("lower"), &upper, &at("mount"));
            check_swept(&upper);
            let checked = history.check(&dump(&fim.path), &allowed);
            checked
                .unwrap_or_else(|why| panic!("seed {seed}, {start} start, {done} of {begun} steps: {why}"));
        }
        fs::remove_dir_all(round).unwrap();
    }
    println!("{cases} servers killed during {steps} steps, all opened to an allowed state");
}
