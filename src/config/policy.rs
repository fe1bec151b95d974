//! What a user lets images have on his machine: a file outside of every image, which takes away and never gives.
//!
//! ```json
//! {
//!   "default": { "deny": ["home", "host"], "binds": "ro" },
//!   "images": { "000102030405060708090a0b0c0d0e0f": { "allow": ["network", "wayland"], "strict": true } }
//! }
//! ```
//!
//! `deny` takes permissions away, `allow` takes away all others, `strict` runs images as `fim-perms set strict` does,
//! `binds` limits what `fim-bind` has stored: `all`, `ro` (nothing is writable) or `none`. What stands under `default`
//! holds for every image, what stands under an image's id in addition. A word that is not understood is an error: left
//! out, it would give what the user meant to take away.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, de::Error as _};

use super::{ConfigError, ImageId, Permission, Word as _};

/// Length of a policy file in bytes.
pub const POLICY_LIMIT: u64 = 1 << 20;

/// What `fim-bind` may still do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BindLimit {
    /// What the image says.
    #[default]
    All,
    /// Show, but not write.
    Ro,
    /// Nothing.
    None,
}

/// What is taken away from one image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Whether it runs under deny-all.
    pub strict: bool,
    /// Permissions that it does not get.
    #[serde(deserialize_with = "words")]
    pub deny: Vec<Permission>,
    /// Where there is a list: the only ones that it may get.
    #[serde(deserialize_with = "some_words")]
    pub allow: Option<Vec<Permission>>,
    /// What its binds may do.
    pub binds: BindLimit,
}

/// A whole policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    default: Limits,
    images: BTreeMap<ImageId, Limits>,
}

impl Policy {
    /// Reads a policy.
    ///
    /// # Errors
    ///
    /// The bytes are none, or a word is not understood.
    pub fn decode(bytes: &[u8]) -> Result<Self, ConfigError> {
        serde_json::from_slice(bytes).map_err(ConfigError::Policy)
    }

    /// What holds for an image, all of which holds at once.
    #[must_use]
    pub fn limits_of(&self, image: &ImageId) -> Vec<&Limits> {
        std::iter::once(&self.default).chain(self.images.get(image)).collect()
    }
}

impl Limits {
    /// Whether the permission is taken away.
    #[must_use]
    pub fn denies(&self, permission: Permission) -> bool {
        let named = |list: &[Permission]| {
            list.contains(&permission) || (permission.in_every() && list.contains(&Permission::All))
        };
        named(&self.deny) || self.allow.as_deref().is_some_and(|allowed| !named(allowed))
    }
}

fn words<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Permission>, D::Error> {
    Vec::<String>::deserialize(deserializer)?
        .iter()
        .map(|text| match Permission::parse(text) {
            // Denied or left out of a list, it would widen.
            Ok(Permission::Strict) => Err(D::Error::custom("strict is a field of its own: \"strict\": true")),
            other => other.map_err(D::Error::custom),
        })
        .collect()
}

fn some_words<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<Permission>>, D::Error> {
    words(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_and_the_image_hold_together() {
        let id = ImageId::from_random([7; 16]);
        let text = format!(
            r#"{{"default":{{"deny":["Home"]}},"images":{{"{id}":{{"allow":["network"],"binds":"ro"}}}}}}"#
        );
        let policy = Policy::decode(text.as_bytes()).unwrap();
        let denied = |image: &ImageId, permission| {
            policy.limits_of(image).iter().any(|limits| limits.denies(permission))
        };
        assert!(
            denied(&id, Permission::Home)
                && denied(&id, Permission::Gpu)
                && !denied(&id, Permission::Network)
        );
        let other = ImageId::from_random([8; 16]);
        assert!(denied(&other, Permission::Home) && !denied(&other, Permission::Gpu));
        assert_eq!(policy.limits_of(&id).iter().map(|limits| limits.binds).max(), Some(BindLimit::Ro));
    }

    #[test]
    fn all_stands_for_every_one() {
        let policy = Policy::decode(br#"{"default":{"deny":["all"]}}"#).unwrap();
        let id = ImageId::from_random([7; 16]);
        assert!(policy.limits_of(&id).iter().any(|limits| limits.denies(Permission::Portal)));
        let policy = Policy::decode(br#"{"default":{"allow":["all"]}}"#).unwrap();
        assert!(!policy.limits_of(&id).iter().any(|limits| limits.denies(Permission::Portal)));
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        for text in [
            r#"{"default":{"deny":["hom"]}}"#,
            r#"{"default":{"deny":["strict"]}}"#,
            r#"{"default":{"denied":["home"]}}"#,
            r#"{"default":{"binds":"some"}}"#,
            r#"{"images":{"nonsense":{}}}"#,
            r#"{"all":{}}"#,
            "[",
            "",
        ] {
            assert!(Policy::decode(text.as_bytes()).is_err(), "{text}");
        }
        assert_eq!(Policy::decode(b"{}").unwrap(), Policy::default());
    }
}
