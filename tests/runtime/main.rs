//! Images as their users meet them: made, listed, changed, damaged.

mod image;
mod support;
mod tools;
