//! The DwarFS format: reading and writing archives.
