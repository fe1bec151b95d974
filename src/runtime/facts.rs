//! What the host has that permissions can give: looked up at the start of a run, and only for what is asked.

use std::{
    ffi::{OsStr, OsString},
    fs,
    os::unix::fs::FileTypeExt as _,
    path::{Path, PathBuf},
};

use super::host::Host;
use crate::{
    config::Permission,
    sandbox::{Drivers, Facts, Rights, Sockets, bus_path, pulse_path, x11_path},
};

/// Where libraries of the host are.
const LIBRARIES: [&str; 5] = [
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
    "/run/opengl-driver/lib",
];

/// How libraries begin that must have the version of the kernel's module. Mesa's are not among them: they fit any
/// kernel, and images bring their own.
const DRIVER_LIBRARIES: [&str; 11] = [
    "libnvidia-",
    "libcuda.so",
    "libcudadebugger.so",
    "libGLX_nvidia",
    "libEGL_nvidia",
    "libGLESv1_CM_nvidia",
    "libGLESv2_nvidia",
    "libnvcuvid",
    "libnvoptix",
    "libvdpau_nvidia",
    "nvidia_drv",
];

/// Where loaders find descriptions of drivers.
const VULKAN: [&str; 2] = ["/usr/share/vulkan/icd.d", "/etc/vulkan/icd.d"];
const EGL: [&str; 2] = ["/usr/share/glvnd/egl_vendor.d", "/etc/glvnd/egl_vendor.d"];

/// Most driver files that are shown: bubblewrap takes 9,000 words.
const DRIVER_FILES: usize = 512;

/// Looks.
#[must_use]
pub fn facts(host: &Host, rights: &Rights) -> Facts {
    let any = |permissions: &[Permission]| permissions.iter().any(|permission| rights.holds(*permission));
    let home = Some(&host.user.home).filter(|_| rights.holds(Permission::Home));
    let devices = [
        Permission::Audio,
        Permission::Dev,
        Permission::Gpu,
        Permission::Input,
        Permission::Optical,
        Permission::Usb,
    ];
    Facts {
        home: home.and_then(|home| fs::canonicalize(home).ok()).filter(|home| home != Path::new("/")),
        devices: if any(&devices) { devices_in(Path::new("/dev")) } else { Vec::new() },
        optical: if any(&[Permission::Optical]) {
            optical(Path::new("/sys/class/scsi_generic"))
        } else {
            Vec::new()
        },
        sockets: sockets(host),
        drivers: if any(&[Permission::Gpu]) { drivers() } else { Drivers::default() },
    }
}

/// The names of devices, and of directories that hold some.
fn devices_in(dev: &Path) -> Vec<OsString> {
    let is_device = |path: &Path| {
        fs::metadata(path).is_ok_and(|status| {
            let kind = status.file_type();
            kind.is_char_device() || kind.is_block_device() || kind.is_dir()
        })
    };
    let mut names: Vec<OsString> =
        entries(dev).into_iter().filter(|path| is_device(path)).filter_map(|path| name_of(&path)).collect();
    names.sort();
    names
}

/// The generic nodes of optical drives: those whose SCSI type is 5.
fn optical(class: &Path) -> Vec<OsString> {
    let is_optical =
        |path: &Path| fs::read_to_string(path.join("device/type")).is_ok_and(|kind| kind.trim() == "5");
    entries(class).into_iter().filter(|path| is_optical(path)).filter_map(|path| name_of(&path)).collect()
}

fn sockets(host: &Host) -> Sockets {
    let text = |name: &str| host.variable(name).and_then(OsStr::to_str).filter(|text| !text.is_empty());
    let runtime = text("XDG_RUNTIME_DIR")
        .map(PathBuf::from)
        .filter(|place| place.is_absolute())
        .unwrap_or_else(|| Path::new("/run/user").join(host.ids.uid.to_string()));
    let config = text("XDG_CONFIG_HOME").map_or_else(|| host.user.home.join(".config"), PathBuf::from);
    let socket = |path: PathBuf| {
        Some(path).filter(|path| fs::metadata(path).is_ok_and(|status| status.file_type().is_socket()))
    };
    let file = |path: PathBuf| Some(path).filter(|path| path.is_file());
    let display = text("DISPLAY");
    let pulse = text("PULSE_SERVER").map_or_else(|| Some(runtime.join("pulse/native")), pulse_path);
    let bus = text("DBUS_SESSION_BUS_ADDRESS").map_or_else(|| Some(runtime.join("bus")), bus_path);
    let system_bus =
        text("DBUS_SYSTEM_BUS_ADDRESS").map_or_else(|| Some("/run/dbus/system_bus_socket".into()), bus_path);
    Sockets {
        wayland: text("WAYLAND_DISPLAY").or(Some("wayland-0")).and_then(|name| socket(runtime.join(name))),
        display: display.map(OsString::from),
        x11: display.and_then(x11_path).and_then(socket),
        x11_cookie: file(
            text("XAUTHORITY").map_or_else(|| host.user.home.join(".Xauthority"), PathBuf::from),
        )
        .filter(|_| display.is_some()),
        pulse: pulse.and_then(socket),
        pulse_cookie: file(text("PULSE_COOKIE").map_or_else(|| config.join("pulse/cookie"), PathBuf::from)),
        pipewire: socket(runtime.join(text("PIPEWIRE_REMOTE").unwrap_or("pipewire-0"))),
        session_bus: bus.and_then(socket),
        system_bus: system_bus.and_then(socket),
    }
}

fn drivers() -> Drivers {
    let is_driver = |name: &OsStr| {
        let name = name.to_string_lossy();
        name.contains(".so") && DRIVER_LIBRARIES.iter().any(|start| name.starts_with(start))
    };
    let is_description = |name: &OsStr| name.to_string_lossy().contains("nvidia");
    Drivers {
        libraries: files_in(&LIBRARIES, is_driver),
        vulkan: files_in(&VULKAN, is_description),
        egl: files_in(&EGL, is_description),
    }
}

/// Files with certain names; of two with the same name the first.
fn files_in(folders: &[&str], wanted: impl Fn(&OsStr) -> bool) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = Vec::new();
    for path in folders.iter().flat_map(|folder| entries(Path::new(folder))) {
        let is_new = || found.iter().all(|other| other.file_name() != path.file_name());
        if path.file_name().is_some_and(&wanted) && path.is_file() && is_new() && found.len() < DRIVER_FILES {
            found.push(path);
        }
    }
    found
}

/// What a directory holds, sorted; nothing where it cannot be read.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

fn name_of(path: &Path) -> Option<OsString> {
    path.file_name().map(OsStr::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn optical_drives_are_known_by_their_type() {
        let folder = tempfile::tempdir().unwrap();
        for (name, kind) in [("sg0", "0\n"), ("sg1", "5\n")] {
            fs::create_dir_all(folder.path().join(name).join("device")).unwrap();
            fs::write(folder.path().join(name).join("device/type"), kind).unwrap();
        }
        assert_eq!(optical(folder.path()), ["sg1"]);
    }

    #[test]
    fn devices_are_no_files() {
        let names = devices_in(Path::new("/dev"));
        assert!(names.contains(&"null".into()));
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), "").unwrap();
        fs::create_dir(folder.path().join("input")).unwrap();
        assert_eq!(devices_in(folder.path()), ["input"]);
    }

    #[test]
    fn the_first_of_two_driver_files_counts() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for place in
            [one.path().join("libcuda.so.1"), two.path().join("libcuda.so.1"), two.path().join("other")]
        {
            fs::write(place, "").unwrap();
        }
        let folders = [one.path().to_str().unwrap(), two.path().to_str().unwrap()];
        let found = files_in(&folders, |name| name.to_string_lossy().starts_with("libcuda"));
        assert_eq!(found, [one.path().join("libcuda.so.1")]);
    }
}
