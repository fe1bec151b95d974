//! Files in memory.

use std::{
    fs::File,
    io::{self, Seek as _, Write as _},
    os::fd::OwnedFd,
};

use rustix::{
    fs::{MemfdFlags, memfd_create},
    io::Errno,
};

/// Makes an empty file in memory that may be executed.
///
/// # Errors
///
/// What the host says, for instance where it forbids executable memory files.
pub fn executable(name: &str) -> io::Result<File> {
    let fd = match memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::EXEC) {
        // kernels before 6.3 do not know the flag; there every such file may be executed
        Err(Errno::INVAL) => memfd_create(name, MemfdFlags::CLOEXEC),
        other => other,
    }?;
    Ok(File::from(fd))
}

/// Makes a file in memory that holds `bytes`, to be read from its start.
///
/// # Errors
///
/// What memfd_create(2) and write(2) say.
pub fn holding(name: &str, bytes: &[u8]) -> io::Result<OwnedFd> {
    let fd = memfd_create(name, MemfdFlags::CLOEXEC)?;
    let mut file = File::from(fd);
    file.write_all(bytes)?;
    file.rewind()?;
    Ok(file.into())
}
