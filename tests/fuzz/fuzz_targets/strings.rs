//! String tables in all their forms. The input: a byte for the form, a byte for the number of index entries, the
//! entries (two bytes each), two bytes for the length of the symbol table, the symbol table, the strings.

#![no_main]

use fim::dwarfs::format::{
    freeze::{List, Value, freeze},
    frozen::Frozen,
    fsst::Text,
    metadata::string_table,
    strings::Strings,
};
use libfuzzer_sys::fuzz_target;

const PACKED: u8 = 1;
const SYMBOLS: u8 = 2;
const PLAIN: u8 = 4;

fuzz_target!(|bytes: &[u8]| {
    let Some((&[form, count], rest)) = bytes.split_first_chunk() else { return };
    let Some((index, rest)) = rest.split_at_checked(usize::from(count) * 2) else { return };
    let Some((&len, rest)) = rest.split_first_chunk() else { return };
    let Some((symbols, buffer)) = rest.split_at_checked(usize::from(u16::from_le_bytes(len))) else { return };
    let index: Vec<u32> =
        index.as_chunks().0.iter().map(|pair| u32::from(u16::from_le_bytes(*pair))).collect();
    let plain: Vec<Vec<u8>> = buffer.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect();
    let value = if form & PLAIN != 0 {
        Value::Struct(vec![(1, Value::List(List::Strings(&plain)))])
    } else {
        let mut table = vec![
            (string_table::BUFFER, Value::Bytes(buffer)),
            (string_table::INDEX, Value::List(List::U32(&index))),
            (string_table::PACKED_INDEX, Value::Bool(form & PACKED != 0)),
        ];
        if form & SYMBOLS != 0 {
            table.insert(1, (string_table::SYMTAB, Value::Bytes(symbols).some()));
        }
        Value::Struct(vec![(1, Value::Struct(table))])
    };
    let Ok(packed) = freeze(&value) else { return };
    let (schema, data) = (packed.schema, packed.metadata);
    let frozen = Frozen::new(&schema, &data);
    let table = frozen.field(Some(frozen.root().expect("it was frozen")), 1).expect("it was frozen");
    let (plain_view, compact_view) = if form & PLAIN != 0 { (table, None) } else { (None, table) };
    let Ok(strings) = Strings::resolve(&frozen, &data, plain_view, compact_view) else { return };
    let mut text = Text::new();
    for number in (0..strings.len()).chain([u32::MAX]) {
        if strings.read(&data, number, 255, &mut text).is_err() {
            continue;
        }
        assert_eq!(strings.len_of(&data, number, 255).expect("it was read"), text.len());
        assert!(strings.compare(&data, number, &text).expect("it was read").is_eq());
        if form & PLAIN != 0 {
            assert_eq!(text.as_slice(), &plain[number as usize][..]);
        }
    }
});
