//! The classes of inodes: inode numbers tell them apart, for they stand in the order of their classes.

use super::stat::{Class, Kind};
use crate::dwarfs::{Error, format::tables::Tables};

/// Where each class of inodes ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    pub(super) directories: u32,
    pub(super) symlinks: u32,
    pub(super) files: u32,
    pub(super) devices: u32,
    pub(super) inodes: u32,
}

impl Ends {
    /// Finds the ends of the classes by binary search.
    pub(super) fn find(tables: &Tables, data: &[u8]) -> Result<Self, Error> {
        let inodes = tables.inode_count();
        let end_of = |class: Class| -> Result<u32, Error> {
            let (mut low, mut high) = (0, inodes);
            while low < high {
                let middle = low.midpoint(high);
                let mode = mode_of(tables, data, tables.inode_row(data, middle)?)?;
                let kind = Kind::from_mode(mode);
                let kind =
                    kind.ok_or(Error::Damaged { what: "the mode names no kind of file", inode: middle })?;
                if kind.class() <= class { low = middle + 1 } else { high = middle }
            }
            Ok(low)
        };
        Ok(Self {
            directories: end_of(Class::Directory)?,
            symlinks: end_of(Class::Symlink)?,
            files: end_of(Class::Regular)?,
            devices: end_of(Class::Device)?,
            inodes,
        })
    }

    /// The class of an inode number.
    pub(super) fn class(&self, number: u32) -> Result<Class, Error> {
        let ends = [self.directories, self.symlinks, self.files, self.devices, self.inodes];
        let classes = [Class::Directory, Class::Symlink, Class::Regular, Class::Device, Class::Other];
        let class = ends.into_iter().zip(classes).find(|(end, _)| number < *end);
        let (found, bound) = (u64::from(number), u64::from(self.inodes));
        class.map(|(_, class)| class).ok_or(Error::OutOfRange { what: "inode number", found, bound })
    }

    /// Checks the lengths of tables against the classes, and returns the number of unshared files.
    pub(super) fn check(&self, tables: &Tables) -> Result<u32, Error> {
        equal("number of directories", tables.dir_first.len() - 1, self.directories)?;
        equal("number of symlinks", tables.symlink_table.len(), self.symlinks - self.directories)?;
        if self.directories == 0 {
            return Err(Error::Damaged { what: "the root is not a directory", inode: 0 });
        }
        if let Some(devices) = &tables.devices {
            equal("number of devices", devices.len(), self.devices - self.files)?;
        }
        let files = self.files - self.symlinks;
        let lists = tables.chunk_table.len() - 1;
        // A packed table has one item for each list that is shared, a plain one for each file that shares.
        let unique = match tables.options.packed_shared_files {
            true => lists.checked_sub(tables.shared_files.len()),
            false => files.checked_sub(tables.shared_files.len()),
        };
        let unique = unique.filter(|unique| *unique <= files && *unique <= lists);
        let unique =
            unique.ok_or(Error::Damaged { what: "there are more shared files than files", inode: 0 })?;
        if tables.shared_files.is_empty() {
            equal("number of files", lists, files)?;
        }
        Ok(unique)
    }
}

fn equal(what: &'static str, found: u32, expected: u32) -> Result<(), Error> {
    if found == expected {
        return Ok(());
    }
    Err(Error::OutOfRange { what, found: u64::from(found), bound: u64::from(expected) + 1 })
}

/// The mode of a row of the inode table.
pub(super) fn mode_of(tables: &Tables, data: &[u8], row: u32) -> Result<u32, Error> {
    let index = tables.inode.mode_index.at32(data, row, "inode")?;
    tables.modes.at32(data, index, "mode")
}
