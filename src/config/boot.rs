//! The program that runs when no other is named.

use serde::{Deserialize, Serialize};

/// A program and its stored arguments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boot {
    /// Arguments that stand before those of the caller.
    #[serde(default)]
    pub args: Vec<String>,
    /// Name or path of the program.
    pub program: String,
}

impl Default for Boot {
    fn default() -> Self {
        Self { args: Vec::new(), program: "bash".to_owned() }
    }
}
