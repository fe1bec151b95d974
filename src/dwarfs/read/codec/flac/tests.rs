//! Frames written by hand: what upstream's encoder never writes.
