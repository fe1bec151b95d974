//! Running containers: ids, directories, state.
//!
//! - [`dirs`]: which directories there are, and whose they must be.
//! - [`Instance`]: the directory of one running container; it goes with its holder.
//! - [`ServerKey`]: which runs share a server.
//! - [`accounts`]: passwd and group files, read and written without the C library's name service.
//! - [`group`]: control groups, which limit an instance and count for it.
//! - [`logs`]: bounded log files.
//! - [`output`]: what background instances write.
//! - [`state`]: what is known of instances, in files that outlive them.
//! - [`wire`]: bounded messages between our processes.

pub mod accounts;
pub mod bashrc;
pub mod dirs;
pub mod group;
mod home;
mod id;
pub mod logs;
pub mod output;
pub mod state;
pub mod wire;

pub use home::{Instance, SERVER_LOGS, remove_home, remove_when_free, sweep, those};
pub use id::{InstanceId, ServerKey};
