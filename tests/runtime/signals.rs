//! Signals sent to the front reach the program.

use fim::sys::signal::Signal;

use crate::support::{eventually, for_each_user};

#[test]
fn each_signal_reaches_the_programs_group() {
    for_each_user(|world| {
        for (name, signal) in [
            ("TERM", Signal::SIGTERM),
            ("INT", Signal::SIGINT),
            ("HUP", Signal::SIGHUP),
            ("QUIT", Signal::SIGQUIT),
            ("USR1", Signal::SIGUSR1),
            ("USR2", Signal::SIGUSR2),
            ("WINCH", Signal::SIGWINCH),
        ] {
            let script =
                format!("trap 'echo got {name}; exit 9' {name}; echo ready; while :; do usleep 10000; done");
            let running = world.start(&script);
            running.signal(signal);
            assert_eq!(running.end(), (9, format!("got {name}\n")), "{name}");
        }
    });
}

#[test]
fn a_signal_without_a_handler_ends_the_program() {
    for_each_user(|world| {
        let running = world.start("echo ready; exec sleep 60");
        running.signal(Signal::SIGTERM);
        assert_eq!(running.end().0, 143);
    });
}

#[test]
fn stop_and_continue_stop_and_continue_both() {
    for_each_user(|world| {
        let running = world.start("echo ready; exec sleep 0.2");
        running.signal(Signal::SIGTSTP);
        let pid = running.pid();
        let state = move || {
            let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            status.rsplit(") ").next().and_then(|rest| rest.chars().next())
        };
        eventually("the front has stopped", || match state() {
            Some('T') => Ok(()),
            other => Err(format!("{other:?}")),
        });
        std::thread::sleep(std::time::Duration::from_millis(400));
        assert_eq!(state(), Some('T'), "the program did not end meanwhile");
        running.signal(Signal::SIGCONT);
        assert_eq!(running.end().0, 0);
    });
}

#[test]
fn what_the_program_leaves_is_ended_with_it() {
    for_each_user(|world| {
        let started = std::time::Instant::now();
        let (code, rest) = world.start("echo ready; (trap '' TERM; touch /tmp/a; sleep 60) & (trap 'echo asked; exit' TERM; touch /tmp/b; while :; do usleep 10000; done) & while [ ! -e /tmp/a -o ! -e /tmp/b ]; do usleep 1000; done; exit 4").end();
        assert_eq!((code, rest.as_str()), (4, "asked\n"));
        let took = started.elapsed();
        assert!(took.as_millis() >= 900 && took.as_secs() < 5, "{took:?}");
        let started = std::time::Instant::now();
        assert_eq!(world.start("echo ready; sleep 60 & exit 4").end().0, 4);
        assert!(started.elapsed().as_millis() < 900, "who ends when asked is not waited for");
    });
}

#[test]
fn orphans_are_reaped() {
    for_each_user(|world| {
        let script = "for i in 1 2 3 4 5; do (sleep 0 &); done; usleep 300000; cat /proc/[0-9]*/stat | grep -c ') Z ' || true";
        assert_eq!(world.says(script), "0");
    });
}

#[test]
fn ignored_signals_stay_ignored_and_sigpipe_kills() {
    for_each_user(|world| {
        assert_eq!(
            world.says(
                "(usleep 100000; echo x; echo $? >&2) 2>/tmp/status | true; usleep 300000; cat /tmp/status"
            ),
            ""
        );
        assert_eq!(world.says("grep SigBlk /proc/self/status | cut -f2"), "0000000000000000");
    });
}
