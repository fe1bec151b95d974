//! Where else to look for what is below: the value of a redirect.
//!
//! It is the kernel's: a path from the root (`/a/b`) or a name in the same directory (`b`), both in the merged view of
//! the layers below the object that has it. So a way through redirects only ever leads downwards, and ends. What
//! follows no rule leads nowhere, as does what is not there: the directory shows what it has itself.

use super::{Overlay, node::Node};
use crate::{sync::Arc, vfs::Name};

/// Longest redirect that is followed, in bytes: a path may not be longer.
pub(super) const LONGEST: usize = 4096;

/// Longest redirect that is written, in bytes: file systems keep all attributes of an object in one block, of which this
/// leaves some for others. Where they take more the file system says so.
const LONGEST_WRITTEN: usize = 3800;

/// Where a redirect leads.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Redirect<'a> {
    /// To another name in the same directory.
    Sibling(Name<'a>),
    /// To a name in the directory that is reached by these from the root.
    Path(Vec<Name<'a>>, Name<'a>),
    /// To nothing.
    Nowhere,
}

impl<'a> Redirect<'a> {
    /// Reads a stored value.
    pub(super) fn parse(value: &'a [u8]) -> Self {
        if value.len() > LONGEST {
            return Self::Nowhere;
        }
        let Some(path) = value.strip_prefix(b"/") else {
            return Name::new(value).map_or(Self::Nowhere, Self::Sibling);
        };
        let names: Result<Vec<_>, _> = path.split(|byte| *byte == b'/').map(Name::new).collect();
        match names.ok().and_then(|mut names| names.pop().map(|last| (names, last))) {
            Some((parents, last)) => Self::Path(parents, last),
            None => Self::Nowhere,
        }
    }
}

/// Whether a stored value means the same wherever the object is moved.
pub(super) fn is_path(value: &[u8]) -> bool {
    value.first() == Some(&b'/')
}

impl Overlay {
    /// Where the layers have what is below `name` of `dir`: the path from their root. The caller holds the lock of
    /// renaming. `None` where the path is too long to be written.
    pub(super) fn path_below(&self, dir: &Arc<Node>, name: &[u8]) -> Option<Vec<u8>> {
        let mut names: Vec<Box<[u8]>> = vec![name.into()];
        let mut len = name.len() + 1;
        let mut dir = Arc::clone(dir);
        while !Arc::ptr_eq(&dir, &self.root) {
            let (redirect, link) = {
                let state = dir.state.lock();
                (state.redirect.clone(), state.links.first().cloned())
            };
            let link = link?;
            let is_end = redirect.as_deref().is_some_and(is_path);
            let step = redirect.unwrap_or(link.name);
            len += step.len() + usize::from(!is_end);
            names.push(step);
            if len > LONGEST_WRITTEN || is_end {
                break;
            }
            dir = link.parent;
        }
        let mut path = Vec::with_capacity(len);
        for name in names.iter().rev() {
            if !is_path(name) {
                path.push(b'/');
            }
            path.extend_from_slice(name);
        }
        (path.len() <= LONGEST_WRITTEN).then_some(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name<'_> {
        Name::new(text.as_bytes()).unwrap()
    }

    #[test]
    fn values_lead_to_a_sibling_or_along_a_path() {
        let cases: [(&[u8], Redirect<'_>); 4] = [
            (b"b", Redirect::Sibling(name("b"))),
            (b"/b", Redirect::Path(Vec::new(), name("b"))),
            (b"/a/\xc3\xa9/c", Redirect::Path(vec![name("a"), name("é")], name("c"))),
            (b"...", Redirect::Sibling(name("..."))),
        ];
        for (value, expected) in cases {
            assert_eq!(Redirect::parse(value), expected, "{}", value.escape_ascii());
        }
    }

    #[test]
    fn hostile_values_lead_nowhere() {
        let long = [b"/a".repeat(LONGEST / 2), b"/a".to_vec()].concat();
        let values: [&[u8]; 12] =
            [b"", b"/", b"//", b"/a/", b"/a//b", b"a/b", b"..", b".", b"/../etc", b"/a/..", b"/a\0b", &long];
        for value in values {
            assert_eq!(Redirect::parse(value), Redirect::Nowhere, "{}", value.escape_ascii());
        }
    }
}
