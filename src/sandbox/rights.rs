//! What a run may reach in the end: what the image asks for, without what the user takes away.

use std::collections::BTreeSet;

use crate::config::{BindLimit, Limits, Permission, Permissions, Word as _};

/// Who wants deny-all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    /// The command line.
    Caller,
    /// The image.
    Image,
    /// The user's policy.
    Policy,
}

/// What a run may reach.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    held: BTreeSet<Permission>,
    denied: BTreeSet<Permission>,
    strict: Option<Asker>,
    binds: BindLimit,
}

impl Rights {
    /// Narrows what the image asks for.
    #[must_use]
    pub fn new(asked: &Permissions, strict: bool, limits: &[&Limits]) -> Self {
        let single = || Permission::LIST.iter().copied().filter(|word| word.in_every());
        let is_denied = |word: &Permission| limits.iter().any(|limits| limits.denies(*word));
        let stricts = [
            (strict, Asker::Caller),
            (asked.contains(Permission::Strict), Asker::Image),
            (limits.iter().any(|limits| limits.strict), Asker::Policy),
        ];
        Self {
            held: single().filter(|word| asked.contains(*word) && !is_denied(word)).collect(),
            denied: single().filter(is_denied).collect(),
            strict: stricts.into_iter().find_map(|(asks, asker)| asks.then_some(asker)),
            binds: limits.iter().map(|limits| limits.binds).max().unwrap_or_default(),
        }
    }

    /// The permissions held, in the order of their names; never `all` or `strict`.
    pub fn held(&self) -> impl Iterator<Item = Permission> {
        self.held.iter().copied()
    }

    /// Whether a permission is held.
    #[must_use]
    pub fn holds(&self, permission: Permission) -> bool {
        self.held.contains(&permission)
    }

    /// Whether the user's policy takes a permission away.
    #[must_use]
    pub fn denies(&self, permission: Permission) -> bool {
        self.denied.contains(&permission)
    }

    /// Whether deny-all holds, and who wants it.
    #[must_use]
    pub const fn strict(&self) -> Option<Asker> {
        self.strict
    }

    /// Whether something of the default profile is there, which deny-all and the policy take away unless `permission`
    /// is held.
    #[must_use]
    pub fn by_default(&self, permission: Permission) -> bool {
        self.holds(permission) || (self.strict.is_none() && !self.denies(permission))
    }

    /// What the image's binds may do.
    #[must_use]
    pub const fn binds(&self) -> BindLimit {
        self.binds
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Policy;

    fn permissions(words: &[Permission]) -> Permissions {
        let mut permissions = Permissions::default();
        permissions.add(words.iter().copied());
        permissions
    }

    #[test]
    fn a_policy_takes_away_and_never_gives() {
        let id = crate::config::ImageId::from_random([7; 16]);
        for (policy, asked, home, network) in [
            ("{}", &[][..], false, true),
            ("{}", &[Permission::All], true, true),
            ("{}", &[Permission::Strict], false, false),
            ("{}", &[Permission::Strict, Permission::Network], false, true),
            (r#"{"default":{"deny":["home","network"]}}"#, &[Permission::All], false, false),
            (r#"{"default":{"allow":["home"]}}"#, &[], false, false),
            (r#"{"default":{"allow":["home"]}}"#, &[Permission::All], true, false),
            (r#"{"default":{"strict":true}}"#, &[Permission::Home], true, false),
        ] {
            let policy = Policy::decode(policy.as_bytes()).unwrap();
            let rights = Rights::new(&permissions(asked), false, &policy.limits_of(&id));
            assert_eq!(rights.holds(Permission::Home), home, "{policy:?} {asked:?}");
            assert_eq!(rights.by_default(Permission::Network), network, "{policy:?} {asked:?}");
            assert!(!rights.holds(Permission::All) && !rights.holds(Permission::Strict));
        }
    }

    #[test]
    fn whoever_wants_deny_all_gets_it() {
        let asked = permissions(&[Permission::Strict]);
        assert_eq!(Rights::new(&asked, true, &[]).strict(), Some(Asker::Caller));
        assert_eq!(Rights::new(&asked, false, &[]).strict(), Some(Asker::Image));
        assert_eq!(Rights::new(&Permissions::default(), false, &[]).strict(), None);
    }
}
