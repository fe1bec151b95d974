//! What the host has that a permission can give. Data only: `runtime` looks, the planner decides.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

/// What the host has, as far as a run may be given it. What is named here is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The caller's home, without symlinks.
    pub home: Option<PathBuf>,
    /// Devices and directories of devices in `/dev`, by name.
    pub devices: Vec<OsString>,
    /// The generic nodes (`sgN`) of optical drives in `/dev`.
    pub optical: Vec<OsString>,
    /// Sockets and what belongs to them.
    pub sockets: Sockets,
    /// Files of the graphics driver that must fit the host's kernel.
    pub drivers: Drivers,
}

/// Sockets of the caller's session, and what belongs to them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sockets {
    /// The Wayland display.
    pub wayland: Option<PathBuf>,
    /// `DISPLAY`.
    pub display: Option<OsString>,
    /// The X11 display, where it is one of this host.
    pub x11: Option<PathBuf>,
    /// The file with its cookie.
    pub x11_cookie: Option<PathBuf>,
    /// The server of PulseAudio, which may be PipeWire's.
    pub pulse: Option<PathBuf>,
    /// The file with its cookie.
    pub pulse_cookie: Option<PathBuf>,
    /// PipeWire's own.
    pub pipewire: Option<PathBuf>,
    /// The session bus.
    pub session_bus: Option<PathBuf>,
    /// The system bus.
    pub system_bus: Option<PathBuf>,
}

/// Files of a graphics driver.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drivers {
    /// Libraries.
    pub libraries: Vec<PathBuf>,
    /// Descriptions for the Vulkan loader.
    pub vulkan: Vec<PathBuf>,
    /// Descriptions for the EGL loader.
    pub egl: Vec<PathBuf>,
}

/// Places of the host that its view at `run/host` does not show.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hidden {
    /// State of the kernel and of running programs, and scratch space: never shown.
    pub state: Vec<PathBuf>,
    /// Home directories: shown with the permission `host`.
    pub homes: Vec<PathBuf>,
}

/// The path of a D-Bus address (`unix:path=/run/user/1000/bus,guid=...`); none for another kind.
#[must_use]
pub fn bus_path(address: &str) -> Option<PathBuf> {
    let first = address.split(';').next()?.strip_prefix("unix:")?;
    let path = first.split(',').find_map(|part| part.strip_prefix("path="))?;
    absolute(path)
}

/// The socket of an X11 display of this host (`:0`, `unix:0.1`); none for one that is reached by the network.
#[must_use]
pub fn x11_path(display: &str) -> Option<PathBuf> {
    let (host, number) = display.rsplit_once(':')?;
    let number = number.split('.').next()?;
    let is_here = matches!(host, "" | "unix") && !number.is_empty();
    (is_here && number.bytes().all(|byte| byte.is_ascii_digit()))
        .then(|| Path::new("/tmp/.X11-unix").join(format!("X{number}")))
}

/// The path of a PulseAudio server (`unix:/run/user/1000/pulse/native`, perhaps behind `{machine}`).
#[must_use]
pub fn pulse_path(server: &str) -> Option<PathBuf> {
    let first = server.split_whitespace().next()?;
    let first = match first.strip_prefix('{') {
        Some(rest) => rest.split_once('}')?.1,
        None => first,
    };
    absolute(first.strip_prefix("unix:").unwrap_or(first))
}

fn absolute(path: &str) -> Option<PathBuf> {
    Some(PathBuf::from(path)).filter(|path| path.is_absolute())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        for (address, expected) in [
            ("unix:path=/run/user/1/bus", Some("/run/user/1/bus")),
            ("unix:guid=12,path=/b,x=y;tcp:host=x", Some("/b")),
            ("unix:abstract=/tmp/x", None),
            ("unix:path=relative", None),
            ("tcp:host=x", None),
            ("", None),
        ] {
            assert_eq!(bus_path(address), expected.map(PathBuf::from), "{address}");
        }
        for (display, expected) in [
            (":0", Some("/tmp/.X11-unix/X0")),
            ("unix:12.3", Some("/tmp/.X11-unix/X12")),
            ("localhost:10.0", None),
            (":", None),
            (":../../etc/passwd", None),
            ("0", None),
        ] {
            assert_eq!(x11_path(display), expected.map(PathBuf::from), "{display}");
        }
        for (server, expected) in [
            ("unix:/p/native", Some("/p/native")),
            ("{12ab}unix:/p/native tcp:x", Some("/p/native")),
            ("/p", Some("/p")),
            ("tcp:host", None),
            ("", None),
        ] {
            assert_eq!(pulse_path(server), expected.map(PathBuf::from), "{server}");
        }
    }
}
