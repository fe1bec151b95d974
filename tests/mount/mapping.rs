//! Memory mappings: one page cache for everybody.

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::FileExt as _,
    path::Path,
    process::Command,
};

use crate::support::on_mount;

/// Runs a Python script with the mount's path as its argument; mapping memory is unsafe here and not there.
fn python(at: &Path, script: &str) {
    let prelude = "import mmap, os, sys\nat = sys.argv[1]\n";
    let output = match Command::new("python3").arg("-c").arg(format!("{prelude}{script}")).arg(at).output() {
        Ok(output) => output,
        Err(_) => return crate::support::skip("python3"),
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

on_mount! {
    fn shared_mappings_and_writes_see_each_other(at) {
        python(at, "
for name in ['file', 'new']:
    fd = os.open(at + '/' + name, os.O_RDWR | os.O_CREAT, 0o644)
    os.pwrite(fd, b'x' * 8192, 0)
    m = mmap.mmap(fd, 8192, mmap.MAP_SHARED)
    os.pwrite(fd, b'written', 10)
    assert m[10:17] == b'written'
    m[4096:4102] = b'mapped'
    assert os.pread(fd, 6, 4096) == b'mapped'
    m.flush()
    m.close()
    os.close(fd)
    assert open(at + '/' + name, 'rb').read()[4096:4102] == b'mapped'
");
        let below = at.with_file_name("upper").join("file");
        assert_eq!(&fs::read(below).unwrap()[4096..4102], b"mapped", "msync has reached the upper directory");
    }

    fn a_mapping_of_a_lower_file_sees_its_change(at) {
        python(at, "
r = os.open(at + '/file', os.O_RDONLY)
m = mmap.mmap(r, 11, mmap.MAP_SHARED, mmap.PROT_READ)
assert m[:] == b'lower file\\n'
w = os.open(at + '/file', os.O_WRONLY)
os.pwrite(w, b'UPPER', 0)
assert m[:] == b'UPPER file\\n', m[:]
");
    }

    fn what_a_mapping_writes_shows_in_the_times(at) {
        python(at, "
for name in ['file', 'new']:
    fd = os.open(at + '/' + name, os.O_RDWR | os.O_CREAT, 0o644)
    os.pwrite(fd, b'x' * 4096, 0)
    os.utime(fd, ns=(10**18, 10**18))
    m = mmap.mmap(fd, 4096, mmap.MAP_SHARED)
    m[:1] = b'!'
    m.flush()
    assert os.fstat(fd).st_mtime_ns > 10**18 + 1
    m.close()
    os.close(fd)
    assert os.stat(at + '/' + name).st_mtime_ns > 10**18 + 1
");
    }

    fn private_mappings_keep_their_changes_to_themselves(at) {
        python(at, "
fd = os.open(at + '/file', os.O_RDONLY)
m = mmap.mmap(fd, 11, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)
m[:5] = b'mine!'
assert os.pread(fd, 11, 0) == b'lower file\\n'
");
        assert!(!at.with_file_name("upper").join("file").exists(), "nothing was copied up");
    }

    fn a_mapping_of_an_unlinked_file_lives(at) {
        python(at, "
fd = os.open(at + '/file', os.O_RDWR)
os.unlink(at + '/file')
m = mmap.mmap(fd, 11, mmap.MAP_SHARED)
os.close(fd)
m[:5] = b'still'
assert m[:] == b'still file\\n'
m.flush()
");
    }

    fn a_written_mapping_changes_the_modification_time(at) {
        let file = OpenOptions::new().write(true).open(at.join("file")).unwrap();
        file.write_at(b"x", 0).unwrap();
        let before = fs::metadata(at.join("file")).unwrap().modified().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20));
        python(at, "
fd = os.open(at + '/file', os.O_RDWR)
m = mmap.mmap(fd, 11, mmap.MAP_SHARED)
m[0] = 65
m.flush()
m.close()
os.close(fd)
");
        assert!(fs::metadata(at.join("file")).unwrap().modified().unwrap() > before);
    }
}
