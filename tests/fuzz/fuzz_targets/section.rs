//! Section headers, the section index, thrift: whatever is decoded before the metadata.

#![no_main]

use fim::dwarfs::{
    format::{
        fsst::{Symbols, Text},
        history::History,
        schema::Schema,
        section::{HEADER_LEN, OLD_HEADER_LEN, OldSectionHeader, SectionHeader},
        sidecar::Sidecar,
    },
    read::{Index, Place},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Some(header) = bytes.get(..HEADER_LEN).and_then(|header| header.try_into().ok())
        && let Ok(parsed) = SectionHeader::parse(header, 0)
    {
        assert_eq!(SectionHeader::parse(&parsed.encode(), 0).expect("it was valid"), parsed);
    }
    if let Some(header) = bytes.get(..OLD_HEADER_LEN).and_then(|header| header.try_into().ok()) {
        let _ = OldSectionHeader::parse(header);
    }
    if let Ok(schema) = Schema::decode(bytes) {
        assert_eq!(Schema::decode(&schema.encode()).expect("it was valid"), schema);
    }
    if let Ok(history) = History::decode(bytes) {
        assert_eq!(History::decode(&history.encode()).expect("it was valid"), history);
    }
    if let Ok(side_car) = Sidecar::decode(bytes) {
        let encoded = side_car.encode().expect("it fits");
        assert_eq!(Sidecar::decode(&encoded).expect("it was valid"), side_car);
    }
    if let Ok(symbols) = Symbols::parse(bytes) {
        let mut text = Text::new();
        if symbols.decode(bytes, 255, &mut text).is_ok() {
            assert_eq!(symbols.decoded_len(bytes, 255).expect("it decoded"), text.len());
            assert!(symbols.compare(bytes, &text).expect("it decoded").is_eq());
        }
    }
    let mut sealed = bytes.to_vec();
    fim_fuzz::reseal(&mut sealed);
    for place in [Place::At { offset: 0, len: None }, Place::Auto, Place::At { offset: 3, len: Some(200) }] {
        if let Ok(index) = Index::open(&sealed, place) {
            let mut end = index.offset();
            for section in index.sections() {
                assert!(
                    section.offset >= end
                        && section.end >= section.offset
                        && section.end <= sealed.len() as u64
                );
                end = section.end;
            }
        }
    }
});
