//! What each permission gives: binds and variables, from what the host has. Whatever the host lacks is not given.
//!
//! | permission | gives |
//! | --- | --- |
//! | `home` | the caller's home, writable, at its own place and in the view of the host |
//! | `media` | `/media`, `/run/media` and `/mnt`, writable |
//! | `audio` | the sockets of PulseAudio and PipeWire with their cookie, `/dev/snd` |
//! | `wayland` | the socket of the display |
//! | `xorg` | the socket of the display, its cookie where there is one |
//! | `dbus_user`, `dbus_system` | the socket of the bus |
//! | `udev` | `/run/udev` |
//! | `usb`, `input`, `gpu`, `optical` | device nodes of that kind; `gpu` also the host's driver files |
//! | `dev` | all device nodes; no terminals, no shared memory |
//! | `shm` | `/dev/shm`, and under deny-all System V memory as well |
//! | `network` | under deny-all the network; always there else |
//! | `host` | the host's root at `run/host` writable where the caller may write, with homes |
//! | `portal` | starting programs on the host |
//!
//! Sockets of the session are put into a private `XDG_RUNTIME_DIR`, cookies and driver files below `FIM_DIR_RUNTIME`:
//! these are in memory, so that neither an upper nor a commit sees anything of them.

use std::{
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
};

use super::{Access, Cause, Inputs, Missing, Mount, What};
use crate::{
    config::Permission,
    instance::accounts::User,
    sandbox::{Drivers, Facts},
};

/// What a permission gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Grant {
    /// The permission.
    pub(super) cause: Cause,
    /// Mounts, in order.
    pub(super) mounts: Vec<Mount>,
    /// Variables.
    pub(super) variables: Vec<(&'static str, OsString)>,
}

/// What the permissions that are held give, in the order of their names.
pub(super) fn grants(inputs: &Inputs<'_>, user: &User) -> Vec<Grant> {
    let mut scene = Scene {
        facts: inputs.facts,
        session: Path::new("/run/user").join(user.uid.to_string()),
        runtime: inputs.app.runtime(),
        strict: inputs.rights.strict().is_some(),
        has_session: false,
        has_sys: inputs.rights.strict().is_none(),
    };
    inputs.rights.held().map(|permission| scene.grant(permission)).collect()
}

/// What the grants have in common.
struct Scene<'a> {
    facts: &'a Facts,
    /// `XDG_RUNTIME_DIR` inside.
    session: PathBuf,
    /// `FIM_DIR_RUNTIME`.
    runtime: PathBuf,
    strict: bool,
    /// Whether the session's directory is there.
    has_session: bool,
    /// Whether `/sys` is there.
    has_sys: bool,
}

impl Scene<'_> {
    fn grant(&mut self, permission: Permission) -> Grant {
        let cause = Cause::Permission(permission);
        let mut grant = Grant { cause, mounts: Vec::new(), variables: Vec::new() };
        match permission {
            Permission::Home => {
                if let Some(home) = &self.facts.home {
                    grant.bind(home, home.clone(), Access::ReadWrite);
                }
            }
            Permission::Media => grant.same(&["/media", "/run/media", "/mnt"], Access::ReadWrite),
            Permission::Audio => self.audio(&mut grant),
            Permission::Wayland => self.wayland(&mut grant),
            Permission::Xorg => self.xorg(&mut grant),
            Permission::DbusUser => self.session_bus(&mut grant),
            Permission::DbusSystem => {
                const PLACE: &str = "/run/dbus/system_bus_socket";
                if let Some(bus) = &self.facts.sockets.system_bus {
                    grant.bind(bus, PLACE.into(), Access::ReadOnly);
                    grant.variable("DBUS_SYSTEM_BUS_ADDRESS", format!("unix:path={PLACE}"));
                }
            }
            Permission::Udev => {
                self.sys(&mut grant);
                grant.same(&["/run/udev"], Access::ReadOnly);
            }
            Permission::Usb | Permission::Input | Permission::Optical | Permission::Dev => {
                self.devices(permission, &mut grant);
            }
            Permission::Gpu => {
                self.devices(permission, &mut grant);
                self.drivers(&self.facts.drivers, &mut grant);
            }
            Permission::Shm => grant.same(&["/dev/shm"], Access::ReadWrite),
            // What these give is no mount of its own: the view of the host, a namespace, the portal's daemon.
            Permission::Host | Permission::Network | Permission::Portal => {}
            // Words that stand for others.
            Permission::All | Permission::Strict => {}
        }
        grant
    }

    /// Makes sure of a session's directory and returns the place of `name` in it.
    fn in_session(&mut self, grant: &mut Grant, name: impl AsRef<Path>) -> PathBuf {
        if !self.has_session {
            self.has_session = true;
            grant.mount(What::Tmpfs { mode: 0o700 }, self.session.clone());
            grant.variable("XDG_RUNTIME_DIR", &self.session);
        }
        self.session.join(name)
    }

    fn audio(&mut self, grant: &mut Grant) {
        let sockets = &self.facts.sockets;
        if let Some(pulse) = &sockets.pulse {
            let to = self.in_session(grant, "pulse/native");
            let mut server = OsString::from("unix:");
            server.push(&to);
            grant.bind(pulse, to, Access::ReadOnly);
            grant.variable("PULSE_SERVER", server);
        }
        if let Some(cookie) = &sockets.pulse_cookie {
            let to = self.runtime.join("pulse-cookie");
            grant.variable("PULSE_COOKIE", &to);
            grant.bind(cookie, to, Access::ReadOnly);
        }
        if let Some(pipewire) = &sockets.pipewire {
            let to = self.in_session(grant, "pipewire-0");
            grant.bind(pipewire, to, Access::ReadOnly);
        }
        self.device("snd".as_ref(), grant);
    }

    fn wayland(&mut self, grant: &mut Grant) {
        let Some(socket) = &self.facts.sockets.wayland else { return };
        let name = socket.file_name().unwrap_or(OsStr::new("wayland-0"));
        let to = self.in_session(grant, name);
        grant.bind(socket, to, Access::ReadOnly);
        grant.variable("WAYLAND_DISPLAY", name);
    }

    fn xorg(&self, grant: &mut Grant) {
        let sockets = &self.facts.sockets;
        let Some(display) = &sockets.display else { return };
        if let Some(socket) = &sockets.x11 {
            grant.bind(socket, socket.clone(), Access::ReadOnly);
        }
        grant.variable("DISPLAY", display);
        if let Some(cookie) = &sockets.x11_cookie {
            let to = self.runtime.join("Xauthority");
            grant.variable("XAUTHORITY", &to);
            grant.bind(cookie, to, Access::ReadOnly);
        }
    }

    fn session_bus(&mut self, grant: &mut Grant) {
        let Some(bus) = &self.facts.sockets.session_bus else { return };
        let to = self.in_session(grant, "bus");
        let mut address = OsString::from("unix:path=");
        address.push(&to);
        grant.bind(bus, to, Access::ReadOnly);
        grant.variable("DBUS_SESSION_BUS_ADDRESS", address);
    }

    /// Devices of one kind, and what tells programs about them.
    fn devices(&mut self, permission: Permission, grant: &mut Grant) {
        self.sys(grant);
        let facts = self.facts;
        let mut chosen: Vec<&OsString> =
            facts.devices.iter().filter(|name| is_of(permission, name)).collect();
        if permission == Permission::Optical {
            chosen.extend(&facts.optical);
        }
        chosen.into_iter().for_each(|name| self.device(name, grant));
    }

    fn device(&self, name: &OsStr, grant: &mut Grant) {
        if self.facts.devices.iter().chain(&self.facts.optical).any(|there| there == name) {
            let place = Path::new("/dev").join(name);
            grant.bind(&place, place.clone(), Access::Devices);
        }
    }

    /// Under deny-all nobody sees what hardware there is, except who is given some.
    fn sys(&mut self, grant: &mut Grant) {
        if self.strict && !self.has_sys {
            self.has_sys = true;
            grant.same(&["/sys"], Access::ReadOnly);
        }
    }

    /// Driver files that must fit the host's kernel. They lie in memory and are found by variables.
    fn drivers(&self, drivers: &Drivers, grant: &mut Grant) {
        let place = self.runtime.join("gpu");
        let mut shown = |files: &[PathBuf], folder: &str| -> Vec<PathBuf> {
            let named =
                files.iter().filter_map(|file| Some((file, place.join(folder).join(file.file_name()?))));
            named
                .map(|(file, to)| {
                    grant.bind(file, to.clone(), Access::ReadOnly);
                    to
                })
                .collect()
        };
        let libraries = shown(&drivers.libraries, "lib");
        let vulkan = shown(&drivers.vulkan, "vulkan");
        let egl = shown(&drivers.egl, "egl");
        if !libraries.is_empty() {
            grant.variable("LD_LIBRARY_PATH", place.join("lib"));
        }
        if !vulkan.is_empty() {
            grant.variable("VK_ADD_DRIVER_FILES", joined(&vulkan));
        }
        if !egl.is_empty() {
            let own = ["/etc/glvnd/egl_vendor.d", "/usr/share/glvnd/egl_vendor.d"].map(PathBuf::from);
            let folders: Vec<PathBuf> = std::iter::once(place.join("egl")).chain(own).collect();
            grant.variable("__EGL_VENDOR_LIBRARY_DIRS", joined(&folders));
        }
    }
}

impl Grant {
    fn mount(&mut self, what: What, to: PathBuf) {
        self.mounts.push(Mount { what, to, cause: self.cause });
    }

    fn bind(&mut self, from: &Path, to: PathBuf, access: Access) {
        self.mount(What::Bind { from: from.to_owned(), access, missing: Missing::Skip }, to);
    }

    /// Places that are inside where they are on the host.
    fn same(&mut self, places: &[&str], access: Access) {
        places.iter().for_each(|place| self.bind(Path::new(place), place.into(), access));
    }

    fn variable(&mut self, name: &'static str, value: impl AsRef<OsStr>) {
        self.variables.push((name, value.as_ref().to_owned()));
    }
}

/// Whether the entry `name` of `/dev` belongs to the devices of a permission.
fn is_of(permission: Permission, name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    let begins = |starts: &[&str]| starts.iter().any(|start| name.starts_with(start));
    let numbered = |stems: &[&str]| {
        stems.iter().any(|stem| {
            name.strip_prefix(stem)
                .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()))
        })
    };
    match permission {
        Permission::Usb => name == "usb" || name == "bus" || numbered(&["ttyUSB", "ttyACM"]),
        Permission::Input => name == "input" || name == "uinput" || numbered(&["hidraw", "js", "mouse"]),
        Permission::Gpu => {
            matches!(&*name, "dri" | "kfd" | "nvidiactl" | "dxg") || begins(&["nvidia", "mali", "pvr_sync"])
        }
        Permission::Optical => {
            matches!(&*name, "cdrom" | "cdrw" | "dvd" | "dvdrw") || numbered(&["sr", "scd"])
        }
        Permission::Dev => !is_apart(&name, numbered(&["tty"])),
        _ => false,
    }
}

/// What `/dev` holds besides devices that can be given: what each sandbox has of its own, shared memory, which is a
/// permission of its own, and terminals, from which a program could read what the caller types.
fn is_apart(name: &str, is_console: bool) -> bool {
    const OWN: [&str; 15] = [
        "null",
        "zero",
        "full",
        "random",
        "urandom",
        "tty",
        "ptmx",
        "pts",
        "console",
        "shm",
        "mqueue",
        "hugepages",
        "fd",
        "core",
        "log",
    ];
    OWN.contains(&name) || is_console || name.starts_with("std") || name.starts_with("vcs")
}

fn joined(paths: &[PathBuf]) -> OsString {
    let mut whole = OsString::new();
    for path in paths {
        if !whole.is_empty() {
            whole.push(":");
        }
        whole.push(path);
    }
    whole
}
