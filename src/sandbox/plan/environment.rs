//! The environment inside: an allow-list of the caller's, who the program is, where it is, what permissions need, and
//! last what the image sets.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt as _,
    path::Path,
};

use super::{
    Cause, Inputs, Role,
    grant::Grant,
    identity::{self, Who, caller_variable},
};
use crate::{config::Permission, sandbox::expand};

/// Where programs are looked for in a root that says nothing else.
pub(super) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Variables of the caller that reach programs inside.
const PASSED: [&str; 26] = [
    "ALL_PROXY",
    "COLORTERM",
    "COLUMNS",
    "DEBIAN_FRONTEND",
    "FTP_PROXY",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "LANG",
    "LANGUAGE",
    "LINES",
    "LOGNAME",
    "NO_COLOR",
    "NO_PROXY",
    "SOURCE_DATE_EPOCH",
    "TERM",
    "TERM_PROGRAM",
    "TZ",
    "USER",
    "VTE_VERSION",
    "CLICOLOR",
    "CLICOLOR_FORCE",
    "FORCE_COLOR",
    "all_proxy",
    "ftp_proxy",
    "http_proxy",
    "https_proxy",
];
/// Variables of the caller that reach programs inside: the rest of the names, and those that begin so.
const PASSED_PREFIXES: [&str; 2] = ["LC_", "no_proxy"];
/// Variables that tell how the network is reached.
const PROXIES: [&[u8]; 2] = [b"_proxy", b"_PROXY"];

/// Variables with their values, and with their reasons.
pub(super) type Variables = (BTreeMap<OsString, OsString>, BTreeMap<OsString, Cause>);

pub(super) fn environment(inputs: &Inputs<'_>, who: &Who, grants: &[Grant]) -> Variables {
    let mut made = Making::default();
    for (name, value) in inputs.environment.iter().filter(|(name, _)| reaches(inputs, name)) {
        made.set(name, value.clone(), Cause::Caller);
    }
    made.set("USER", &who.user.name, Cause::Accounts);
    made.set("LOGNAME", &who.user.name, Cause::Accounts);
    made.set("HOME", &who.user.home, Cause::Accounts);
    made.set("SHELL", &who.shell, Cause::Accounts);
    for (name, value) in fim_variables(inputs) {
        made.set(name, value, Cause::Runtime);
    }
    for grant in grants {
        for (name, value) in &grant.variables {
            made.set(name, value, grant.cause);
        }
    }
    let is_passed = made.values.contains_key(OsStr::new("PATH"));
    if !is_passed {
        made.set("PATH", PATH, Cause::Basis);
    }
    for (name, value) in inputs.settings {
        let is_identity = identity::NAMES.contains(&name.as_str());
        // Root is root whatever the image says of other users.
        if is_identity && inputs.role == Role::Root && name != "SHELL" {
            continue;
        }
        let value = match name.as_str() {
            "USER" => OsString::from(&who.user.name),
            "HOME" => who.user.home.clone().into(),
            "SHELL" => who.shell.clone(),
            "UID" => who.user.uid.to_string().into(),
            "GID" => who.user.gid.to_string().into(),
            _ => expand(value, &|name| made.or_callers(inputs, name)),
        };
        made.set(name, value, Cause::Settings);
    }
    made.add_tools(inputs);
    (made.values, made.reasons)
}

#[derive(Default)]
struct Making {
    values: BTreeMap<OsString, OsString>,
    reasons: BTreeMap<OsString, Cause>,
}

impl Making {
    fn set(&mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>, cause: Cause) {
        self.values.insert(name.as_ref().to_owned(), value.as_ref().to_owned());
        self.reasons.insert(name.as_ref().to_owned(), cause);
    }

    /// What a stored value means by a name; the path of the caller is that of another root.
    fn or_callers(&self, inputs: &Inputs<'_>, name: &str) -> Option<OsString> {
        self.values.get(OsStr::new(name)).cloned().or_else(|| caller_variable(inputs, name))
    }

    /// A minimal root still has ps and friends.
    fn add_tools(&mut self, inputs: &Inputs<'_>) {
        let mut path = self.values.remove(OsStr::new("PATH")).unwrap_or_default();
        for directory in [inputs.app.bin(), inputs.app.sbin()] {
            path.push(":");
            path.push(directory);
        }
        self.values.insert("PATH".into(), path);
    }
}

/// Whether a variable of the caller gets inside.
fn reaches(inputs: &Inputs<'_>, name: &OsStr) -> bool {
    if name.as_bytes().starts_with(b"FIM_") {
        return false;
    }
    let is_proxy = PROXIES.iter().any(|end| name.as_bytes().ends_with(end));
    inputs.pass_all || (is_passed(name) && (!is_proxy || inputs.rights.by_default(Permission::Network)))
}

fn is_passed(name: &OsStr) -> bool {
    PASSED.iter().any(|passed| name == *passed)
        || PASSED_PREFIXES.iter().any(|prefix| name.as_bytes().starts_with(prefix.as_bytes()))
}

/// The variables that tell programs where they are.
fn fim_variables(inputs: &Inputs<'_>) -> Vec<(&'static str, OsString)> {
    let app = inputs.app;
    vec![
        ("FIM_VERSION", env!("CARGO_PKG_VERSION").into()),
        ("FIM_COMMIT", env!("FIM_COMMIT").into()),
        ("FIM_TIMESTAMP", env!("FIM_TIMESTAMP").into()),
        ("FIM_DIST", inputs.distribution.into()),
        ("FIM_PID", inputs.pid.to_string().into()),
        ("FIM_INSTANCE", inputs.instance_id.to_string().into()),
        ("FIM_BIN_SELF", inputs.image.into()),
        ("FIM_DIR_SELF", inputs.image.parent().unwrap_or(Path::new("/")).into()),
        ("FIM_DIR_GLOBAL", app.global().into()),
        ("FIM_DIR_APP", app.app().into()),
        ("FIM_DIR_APP_BIN", app.bin().into()),
        ("FIM_DIR_APP_SBIN", app.sbin().into()),
        ("FIM_DIR_INSTANCE", inputs.instance.into()),
        ("FIM_DIR_RUNTIME", app.runtime().into()),
        ("FIM_DIR_RUNTIME_HOST", app.runtime_host().into()),
        ("FIM_DIR_DATA", inputs.data.into()),
        ("FIM_DIR_LAYERS", inputs.layers.into()),
    ]
}
