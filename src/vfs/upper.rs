//! The role of the writable tree.

use super::Layer;

/// The one writable tree on top of a stack. What it shows is a [`Layer`]; what it adds is change.
pub trait Upper: Layer {}
