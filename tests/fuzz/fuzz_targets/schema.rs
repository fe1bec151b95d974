//! Schemas, and the tables that they describe: the data is a schema's length, a schema, and metadata.

#![no_main]

use fim::dwarfs::format::{fsst::Text, schema::Schema, tables::Tables};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((len, rest)) = bytes.split_at_checked(2) else { return };
    let len = usize::from(u16::from_le_bytes([len[0], len[1]]));
    let Some((schema, data)) = rest.split_at_checked(len) else { return };
    let Ok(schema) = Schema::decode(schema) else { return };
    assert_eq!(Schema::decode(&schema.encode()).expect("it was valid"), schema);
    let Ok(tables) = Tables::resolve(&schema, data) else { return };
    let mut text = Text::new();
    for number in (0..40).chain([tables.names.len().wrapping_sub(1), u32::MAX]) {
        let _ = tables.inode_row(data, number);
        let _ = tables.entry_name.at32(data, number, "entry");
        let _ = tables.large_holes.at(data, number, "hole");
        let _ = tables.names.read(data, number, 255, &mut text);
        let _ = tables.targets.read(data, number, 4_095, &mut text);
        if let Some(cache) = &tables.size_cache {
            let _ = (cache.size(data, number), cache.allocated(data, number));
        }
        if let Ok(categories) = &tables.categories {
            let _ = (categories.name(data, number), categories.description(data, number));
        }
    }
});
