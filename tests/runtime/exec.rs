//! What a program finds inside.

use std::fs;

use crate::support::{PLAIN_UID, Who, for_each_user, said};

#[test]
fn a_program_runs_as_the_caller() {
    for_each_user(|world| {
        let expected = if world.who == Who::Plain { PLAIN_UID.to_string() } else { "0".to_owned() };
        assert_eq!(world.says("id -u; id -g"), format!("{expected}\n{expected}"));
    });
}
