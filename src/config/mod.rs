//! Typed settings of an image: one noun a file, and their codec.
