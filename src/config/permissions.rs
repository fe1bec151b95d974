//! What programs inside may reach.

use super::{WordSet, words::words};

words! {
    /// One thing of the host that a program inside may be given.
    Permission, "permission", not in all: [Strict];
    /// Every permission but `strict`.
    All = "all",
    /// Deny-all: nothing but what other words grant, the network included.
    Strict = "strict",
    /// Sound.
    Audio = "audio",
    /// The system bus.
    DbusSystem = "dbus_system",
    /// The session bus.
    DbusUser = "dbus_user",
    /// All device nodes.
    Dev = "dev",
    /// Graphics devices and the host's driver files.
    Gpu = "gpu",
    /// The home directory.
    Home = "home",
    /// The host's root with home directories, writable where the caller may write.
    Host = "host",
    /// Input devices.
    Input = "input",
    /// Removable media.
    Media = "media",
    /// The network.
    Network = "network",
    /// Optical drives.
    Optical = "optical",
    /// Starting programs on the host.
    Portal = "portal",
    /// Shared memory.
    Shm = "shm",
    /// Device events.
    Udev = "udev",
    /// USB devices.
    Usb = "usb",
    /// The Wayland display.
    Wayland = "wayland",
    /// The X11 display.
    Xorg = "xorg",
}

/// The permissions of an image.
pub type Permissions = WordSet<Permission>;
