//! The FUSE front.
