//! Executing what lies in a mount.

use std::{
    fs::{self, File, OpenOptions},
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    process::Command,
};

use crate::support::on_mount;

on_mount! {
    fn lower_and_new_programs_run(at) {
        assert!(Command::new(at.join("true")).status().unwrap().success());
        fs::copy("/bin/echo", at.join("echo")).unwrap();
        let output = Command::new(at.join("echo")).arg("hello").output().unwrap();
        assert_eq!(output.stdout, b"hello\n");
        fs::write(at.join("script"), "#!/bin/sh\nexit 9\n").unwrap();
        fs::set_permissions(at.join("script"), fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(Command::new(at.join("script")).status().unwrap().code(), Some(9));
    }

    fn a_program_that_is_being_written_does_not_run(at) {
        let path = at.join("program");
        fs::copy("/bin/true", &path).unwrap();
        let open = OpenOptions::new().append(true).open(&path).unwrap();
        let refused = Command::new(&path).status().unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::ETXTBSY));
        drop(open);
        assert!(Command::new(&path).status().unwrap().success());
    }

    fn a_program_that_runs_is_not_written(at) {
        fs::copy("/bin/sleep", at.join("sleep")).unwrap();
        let mut child = Command::new(at.join("sleep")).arg("1000").spawn().unwrap();
        let refused = OpenOptions::new().write(true).open(at.join("sleep")).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::ETXTBSY));
        fs::remove_file(at.join("sleep")).unwrap();
        File::create(at.join("sleep")).unwrap().write_all(b"replaced").unwrap();
        assert_eq!(child.try_wait().unwrap(), None);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
