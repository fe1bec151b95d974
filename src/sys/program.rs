//! Programs in memory, for places from which nothing may be executed.

use std::{fs::File, io};

use rustix::{
    fs::{MemfdFlags, memfd_create},
    io::Errno,
};

/// Makes an empty file in memory that may be executed.
///
/// # Errors
///
/// What the host says, for instance where it forbids executable memory files.
pub fn memory_file(name: &str) -> io::Result<File> {
    let fd = match memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::EXEC) {
        // kernels before 6.3 do not know the flag; there every such file may be executed
        Err(Errno::INVAL) => memfd_create(name, MemfdFlags::CLOEXEC),
        other => other,
    }?;
    Ok(File::from(fd))
}
