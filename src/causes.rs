//! An error as people read it: one line, with its causes.

use std::error::Error;

/// Joins an error and its causes with colons; a cause that the text already ends with is not repeated.
#[must_use]
pub fn one_line(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let cause = source.to_string();
        if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
        next = source.source();
    }
    text.replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot open layer 2")]
    struct Outer(#[source] io::Error);

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read: {0}")]
    struct Said(#[source] io::Error);

    #[test]
    fn causes_are_told_once_and_in_one_line() {
        let error = Outer(io::Error::other("checksum\nmismatch"));
        assert_eq!(one_line(&error), "cannot open layer 2: checksum mismatch");
        assert_eq!(one_line(&Said(io::Error::other("broken"))), "cannot read: broken");
    }
}
