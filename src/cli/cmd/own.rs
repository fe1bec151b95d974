//! What an instance gets at its start beyond what its image says.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use clap::Args;

use crate::{
    cli::Failure,
    config::{Bind, BindKind},
    instance::group::Quota,
    runtime::{host::parse_size, run::Options, site::Upper},
};

/// Largest file of variables that is read, in bytes.
const ENV_FILE_LIMIT: u64 = 4 << 20;

/// What an instance gets at its start.
#[derive(Args, Clone, Debug, Default)]
pub struct OwnArgs {
    /// A variable, K=V; programs started in it later have it too.
    #[arg(short, long, value_name = "K=V")]
    pub env: Vec<String>,
    /// A file with variables, K=V a line; `#` begins a comment.
    #[arg(long, value_name = "FILE")]
    pub env_file: Option<PathBuf>,
    /// Shows SRC of the host at DST inside, SRC:DST or SRC:DST:ro; also `rw` (the default) and `dev`.
    #[arg(short, long, value_name = "SRC:DST[:ro]")]
    pub bind: Vec<String>,
    /// A further layer, above all others: an archive, or a directory of `*.layer` files.
    #[arg(long, value_name = "FILE")]
    pub layer: Vec<PathBuf>,
    /// Changes go into an upper of its own, which is gone when it has ended.
    #[arg(long)]
    pub ephemeral: bool,
    /// Changes go into this directory, not into the image's.
    #[arg(long, value_name = "DIR", conflicts_with = "ephemeral")]
    pub upper: Option<PathBuf>,
    /// Most memory, such as 512M or 2G.
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<String>,
    /// Most processor time, in processors, such as 1.5.
    #[arg(long, value_name = "N")]
    pub cpus: Option<String>,
    /// Most processes and threads; bubblewrap and process 1 are three of them.
    #[arg(long, value_name = "N")]
    pub pids: Option<u32>,
}

impl OwnArgs {
    /// As the engine takes it.
    ///
    /// # Errors
    ///
    /// A word that cannot be understood, or a place that is not there.
    pub fn options(&self) -> Result<Options, Failure> {
        let mut words = self.env_file.as_deref().map(lines_of).transpose()?.unwrap_or_default();
        words.extend(self.env.iter().cloned());
        let upper = match &self.upper {
            _ if self.ephemeral => Upper::Ephemeral,
            Some(directory) => {
                std::fs::create_dir_all(directory)
                    .map_err(|error| Failure::new(format!("cannot make {}: {error}", directory.display())))?;
                Upper::At(directory.clone())
            }
            None => Upper::Shared,
        };
        Ok(Options {
            env: pairs(&words)?,
            binds: self.bind.iter().map(|word| bind(word)).collect::<Result<_, _>>()?,
            layers: self.layer.clone(),
            upper,
            quota: self.quota()?,
            ..Options::default()
        })
    }

    fn quota(&self) -> Result<Quota, Failure> {
        let memory = self.memory.as_deref().map(|text| {
            parse_size(text.as_bytes()).filter(|bytes| *bytes > 0).ok_or_else(|| {
                Failure::new(format!("cannot understand the size {text:?}")).cure("a size is 512M or 2G")
            })
        });
        let cpus = self.cpus.as_deref().map(|text| {
            thousandths(text).ok_or_else(|| {
                Failure::new(format!("cannot understand {text:?}"))
                    .cure("processors are a number such as 0.5 or 2")
            })
        });
        Ok(Quota { memory: memory.transpose()?, cpus: cpus.transpose()?, pids: self.pids })
    }
}

/// `1.5` as 1500; at least a hundredth of a processor.
fn thousandths(text: &str) -> Option<u32> {
    const LEAST: u32 = 10;
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    if part.len() > 3 || !(whole.bytes().chain(part.bytes())).all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let part: u32 = format!("{part:0<3}").parse().ok()?;
    let whole: u32 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    whole.checked_mul(1000)?.checked_add(part).filter(|cpus| (LEAST..=1_000_000).contains(cpus))
}

/// The lines of a file of variables.
fn lines_of(file: &Path) -> Result<Vec<String>, Failure> {
    use std::io::Read as _;
    let failed = |error| Failure::new(format!("cannot read {}: {error}", file.display()));
    let mut text = String::new();
    std::fs::File::open(file)
        .and_then(|file| file.take(ENV_FILE_LIMIT).read_to_string(&mut text))
        .map_err(failed)?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(lines.map(str::to_owned).collect())
}

/// `SRC`, `SRC:DST` or `SRC:DST:KIND`. What a user names on the command line must be there.
fn bind(word: &str) -> Result<Bind, Failure> {
    let failed = |why: &str| Failure::new(format!("cannot bind {word:?}: {why}"));
    let mut parts = word.split(':');
    let source = parts.next().filter(|source| !source.is_empty());
    let source = source.ok_or_else(|| failed("no place of the host is named"))?;
    let source = std::fs::canonicalize(source).map_err(|error| failed(&error.to_string()))?;
    let source = source.to_str().ok_or_else(|| failed("its name is no text"))?.to_owned();
    let destination = parts.next().filter(|place| !place.is_empty()).unwrap_or(&source).to_owned();
    let kind = match parts.next() {
        None => BindKind::Rw,
        Some(kind) => BindKind::parse(kind)?,
    };
    if parts.next().is_some() || !destination.starts_with('/') {
        return Err(failed("it must be SRC:DST or SRC:DST:ro, DST an absolute path"));
    }
    Ok(Bind { destination, source, kind })
}

/// `K=V` words.
pub(super) fn pairs(words: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    words
        .iter()
        .map(|word| match word.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
            _ => Err(Failure::new(format!("cannot understand {word:?}")).cure("it must be K=V")),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_counted_in_thousandths() {
        for (text, expected) in [
            ("1", Some(1000)),
            ("0.5", Some(500)),
            (".25", Some(250)),
            ("1.125", Some(1125)),
            ("2.", Some(2000)),
        ] {
            assert_eq!(thousandths(text), expected, "{text}");
        }
        for text in ["", ".", "0", "0.001", "-1", "1.2345", "x", "1001", "99999999999"] {
            assert_eq!(thousandths(text), None, "{text}");
        }
    }

    #[test]
    fn binds_name_a_place_that_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let place = std::fs::canonicalize(folder.path()).unwrap().to_str().unwrap().to_owned();
        for (word, destination, kind) in [
            (place.clone(), place.as_str(), BindKind::Rw),
            (format!("{place}:/x"), "/x", BindKind::Rw),
            (format!("{place}:/x:RO"), "/x", BindKind::Ro),
            (format!("{place}:/x:dev"), "/x", BindKind::Dev),
        ] {
            let bind = bind(&word).unwrap();
            assert_eq!((bind.destination.as_str(), bind.kind), (destination, kind), "{word}");
            assert_eq!(bind.source, place);
        }
        for word in ["", ":/x", "/nowhere/at/all:/x", "/:x", "/:/x:y", "/:/x:ro:z"] {
            assert!(bind(word).is_err(), "{word}");
        }
    }

    #[test]
    fn variables_come_from_a_file_and_the_command_line_wins() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("env");
        std::fs::write(&file, "# a comment\nA=1\n\n B=x=y \n").unwrap();
        let args = OwnArgs { env_file: Some(file), env: vec!["A=2".into()], ..OwnArgs::default() };
        let env = args.options().unwrap().env;
        assert_eq!(env, [("A".to_owned(), "2".to_owned()), ("B".to_owned(), "x=y".to_owned())].into());
        assert!(OwnArgs { env: vec!["x".into()], ..OwnArgs::default() }.options().is_err());
    }
}
