//! The machine: who we are, which tools there are, what the caches hold.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::{
    command,
    failure::{Result, cannot},
};

/// What is known about the machine.
#[derive(Debug)]
pub struct Host {
    /// Root may drop caches and use the kernel's file systems.
    pub root: bool,
    /// The fim binary.
    pub fim: PathBuf,
    /// Kills the server below a measure that takes longer.
    pub limit: Duration,
    search: Vec<PathBuf>,
}

impl Host {
    /// Looks around.
    pub fn new(fim: Option<&Path>, limit: Duration) -> Self {
        let fim = fim
            .map(Path::to_owned)
            .or_else(|| env::var_os("FIM").map(PathBuf::from))
            .unwrap_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_fim")));
        let judges = env::var_os("FIM_JUDGES").unwrap_or_default();
        let path = env::var_os("PATH").unwrap_or_default();
        let mut search: Vec<PathBuf> = env::split_paths(&judges).chain(env::split_paths(&path)).collect();
        search.extend(["/usr/sbin", "/sbin"].map(PathBuf::from));
        search.retain(|folder| folder.is_absolute());
        Self { root: nix::unistd::geteuid().is_root(), fim, limit, search }
    }

    /// Finds a program in $FIM_JUDGES, PATH and the places of system tools.
    pub fn tool(&self, name: &str) -> Option<PathBuf> {
        self.search.iter().map(|folder| folder.join(name)).find(|path| is_program(path))
    }

    /// Our binary, if it is there.
    pub fn fim(&self) -> Option<PathBuf> {
        is_program(&self.fim).then(|| self.fim.clone())
    }

    /// Writes everything back and drops the kernel's caches.
    pub fn drop_caches(&self) -> Result<()> {
        nix::unistd::sync();
        let switch = Path::new("/proc/sys/vm/drop_caches");
        fs::write(switch, "3\n").map_err(cannot("drop caches through", switch))
    }

    /// Brings a program and its libraries back into the page cache: a server's start is not a test of the disk.
    pub fn warm(program: &Path) {
        let mut help = Command::new(program);
        help.arg("--help");
        // Some tools call their help a failure.
        let _ = command::run(&mut help, Duration::from_secs(10));
    }

    /// One line about the machine.
    pub fn machine() -> String {
        let kernel = nix::sys::utsname::uname()
            .map_or_else(|_| "unknown".to_owned(), |name| name.release().to_string_lossy().into_owned());
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let memory = field("/proc/meminfo", "MemTotal:").unwrap_or(0) / 1024;
        let model = fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| {
            let line = text.lines().find(|line| line.starts_with("model name"))?;
            Some(line.split(':').nth(1)?.trim().to_owned())
        });
        let model = model.unwrap_or_else(|| env::consts::ARCH.to_owned());
        format!("kernel {kernel}, {cores} cores ({model}), {memory} MiB of memory, load {}", Self::load())
    }

    /// The load of the last minute.
    pub fn load() -> String {
        let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        text.split(' ').next().unwrap_or("unknown").to_owned()
    }
}

/// Resident memory of processes, in MiB; `None` where none of them could be read.
pub fn resident(processes: &[i32]) -> Option<f64> {
    let sizes: Vec<u64> =
        processes.iter().filter_map(|pid| field(&format!("/proc/{pid}/status"), "VmRSS:")).collect();
    let kibibytes = u32::try_from(sizes.iter().sum::<u64>()).ok()?;
    (kibibytes > 0).then(|| f64::from(kibibytes) / 1024.0)
}

/// The number behind a word in a file of `/proc`.
fn field(path: &str, word: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(word))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}
