//! Background instances: nobody waits for them, and they outlive the login.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, BufRead as _, BufReader, PipeReader, PipeWriter, Read as _, Write as _},
    os::fd::AsFd as _,
    path::{Path, PathBuf},
};

use super::{InstanceError, enter::enter, of_site};
use crate::{
    causes::one_line,
    instance::{output, state::Registry},
    runtime::{
        host::Host,
        plan::Command,
        run::{self, Finished, Options, Request, Witness},
        site::Site,
    },
    sandbox::{self, Role},
    sys::{
        inherit,
        process::{self, Side},
    },
};

/// Most bytes of a failure that are told.
const SAID_LIMIT: u64 = 64 << 10;
/// Said by process 1 when the program runs.
const STARTED: u8 = b'+';
/// Before a line with what the program does not get.
const WARNING: char = '!';

/// A background instance to be.
#[derive(Clone, Debug)]
pub struct StartRequest {
    /// The image.
    pub image: PathBuf,
    /// Its program; without one it lives until it is stopped.
    pub command: Vec<OsString>,
    /// As whom.
    pub role: Role,
    /// Its name, which it has, and the rest.
    pub options: Options,
    /// Where its process id is written.
    pub pid_file: Option<PathBuf>,
}

/// Starts a background instance, and the image's start script in it; returns when its program runs. `warn` hears what the
/// program does not get. The calling process has one thread.
///
/// # Errors
///
/// [`InstanceError`]; nothing is left then.
pub fn start(host: &Host, wanted: StartRequest, warn: &dyn Fn(&str)) -> Result<(), InstanceError> {
    let site = Site::find(host, &wanted.image)?;
    let registry = of_site(host, &site)?;
    let name = wanted.options.name.as_ref().map(ToString::to_string).unwrap_or_default();
    let (command, script) = if wanted.command.is_empty() {
        let pause = vec![site.app.runtime().join("fim_init").into(), "pause".into()];
        (pause, site.image.settings().scripts.start.clone())
    } else {
        (wanted.command, None)
    };
    let request = Request {
        image: site.image.path().to_owned(),
        command: Command::Given(command),
        role: wanted.role,
        strict: false,
        record: None,
        options: Options { background: true, ..wanted.options },
    };
    drop(site);
    let (news, teller) = io::pipe().map_err(InstanceError::step("make a pipe"))?;
    match process::detach().map_err(InstanceError::step("start the instance"))? {
        Side::Copy => {
            drop(news);
            live(host, &request, teller)
        }
        Side::Original => drop(teller),
    }
    hear(news, warn)?;
    let found = registry.find(&name)?;
    if let Some(path) = wanted.pid_file {
        fs::write(path, format!("{}\n", found.state.identity.pid))
            .map_err(InstanceError::step("write the file for the process id"))?;
    }
    if let Some(script) = script {
        let request = sandbox::Request { is_detached: true, ..script_request(&script) };
        let [out, err] =
            logs_of(&found.path).map_err(InstanceError::step("open the logs of the instance"))?;
        let null = inherit::null().map_err(InstanceError::step("open /dev/null"))?;
        if let Finished::NotStarted { why, .. } =
            enter(&found, request, [null.as_fd(), out.as_fd(), err.as_fd()])?
        {
            return Err(InstanceError::NotStarted { why });
        }
    }
    Ok(())
}

/// A script as a program: its first line may name who reads it, with `-c` as shells and others do.
pub(super) fn script_request(script: &str) -> sandbox::Request {
    let named = script.lines().next().and_then(|line| line.strip_prefix("#!")).unwrap_or("/bin/sh");
    let mut arguments: Vec<OsString> = named.split_whitespace().map(OsString::from).collect();
    arguments.extend(["-c".into(), script.into()]);
    sandbox::Request { arguments, ..sandbox::Request::default() }
}

/// The files that the instance's output goes to.
pub(super) fn logs_of(record: &Path) -> io::Result<[File; 2]> {
    let open = |name: &str| fs::OpenOptions::new().append(true).create(true).open(record.join(name));
    let [out, err] = output::FILES;
    Ok([open(out)?, open(err)?])
}

/// The life of the front that nobody waits for.
fn live(host: &Host, request: &Request, mut teller: PipeWriter) -> ! {
    let outcome = go(host, request, &teller);
    // Where the program has run nobody listens any more.
    let _ = match outcome {
        Ok(Finished::Status(_)) => Ok(()),
        Ok(Finished::NotStarted { why, .. }) => teller.write_all(why.as_bytes()),
        Err(error) => {
            let cure = match &error {
                InstanceError::Image(error) => error.cure().map(|cure| format!(" ({cure})")),
                _ => None,
            };
            teller.write_all(format!("{}{}", one_line(&error), cure.unwrap_or_default()).as_bytes())
        }
    };
    process::end(0)
}

fn go(host: &Host, request: &Request, teller: &PipeWriter) -> Result<Finished, InstanceError> {
    inherit::silence().map_err(InstanceError::step("leave the terminal"))?;
    process::change_dir(Path::new("/")).map_err(InstanceError::step("leave the working directory"))?;
    let started = Some(teller.try_clone().map_err(InstanceError::step("copy a pipe"))?);
    // What nobody hears any more stands in the log.
    let warn = |sentence: &str| {
        let sentence = sentence.replace('\n', " ");
        let _ = (&mut &*teller).write_all(format!("{WARNING}{sentence}\n").as_bytes());
    };
    let null = inherit::null().map_err(InstanceError::step("open /dev/null"))?;
    let stdio = [null.as_fd(), null.as_fd(), null.as_fd()];
    Ok(run::run(host, request, stdio, Witness { warn: &warn, started })?)
}

/// Waits until the program runs, or will not.
fn hear(news: PipeReader, warn: &dyn Fn(&str)) -> Result<(), InstanceError> {
    let mut news = BufReader::new(news.take(SAID_LIMIT));
    loop {
        match news.fill_buf().map_err(InstanceError::step("hear of the start"))? {
            [STARTED, ..] => return Ok(()),
            [] => break,
            _ => {}
        }
        let mut said = Vec::new();
        news.read_until(b'\n', &mut said).map_err(InstanceError::step("hear of the start"))?;
        let said = String::from_utf8_lossy(&said);
        match said.strip_prefix(WARNING) {
            Some(sentence) => warn(sentence.trim_end()),
            None => return Err(InstanceError::NotStarted { why: said.into_owned() }),
        }
    }
    Err(InstanceError::NotStarted { why: "the start was broken off".to_owned() })
}

/// The record of an instance that has just been found, or the last that was called so.
///
/// # Errors
///
/// [`InstanceError`].
pub fn wait(registry: &Registry, word: &str) -> Result<Option<u8>, InstanceError> {
    let found = registry.find_or_ended(word)?;
    let Some(process) = &found.process else { return Ok(found.state.ended.and_then(|end| end.status)) };
    crate::sys::ready::first_readable(&[process.as_fd()], None)
        .map_err(InstanceError::step("wait for the instance"))?;
    let ended = registry.all()?.into_iter().find(|one| one.state.identity == found.state.identity);
    Ok(ended.and_then(|one| one.state.ended).and_then(|end| end.status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_read_by_whom_it_names() {
        let words = |script: &str| script_request(script).arguments;
        assert_eq!(words("echo a\necho b"), ["/bin/sh", "-c", "echo a\necho b"]);
        assert_eq!(
            words("#!/usr/bin/env python3\nx"),
            ["/usr/bin/env", "python3", "-c", "#!/usr/bin/env python3\nx"]
        );
    }
}
