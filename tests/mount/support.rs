//! Mounts as guards, each test in a mount namespace of its own, with a watchdog.

use std::{
    env, fs,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
    time::Duration,
};

use fim::{
    fuse::{self, Notices, Options, Serving},
    sync::Arc,
    sys::{
        fork::own_ids,
        fuse_dev,
        mount::{Access, FuseMount, Unmount, Visitors, mount_fuse, unmount},
        namespace,
    },
    vfs::FileSystem,
};
use tempfile::TempDir;

/// When a test stalls for longer, its connection is aborted and everybody who waits gets an error.
const STALL: Duration = Duration::from_secs(120);

/// Says whether real mounts can be made here; if not the caller's test is skipped, with a line that says so.
pub(crate) fn can_mount() -> bool {
    let missing = if own_ids().0 != 0 {
        "root"
    } else if fuse_dev::open().is_err() {
        "/dev/fuse"
    } else {
        return true;
    };
    skip(missing);
    false
}

/// Prints that a test is skipped, or fails it where everything must run.
pub(crate) fn skip(missing: &str) {
    assert!(env::var_os("FIM_TEST_REQUIRE").is_none(), "needs {missing}");
    println!("skipped: needs {missing}");
}

/// Moves the calling thread into a mount namespace of its own and gives it a scratch directory.
pub(crate) fn scratch() -> TempDir {
    namespace::enter_private().expect("a private mount namespace");
    tempfile::Builder::new().prefix("fim-test-").tempdir().expect("a scratch directory")
}

/// Aborts a connection unless dropped in time.
pub(crate) struct Watchdog(#[expect(dead_code, reason = "its end is what is waited for")] mpsc::Sender<()>);

impl Watchdog {
    pub(crate) fn over(target: &Path) -> Self {
        let (sender, receiver) = mpsc::channel();
        let target = target.to_owned();
        thread::spawn(move || {
            if receiver.recv_timeout(STALL) == Err(mpsc::RecvTimeoutError::Timeout) {
                eprintln!("the test stalls: aborting the mount on {}", target.display());
                let _ = unmount(&target, Unmount::Abort);
            }
        });
        Self(sender)
    }
}

/// A file system served on a directory by this process.
pub(crate) struct Served {
    pub(crate) path: PathBuf,
    pub(crate) notices: Arc<Notices>,
    serving: Option<Serving>,
    _watchdog: Watchdog,
    _scratch: TempDir,
}

impl Served {
    pub(crate) fn start(fs: Arc<dyn FileSystem>, options: Options) -> Self {
        let scratch = scratch();
        let path = scratch.path().join("mount");
        fs::create_dir(&path).unwrap();
        let device = fuse_dev::open().unwrap();
        let access = if fs.is_read_only() { Access::ReadOnly } else { Access::ReadWrite };
        let mount = FuseMount {
            target: &path,
            source: "test".as_ref(),
            access,
            visitors: Visitors::All,
            devices: true,
            set_id: true,
        };
        mount_fuse(&mount, device.as_fd(), 0, 0).unwrap();
        let watchdog = Watchdog::over(&path);
        let notices = Notices::new();
        let serving = fuse::serve(fs, device, options, Arc::clone(&notices)).unwrap();
        Self { path, notices, serving: Some(serving), _watchdog: watchdog, _scratch: scratch }
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Unmounts and waits for the session's end.
    pub(crate) fn stop(mut self) {
        unmount(&self.path, Unmount::Unused).unwrap();
        self.serving.take().unwrap().wait().unwrap();
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(serving) = self.serving.take() {
            let _ = unmount(&self.path, Unmount::Abort);
            let _ = serving.wait();
        }
    }
}
