//! A plan in words: each namespace, mount and variable with its reason. Pure.

use std::fmt;

use super::plan::{Access, Capabilities, Cause, Identity, OVERSEER_CAPABILITIES, Plan, What};
use crate::config::{Permission, Word as _};

/// What a line is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Who the program is.
    Identity,
    /// What root may do.
    Capability,
    /// A namespace of its own.
    Namespace,
    /// A mount.
    Mount,
    /// A variable.
    Variable,
}

impl Subject {
    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Capability => "capability",
            Self::Namespace => "namespace",
            Self::Mount => "mount",
            Self::Variable => "variable",
        }
    }
}

/// One thing in a sandbox, and why it is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// What it is about.
    pub subject: Subject,
    /// Its name: a place inside, a variable, a namespace.
    pub name: String,
    /// What is there.
    pub what: String,
    /// Why.
    pub cause: Cause,
}

impl Row {
    /// The permission that is the reason, if one is.
    #[must_use]
    pub fn permission(&self) -> Option<&'static str> {
        match self.cause {
            Cause::Permission(permission) => Some(permission.name()),
            Cause::Strict(_) => Some(Permission::Strict.name()),
            _ => None,
        }
    }
}

impl fmt::Display for Row {
    /// A line for people.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { subject, name, what, cause } = self;
        let subject = subject.name();
        match what.as_str() {
            "" => write!(f, "{subject} {name}  [{cause}]"),
            what => write!(f, "{subject} {name}: {what}  [{cause}]"),
        }
    }
}

/// Explains a plan, in the order in which things are made.
#[must_use]
pub fn explain(plan: &Plan) -> Vec<Row> {
    let row = |subject, name: &str, what: String, cause| Row { subject, name: name.to_owned(), what, cause };
    let who = match plan.identity {
        Identity::HostRoot => "root of the host".to_owned(),
        Identity::Mapped { uid, gid } => format!("uid {uid}, gid {gid}"),
    };
    let mut rows = vec![row(Subject::Identity, "user", who, Cause::Accounts)];
    if let Capabilities::Only(few) = &plan.capabilities {
        rows.extend(few.iter().map(|name| match OVERSEER_CAPABILITIES.contains(name) {
            true => row(Subject::Capability, name, "of process 1 alone".to_owned(), Cause::Runtime),
            false => row(Subject::Capability, name, String::new(), Cause::Accounts),
        }));
    }
    rows.extend(
        plan.namespaces
            .iter()
            .map(|(name, cause)| row(Subject::Namespace, name.name(), "its own".into(), *cause)),
    );
    rows.push(row(Subject::Mount, "/", "the merged root".into(), Cause::Basis));
    rows.extend(
        plan.mounts
            .iter()
            .map(|mount| row(Subject::Mount, &mount.to.to_string_lossy(), what(&mount.what), mount.cause)),
    );
    if plan.known_user.is_some() {
        for file in ["/etc/passwd", "/etc/group"] {
            let what = "generated, where the image does not know the user".to_owned();
            rows.push(row(Subject::Mount, file, what, Cause::Accounts));
        }
    }
    for (name, value) in &plan.program.environment {
        let cause = plan.program.reasons.get(name).copied().unwrap_or(Cause::Basis);
        rows.push(row(
            Subject::Variable,
            &name.to_string_lossy(),
            value.to_string_lossy().into_owned(),
            cause,
        ));
    }
    rows
}

fn what(what: &What) -> String {
    match what {
        What::Proc => "its own processes".to_owned(),
        What::Dev => "a few devices".to_owned(),
        What::Tmpfs { mode } => format!("empty, in memory, mode {mode:04o}"),
        What::Directory => "directory".to_owned(),
        What::Program { .. } => "the engine's program".to_owned(),
        What::Seal => "becomes read-only".to_owned(),
        What::Bind { from, access, .. } => {
            let how = match access {
                Access::ReadOnly => "read-only",
                Access::ReadWrite => "writable",
                Access::Devices => "writable, devices work",
            };
            format!("{} of the host, {how}", from.display())
        }
    }
}
