//! What a tools archive holds.

use std::path::{Component, Path};

use serde::{Deserialize, Serialize};

/// Name of the manifest in a tools archive.
pub(super) const MANIFEST: &str = "manifest.json";
/// Length of a manifest in bytes: a few hundred applets, a few dozen files and packages.
pub(super) const MANIFEST_LIMIT: u64 = 1 << 20;
/// Number of files: three programs and the libraries of one of them.
const FILES_LIMIT: usize = 256;
/// Length of one file in bytes: a C library with room to grow.
const FILE_LIMIT: u64 = 64 << 20;
/// Length of an applet's name in bytes.
const APPLET_LIMIT: usize = 64;

/// The contents of a tools archive.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The files that are put in place.
    pub files: Vec<ToolFile>,
    /// The loader that starts bubblewrap, by its path in the archive; none where it is static.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loader: Option<String>,
    /// The applets of busybox.
    #[serde(default)]
    pub applets: Vec<String>,
    /// Where the files come from, and under which licences.
    #[serde(default)]
    pub packages: Vec<Package>,
}

/// A file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolFile {
    /// Its path in the archive.
    pub path: String,
    /// Its length in bytes.
    pub length: u64,
    /// XXH3-128 of its contents in hexadecimal digits.
    pub xxh3: String,
}

/// A package of the machine on which the image was made.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Package {
    /// Its name; the file's path where no package manager knows the file.
    pub package: String,
    /// Its version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The source package it was built from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The version of the source package.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_version: Option<String>,
    /// Where the machine kept the licence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copyright: Option<String>,
    /// The licence text, by its path in the archive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub licence: Option<String>,
    /// The files that are embedded, by their paths in the archive.
    pub files: Vec<String>,
}

impl Manifest {
    /// Whether the manifest names nothing that it must not.
    pub(super) fn is_sane(&self) -> bool {
        let file = |file: &ToolFile| is_plain(&file.path) && file.length <= FILE_LIMIT;
        let applet = |name: &String| name.len() <= APPLET_LIMIT && is_plain(name) && !name.contains('/');
        self.files.len() <= FILES_LIMIT
            && self.files.iter().all(file)
            && self.applets.iter().all(applet)
            && self.loader.iter().all(|path| self.has(path))
    }

    /// Whether the archive has the file.
    pub(super) fn has(&self, path: &str) -> bool {
        self.files.iter().any(|file| file.path == path)
    }
}

/// One or two ordinary names.
fn is_plain(path: &str) -> bool {
    let mut names = Path::new(path).components();
    names.all(|name| matches!(name, Component::Normal(_)))
        && (1..=2).contains(&path.split('/').count())
        && path.split('/').all(|name| !name.is_empty() && name != ".")
}

/// How contents are named in a manifest.
pub(super) fn xxh3(bytes: &[u8]) -> String {
    format!("{:032x}", xxhash_rust::xxh3::xxh3_128(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(path: &str) -> Manifest {
        let file = ToolFile { path: path.to_owned(), length: 1, xxh3: String::new() };
        Manifest { files: vec![file], ..Manifest::default() }
    }

    #[test]
    fn only_plain_paths_are_sane() {
        for (path, sane) in [
            ("bin/bwrap", true),
            ("bwrap", true),
            ("../bwrap", false),
            ("/bin/bwrap", false),
            ("bin/../bwrap", false),
            ("a/b/c", false),
            ("", false),
            (".", false),
            ("bin//x", false),
            ("bin/", false),
        ] {
            assert_eq!(with(path).is_sane(), sane, "{path:?}");
        }
        let mut manifest = with("bin/bwrap");
        manifest.loader = Some("lib/ld.so".to_owned());
        assert!(!manifest.is_sane(), "the loader must be one of the files");
        manifest.loader = None;
        manifest.applets = vec!["../x".to_owned()];
        assert!(!manifest.is_sane());
    }
}
