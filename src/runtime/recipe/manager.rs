//! Package managers, and what they are told. Nothing is run here.

use std::ffi::OsString;

use super::RecipeError;

/// The package manager of a distribution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manager {
    /// Debian and its kin.
    Apt,
    /// Alpine.
    Apk,
    /// Arch and its kin.
    Pacman,
}

/// Distributions by the `ID` of their os-release file.
const DISTRIBUTIONS: [(&str, Manager); 15] = [
    ("debian", Manager::Apt),
    ("ubuntu", Manager::Apt),
    ("devuan", Manager::Apt),
    ("kali", Manager::Apt),
    ("linuxmint", Manager::Apt),
    ("pop", Manager::Apt),
    ("raspbian", Manager::Apt),
    ("alpine", Manager::Apk),
    ("postmarketos", Manager::Apk),
    ("arch", Manager::Pacman),
    ("artix", Manager::Pacman),
    ("cachyos", Manager::Pacman),
    ("endeavouros", Manager::Pacman),
    ("garuda", Manager::Pacman),
    ("manjaro", Manager::Pacman),
];

impl Manager {
    /// The one of a distribution.
    ///
    /// # Errors
    ///
    /// [`RecipeError::Distribution`].
    pub fn of(distribution: &str) -> Result<Self, RecipeError> {
        let found = DISTRIBUTIONS.iter().find(|(id, _)| *id == distribution);
        found.map(|(_, manager)| *manager).ok_or_else(|| RecipeError::Distribution {
            found: distribution.to_owned(),
            known: DISTRIBUTIONS.map(|(id, _)| id).join(" "),
        })
    }

    /// What is run inside, as root, to install these packages. Their names are words of their own, never text of a
    /// shell.
    #[must_use]
    pub fn command(self, packages: &[String]) -> Vec<OsString> {
        let before: &[&str] = match self {
            Self::Apt => &[
                "env",
                "DEBIAN_FRONTEND=noninteractive",
                "sh",
                "-c",
                "apt-get update && exec apt-get install -y -- \"$@\"",
                "sh",
            ],
            Self::Apk => &["apk", "add", "--no-cache", "--update-cache", "--no-progress"],
            Self::Pacman => &["pacman", "-Syu", "--noconfirm", "--needed", "--"],
        };
        before.iter().map(OsString::from).chain(packages.iter().map(OsString::from)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_family_has_its_command() {
        let line = |distribution: &str| {
            let words = Manager::of(distribution).unwrap().command(&["a".to_owned(), "b".to_owned()]);
            words.join(" ".as_ref()).into_string().unwrap()
        };
        assert!(line("ubuntu").ends_with("apt-get install -y -- \"$@\" sh a b"));
        assert_eq!(line("alpine"), "apk add --no-cache --update-cache --no-progress a b");
        assert_eq!(line("arch"), "pacman -Syu --noconfirm --needed -- a b");
        let error = Manager::of("beos").unwrap_err().to_string();
        assert!(error.contains("\"beos\"") && error.contains("debian"), "{error}");
    }
}
