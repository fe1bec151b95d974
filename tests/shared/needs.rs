//! What a test needs and a machine may lack; shared by the folders of tests.

use std::{env, fs::File};

use fim::sys::users::effective_ids;

/// What is missing for real mounts of FUSE file systems.
pub(crate) fn missing_for_mounts() -> Option<&'static str> {
    if effective_ids().0 != 0 {
        return Some("root");
    }
    File::options().read(true).write(true).open("/dev/fuse").is_err().then_some("/dev/fuse")
}

/// Prints that a test is skipped, or fails it where everything must run.
pub(crate) fn skip(missing: &str) {
    assert!(env::var_os("FIM_TEST_REQUIRE").is_none(), "needs {missing}");
    println!("skipped: needs {missing}");
}
