//! Many instances at once, and what one does seen by another.

use std::{collections::BTreeSet, time::Instant};

use crate::support::{World, for_each_user, said};

/// How many; 50 where `FIM_SUITES=full` is set.
fn count() -> u32 {
    if std::env::var("FIM_SUITES").is_ok_and(|form| form == "full") { 50 } else { 12 }
}

fn says(world: &World, words: &[&str]) -> String {
    said(world.command(words).output().unwrap())
}

fn inside(world: &World, name: &str, script: &str) -> String {
    says(world, &["fim-instance", "exec", name, "sh", "-c", script])
}

/// Resident memory of a process, in KiB.
fn resident(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn many_instances_are_listed_entered_and_gone() {
    for_each_user(|world| {
        let mut took = Vec::new();
        let mut memory = Vec::new();
        for number in 0..count() {
            let begin = Instant::now();
            says(world, &["fim-instance", "start", &format!("n-{number}")]);
            took.push(begin.elapsed());
            if number == 0 || number + 1 == count() {
                memory.push(resident(world.server_pid()));
            }
        }
        let list = says(world, &["fim-instance", "list"]);
        let ids: Vec<u32> =
            list.lines().map(|line| line.split_once(':').unwrap().0.parse().unwrap()).collect();
        assert_eq!(ids, (0..count()).collect::<Vec<_>>());
        let pids: BTreeSet<&str> = list.lines().map(|line| line.split_once(':').unwrap().1).collect();
        assert_eq!(pids.len(), ids.len());
        for id in ids {
            assert_eq!(inside(world, &id.to_string(), "echo $FIM_INSTANCE"), id.to_string());
        }
        assert_eq!(world.servers().len(), 1, "they share one server");
        println!(
            "{} instances: the 1st took {:?}, the 2nd {:?}, the last {:?}; the server took {} KiB with one, {} KiB with all",
            count(),
            took[0],
            took[1],
            took[took.len() - 1],
            memory[0],
            memory[1]
        );
        let stopped = says(world, &["fim-instance", "stop", "--all"]);
        assert_eq!(stopped.lines().count(), usize::try_from(count()).unwrap());
        assert_eq!(says(world, &["fim-instance", "list"]), "");
        // The world checks processes, mounts and directories behind every test.
    });
}

#[test]
fn what_one_instance_changes_another_sees_at_once() {
    for_each_user(|world| {
        for name in ["a", "b"] {
            says(world, &["fim-instance", "start", name]);
        }
        inside(world, "a", "mkdir -p /c; echo one > /c/file");
        assert_eq!(inside(world, "b", "cat /c/file"), "one");
        inside(world, "a", "echo three > /c/file; ln /c/file /c/link");
        assert_eq!(inside(world, "b", "cat /c/file /c/link; stat -c %h /c/file"), "three\nthree\n2");
        inside(world, "b", "mv /c/file /c/moved; chmod 600 /c/moved");
        assert_eq!(inside(world, "a", "ls /c; stat -c %a /c/link"), "link\nmoved\n600");
        inside(world, "a", "rm -r /c");
        assert_eq!(inside(world, "b", "ls /c 2>/dev/null || echo none"), "none");
        // What comes from a layer as well: deleted in one, it is gone in the other, which has it in its caches.
        assert_eq!(inside(world, "b", "cat /opt/plain"), "no program");
        inside(world, "a", "rm /opt/plain; echo new > /opt/broken");
        assert_eq!(inside(world, "b", "ls /opt; cat /opt/broken"), "broken\nnew");
        for name in ["a", "b"] {
            says(world, &["fim-instance", "stop", name]);
        }
    });
}

#[test]
fn two_instances_write_together() {
    for_each_user(|world| {
        for name in ["a", "b"] {
            says(world, &["fim-instance", "start", name]);
        }
        // Each number is written beside and renamed into place: a reader sees whole numbers that never fall.
        let writes = "mkdir -p /w; n=0; while [ $n -lt 300 ]; do n=$((n+1)); echo $n > /w/next; mv /w/next /w/now; done";
        let reads = "mkdir -p /w; last=0; while [ $last -lt 300 ]; do now=$(cat /w/now 2>/dev/null); now=${now:-0}; \
                     [ \"$now\" -ge $last ] || { echo \"$now behind $last\"; exit 1; }; last=$now; done; echo whole";
        // Lines that both append to one file are all there.
        let appends =
            |who: &str| format!("n=0; while [ $n -lt 200 ]; do n=$((n+1)); echo {who}$n >> /both; done");
        let (for_a, for_b) = (appends("a"), appends("b"));
        let run = |name: &'static str, script: String| {
            let mut command = world.command(&["fim-instance", "exec", name, "sh", "-c", &script]);
            command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap()
        };
        let running = [
            run("a", writes.to_owned()),
            run("b", reads.to_owned()),
            run("a", for_a),
            run("b", for_b),
            run("a", "cp -r /bin /copy-a".to_owned()),
            run("b", "cp -r /bin /copy-b".to_owned()),
        ];
        let said: Vec<String> =
            running.into_iter().map(|child| said(child.wait_with_output().unwrap())).collect();
        assert_eq!(said[1], "whole");
        let lines = inside(world, "b", "sort /both");
        let lines: BTreeSet<&str> = lines.lines().collect();
        assert_eq!(lines.len(), 400);
        for copy in ["/copy-a", "/copy-b"] {
            let sums =
                |place: &str| inside(world, "a", &format!("cd {place}; md5sum busybox; ls | sort | md5sum"));
            assert_eq!(sums(copy), sums("/bin"));
        }
        says(world, &["fim-instance", "stop", "--all", "--signal", "KILL"]);
    });
}

#[test]
fn large_environments_travel_at_once() {
    for_each_user(|world| {
        says(world, &["fim-instance", "start", "a"]);
        // 1 MiB in all; the kernel takes no single word that is larger.
        let words: Vec<String> = ('A'..='H').map(|name| format!("{name}={}", "x".repeat(131_000))).collect();
        let mut all = vec!["fim-instance", "exec"];
        for word in &words {
            all.extend(["--env", word]);
        }
        all.extend(["a", "sh", "-c", "echo ${#A} ${#H}"]);
        let many = if count() == 50 { 100 } else { 10 };
        let running: Vec<_> = (0..many)
            .map(|_| world.command(&all).stdout(std::process::Stdio::piped()).spawn().unwrap())
            .collect();
        for child in running {
            assert_eq!(said(child.wait_with_output().unwrap()), "131000 131000");
        }
        says(world, &["fim-instance", "stop", "a"]);
    });
}
