//! A root of Debian packages, made by mmdebstrap.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use super::{CreateError, Report};

/// A root of Debian packages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Debian {
    /// The suite, such as `bookworm`.
    pub suite: String,
    /// Packages beyond the minimum.
    pub include: Vec<String>,
    /// Where packages come from; none leaves the choice to mmdebstrap.
    pub mirror: Option<String>,
}

/// A suite goes into a command line: letters, digits, dots and dashes, and no dash in front.
pub(super) fn is_suite(text: &str) -> bool {
    let ordinary = |byte: u8| byte.is_ascii_alphanumeric() || b".-_/".contains(&byte);
    text.bytes().all(ordinary) && text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric())
}

/// Runs mmdebstrap; the tar file that it prints goes into a file without a name.
///
/// As root mmdebstrap works as root; otherwise in a user namespace, which needs a range of subordinate ids. Owners and
/// devices are in the tar file either way.
pub(super) fn mmdebstrap(debian: &Debian, scratch: &Path, report: &dyn Report) -> Result<File, CreateError> {
    let failed = |action| move |source| CreateError::Scratch { action, path: scratch.to_owned(), source };
    let tar = tempfile::tempfile_in(scratch).map_err(failed("make a scratch file in"))?;
    let output = tar.try_clone().map_err(failed("use a scratch file in"))?;
    let mut command = Command::new("mmdebstrap");
    command.args(["--variant=minbase", "--mode=auto", "--format=tar"]);
    if !debian.include.is_empty() {
        command.arg(format!("--include={}", debian.include.join(",")));
    }
    command.args([debian.suite.as_str(), "-"]).args(&debian.mirror);
    command.stdin(Stdio::null()).stdout(output).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => CreateError::NoMmdebstrap,
        _ => CreateError::Scratch { action: "start", path: "mmdebstrap".into(), source },
    })?;
    let mut said = String::new();
    if let Some(stderr) = child.stderr.take() {
        for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            if let Some(step) = line.strip_prefix("I: ") {
                report.step(step);
            } else {
                said = the_clearer(said, line);
            }
        }
    }
    let status = child.wait().map_err(failed("wait for mmdebstrap in"))?;
    if !status.success() {
        let message = said.trim_start_matches("E: ").trim().to_owned();
        let message = if message.is_empty() { status.to_string() } else { message };
        return Err(CreateError::Mmdebstrap { suite: debian.suite.clone(), message });
    }
    Ok(tar)
}

/// Of two lines the one that says more of the cause: the first error, else the first line. What follows the first error
/// only says what failed because of it.
fn the_clearer(before: String, line: String) -> String {
    let is_error = |text: &str| text.starts_with("E: ");
    if before.is_empty() || (is_error(&line) && !is_error(&before)) { line } else { before }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_error_is_told() {
        for (lines, expected) in [
            (
                &["W: old", "E: no route to the mirror", "E: mmdebstrap failed to run"][..],
                "E: no route to the mirror",
            ),
            (&["", "warning", "other"], "warning"),
            (&[], ""),
        ] {
            let said = lines.iter().fold(String::new(), |said, line| the_clearer(said, (*line).to_owned()));
            assert_eq!(said, expected);
        }
    }
}
