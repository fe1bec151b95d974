//! Extended attributes that mean something to the overlay. Programs neither see nor set them.

/// "Nothing below this directory shows", as everybody who may write an upper can set it.
pub(super) const OPAQUE: &[u8] = b"user.overlay.opaque";

/// The same, as kernel overlayfs sets it for root.
pub(super) const OPAQUE_TRUSTED: &[u8] = b"trusted.overlay.opaque";

/// The value of [`OPAQUE`] and [`IMPURE`].
pub(super) const YES: &[u8] = b"y";

/// "An entry of this directory, which has nothing below it, may have been copied up": its [`ORIGIN`] must be read.
pub(super) const IMPURE: &[u8] = b"user.overlay.impure";

/// The inode number that a copied-up file had before, eight bytes, little endian.
pub(super) const ORIGIN: &[u8] = b"user.fim.origin";

/// File capabilities: dropped with suid and sgid.
pub(super) const CAPABILITY: &[u8] = b"security.capability";

/// Prefixes of attributes that are the overlay's own.
const PRIVATE: [&[u8]; 3] = [b"user.overlay.", b"trusted.overlay.", b"user.fim."];

/// Whether `name` is the overlay's own.
pub(super) fn is_private(name: &[u8]) -> bool {
    PRIVATE.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_names_are_told_from_those_of_programs() {
        for (name, expected) in [
            (OPAQUE, true),
            (OPAQUE_TRUSTED, true),
            (ORIGIN, true),
            (b"user.overlay", false),
            (b"user.overlays.x", false),
            (CAPABILITY, false),
            (b"user.mime_type", false),
        ] {
            assert_eq!(is_private(name), expected, "{}", name.escape_ascii());
        }
    }
}
