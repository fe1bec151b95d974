//! The merged, writable view over layers.
