//! Finding the tools on the machine where an image is made.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::{
    manifest::{MANIFEST, Manifest, Package, ToolFile, xxh3},
    needs::{Needs, needs},
};

/// Where programs lie.
const PROGRAM_DIRS: [&str; 3] = ["usr/bin", "bin", "usr/local/bin"];
/// How deep libraries may need libraries; ordinary programs need four.
const DEPTH_LIMIT: usize = 32;

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Collected {
    /// Path in the archive, and the file on this machine.
    files: BTreeMap<String, PathBuf>,
    loader: Option<String>,
    /// What was not found, or is of no use.
    pub missing: Vec<Missing>,
}

/// A tool that an image is made without.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The program.
    pub tool: &'static str,
    /// Why.
    pub reason: String,
    /// The Debian package that has it.
    pub package: &'static str,
}

impl Collected {
    /// Whether nothing was found.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }
}

/// Looks for the tools below `roots`, the first one first.
#[must_use]
pub fn collect(roots: &[PathBuf]) -> Collected {
    let mut found = Collected::default();
    for (tool, package, names) in [
        ("bash", "bash-static", ["bash-static", "bash"]),
        ("busybox", "busybox-static", ["busybox", "busybox"]),
    ] {
        match static_program(roots, &names) {
            Ok(path) => drop(found.files.insert(format!("bin/{tool}"), path)),
            Err(reason) => found.missing.push(Missing { tool, reason, package }),
        }
    }
    match bubblewrap(roots) {
        Ok((files, loader)) => {
            found.files.extend(files);
            found.loader = loader;
        }
        Err(reason) => found.missing.push(Missing { tool: "bwrap", reason, package: "bubblewrap" }),
    }
    found
}

/// Lays the tools out below `directory`, as they are to lie in the archive.
///
/// # Errors
///
/// What the host says.
pub fn stage(found: &Collected, directory: &Path) -> io::Result<Manifest> {
    let mut manifest = Manifest { loader: found.loader.clone(), ..Manifest::default() };
    let mut packages: BTreeMap<String, Package> = BTreeMap::new();
    for (path, source) in &found.files {
        let target = directory.join(path);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        let bytes = fs::read(source)?;
        fs::write(&target, &bytes)?;
        fs::set_permissions(&target, std::os::unix::fs::PermissionsExt::from_mode(0o555))?;
        manifest.files.push(ToolFile { path: path.clone(), length: bytes.len() as u64, xxh3: xxh3(&bytes) });
        let package = package_of(source);
        packages.entry(package.package.clone()).or_insert(package).files.push(path.clone());
    }
    for package in packages.values_mut() {
        package.licence = licence(package, directory)?;
    }
    manifest.packages = packages.into_values().collect();
    if let Some(busybox) = found.files.get("bin/busybox") {
        manifest.applets = applets(busybox)?;
    }
    fs::write(directory.join(MANIFEST), serde_json::to_vec_pretty(&manifest)?)?;
    Ok(manifest)
}

/// Finds a program that runs without libraries.
fn static_program(roots: &[PathBuf], names: &[&str]) -> Result<PathBuf, String> {
    let mut reason = "it is not installed".to_owned();
    for path in candidates(roots, &PROGRAM_DIRS, names) {
        match File::open(&path).map_err(|error| error.to_string()).and_then(|file| needs_of(&file)) {
            Ok(needs) if needs.is_static() => return Ok(path),
            Ok(_) => reason = format!("{} is not static", path.display()),
            Err(error) => reason = format!("cannot use {}: {error}", path.display()),
        }
    }
    Err(reason)
}

/// Path in the archive to file on this machine, and the loader's path in the archive.
type Linked = (BTreeMap<String, PathBuf>, Option<String>);

/// Finds bubblewrap, its loader, and the libraries of both it and its libraries.
fn bubblewrap(roots: &[PathBuf]) -> Result<Linked, String> {
    let program = candidates(roots, &PROGRAM_DIRS, &["bwrap"]).next().ok_or("it is not installed")?;
    let own = open_needs(&program)?;
    let mut files = BTreeMap::from([("bin/bwrap".to_owned(), program.clone())]);
    let Some(loader) = own.loader.clone() else { return Ok((files, None)) };
    let loader_name = file_name(&loader).ok_or("its loader has no name")?;
    let loader_path =
        roots.iter().map(|root| root.join(loader.trim_start_matches('/'))).find(|path| path.is_file());
    let loader_path = loader_path.ok_or_else(|| format!("its loader {loader} is not there"))?;
    files.insert(format!("lib/{loader_name}"), loader_path);

    let machine = own.machine;
    let mut seen: BTreeSet<String> = BTreeSet::from([loader_name.clone()]);
    let mut open: Vec<(usize, Needs, PathBuf)> = vec![(0, own, program)];
    while let Some((depth, needs, user)) = open.pop() {
        if depth > DEPTH_LIMIT {
            return Err("its libraries need each other without end".to_owned());
        }
        for library in &needs.libraries {
            if !seen.insert(library.clone()) {
                continue;
            }
            let name =
                file_name(library).filter(|name| name == library).ok_or("a library has no plain name")?;
            let path = find_library(roots, &name, &needs, &user, machine)
                .ok_or_else(|| format!("its library {library} is not there"))?;
            open.push((depth + 1, open_needs(&path)?, path.clone()));
            files.insert(format!("lib/{name}"), path);
        }
    }
    Ok((files, Some(format!("lib/{loader_name}"))))
}

/// Looks where the user of a library says, then in the standard places.
fn find_library(roots: &[PathBuf], name: &str, needs: &Needs, user: &Path, machine: u16) -> Option<PathBuf> {
    let origin = user.parent().map(|parent| parent.display().to_string()).unwrap_or_default();
    let searched = needs.search.iter().map(|place| {
        PathBuf::from(place.replace("${ORIGIN}", &origin).replace("$ORIGIN", &origin)).join(name)
    });
    let triplet = format!("{}-linux-gnu", std::env::consts::ARCH);
    let standard = ["lib", "usr/lib", "lib64", "usr/lib64", "usr/local/lib"];
    let places: Vec<String> = ["lib", "usr/lib"]
        .iter()
        .map(|place| format!("{place}/{triplet}"))
        .chain(standard.iter().map(|place| (*place).to_owned()))
        .collect();
    let places: Vec<&str> = places.iter().map(String::as_str).collect();
    searched
        .chain(candidates(roots, &places, &[name]))
        .find(|path| open_needs(path).is_ok_and(|needs| needs.machine == machine))
}

/// The files of these names in these places, in the order of the roots.
fn candidates<'a>(
    roots: &'a [PathBuf],
    places: &'a [&'a str],
    names: &'a [&'a str],
) -> impl Iterator<Item = PathBuf> + 'a {
    roots
        .iter()
        .flat_map(move |root| {
            places.iter().flat_map(move |place| names.iter().map(move |name| root.join(place).join(name)))
        })
        .filter(|path| path.is_file())
}

fn open_needs(path: &Path) -> Result<Needs, String> {
    let failed = |error: String| format!("cannot use {}: {error}", path.display());
    File::open(path)
        .map_err(|error| failed(error.to_string()))
        .and_then(|file| needs_of(&file).map_err(failed))
}

fn needs_of(file: &File) -> Result<Needs, String> {
    needs(file).map_err(|error| error.to_string())
}

fn file_name(path: &str) -> Option<String> {
    Some(Path::new(path).file_name()?.to_str()?.to_owned())
}

/// Which package a file belongs to, as dpkg knows it.
fn package_of(file: &Path) -> Package {
    let unknown = || Package {
        package: file.display().to_string(),
        version: None,
        source: None,
        source_version: None,
        copyright: None,
        licence: None,
        files: Vec::new(),
    };
    let Some(name) = spellings(file).iter().find_map(|path| owner(path)) else { return unknown() };
    let format = "-f=${Version}\n${source:Package}\n${source:Version}\n";
    let Some(facts) = output_of(Command::new("dpkg-query").arg("-W").arg(format).arg(&name)) else {
        return unknown();
    };
    let mut facts = facts.lines().map(str::to_owned);
    let plain = name.split(':').next().unwrap_or(&name).to_owned();
    let copyright = format!("/usr/share/doc/{plain}/copyright");
    Package {
        version: facts.next(),
        source: facts.next(),
        source_version: facts.next(),
        copyright: Path::new(&copyright).is_file().then_some(copyright),
        package: plain,
        licence: None,
        files: Vec::new(),
    }
}

/// The paths by which dpkg may know a file: merged directories have two.
fn spellings(file: &Path) -> Vec<PathBuf> {
    let mut paths = vec![file.to_owned()];
    paths.extend(file.canonicalize().ok());
    for path in paths.clone() {
        match path.strip_prefix("/usr") {
            Ok(rest) => paths.push(Path::new("/").join(rest)),
            Err(_) => paths.extend(path.strip_prefix("/").ok().map(|rest| Path::new("/usr").join(rest))),
        }
    }
    paths
}

/// The package that owns a path.
fn owner(path: &Path) -> Option<String> {
    let line = output_of(Command::new("dpkg-query").arg("-S").arg(path))?;
    let (owners, _) = line.lines().next()?.rsplit_once(": ")?;
    Some(owners.split(", ").next()?.to_owned())
}

/// Copies the licence of a package into the archive.
fn licence(package: &Package, directory: &Path) -> io::Result<Option<String>> {
    let Some(copyright) = &package.copyright else { return Ok(None) };
    let path = format!("licences/{}", package.package);
    fs::create_dir_all(directory.join("licences"))?;
    fs::copy(copyright, directory.join(&path))?;
    Ok(Some(path))
}

/// The applets of a busybox.
fn applets(busybox: &Path) -> io::Result<Vec<String>> {
    let listed = output_of(Command::new(busybox).arg("--list"));
    let listed = listed.ok_or_else(|| io::Error::other(format!("{} --list fails", busybox.display())))?;
    Ok(listed.lines().filter(|name| *name != "busybox").map(str::to_owned).collect())
}

/// What a command prints; none if it cannot be run or fails.
fn output_of(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).env("LC_ALL", "C").output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A root in which the machine's own `sh` plays bubblewrap.
    fn root() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("usr/bin")).unwrap();
        fs::copy("/bin/sh", root.path().join("usr/bin/bwrap")).unwrap();
        root
    }

    #[test]
    fn a_program_comes_with_its_loader_and_libraries() {
        let root = root();
        let found = collect(&[root.path().to_owned(), "/".into()]);
        assert_eq!(found.files["bin/bwrap"], root.path().join("usr/bin/bwrap"));
        assert!(found.files.keys().any(|path| path.starts_with("lib/libc.so")), "{found:?}");
        assert!(found.files.contains_key(found.loader.as_ref().unwrap()));
    }

    #[test]
    fn what_is_missing_or_useless_is_named() {
        let root = root();
        symlink("/bin/sh", root.path().join("usr/bin/bash-static")).unwrap();
        let found = collect(&[root.path().to_owned()]);
        assert!(found.is_empty(), "{found:?}");
        let reasons: Vec<String> =
            found.missing.iter().map(|missing| format!("{}: {}", missing.tool, missing.reason)).collect();
        assert!(
            reasons[0].starts_with("bash: ") && reasons[0].ends_with("bash-static is not static"),
            "{reasons:?}"
        );
        assert_eq!(reasons[1], "busybox: it is not installed");
        assert!(reasons[2].starts_with("bwrap: its loader /"), "{reasons:?}");
        assert_eq!(found.missing[2].package, "bubblewrap");
    }

    #[test]
    fn packages_are_named_where_dpkg_knows_them() {
        if output_of(Command::new("dpkg-query").args(["-S", "/bin/sh"])).is_none() {
            println!("skipped: no dpkg");
            return;
        }
        let package = package_of(Path::new("/bin/bash"));
        assert_eq!((package.package.as_str(), package.source.as_deref()), ("bash", Some("bash")));
        assert!(package.version.is_some() && package.copyright.is_some());
        assert_eq!(package_of(Path::new("/nowhere/x")).package, "/nowhere/x");
    }
}
