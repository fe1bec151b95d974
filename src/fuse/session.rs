//! A session: the threads that serve one FUSE connection.
//!
//! The caller mounts first, on a descriptor of `/dev/fuse`; the kernel then puts INIT into its queue. [`serve`]
//! returns when INIT has been answered: from then on the mount answers. The session ends when the last mount of the
//! connection is gone and nobody holds anything of it any more, or when it is aborted.

use std::{
    io::{self, PipeReader, pipe},
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use fuser::{Config, SessionACL};
use thiserror::Error;

use super::{Figures, Notices, Options, Requests, bare::Lister, fill::Fill, front::Front};
use crate::{
    sync::{Arc, thread},
    sys::fuse_dev,
    vfs::FileSystem,
};

/// Of the pages that may wait to be written on this host, the share of one mount, in hundredths. Writers are slowed down
/// beyond about half of it.
const DIRTY_SHARE: u8 = 20;

/// Why a session could not be started or ended badly.
#[derive(Debug, Error)]
pub enum Error {
    /// The kernel and the front found no common protocol, or the mount went away at once.
    #[error("cannot agree with the kernel on the FUSE protocol")]
    Handshake(#[source] io::Error),
    /// No thread, no pipe.
    #[error("cannot start the FUSE session")]
    Start(#[source] io::Error),
    /// The kernel sent what cannot be read.
    #[error("the FUSE session broke off")]
    Broken(#[source] io::Error),
}

/// A session that runs.
#[derive(Debug)]
pub struct Serving {
    session: thread::JoinHandle<io::Result<()>>,
    notices: Arc<Notices>,
    sender: thread::JoinHandle<()>,
    fill: Option<(Arc<Fill>, Vec<thread::JoinHandle<()>>)>,
    ended: PipeReader,
    requests: Arc<Requests>,
}

/// Serves `fs` on `device`, a descriptor of `/dev/fuse` that has been mounted.
///
/// `notices` is the queue that `fs` was made with.
///
/// # Errors
///
/// [`Error::Handshake`] where the kernel's INIT cannot be answered, [`Error::Start`] where threads are refused.
pub fn serve(
    fs: Arc<dyn FileSystem>,
    device: OwnedFd,
    options: Options,
    notices: Arc<Notices>,
) -> Result<Serving, Error> {
    serve_with(fs, device, options, notices, None)
}

/// As [`serve`]; who asks by the ioctl of `sys::fuse_figures` is told these figures, too.
///
/// # Errors
///
/// As [`serve`].
pub fn serve_with(
    fs: Arc<dyn FileSystem>,
    device: OwnedFd,
    options: Options,
    notices: Arc<Notices>,
    figures: Option<Figures>,
) -> Result<Serving, Error> {
    let mut config = Config::default();
    config.acl = SessionACL::All;
    config.n_threads = Some(options.threads.get());
    let read_only = fs.is_read_only();
    // What is answered past the crate is answered on the descriptor that all threads read from. Each clone is made by
    // opening /dev/fuse by name, which a user that fusermount3 helped may not be able to.
    config.clone_fd = !read_only && fuse_dev::open().is_ok();
    let requests = Arc::new(Requests::default());
    let fill = read_only.then(Arc::<Fill>::default);
    let lister = if read_only {
        let device = device.try_clone().map_err(Error::Start)?;
        Some(Lister::new(device, Arc::clone(&notices)))
    } else {
        None
    };
    if options.writes_back(read_only) {
        raise_dirty_share(device.as_fd());
    }
    let front = Front::new(Arc::clone(&fs), options, Arc::clone(&requests), fill.clone(), lister, figures);
    let session =
        fuser::Session::from_fd(front, device, SessionACL::All, config).map_err(Error::Handshake)?;

    // The session first: the kernel has asked already, and the others have time.
    let notifier = session.notifier();
    let (ended, end) = pipe().map_err(Error::Start)?;
    let session = thread::Builder::new()
        .name("fim-session".to_owned())
        .spawn(move || {
            let result = session.run();
            drop(end);
            result
        })
        .map_err(Error::Start)?;
    let sender = notices.start(notifier.clone()).map_err(Error::Start)?;
    let fill = fill.map(|fill| fill.start(fs, &notifier).map(|threads| (fill, threads)));
    let fill = fill.transpose().map_err(Error::Start)?;
    Ok(Serving { session, notices, sender, fill, ended, requests })
}

/// Lets the kernel gather more than some MiB of written data before it slows the writer down. Only root may ask for that;
/// for others it stays as it is.
fn raise_dirty_share(device: BorrowedFd<'_>) {
    if let Some(Err(error)) =
        fuse_dev::Connection::of_descriptor(device).map(|connection| connection.set_dirty_share(DIRTY_SHARE))
    {
        tracing::debug!("the kernel gathers few written pages: {error}");
    }
}

impl Serving {
    /// A descriptor that hangs up (poll(2): `POLLHUP`) when the session has ended.
    #[must_use]
    pub fn ended(&self) -> BorrowedFd<'_> {
        self.ended.as_fd()
    }

    /// The requests so far.
    #[must_use]
    pub fn requests(&self) -> &Requests {
        &self.requests
    }

    /// Waits for the end of the session, which is the end of the mount.
    ///
    /// # Errors
    ///
    /// [`Error::Broken`] where it ended for another reason than an unmount or an abort.
    pub fn wait(self) -> Result<(), Error> {
        let result = self.session.join();
        self.notices.close();
        // A thread that panicked has nothing left to say.
        let _ = self.sender.join();
        if let Some((fill, threads)) = self.fill {
            fill.close();
            for thread in threads {
                let _ = thread.join();
            }
        }
        match result {
            Ok(result) => result.map_err(Error::Broken),
            Err(_) => Err(Error::Broken(io::Error::other("a session thread panicked"))),
        }
    }
}
