//! The life of the server.

use std::{
    any::Any,
    fmt, io,
    os::fd::{AsFd as _, BorrowedFd},
    panic::{self, AssertUnwindSafe},
    path::Path,
    time::{Duration, Instant},
};

use super::{
    Place, commission,
    message::{FromServer, LIMIT, Said, ToServer},
    native::NativeUpper,
    place::Locked,
    view::View,
};
use crate::{
    causes::one_line,
    fuse,
    instance::{
        InstanceId,
        dirs::AppDirs,
        logs::{self, Files},
        remove_home,
    },
    runtime::{
        janitor,
        profile::{Prefetcher, Recording},
        stack::{MountStack, StackPlan},
        stats,
    },
    sync::{Arc, thread},
    sys::{
        fuse_dev, inherit, limit,
        mount::{self, Access, FuseMount, Unmount, Visitors},
        namespace::{self, Namespaces, Privilege},
        process::{self, Pidfd},
        ready::{self, Interest, Ready},
        scm::{Channel, Listener, Received},
        signal::{Signal, Signals},
        tree,
        users::effective_ids,
    },
    vfs::FileSystem as _,
};

/// How long a front that is being killed has until its locks are free, once its lease has closed.
const LAST_BREATH: Duration = Duration::from_secs(1);
/// How long a mount may stay in use behind the last instance; what has not been written by then is lost.
const LAST_WRITES: Duration = Duration::from_secs(60);
/// Signals that end the server, and the instances with it.
const ENDING: [Signal; 3] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP];
/// Why nothing can be committed.
const NOT_OURS_TO_STOP: &str = "cannot commit while the image runs over kernel overlayfs, which does not let changes \
                                wait (end its instances first, or run it with FIM_OVERLAY=fuse)";
/// Most instances of one server.
const MOST: usize = 10_000;

/// What a server is for.
pub struct Duty<'a> {
    /// The stack; opened in the server, inside its namespaces.
    pub stack: &'a StackPlan,
    /// Who merges its upper with its layers.
    pub merger: Merger,
    /// What the table of mounts calls it.
    pub source: &'a std::ffi::OsStr,
    /// How the session is served.
    pub session: fuse::Options,
    /// How names are folded, in one line; who wants it otherwise cannot join.
    pub casefold: String,
    /// The layers that the user named, in one line; who wants others cannot join.
    pub layers: String,
    /// A directory for the upper and its work alone, made at the start and removed at the end.
    pub ephemeral: Option<&'a Path>,
    /// Whether only a server that starts now will do.
    pub fresh: bool,
    /// The directories of this build.
    pub dirs: &'a AppDirs,
}

/// Who merges the upper with the layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merger {
    /// The engine.
    Engine,
    /// Kernel overlayfs, over the layers that the engine has merged.
    Kernel,
    /// Kernel overlayfs where it can, else the engine.
    KernelIfAble,
}

impl fmt::Debug for Duty<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Duty").field("source", &self.source).finish_non_exhaustive()
    }
}

/// Serves until the last lease has closed. Never returns: it runs in a process of its own.
pub(super) fn serve(place: &Place, locked: Locked, mut first: Channel, duty: &Duty<'_>) -> ! {
    // A panic is told to the front like any other failure, and must not run on in its copy of the front's stack.
    let started = panic::catch_unwind(AssertUnwindSafe(|| start(place, &locked, &first, duty)))
        .unwrap_or_else(|panic| Err(format!("cannot open the stack: internal error: {}", words_of(&*panic))));
    let status = match started {
        Ok(mut server) => {
            // From here on whoever wants to join finds the socket, but waits until the front lets go of the lock.
            drop(locked);
            server.clients.push(Client { channel: first, front: None });
            let ended = server.live();
            if let Err(error) = &ended {
                tracing::error!(%error, "the server breaks off");
            }
            u8::from(server.finish().and(ended).is_err())
        }
        Err(error) => {
            tracing::error!(error = %error, "cannot start");
            // A front that is gone needs no answer. One that is there hangs up when it has heard it: hanging up on what
            // it has said meanwhile would take the answer away again.
            let _ = first.send(&FromServer::encode_refusal(&error), &[]);
            while let Ok(Some(_)) = first.receive_waiting() {}
            1
        }
    };
    process::end(status)
}

/// Everything up to the first answer; the error is the sentence for the front.
fn start<'a>(
    place: &'a Place,
    locked: &Locked,
    first: &Channel,
    duty: &'a Duty<'a>,
) -> Result<Server<'a>, String> {
    let [servers, directory] = locked.fds();
    inherit::close_others(&[first.as_fd(), servers, directory])
        .map_err(say("close the front's descriptors"))?;
    inherit::silence().map_err(say("leave the terminal"))?;
    process::change_dir(Path::new("/")).map_err(say("leave the working directory"))?;
    limit::raise_open_files().map_err(say("raise the limit of open files"))?;
    logs::write_to(&place.logs(), Files::Parts);
    panic::set_hook(Box::new(|panic| tracing::error!(%panic, "panic")));
    // Before the first thread: all of them inherit the mask.
    let signals = Signals::block(&ENDING).map_err(say("block signals"))?;

    if let Err(error) = janitor::start(place, duty.dirs) {
        tracing::warn!(%error, "no janitor: what is left when we are killed stays until the next start");
    }
    namespace::enter_private().map_err(|error| one_line(&error))?;
    if let Some(upper) = duty.ephemeral {
        tree::make_directory(upper, 0o700)
            .and_then(|()| tree::make_directory(&upper.join("root"), 0o755))
            .map_err(say("make the ephemeral upper"))?;
    }
    let native = claim(place, duty)?;
    let mut stack = match &native {
        None => MountStack::open(duty.stack),
        Some(_) => MountStack::open(&StackPlan { upper: None, ..duty.stack.clone() }),
    }
    .map_err(|error| one_line(&error))?;
    let (uid, gid) = effective_ids();
    let device =
        fuse_dev::open().map_err(|error| format!("cannot open /dev/fuse: {error}{}", cure(&error)))?;
    let target = place.mount();
    let access = if stack.overlay.is_read_only() { Access::ReadOnly } else { Access::ReadWrite };
    let fuse_mount = FuseMount {
        target: &target,
        source: duty.source,
        access,
        visitors: Visitors::All,
        devices: uid == 0,
        set_id: uid == 0,
    };
    mount::mount_fuse(&fuse_mount, device.as_fd(), uid, gid)
        .map_err(|errno| format!("cannot mount the merged root: {errno}"))?;
    let (shown, notices) = (Arc::clone(&stack.overlay), Arc::clone(&stack.notices));
    let session = fuse::serve_with(shown, device, duty.session, notices, Some(stats::figures(&stack)))
        .map_err(|error| one_line(&error))?;
    if let Some(native) = &native {
        native.mount(&target, duty.source).map_err(|why| with_cure(&why))?;
    }
    let view =
        View::mount(place, &stack, duty.source, duty.session).map_err(say("mount the view of the layers"))?;
    let privilege = if uid == 0 { Privilege::Root } else { Privilege::OwnUserNamespace };
    Ok(Server {
        place,
        dirs: duty.dirs,
        casefold: &duty.casefold,
        layers: &duty.layers,
        ephemeral: duty.ephemeral,
        prefetcher: stack.prefetcher.take(),
        recording: stack.recording.clone(),
        stack: Arc::new(stack),
        listener: locked.listen().map_err(say("listen for further instances"))?,
        namespaces: Namespaces::own(privilege).map_err(say("open the own namespaces"))?,
        pidfd: Pidfd::own().map_err(say("open the own process"))?,
        session,
        native,
        view,
        signals,
        clients: Vec::new(),
        next: 0,
        uid,
        locked: None,
    })
}

/// The upper, where kernel overlayfs is to have it.
fn claim(place: &Place, duty: &Duty<'_>) -> Result<Option<NativeUpper>, String> {
    if duty.merger == Merger::Engine {
        return Ok(None);
    }
    let is_sure = duty.merger == Merger::Kernel;
    let claimed = NativeUpper::claim(duty.stack).and_then(|native| {
        // Where there is no way back the mount itself will tell.
        if is_sure { Ok(native) } else { native.probe(&place.mount()).map(|()| native) }
    });
    match claimed {
        Ok(native) => Ok(Some(native)),
        Err(why) if duty.merger == Merger::KernelIfAble => {
            tracing::info!(why, "the engine merges the upper itself");
            Ok(None)
        }
        Err(why) => Err(with_cure(&why)),
    }
}

fn with_cure(why: &str) -> String {
    format!("{why} (use: fim-overlay set fuse, or FIM_OVERLAY=fuse)")
}

/// What a panic said.
fn words_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default().replace('\n', " ")
}

fn say(what: &'static str) -> impl FnOnce(io::Error) -> String {
    move |error| format!("cannot {what}: {error}")
}

fn cure(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => " (load the kernel module: modprobe fuse)",
        io::ErrorKind::PermissionDenied => " (let users open it: chmod 0666 /dev/fuse)",
        _ => "",
    }
}

/// A front.
struct Client {
    channel: Channel,
    /// Its process, once it has said hello.
    front: Option<FrontProcess>,
}

struct FrontProcess {
    pid: i32,
    /// Not there where the front lives in a pid namespace of its own.
    pidfd: Option<Pidfd>,
}

struct Server<'a> {
    place: &'a Place,
    dirs: &'a AppDirs,
    casefold: &'a str,
    layers: &'a str,
    /// What goes with the server.
    ephemeral: Option<&'a Path>,
    /// Begins behind the first welcome.
    prefetcher: Option<Prefetcher>,
    /// What has to be written still.
    recording: Option<Arc<Recording>>,
    stack: Arc<MountStack>,
    listener: Listener,
    namespaces: Namespaces,
    pidfd: Pidfd,
    session: fuse::Serving,
    /// The upper, where kernel overlayfs has it.
    native: Option<NativeUpper>,
    view: View,
    signals: Signals,
    clients: Vec<Client>,
    next: u32,
    uid: u32,
    /// Held once the end has been decided.
    locked: Option<Locked>,
}

impl Server<'_> {
    fn live(&mut self) -> io::Result<()> {
        loop {
            let ready = self.wait()?;
            if ready.signals.read {
                tracing::info!("told to end");
                return Ok(());
            }
            if ready.session.hung_up {
                tracing::error!("the mount is gone");
                return Ok(());
            }
            // The list of clients grows only behind the answers for those in it.
            self.hear(&ready.clients);
            self.accept()?;
            if self.clients.is_empty() && self.is_last()? {
                return Ok(());
            }
        }
    }

    fn wait(&self) -> io::Result<Everything> {
        let mut places = vec![
            (self.signals.as_fd(), Interest::Read),
            (self.session.ended(), Interest::HangUp),
            (self.listener.as_fd(), Interest::Read),
        ];
        places.extend(self.clients.iter().map(|client| (client.channel.as_fd(), Interest::Read)));
        let mut answers = ready::wait(&places, None)?.into_iter();
        let mut next = || answers.next().unwrap_or_default();
        let (signals, session, _) = (next(), next(), next());
        Ok(Everything { signals, session, clients: answers.collect() })
    }

    /// Takes whoever waits at the socket.
    fn accept(&mut self) -> io::Result<()> {
        while self.clients.len() < MOST {
            let Some(channel) = self.listener.accept()? else { break };
            match channel.peer() {
                Ok(peer) if peer.uid == self.uid => self.clients.push(Client { channel, front: None }),
                Ok(peer) => tracing::warn!(uid = peer.uid, "another user is refused"),
                Err(error) => tracing::warn!(%error, "a client of unknown origin is refused"),
            }
        }
        Ok(())
    }

    /// Reads what clients say, and lets go of those that have ended.
    fn hear(&mut self, ready: &[Ready]) {
        let clients = std::mem::take(&mut self.clients);
        for (at, mut client) in clients.into_iter().enumerate() {
            let has_news = ready.get(at).is_some_and(|ready| ready.read);
            if !has_news || self.attend(&mut client) {
                self.clients.push(client);
            } else {
                self.let_go(client);
            }
        }
    }

    /// Takes the messages of a client; `false` where it has ended or talks nonsense.
    fn attend(&mut self, client: &mut Client) -> bool {
        loop {
            match client.channel.receive() {
                Ok(Received::Pending) => return true,
                Ok(Received::Closed) => return false,
                Ok(Received::Frame(frame)) => {
                    if let Err(error) = self.answer(client, &frame.payload) {
                        tracing::warn!(%error, "a front is refused");
                        let _ = client.channel.send(&FromServer::encode_refusal(&error.to_string()), &[]);
                        return false;
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "a front talks nonsense");
                    return false;
                }
            }
        }
    }

    fn answer(&mut self, client: &mut Client, payload: &[u8]) -> io::Result<()> {
        match ToServer::decode(payload).map_err(io::Error::other)? {
            ToServer::Hello { pid, casefold, layers } if casefold == self.casefold => {
                if layers != self.layers {
                    return Err(io::Error::other(
                        "cannot join the running instances of this image: they have other layers; wait until they \
                         have ended, or use an upper of its own (--ephemeral, --upper DIR)",
                    ));
                }
                self.welcome(client, pid)
            }
            ToServer::Hello { casefold, .. } => Err(io::Error::other(format!(
                "cannot join the running instances of this image: they fold names differently ({}, not {casefold}); \
                 wait until they have ended, or use the same",
                self.casefold
            ))),
            ToServer::Freeze if client.front.is_none() => self.commission(client),
            ToServer::Save if client.front.is_some() => self.save(client),
            _ => Err(io::Error::other("cannot understand a message out of turn")),
        }
    }

    /// Hands the conversation with a committer to a thread. The server lives at least until its end: what remains in
    /// the list of clients closes with the thread.
    fn commission(&self, client: &mut Client) -> io::Result<()> {
        if self.native.is_some() {
            return Err(io::Error::other(NOT_OURS_TO_STOP));
        }
        let (watched, held) = Channel::pair(LIMIT)?;
        let mut channel = std::mem::replace(&mut client.channel, watched);
        let (stack, mount) = (Arc::clone(&self.stack), self.place.mount());
        let layers = Arc::clone(&self.view.layers);
        thread::Builder::new().name("fim-commit".to_owned()).spawn(move || {
            commission::attend(&mut channel, &stack, &layers, &mount);
            drop(held);
        })?;
        Ok(())
    }

    fn welcome(&mut self, client: &mut Client, pid: i32) -> io::Result<()> {
        if client.front.is_some() {
            return Err(io::Error::other("cannot register an instance twice"));
        }
        let peer = client.channel.peer()?;
        let pidfd = (peer.pid == pid).then(|| Pidfd::open(pid)).transpose()?;
        client.front = Some(FrontProcess { pid, pidfd });
        let id = InstanceId::new(self.next);
        self.next = self.next.wrapping_add(1);
        let fds: Vec<BorrowedFd<'_>> =
            std::iter::once(self.pidfd.as_fd()).chain(self.namespaces.fds()).collect();
        client
            .channel
            .send(&FromServer::encode_welcome(id, &self.place.mount(), &self.place.layers()), &fds)?;
        tracing::info!(%id, pid, "instance");
        if let Some(prefetcher) = self.prefetcher.take() {
            prefetcher.begin();
        }
        Ok(())
    }

    /// Writes what was recorded; what is read from now on is not written any more.
    fn save(&mut self, client: &mut Client) -> io::Result<()> {
        let saved = match self.recording.take() {
            Some(recording) => recording.save().map_err(|error| one_line(&error)),
            None => Err("cannot write an access profile: nothing is recorded".to_owned()),
        };
        let answer = match saved {
            Ok(()) => FromServer::encode(Said::Saved),
            Err(why) => FromServer::encode_refusal(&why),
        };
        client.channel.send(&answer, &[])
    }

    /// A lease has closed: nothing is left of its instance.
    fn let_go(&self, client: Client) {
        let Some(FrontProcess { pid, pidfd }) = client.front else { return };
        if !self.dirs.instances().join(pid.to_string()).exists() {
            return;
        }
        // The lease may close a moment before the lock of the directory does.
        if let Some(pidfd) = pidfd {
            let deadline = Instant::now() + LAST_BREATH;
            let _ = ready::wait(&[(pidfd.as_fd(), Interest::Read)], Some(deadline));
        }
        if let Err(error) = remove_home(self.dirs, pid) {
            tracing::warn!(%error, pid, "cannot remove the directory of an instance");
        }
    }

    /// Whether nobody is there and nobody can come: then the lock is held, and the socket is gone.
    fn is_last(&mut self) -> io::Result<bool> {
        let locked = self.place.lock().map_err(io::Error::other)?;
        self.accept()?;
        if !self.clients.is_empty() {
            return Ok(false);
        }
        self.locked = Some(locked);
        Ok(true)
    }

    /// Unmounts, waits until everything is written, and removes the directory.
    fn finish(self) -> io::Result<()> {
        let Self { place, stack, recording, session, native, view, clients, locked, ephemeral, .. } = self;
        let locked = match locked {
            Some(locked) => locked,
            None => place.lock().map_err(io::Error::other)?,
        };
        // Fronts that are still there end their sandboxes when their leases close.
        drop(clients);
        let ending = view.unmount(place);
        let target = place.mount();
        if native.is_some()
            && let Err(errno) = mount::unmount(&target, Unmount::Lazy)
        {
            tracing::warn!(%errno, "cannot unmount kernel overlayfs");
        }
        if let Err(errno) = mount::unmount(&target, Unmount::Lazy) {
            tracing::warn!(%errno, "cannot unmount");
        }
        let deadline = Instant::now() + LAST_WRITES;
        let ended = ready::wait(&[(session.ended(), Interest::HangUp)], Some(deadline))?;
        let in_time = ended.first().is_some_and(|ended| ended.hung_up);
        if in_time {
            session.wait().map_err(io::Error::other)?;
        } else {
            tracing::error!("the mount is in use still, and is left");
        }
        if let Some(ending) = ending {
            ending.wait();
        }
        if let Some(recording) = recording
            && let Err(error) = recording.save()
        {
            tracing::error!(error = one_line(&error), "what was recorded is lost");
        }
        // The upper is free before the next server can be started.
        drop((stack, native));
        if let Some(upper) = ephemeral
            && let Err(error) = std::fs::remove_dir_all(upper)
        {
            tracing::warn!(%error, path = %upper.display(), "cannot remove an ephemeral upper");
        }
        locked.remove()
    }
}

/// What became ready.
struct Everything {
    signals: Ready,
    session: Ready,
    clients: Vec<Ready>,
}
