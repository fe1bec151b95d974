//! What can be a layer.
