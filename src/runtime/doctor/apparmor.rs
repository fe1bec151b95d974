//! What AppArmor's files say.
//!
//! Two of its habits matter. Ubuntu (23.10 and later) gives whoever makes a user namespace without a profile that allows
//! it (`userns,`) one without capabilities: `kernel.apparmor_restrict_unprivileged_userns`. And newer releases confine
//! fusermount3 by `/etc/apparmor.d/fusermount3`, which names the places where a user may mount:
//!
//! ```text
//! mount fstype=@{fuse_types} options=(nosuid,nodev) options in (ro,rw,...) @{HOME}/**/ -> ...
//! mount fstype=... fuse -> @{HOME}/**/,            the place stands behind the arrow
//! ```
//!
//! Only the files are read: which profiles the kernel holds is shown to root alone.

use std::{fs, path::Path};

/// Length of a profile in bytes, as far as it is read.
const PROFILE_LIMIT: u64 = 256 << 10;

/// Places that are told of a profile.
const PLACES: usize = 64;

/// What AppArmor does here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AppArmor {
    /// Whether the kernel runs it.
    pub enabled: bool,
    /// Whether user namespaces of programs without a profile have no capabilities.
    pub restricts_namespaces: bool,
    /// The profile of fusermount3, where there is one in force.
    pub fusermount: Option<FuseProfile>,
}

/// Where fusermount3 may mount.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FuseProfile {
    /// The places as the profile writes them.
    pub places: Vec<String>,
}

impl AppArmor {
    /// Reads the files below `root`.
    #[must_use]
    pub fn read(root: &Path) -> Self {
        let switch = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default().trim().to_owned();
        let enabled = switch("sys/module/apparmor/parameters/enabled") == "Y";
        if !enabled {
            return Self::default();
        }
        let restricts_namespaces = switch("proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1";
        Self { enabled, restricts_namespaces, fusermount: FuseProfile::read(root) }
    }
}

impl FuseProfile {
    fn read(root: &Path) -> Option<Self> {
        let folder = root.join("etc/apparmor.d");
        if folder.join("disable/fusermount3").symlink_metadata().is_ok() {
            return None;
        }
        let mut profile = Self::parse(&text_of(&folder.join("fusermount3"))?);
        if let Some(local) = text_of(&folder.join("local/fusermount3")) {
            profile.places.extend(Self::parse(&local).places);
        }
        profile.places.truncate(PLACES);
        Some(profile)
    }

    /// The places behind the arrows of the rules that allow a mount.
    fn parse(text: &str) -> Self {
        let mut places: Vec<String> = Vec::new();
        for rule in rules(text) {
            let mut words = rule.split_whitespace();
            if words.next() == Some("mount")
                && let Some((_, place)) = rule.rsplit_once("->")
            {
                let place = place.trim().trim_matches('"').to_owned();
                if !place.is_empty() && !places.contains(&place) {
                    places.push(place);
                }
            }
        }
        Self { places }
    }
}

/// The rules of a profile: what stands between commas that are in no braces or brackets, without comments.
fn rules(text: &str) -> Vec<String> {
    let mut rules = vec![String::new()];
    let mut depth = 0_u32;
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default();
        for letter in line.chars().chain(['\n']) {
            match letter {
                '(' => depth += 1,
                ')' => depth = depth.saturating_sub(1),
                _ => {}
            }
            let ends = match letter {
                ',' => depth == 0 && !in_braces(rules.last().map_or("", String::as_str)),
                // A block of rules begins or ends; braces of patterns stand within words.
                '{' => rules.last().is_none_or(|rule| rule.ends_with(char::is_whitespace) || rule.is_empty()),
                '}' => !in_braces(rules.last().map_or("", String::as_str)),
                _ => false,
            };
            if ends {
                rules.push(String::new());
            } else if let Some(rule) = rules.last_mut() {
                rule.push(letter);
            }
        }
    }
    rules.iter().map(|rule| rule.trim().to_owned()).filter(|rule| !rule.is_empty()).collect()
}

fn in_braces(rule: &str) -> bool {
    rule.matches('{').count() > rule.matches('}').count()
}

fn text_of(path: &Path) -> Option<String> {
    use std::io::Read as _;
    let mut text = Vec::new();
    fs::File::open(path).ok()?.take(PROFILE_LIMIT).read_to_end(&mut text).ok()?;
    Some(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROFILE: &str = "
abi <abi/4.0>,
include <tunables/global>
profile fusermount3 /usr/bin/fusermount3 {
  include <abstractions/base>
  capability sys_admin,
  # mount fstype=fuse -> /commented/,
  mount fstype=@{fuse_types} options=(nosuid,nodev) options in (ro,rw,noatime) -> @{HOME}/**/,
  mount fstype=@{fuse_types} options=(nosuid,nodev) -> /mnt/{,**/},
  mount fstype=@{fuse_types}
        options=(nosuid,nodev) -> @{run}/user/@{uid}/**/,
  umount @{HOME}/**/,
  /dev/fuse rw,
  include if exists <local/fusermount3>
}
";

    fn machine(enabled: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in [
            ("sys/module/apparmor/parameters/enabled", enabled),
            ("proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1\n"),
            ("etc/apparmor.d/fusermount3", PROFILE),
        ] {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn places_of_a_profile_are_read() {
        let root = machine("Y\n");
        let found = AppArmor::read(root.path());
        assert!(found.restricts_namespaces);
        let places = found.fusermount.unwrap().places;
        assert_eq!(places, ["@{HOME}/**/", "/mnt/{,**/}", "@{run}/user/@{uid}/**/"]);
        let local = root.path().join("etc/apparmor.d/local");
        fs::create_dir_all(&local).unwrap();
        fs::write(local.join("fusermount3"), "mount fstype=fuse.fim -> /data/**/,\n").unwrap();
        assert!(AppArmor::read(root.path()).fusermount.unwrap().places.contains(&"/data/**/".to_owned()));
    }

    #[test]
    fn what_is_off_or_disabled_is_not_there() {
        assert_eq!(AppArmor::read(machine("N\n").path()), AppArmor::default());
        assert_eq!(AppArmor::read(Path::new("/nowhere")), AppArmor::default());
        let root = machine("Y\n");
        let disable = root.path().join("etc/apparmor.d/disable");
        fs::create_dir_all(&disable).unwrap();
        std::os::unix::fs::symlink("../fusermount3", disable.join("fusermount3")).unwrap();
        assert_eq!(AppArmor::read(root.path()).fusermount, None);
    }

    #[test]
    fn odd_text_is_no_profile() {
        for text in ["", "mount", "mount ->", "mount -> ,", "}}}{{{,,,", "mount fstype=x {,", "mount ( -> a"]
        {
            let _ = FuseProfile::parse(text);
        }
        assert_eq!(FuseProfile::parse("mount ->  \"/a b/\",").places, ["/a b/"]);
    }
}
