//! Namespaces that are unshared besides those that always are (pid, and user where the caller is not root).

use super::{WordSet, words::words};

words! {
    /// A kind of namespace.
    Namespace, "namespace", not in all: [];
    /// Every kind.
    All = "all",
    /// Users and groups.
    User = "user",
    /// System V IPC and POSIX message queues.
    Ipc = "ipc",
    /// Processes.
    Pid = "pid",
    /// The network.
    Net = "net",
    /// The host name.
    Uts = "uts",
    /// Control groups.
    Cgroup = "cgroup",
}

/// The namespaces that an image adds.
pub type Unshare = WordSet<Namespace>;
