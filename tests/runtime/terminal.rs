//! Real terminals: the caller's stays outside, the program has one inside.

use std::{
    io::{Read as _, Write as _},
    os::fd::{AsFd as _, OwnedFd},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use fim::sys::{
    pty::{Pair, set_size, size},
    ready::{self, Interest},
};

use crate::support::{World, for_each_user, status};

/// A terminal as a person has it: keys go in, a screen shows.
struct Screen {
    master: std::fs::File,
    slave: OwnedFd,
    shown: Arc<Mutex<Vec<u8>>>,
    reader: thread::JoinHandle<()>,
    closed: Arc<AtomicBool>,
}

impl Screen {
    fn new() -> Self {
        let Pair { master, slave } = Pair::open().unwrap();
        set_size(master.as_fd(), 33, 111).unwrap();
        let master = std::fs::File::from(master);
        let shown = Arc::new(Mutex::new(Vec::new()));
        let closed = Arc::new(AtomicBool::new(false));
        let (mut source, sink, end) = (master.try_clone().unwrap(), Arc::clone(&shown), Arc::clone(&closed));
        let reader = thread::spawn(move || {
            let mut bytes = [0; 4096];
            while !end.load(Ordering::Relaxed) {
                let deadline = Instant::now() + Duration::from_millis(50);
                let ready = ready::wait(&[(source.as_fd(), Interest::Read)], Some(deadline)).unwrap();
                if ready[0].read {
                    let Ok(count @ 1..) = source.read(&mut bytes) else { return };
                    sink.lock().unwrap().extend_from_slice(&bytes[..count]);
                }
            }
        });
        Self { master, slave, shown, reader, closed }
    }

    /// Closes the terminal, as closing its window does.
    fn close(self) {
        self.closed.store(true, Ordering::Relaxed);
        self.reader.join().unwrap();
    }

    fn stdio(&self) -> Stdio {
        Stdio::from(self.slave.try_clone().unwrap())
    }

    /// Starts a command as the leader of a session on this terminal.
    fn start(&self, command: &Command) -> Child {
        let mut session = Command::new("setsid");
        session.args(["--wait", "--ctty"]).arg(command.get_program()).args(command.get_args()).env_clear();
        for (name, value) in command.get_envs() {
            if let Some(value) = value {
                session.env(name, value);
            }
        }
        session.current_dir(command.get_current_dir().unwrap());
        session.stdin(self.stdio()).stdout(self.stdio()).stderr(self.stdio()).spawn().unwrap()
    }

    fn type_in(&self, keys: &str) {
        (&self.master).write_all(keys.as_bytes()).unwrap();
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.shown.lock().unwrap()).into_owned()
    }

    fn wait_for(&self, expected: &str) {
        let started = Instant::now();
        while !self.text().contains(expected) {
            assert!(started.elapsed() < Duration::from_secs(5), "no {expected:?} in {:?}", self.text());
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn modes(&self) -> String {
        let output = Command::new("stty").arg("-g").stdin(self.stdio()).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }
}

fn run(world: &World, screen: &Screen, script: &str) -> Child {
    screen.start(&world.shell(script))
}

fn ends_with(mut child: Child, expected: i32) {
    assert_eq!(status(child.wait().unwrap()), expected);
}

#[test]
fn the_terminal_inside_is_one_of_its_own() {
    for_each_user(|world| {
        let screen = Screen::new();
        let before = screen.modes();
        let child = run(
            world,
            &screen,
            "tty; stty size; test -t 0 && test -t 1 && test -t 2 && echo all; readlink /proc/self/fd/1; ls /dev/pts; exit 6",
        );
        ends_with(child, 6);
        screen.wait_for("all");
        let text = screen.text();
        assert!(text.contains("/dev/pts/0\r\n33 111\r\nall\r\n/dev/pts/0\r\n0"), "{text:?}");
        assert_eq!(screen.modes(), before, "the caller's modes are back");
    });
}

#[test]
fn the_callers_terminal_is_nowhere_inside() {
    for_each_user(|world| {
        let screen = Screen::new();
        let script = "for p in 1 $$; do for f in /proc/$p/fd/*; do readlink $f 2>/dev/null; done; done | grep -v -e /dev/pts/0 -e /dev/null -e pipe: -e socket: -e anon_inode -e /proc; (: < /dev/tty) && echo own tty; echo end";
        ends_with(run(world, &screen, script), 0);
        screen.wait_for("end");
        assert_eq!(screen.text(), "own tty\r\nend\r\n");
    });
}

#[test]
fn typing_is_echoed_once_and_read() {
    for_each_user(|world| {
        let screen = Screen::new();
        let child = run(world, &screen, "echo ready; read line; echo \"got <$line>\"");
        screen.wait_for("ready");
        screen.type_in("some words\r");
        ends_with(child, 0);
        screen.wait_for("got <some words>");
        assert_eq!(screen.text().matches("some words").count(), 2, "{:?}", screen.text());
    });
}

#[test]
fn ctrl_c_interrupts_the_program_and_the_status_is_130() {
    for_each_user(|world| {
        let screen = Screen::new();
        let before = screen.modes();
        let child = run(world, &screen, "echo ready; exec sleep 60");
        screen.wait_for("ready");
        screen.type_in("\x03");
        ends_with(child, 130);
        assert_eq!(screen.modes(), before);
    });
}

#[test]
fn ctrl_d_ends_the_input() {
    for_each_user(|world| {
        let screen = Screen::new();
        let child = run(world, &screen, "echo ready; cat; echo over; exit 3");
        screen.wait_for("ready");
        screen.type_in("line\r\x04");
        ends_with(child, 3);
        screen.wait_for("over");
    });
}

#[test]
fn resizing_reaches_the_program() {
    for_each_user(|world| {
        let screen = Screen::new();
        let child =
            run(world, &screen, "trap 'stty size; exit' WINCH; echo ready; while :; do usleep 10000; done");
        screen.wait_for("ready");
        set_size(screen.master.as_fd(), 50, 200).unwrap();
        ends_with(child, 0);
        screen.wait_for("50 200");
        assert_eq!(size(screen.slave.as_fd()).unwrap(), (50, 200));
    });
}

#[test]
fn ctrl_z_stops_the_job_for_the_callers_shell_and_fg_goes_on() {
    for_each_user(|world| {
        let screen = Screen::new();
        let inside = world.shell("echo ready; read line; echo \"got <$line>\"; exit 8");
        let words: Vec<String> = inside
            .get_args()
            .map(|word| format!("'{}'", word.to_str().unwrap().replace('\'', r"'\''")))
            .collect();
        let mut shell = world.command::<&str>(&[]);
        let script = format!(
            "{} {}; echo stopped $?; fg; echo ended $?",
            inside.get_program().to_str().unwrap(),
            words.join(" ")
        );
        let mut outer = Command::new("bash-static");
        outer.args(["--norc", "-mc", &script]);
        for (name, value) in shell.get_envs() {
            if let Some(value) = value {
                outer.env(name, value);
            }
        }
        outer.current_dir(world.path("cwd"));
        let _ = shell.env_clear();
        let child = screen.start(&outer);
        screen.wait_for("ready");
        screen.type_in("\x1a");
        screen.wait_for("stopped 148");
        screen.type_in("later\r");
        screen.wait_for("got <later>");
        screen.wait_for("ended 8");
        ends_with(child, 0);
    });
}

#[test]
fn a_closed_terminal_hangs_the_program_up() {
    for_each_user(|world| {
        let screen = Screen::new();
        let child = run(world, &screen, "trap 'exit 5' HUP; echo ready; while :; do usleep 10000; done");
        screen.wait_for("ready");
        screen.close();
        let mut child = child;
        let _ = child.wait().unwrap();
        world.assert_nothing_left();
    });
}

#[test]
fn what_is_no_terminal_is_passed_as_it_is() {
    for_each_user(|world| {
        let screen = Screen::new();
        let mut command =
            world.shell("test -t 0 || echo no terminal in; test -t 2 && echo one in 2 >&2; cat");
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(screen.stdio()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(b"data\n").unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "no terminal in\ndata\n");
        screen.wait_for("one in 2\r\n");
    });
}

#[test]
fn everything_that_was_written_is_shown() {
    for_each_user(|world| {
        let screen = Screen::new();
        ends_with(run(world, &screen, "seq 1 50000; echo last"), 0);
        screen.wait_for("last");
        let text = screen.text();
        assert_eq!(text.lines().count(), 50_001);
        assert!(text.contains("\r\n49999\r\n50000\r\nlast\r\n"));
    });
}

/// A program inside that pretends keys (TIOCSTI) reaches its own terminal at most; `perl` starts a perl inside.
pub fn nothing_is_typed_outside(perl: &str) {
    for_each_user(|world| {
        let screen = Screen::new();
        let script = format!(
            r#"{perl} -e '
                for my $name ("/dev/tty", "/dev/stdin", "/dev/pts/0") {{
                    open(my $t, "+<", $name) or next;
                    my $done = 0;
                    for my $key (split //, "typed outside\n") {{ $done++ if ioctl($t, 0x5412, $key); }}
                    print "$name $done\n";
                }}
                print "end of typing\n"'"#
        );
        ends_with(run(world, &screen, &script), 0);
        screen.wait_for("end of typing");
        println!("{}", screen.text());
        // Whoever reads the caller's terminal next gets nothing.
        assert_eq!(rustix::io::ioctl_fionread(&screen.slave).unwrap(), 0);
        screen.close();
    });
}

#[test]
fn a_session_in_a_running_instance_has_a_terminal_of_its_own() {
    for_each_user(|world| {
        let instance = world.start("echo ready; exec sleep 1000");
        let enter = |script: &str| world.command(&["fim-instance", "exec", "0", "sh", "-c", script]);
        let screen = Screen::new();
        let before = screen.modes();
        let child = screen.start(&enter(
            "tty; stty size; echo ready; trap 'stty size; exit 6' WINCH; while :; do usleep 10000; done",
        ));
        screen.wait_for("ready");
        assert!(screen.text().contains("/dev/pts/0\r\n33 111\r\n"), "{:?}", screen.text());
        set_size(screen.master.as_fd(), 50, 200).unwrap();
        ends_with(child, 6);
        screen.wait_for("50 200");
        assert_eq!(screen.modes(), before);
        // Ctrl-C ends the program, and only that.
        let child = screen.start(&enter("echo again; exec sleep 60"));
        screen.wait_for("again");
        screen.type_in("\x03");
        ends_with(child, 130);
        // A terminal that is closed ends the session.
        let script = "trap 'touch /hung-up; exit' HUP; echo third; while :; do usleep 10000; done";
        let mut child = screen.start(&enter(script));
        screen.wait_for("third");
        screen.close();
        child.wait().unwrap();
        crate::support::eventually("the program is hung up", || {
            match enter("test -e /hung-up").status().unwrap().success() {
                true => Ok(()),
                false => Err("not yet".to_owned()),
            }
        });
        instance.signal(fim::sys::signal::Signal::SIGTERM);
        assert_eq!(instance.end().0, 143);
    });
}

/// A shell with job control on a screen, which runs the image with these words and tells how it went on.
fn in_a_shell(world: &World, screen: &Screen, words: &[&str]) -> Child {
    let inside = world.command(words);
    let quote = |word: &str| format!("'{}'", word.replace('\'', r"'\''"));
    let words: Vec<String> = inside.get_args().map(|word| quote(word.to_str().unwrap())).collect();
    let script = format!(
        "{} {}; echo stopped $?; fg; echo ended $?",
        inside.get_program().to_str().unwrap(),
        words.join(" ")
    );
    let mut outer = Command::new("bash-static");
    outer.args(["--norc", "-mc", &script]);
    for (name, value) in inside.get_envs() {
        if let Some(value) = value {
            outer.env(name, value);
        }
    }
    outer.current_dir(world.path("cwd"));
    screen.start(&outer)
}

#[test]
fn a_session_is_stopped_by_ctrl_z_and_goes_on_in_the_foreground() {
    for_each_user(|world| {
        let instance = world.start("echo ready; exec sleep 1000");
        let screen = Screen::new();
        let script = "echo begun; read line; echo \"got <$line>\"; exit 8";
        let child = in_a_shell(world, &screen, &["fim-instance", "exec", "0", "sh", "-c", script]);
        screen.wait_for("begun");
        screen.type_in("\x1a");
        screen.wait_for("stopped 148");
        screen.type_in("later\r");
        screen.wait_for("got <later>");
        screen.wait_for("ended 8");
        ends_with(child, 0);
        instance.signal(fim::sys::signal::Signal::SIGTERM);
        assert_eq!(instance.end().0, 143);
    });
}

#[test]
fn a_password_is_not_shown() {
    for_each_user(|world| {
        let instance = world.start("echo ready; exec sleep 1000");
        let script = "stty -echo; echo password:; read secret; stty echo; echo; echo length ${#secret}; read shown; exit 4";
        for words in
            [&["fim-exec", "sh", "-c", script][..], &["fim-instance", "exec", "0", "sh", "-c", script]]
        {
            let screen = Screen::new();
            let child = screen.start(&world.command(words));
            screen.wait_for("password:");
            screen.type_in("secret-7\r");
            screen.wait_for("length 8");
            screen.type_in("shown\r");
            ends_with(child, 4);
            screen.wait_for("shown");
            assert!(!screen.text().contains("secret"), "{:?}", screen.text());
        }
        instance.signal(fim::sys::signal::Signal::SIGTERM);
        assert_eq!(instance.end().0, 143);
    });
}

#[test]
fn a_login_shell_in_an_instance_has_job_control() {
    for_each_user(|world| {
        let instance = world.start("echo ready; exec sleep 1000");
        let screen = Screen::new();
        let child = screen.start(&world.command(&["fim-instance", "shell", "0"]));
        screen.type_in("echo in $FIM_INSTANCE\r");
        screen.wait_for("in 0");
        screen.type_in("sleep 60\r");
        thread::sleep(Duration::from_millis(200));
        screen.type_in("\x1a");
        screen.wait_for("Stopped");
        screen.type_in("fg\r");
        thread::sleep(Duration::from_millis(200));
        screen.type_in("\x03");
        screen.wait_for("^C");
        screen.type_in("exit 3\r");
        ends_with(child, 3);
        instance.signal(fim::sys::signal::Signal::SIGTERM);
        assert_eq!(instance.end().0, 143);
    });
}
