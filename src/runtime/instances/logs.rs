//! What background instances have written, and write.

use std::{
    fs::{self, File},
    io::{self, Read as _, Seek as _, SeekFrom, Write},
    os::{
        fd::{AsFd as _, AsRawFd as _},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
};

use super::InstanceError;
use crate::{
    instance::{output, state::Found},
    sys::{
        ready::{self, Interest},
        tree::DirFd,
        watch::Watch,
    },
};

/// Which part of the logs is wanted.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogsRequest {
    /// Only the last lines of each.
    pub tail: Option<usize>,
    /// Only what was written at this moment, in milliseconds since 1970, or later.
    pub since: Option<u64>,
    /// Goes on until the instance has ended.
    pub follow: bool,
}

/// Writes the logs of an instance: what it has written to stdout and to stderr.
///
/// # Errors
///
/// [`InstanceError`]; that nobody reads any more is none.
pub fn logs(found: &Found, request: &LogsRequest, sinks: [&mut dyn Write; 2]) -> Result<(), InstanceError> {
    let failed = || InstanceError::step("read the logs of the instance");
    // By this name it is the same directory still when it is called otherwise.
    let directory = DirFd::open(&found.path).map_err(failed())?;
    let record = PathBuf::from(format!("/proc/self/fd/{}", directory.as_fd().as_raw_fd()));
    // Before the first look: what is written meanwhile is told.
    let watch = request.follow.then(|| Watch::on(&found.path)).transpose().map_err(failed())?;
    let mut sides = Vec::new();
    for (name, sink) in output::FILES.into_iter().zip(sinks) {
        let (text, log) = Log::read(&record, name, request.since).map_err(failed())?;
        let shown = write(&mut *sink, last_lines(&text, request.tail));
        if !shown.map_err(InstanceError::step("print the logs of the instance"))? {
            return Ok(());
        }
        sides.push((log, sink));
    }
    let (Some(watch), Some(process)) = (watch, &found.process) else { return Ok(()) };
    loop {
        let waited = [(watch.as_fd(), Interest::Read), (process.as_fd(), Interest::Read)];
        let ready = ready::wait(&waited, None).map_err(InstanceError::step("wait for the instance"))?;
        watch.clear().map_err(failed())?;
        for (log, sink) in &mut sides {
            let news = log.news().map_err(failed())?;
            let shown = write(*sink, &news);
            if !shown.map_err(InstanceError::step("print the logs of the instance"))? {
                return Ok(());
            }
        }
        if ready.get(1).is_some_and(|process| process.read) {
            return Ok(());
        }
    }
}

/// `false` where nobody reads.
fn write(sink: &mut dyn Write, bytes: &[u8]) -> io::Result<bool> {
    match sink.write_all(bytes).and_then(|()| sink.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        other => other.map(|()| true),
    }
}

/// A file that grows, and is replaced when it is full.
struct Log {
    path: PathBuf,
    file: Option<File>,
}

impl Log {
    /// Reads what is there, with what was there before the file was turned over.
    fn read(record: &Path, name: &str, since: Option<u64>) -> io::Result<(Vec<u8>, Self)> {
        let mut text = Vec::new();
        part(&record.join(output::older(name)), since, &mut text)?;
        let path = record.join(name);
        let file = part(&path, since, &mut text)?;
        Ok((text, Self { path, file }))
    }

    /// What has come since the last look.
    fn news(&mut self) -> io::Result<Vec<u8>> {
        let mut news = Vec::new();
        if let Some(file) = &mut self.file {
            file.read_to_end(&mut news)?;
        }
        let there = match fs::metadata(&self.path) {
            Ok(status) => Some((status.dev(), status.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let ours =
            self.file.as_ref().map(File::metadata).transpose()?.map(|status| (status.dev(), status.ino()));
        if there.is_some() && there != ours {
            let mut file = File::open(&self.path)?;
            file.read_to_end(&mut news)?;
            self.file = Some(file);
        }
        Ok(news)
    }
}

/// Reads a file to its end, from where `since` is; the file stays open there.
fn part(path: &Path, since: Option<u64>, text: &mut Vec<u8>) -> io::Result<Option<File>> {
    let mut file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    if let Some(moment) = since {
        let times = fs::read_to_string(output::times(&path.to_string_lossy()));
        let begin = match times {
            Ok(times) => output::since(&times, moment).map_or(SeekFrom::End(0), SeekFrom::Start),
            // Nobody has noted when it was written: the file itself tells when the last of it was.
            Err(_) if modified(&file)? >= moment => SeekFrom::Start(0),
            Err(_) => SeekFrom::End(0),
        };
        file.seek(begin)?;
    }
    file.read_to_end(text)?;
    Ok(Some(file))
}

fn modified(file: &File) -> io::Result<u64> {
    let since = file.metadata()?.modified()?.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Ok(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

fn last_lines(text: &[u8], count: Option<usize>) -> &[u8] {
    let Some(count) = count else { return text };
    let whole = text.strip_suffix(b"\n").unwrap_or(text);
    let mut ends = whole.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n');
    match count.checked_sub(1) {
        None => &[],
        Some(before) => match ends.nth(before) {
            Some((at, _)) => text.get(at + 1..).unwrap_or_default(),
            None => text,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines() {
        let text = b"a\nb\nc\n";
        let cases: [(Option<usize>, &[u8]); 5] =
            [(None, text), (Some(0), b""), (Some(1), b"c\n"), (Some(2), b"b\nc\n"), (Some(9), text)];
        for (count, expected) in cases {
            assert_eq!(last_lines(text, count), expected, "{count:?}");
        }
        assert_eq!(last_lines(b"a\nb", Some(1)), b"b");
    }

    #[test]
    fn news_are_read_over_the_turn_of_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.log");
        let (text, mut log) = Log::read(folder.path(), "out.log", None).unwrap();
        assert!(text.is_empty() && log.news().unwrap().is_empty());
        fs::write(&path, "one").unwrap();
        assert_eq!(log.news().unwrap(), b"one");
        let mut file = File::options().append(true).open(&path).unwrap();
        file.write_all(b"two").unwrap();
        fs::rename(&path, folder.path().join("out.log.1")).unwrap();
        fs::write(&path, "three").unwrap();
        assert_eq!(log.news().unwrap(), b"twothree");
        assert_eq!(log.news().unwrap(), b"");
        let (text, _) = Log::read(folder.path(), "out.log", None).unwrap();
        assert_eq!(text, b"onetwothree");
    }
}
