//! Who a process believes to be, where there is one user only. Pure.
//!
//! Programs that leave root behind look whether they have, and whether the way back is shut: they are told what a
//! kernel with all users would say (credentials(7)). What they may do stays the same.

/// The ids of one kind: users or groups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ids {
    pub(super) real: u32,
    pub(super) effective: u32,
    pub(super) saved: u32,
    pub(super) of_files: u32,
}

/// A change of ids; `None` leaves one as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// setuid(2).
    All(u32),
    /// setreuid(2): real, effective.
    Two(Option<u32>, Option<u32>),
    /// setresuid(2): real, effective, saved.
    Three(Option<u32>, Option<u32>, Option<u32>),
    /// setfsuid(2).
    OfFiles(u32),
}

/// The change is not permitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Forbidden;

impl Ids {
    /// The ids after a change.
    pub(super) fn changed(self, change: Change, privileged: bool) -> Result<Self, Forbidden> {
        let Self { real, effective, saved, of_files } = self;
        let check = |id: Option<u32>, own: &[u32]| match id {
            Some(id) if !privileged && !own.contains(&id) => Err(Forbidden),
            _ => Ok(()),
        };
        match change {
            Change::All(id) if privileged => Ok(Self { real: id, effective: id, saved: id, of_files: id }),
            Change::All(id) => {
                check(Some(id), &[real, saved])?;
                Ok(Self { effective: id, of_files: id, ..self })
            }
            Change::Two(new_real, new_effective) => {
                check(new_real, &[real, effective])?;
                check(new_effective, &[real, effective, saved])?;
                let now = new_effective.unwrap_or(effective);
                let follows = new_real.is_some() || new_effective.is_some_and(|id| id != real);
                Ok(Self {
                    real: new_real.unwrap_or(real),
                    effective: now,
                    saved: if follows { now } else { saved },
                    of_files: now,
                })
            }
            Change::Three(new_real, new_effective, new_saved) => {
                for id in [new_real, new_effective, new_saved] {
                    check(id, &[real, effective, saved])?;
                }
                let now = new_effective.unwrap_or(effective);
                Ok(Self {
                    real: new_real.unwrap_or(real),
                    effective: now,
                    saved: new_saved.unwrap_or(saved),
                    of_files: now,
                })
            }
            // It tells by its result only, which is the old id.
            Change::OfFiles(id) => Ok(match check(Some(id), &[real, effective, saved, of_files]) {
                Ok(()) => Self { of_files: id, ..self },
                Err(Forbidden) => self,
            }),
        }
    }
}

/// Who a process believes to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Credentials {
    pub(super) users: Ids,
    pub(super) groups: Ids,
    /// Supplementary groups; `None` as long as they are the kernel's.
    pub(super) further: Option<Vec<u32>>,
}

impl Credentials {
    /// Whether it is root for all that it knows.
    pub(super) const fn is_privileged(&self) -> bool {
        self.users.effective == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(real: u32, effective: u32, saved: u32) -> Ids {
        Ids { real, effective, saved, of_files: effective }
    }

    #[test]
    fn root_becomes_anybody_and_others_only_who_they_were() {
        let root = Ids::default();
        assert_eq!(root.changed(Change::All(5), true), Ok(ids(5, 5, 5)));
        assert_eq!(ids(5, 5, 5).changed(Change::All(0), false), Err(Forbidden));
        assert_eq!(root.changed(Change::Three(None, Some(5), None), true), Ok(ids(0, 5, 0)));
        assert_eq!(ids(0, 5, 0).changed(Change::All(0), false), Ok(ids(0, 0, 0)));
        assert_eq!(root.changed(Change::Two(None, Some(5)), true), Ok(ids(0, 5, 5)));
        assert_eq!(root.changed(Change::Two(Some(5), Some(5)), true), Ok(ids(5, 5, 5)));
        assert_eq!(ids(1, 2, 3).changed(Change::Two(Some(2), Some(1)), false), Ok(ids(2, 1, 1)));
        assert_eq!(ids(1, 2, 3).changed(Change::Two(Some(3), None), false), Err(Forbidden));
        assert_eq!(ids(1, 2, 3).changed(Change::Three(Some(3), Some(1), Some(2)), false), Ok(ids(3, 1, 2)));
        assert_eq!(ids(1, 2, 3).changed(Change::Three(Some(4), None, None), false), Err(Forbidden));
        let with = root.changed(Change::OfFiles(7), true).unwrap();
        assert_eq!((with.effective, with.of_files), (0, 7));
        assert_eq!(ids(5, 5, 5).changed(Change::OfFiles(7), false), Ok(ids(5, 5, 5)));
    }
}
