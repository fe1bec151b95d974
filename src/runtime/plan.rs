//! What a run will do. Pure.

use std::{
    cmp::Ordering,
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use super::stack::{LayerSource, StackPlan, UpperPlan};
use crate::{
    config::{Boot, Settings},
    image::LayerTable,
    instance::dirs::DataDirs,
};

/// What the user asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// This program with its arguments.
    Given(Vec<OsString>),
    /// The boot command of the image, with these arguments behind its own.
    Boot(Vec<OsString>),
}

impl Command {
    /// The program and its arguments; `bashrc` is what an interactive bash of the instance reads.
    #[must_use]
    pub fn arguments(&self, settings: &Settings, bashrc: &Path) -> Vec<OsString> {
        match self {
            Self::Given(arguments) => arguments.clone(),
            Self::Boot(rest) => {
                let Boot { program, args } = settings.boot.clone().unwrap_or_default();
                let is_shell = Path::new(&program).file_name() == Some(OsStr::new("bash"));
                let mut arguments = vec![OsString::from(program)];
                if is_shell && args.is_empty() && rest.is_empty() {
                    arguments.extend(["--rcfile".into(), bashrc.into()]);
                }
                arguments.extend(args.into_iter().map(OsString::from));
                arguments.extend(rest.iter().cloned());
                arguments
            }
        }
    }
}

/// The stack of an image: its archives, then `further` layers (lowest first), then the upper of `data`.
#[must_use]
pub fn stack(image: &Path, table: &LayerTable, further: Vec<PathBuf>, data: &DataDirs) -> StackPlan {
    let own = table.layers().map(|entry| LayerSource::Section {
        file: image.to_owned(),
        offset: entry.offset,
        len: entry.length,
    });
    StackPlan {
        layers: own.chain(further.into_iter().map(LayerSource::Path)).collect(),
        upper: Some(UpperPlan { root: data.root(), work: data.work() }),
        ..StackPlan::default()
    }
}

/// The name of a new layer file that stands above all of `names`.
#[must_use]
pub fn next_layer_name<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let number = |name: &str| name.strip_prefix("layer-")?.strip_suffix(".layer")?.parse::<u32>().ok();
    let highest = names.filter_map(number).max().unwrap_or(0);
    format!("layer-{:03}.layer", highest.saturating_add(1))
}

/// Sorts the names of layer files: numbers in them count as numbers, so that `layer-10` lies above `layer-9`.
pub fn sort_layers(names: &mut [PathBuf]) {
    names.sort_by(|one, two| natural(one.as_os_str().as_bytes(), two.as_os_str().as_bytes()));
}

/// Compares with runs of digits as numbers; equal ones by their bytes.
fn natural(one: &[u8], two: &[u8]) -> Ordering {
    let (mut left, mut right) = (one, two);
    loop {
        match (left.first(), right.first()) {
            (None, None) => return one.cmp(two),
            (None, Some(_)) => return Ordering::Less,
            (Some(_), None) => return Ordering::Greater,
            (Some(a), Some(b)) if a.is_ascii_digit() && b.is_ascii_digit() => {
                let ((number, rest), (other, other_rest)) = (take_number(left), take_number(right));
                match number.len().cmp(&other.len()).then_with(|| number.cmp(other)) {
                    Ordering::Equal => (left, right) = (rest, other_rest),
                    unequal => return unequal,
                }
            }
            (Some(a), Some(b)) if a == b => {
                left = left.get(1..).unwrap_or_default();
                right = right.get(1..).unwrap_or_default();
            }
            (Some(a), Some(b)) => return a.cmp(b),
        }
    }
}

/// The number at the start, without leading zeros, and what follows.
fn take_number(text: &[u8]) -> (&[u8], &[u8]) {
    let length = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (number, rest) = text.split_at(length);
    let zeros = number.iter().take_while(|byte| **byte == b'0').count();
    (number.get(zeros..).unwrap_or_default(), rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ImageId;

    #[test]
    fn layers_are_sorted_by_number() {
        let mut names: Vec<PathBuf> =
            ["l-10", "l-9", "l-009", "l-1", "a", "l-", "l-10b", "l-99999999999999999999999"]
                .map(PathBuf::from)
                .into();
        sort_layers(&mut names);
        let sorted: Vec<_> = names.iter().map(|name| name.to_str().unwrap()).collect();
        assert_eq!(sorted, ["a", "l-", "l-1", "l-009", "l-9", "l-10", "l-10b", "l-99999999999999999999999"]);
    }

    #[test]
    fn a_new_layer_stands_above_all_others() {
        for (names, expected) in [
            (&[][..], "layer-001.layer"),
            (&["layer-001.layer", "layer-012.layer", "note.txt", "layer-x.layer"], "layer-013.layer"),
            (&["layer-999.layer"], "layer-1000.layer"),
        ] {
            assert_eq!(next_layer_name(names.iter().copied()), expected);
        }
    }

    #[test]
    fn the_boot_command_has_stored_then_given_arguments() {
        let mut settings = Settings::new(ImageId::from_random([1; 16]));
        let arguments = |settings: &Settings, rest: &[&str]| -> Vec<String> {
            Command::Boot(rest.iter().map(OsString::from).collect())
                .arguments(settings, Path::new("/i/bashrc"))
                .into_iter()
                .map(|word| word.into_string().unwrap())
                .collect()
        };
        assert_eq!(arguments(&settings, &[]), ["bash", "--rcfile", "/i/bashrc"]);
        assert_eq!(arguments(&settings, &["-c", "x"]), ["bash", "-c", "x"]);
        settings.boot = Some(Boot { program: "ls".into(), args: vec!["-l".into()] });
        assert_eq!(arguments(&settings, &["/"]), ["ls", "-l", "/"]);
    }
}
