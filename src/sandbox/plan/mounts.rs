//! The mounts of a sandbox, in their order.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
};

use super::{
    Access, Cause, Engine, Inputs, Missing, Mount, What, grant::Grant, identity::caller_variable, init,
};
use crate::{
    config::{Bind, BindKind, BindLimit, Permission},
    sandbox::expand,
};

/// Everything but the root. What lies outside the engine's own directory comes before it, so that nothing covers it.
pub(super) fn mounts(inputs: &Inputs<'_>, grants: &[Grant], binds: Vec<Mount>) -> Vec<Mount> {
    let global = inputs.app.global();
    let granted = || grants.iter().flat_map(|grant| grant.mounts.iter().cloned());
    let mut mounts = basis(inputs);
    mounts.extend(granted().filter(|mount| !mount.to.starts_with(global)));
    mounts.extend(names(inputs));
    mounts.extend(binds);
    mounts.extend(runtime(inputs));
    mounts.extend(granted().filter(|mount| mount.to.starts_with(global)));
    mounts.extend(host_view(inputs));
    mounts.push(Mount { what: What::Seal, to: global.to_owned(), cause: Cause::Runtime });
    mounts
}

const fn read_only(from: PathBuf, missing: Missing) -> What {
    What::Bind { from, access: Access::ReadOnly, missing }
}

/// Switches of the kernel. Their files belong to the host's root and ask for no capability: written from inside, the
/// name of a program for core dumps, for instance, would run that program outside.
const SWITCHES: [&str; 7] =
    ["/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus", "/proc/fs", "/proc/acpi", "/proc/scsi"];

fn basis(inputs: &Inputs<'_>) -> Vec<Mount> {
    let basis = |what, to: &str| Mount { what, to: to.into(), cause: Cause::Basis };
    let mut mounts = vec![basis(What::Proc, "/proc"), basis(What::Dev, "/dev")];
    if inputs.user.uid == 0 {
        mounts.extend(SWITCHES.map(|place| basis(read_only(place.into(), Missing::Skip), place)));
    }
    if inputs.rights.strict().is_none() {
        let what = read_only("/sys".into(), Missing::Skip);
        mounts.push(Mount { what, to: "/sys".into(), cause: Cause::Default });
    }
    mounts.push(basis(What::Tmpfs { mode: 0o1777 }, "/dev/shm"));
    mounts.push(basis(What::Tmpfs { mode: 0o1777 }, "/tmp"));
    mounts
}

/// How names on the network are found.
fn names(inputs: &Inputs<'_>) -> Vec<Mount> {
    let rights = inputs.rights;
    if !rights.by_default(Permission::Network) {
        return Vec::new();
    }
    let cause = cause_of(inputs, Permission::Network);
    let file = |file: &str| Mount { what: read_only(file.into(), Missing::Skip), to: file.into(), cause };
    vec![file("/etc/resolv.conf"), file("/etc/hosts")]
}

/// Why something of the default profile is there.
fn cause_of(inputs: &Inputs<'_>, permission: Permission) -> Cause {
    if inputs.rights.holds(permission) { Cause::Permission(permission) } else { Cause::Default }
}

/// The engine's own files.
fn runtime(inputs: &Inputs<'_>) -> Vec<Mount> {
    let app = inputs.app;
    let runtime = |what, to: PathBuf| Mount { what, to, cause: Cause::Runtime };
    let same = |path: PathBuf| runtime(read_only(path.clone(), Missing::Skip), path);
    let engine = match inputs.engine {
        Engine::At(path) => read_only(path.to_owned(), Missing::Fail),
        Engine::Open(number) => What::Program { number },
    };
    let mut mounts = vec![
        runtime(What::Tmpfs { mode: 0o755 }, app.global().to_owned()),
        same(app.bin()),
        same(app.sbin()),
        runtime(What::Directory, inputs.instance.to_owned()),
        same(inputs.instance.join("bashrc")),
        same(inputs.instance.join("passwd")),
        same(inputs.instance.join("group")),
        same(inputs.instance.join("layers")),
        same(inputs.instance.join("portal")),
        runtime(engine, init(inputs)),
    ];
    if inputs.rights.holds(Permission::Portal) {
        // Who asks listens there.
        let from = inputs.instance.join("portal/dispatcher/host");
        let what = What::Bind { from: from.clone(), access: Access::ReadWrite, missing: Missing::Fail };
        mounts.push(Mount { what, to: from, cause: Cause::Permission(Permission::Portal) });
    }
    mounts
}

/// The host's root at `run/host`, its private places covered.
fn host_view(inputs: &Inputs<'_>) -> Vec<Mount> {
    let rights = inputs.rights;
    if !rights.by_default(Permission::Host) {
        return Vec::new();
    }
    let writable = rights.holds(Permission::Host);
    let cause = cause_of(inputs, Permission::Host);
    let host = inputs.app.runtime_host();
    let access = if writable { Access::ReadWrite } else { Access::ReadOnly };
    let mut mounts = vec![Mount {
        what: What::Bind { from: "/".into(), access, missing: Missing::Fail },
        to: host.clone(),
        cause,
    }];
    let cover = |mounts: &mut Vec<Mount>, hidden: &Path| {
        let to = below(&host, hidden);
        mounts.push(Mount { what: What::Tmpfs { mode: 0o755 }, to: to.clone(), cause });
        to
    };
    // The engine's own directory is read-only inside, on every way there.
    let global = inputs.app.global().to_owned();
    let homes = if writable { &[][..] } else { &inputs.hidden.homes };
    let home = inputs.facts.home.as_ref().filter(|_| !writable && rights.holds(Permission::Home));
    for hidden in covers(inputs.hidden.state.iter().chain(homes).chain([&global])) {
        let covered = cover(&mut mounts, &hidden);
        if let Some(home) = home.filter(|home| home.starts_with(&hidden)) {
            let shown = read_only(home.clone(), Missing::Skip);
            let cause = Cause::Permission(Permission::Home);
            mounts.push(Mount { what: shown, to: below(&host, home), cause });
            if global.starts_with(home) {
                let to = cover(&mut mounts, &global);
                mounts.push(Mount { what: What::Seal, to, cause });
            }
        }
        mounts.push(Mount { what: What::Seal, to: covered, cause });
    }
    mounts
}

/// The places to cover, without those that lie inside another one.
fn covers<'a>(hidden: impl Iterator<Item = &'a PathBuf>) -> Vec<PathBuf> {
    let mut sorted: Vec<&PathBuf> =
        hidden.filter(|path| path.is_absolute() && path.as_path() != Path::new("/")).collect();
    sorted.sort();
    let mut covers: Vec<PathBuf> = Vec::new();
    for path in sorted {
        if !covers.iter().any(|cover| path.starts_with(cover)) {
            covers.push(path.clone());
        }
    }
    covers
}

fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// The image's own binds, and what is to be said of those that are left out.
pub(super) fn binds(
    inputs: &Inputs<'_>,
    environment: &BTreeMap<OsString, OsString>,
) -> (Vec<Mount>, Vec<String>) {
    let (mut mounts, mut warnings) = (Vec::new(), Vec::new());
    let of_image = inputs.binds.as_slice().iter().enumerate();
    let of_image = of_image.map(|(index, bind)| (bind, Cause::Bind(index), inputs.rights.binds()));
    // A policy is about images: what the caller gives is his to give.
    let given = inputs.given.iter().map(|bind| (bind, Cause::Given, BindLimit::All));
    for (bind, cause, limit) in of_image.chain(given) {
        match one_bind(inputs, environment, (cause, limit), bind) {
            Ok(mount) => mounts.push(mount),
            Err(why) => {
                let (which, from, to) = (cause.bind(), &bind.source, &bind.destination);
                warnings.push(format!("left out {which}, {from} to {to}: {why}"));
            }
        }
    }
    (mounts, warnings)
}

fn one_bind(
    inputs: &Inputs<'_>,
    environment: &BTreeMap<OsString, OsString>,
    (cause, limit): (Cause, BindLimit),
    bind: &Bind,
) -> Result<Mount, &'static str> {
    if limit == BindLimit::None {
        return Err("the user's policy allows none");
    }
    let access = match (bind.kind, limit) {
        (BindKind::Ro, _) | (_, BindLimit::Ro) => Access::ReadOnly,
        (BindKind::Rw, _) => Access::ReadWrite,
        (BindKind::Dev, _) => Access::Devices,
    };
    // A place of the host by the caller's variables, a place inside by those inside.
    let from = PathBuf::from(expand(&bind.source, &|name| caller_variable(inputs, name)));
    let from = inputs.directory.map_or_else(|| from.clone(), |directory| directory.join(&from));
    let to = PathBuf::from(expand(&bind.destination, &|name| {
        environment.get(OsStr::new(name)).cloned().or_else(|| caller_variable(inputs, name))
    }));
    let global = inputs.app.global();
    let is_plain = to.components().all(|part| part != std::path::Component::ParentDir);
    if !from.is_absolute() {
        return Err("the place of the host is not an absolute path");
    }
    if !to.is_absolute() || !is_plain {
        return Err("the place inside is not an absolute path without ..");
    }
    if to.parent().is_none() {
        return Err("it would cover the root");
    }
    if to.starts_with(global) {
        return Err("it would cover the engine's own files");
    }
    if ["/proc", "/sys"].iter().any(|own| to.starts_with(own)) || to == Path::new("/dev") {
        return Err("it would cover what the sandbox has of its own");
    }
    let what = What::Bind { from, access, missing: Missing::Skip };
    Ok(Mount { what, to, cause })
}
