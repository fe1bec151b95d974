//! The program, taken out of the image, so that nobody executes from the image itself.
//!
//! Linux refuses to open a file for writing while a process executes from it. A process that was started from an image
//! therefore executes at once the program part of that image from a file of its own:
//!
//! ```text
//! app.flatimage a b        argv: app.flatimage, a, b
//!   └─ exec FIM_DIR_APP_BIN/fim   argv: app.flatimage, --fim-image=/path/of/app.flatimage, a, b
//! ```
//!
//! The first argument tells the copy which image it belongs to; everything else, argv\[0\] included, is as it was. No
//! environment variable is involved, so that nothing leaks to programs inside. The directory is used only if it is
//! ours ([`OwnDir`]), the file only if its bytes are those of the image's program, compared at each start. Where
//! nothing may be executed from that place, the copy is a file in memory.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    io,
    os::{
        fd::AsRawFd as _,
        unix::{
            ffi::{OsStrExt as _, OsStringExt as _},
            fs::{FileExt as _, PermissionsExt as _},
            process::CommandExt as _,
        },
    },
    path::{Path, PathBuf},
    process::Command,
};

use super::ImageFile;
use crate::{
    instance::dirs::{self, AppDirs},
    sys::{
        memory_file,
        own_dir::{OwnDir, OwnDirError},
        transfer,
    },
};

/// Begins the first argument of a copy; the path of its image follows.
pub const IMAGE_FLAG: &str = "--fim-image=";
/// Name of the copy in `FIM_DIR_APP_BIN`.
const COPY_NAME: &str = "fim";
/// Permission bits of the copy: programs inside run as several users.
const COPY_MODE: u32 = 0o555;
/// Length of the pieces that are compared, in bytes.
const PIECE: usize = 256 << 10;

/// What was started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Started {
    /// The image that was started, by its absolute path; none where the tool was.
    pub image: Option<PathBuf>,
    /// The arguments as the user gave them, argv\[0\] first.
    pub arguments: Vec<OsString>,
}

/// Why an image could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The image's path is gone.
    #[error("cannot start {}: the file was removed or replaced meanwhile", path.display())]
    Gone {
        /// Where it was.
        path: PathBuf,
    },
    /// No place for the copy.
    #[error("cannot start {} (set FIM_DIR_GLOBAL to a directory of yours)", path.display())]
    Place {
        /// The image.
        path: PathBuf,
        /// What is wrong with the place.
        source: OwnDirError,
    },
    /// The copy could not be made or executed.
    #[error("cannot start {}: cannot execute a copy of its program", path.display())]
    Execute {
        /// The image.
        path: PathBuf,
        /// What the host says.
        source: io::Error,
    },
}

/// Finds out what was started. A process that executes from an image executes the copy and does not return.
///
/// `global` is `FIM_DIR_GLOBAL` as the user set it.
///
/// # Errors
///
/// The copy cannot be executed.
pub fn start(mut arguments: Vec<OsString>, global: Option<&Path>) -> Result<Started, StartError> {
    let flag = arguments.get(1).and_then(|first| first.as_bytes().strip_prefix(IMAGE_FLAG.as_bytes()));
    if let Some(path) = flag {
        let path = PathBuf::from(OsString::from_vec(path.to_vec()));
        arguments.remove(1);
        return Ok(Started { image: Some(path), arguments });
    }
    let Some((file, elf_end)) = own_image() else { return Ok(Started { image: None, arguments }) };
    let path = fs::read_link("/proc/self/exe").unwrap_or_default();
    if !path.exists() {
        return Err(StartError::Gone { path });
    }
    Err(execute(&file, elf_end, &path, &arguments, global))
}

/// The image that the process executes from.
fn own_image() -> Option<(File, u64)> {
    let file = File::open("/proc/self/exe").ok()?;
    let elf_end = ImageFile::probe(&file).ok().flatten()?;
    Some((file, elf_end))
}

/// Executes the copy; returns only what went wrong.
fn execute(
    image: &File,
    elf_end: u64,
    path: &Path,
    arguments: &[OsString],
    global: Option<&Path>,
) -> StartError {
    let on_disk = bin_directory(global).and_then(|bin| {
        provide(image, elf_end, &bin)
            .map_err(|source| OwnDirError::Host { path: bin.path().to_owned(), source })
    });
    let place_error = match on_disk {
        Ok(Some(copy)) => {
            let source = become_program(copy.as_os_str(), path, arguments);
            if source.kind() != io::ErrorKind::PermissionDenied {
                return StartError::Execute { path: path.to_owned(), source };
            }
            None
        }
        Ok(None) => None,
        Err(error) => Some(error),
    };
    let source = match in_memory(image, elf_end) {
        Ok(copy) => {
            let name = format!("/proc/self/fd/{}", copy.as_raw_fd());
            become_program(OsStr::new(&name), path, arguments)
        }
        Err(error) => error,
    };
    match place_error {
        Some(source) => StartError::Place { path: path.to_owned(), source },
        None => StartError::Execute { path: path.to_owned(), source },
    }
}

fn become_program(program: &OsStr, image: &Path, arguments: &[OsString]) -> io::Error {
    let (name, rest) =
        arguments.split_first().map_or((OsStr::new("fim"), &[][..]), |(name, rest)| (name, rest));
    let mut flag = OsString::from(IMAGE_FLAG);
    flag.push(image);
    Command::new(program).arg0(name).arg(flag).args(rest).exec()
}

/// Makes and opens `FIM_DIR_APP_BIN`.
fn bin_directory(global: Option<&Path>) -> Result<OwnDir, OwnDirError> {
    let global = dirs::choose_global(global)?;
    AppDirs::new(global.path().to_owned()).open_bin()
}

/// Puts the copy in place if it is not there; `None` where nothing may be executed from there.
fn provide(image: &File, elf_end: u64, bin: &OwnDir) -> io::Result<Option<PathBuf>> {
    if !bin.may_execute()? {
        return Ok(None);
    }
    let name = OsStr::new(COPY_NAME);
    let copy = bin.path().join(name);
    if let Some(found) = bin.file(name)?
        && found.metadata()?.permissions().mode() & 0o111 != 0
        && is_same(image, elf_end, &found)?
    {
        return Ok(Some(copy));
    }
    bin.put(name, COPY_MODE, |file| transfer::copy_range(image, 0, file, 0, elf_end, |_| {}))?;
    Ok(Some(copy))
}

/// Whether a file holds exactly the first `length` bytes of the image.
fn is_same(image: &File, length: u64, found: &File) -> io::Result<bool> {
    if found.metadata()?.len() != length {
        return Ok(false);
    }
    let (mut ours, mut theirs) = (vec![0; PIECE], vec![0; PIECE]);
    let mut at = 0;
    while at < length {
        let want = usize::try_from(length - at).unwrap_or(PIECE).min(PIECE);
        let (Some(ours), Some(theirs)) = (ours.get_mut(..want), theirs.get_mut(..want)) else {
            return Ok(false);
        };
        image.read_exact_at(ours, at)?;
        if found.read_exact_at(theirs, at).is_err() || ours != theirs {
            return Ok(false);
        }
        at += want as u64;
    }
    Ok(true)
}

fn in_memory(image: &File, elf_end: u64) -> io::Result<File> {
    let copy = memory_file::executable(COPY_NAME)?;
    transfer::copy_range(image, 0, &copy, 0, elf_end, |_| {})?;
    Ok(copy)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn the_first_argument_names_the_image() {
        let arguments = ["./app", "--fim-image=/x/app", "--fim-image=/y", "b"].map(OsString::from).to_vec();
        let started = start(arguments, None).unwrap();
        assert_eq!(started.image.as_deref(), Some(Path::new("/x/app")));
        assert_eq!(started.arguments, ["./app", "--fim-image=/y", "b"].map(OsString::from));
        let tool = start(vec!["fim".into(), "mount".into()], None).unwrap();
        assert_eq!(tool, Started { image: None, arguments: vec!["fim".into(), "mount".into()] });
    }

    #[test]
    fn a_copy_is_trusted_only_if_it_is_the_same() {
        let place = tempfile::tempdir().unwrap();
        let bin = bin_directory(Some(&place.path().join("fim"))).unwrap();
        let mut image = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> = (0..PIECE + 77).map(|at| u8::try_from(at % 253).unwrap()).collect();
        image.write_all(&bytes).unwrap();
        image.write_all(b"archives").unwrap();
        let end = bytes.len() as u64;
        let copy = provide(&image, end, &bin).unwrap().unwrap();
        assert_eq!(fs::read(&copy).unwrap(), bytes);
        let first = fs::metadata(&copy).unwrap();
        provide(&image, end, &bin).unwrap();
        assert_eq!(inode(&copy), ino(&first), "left alone");
        for spoil in [&bytes[..100], &[&bytes[1..], b"x"].concat(), &[&bytes[..], b"x"].concat()] {
            fs::remove_file(&copy).unwrap();
            fs::write(&copy, spoil).unwrap();
            fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
            provide(&image, end, &bin).unwrap();
            assert_eq!(fs::read(&copy).unwrap(), bytes, "replaced");
        }
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o777)).unwrap();
        provide(&image, end, &bin).unwrap();
        assert_eq!(
            fs::metadata(&copy).unwrap().permissions().mode() & 0o777,
            COPY_MODE,
            "others could write it"
        );
    }

    fn ino(metadata: &fs::Metadata) -> u64 {
        std::os::unix::fs::MetadataExt::ino(metadata)
    }

    fn inode(path: &Path) -> u64 {
        ino(&fs::metadata(path).unwrap())
    }
}
