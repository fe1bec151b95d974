//! Makes the seeds of the targets out of the small archives of the shared test data:
//! `seeds DATA CORPUS` fills `CORPUS/section`, `CORPUS/schema`, `CORPUS/metadata`, `CORPUS/strings`, `CORPUS/codec`,
//! `CORPUS/archive` and `CORPUS/walk`.

use std::{
    env,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

use fim::dwarfs::{
    format::section::{SectionHeader, SectionKind},
    read::{Index, Place},
};

use fim_fuzz::CODECS;

/// Longest seed in bytes: libFuzzer is quick with small ones.
const MAX_LEN: usize = 12 << 10;

fn main() {
    let mut arguments = env::args_os().skip(1).map(PathBuf::from);
    let (Some(data), Some(corpus)) = (arguments.next(), arguments.next()) else {
        panic!("usage: seeds DATA CORPUS");
    };
    for target in ["section", "schema", "metadata", "strings", "codec", "archive", "walk"] {
        fs::create_dir_all(corpus.join(target)).expect("the corpus can be made");
    }
    add_changes(&corpus.join("walk"));
    for folder in ["made", "compat", "bad"] {
        for entry in fs::read_dir(data.join("dwarfs").join(folder)).expect("the test data is there") {
            let path = entry.expect("it can be listed").path();
            if path.extension().is_some_and(|extension| extension == "dwarfs" || extension == "bin") {
                add(&path, &corpus);
            }
        }
    }
}

/// Each small archive as it is, and with one change of each kind.
fn add_changes(folder: &Path) {
    for base in 0..fim_fuzz::mutate::bases() {
        let first = u8::try_from(base).expect("there are not so many");
        fs::write(folder.join(format!("{base}")), [first]).expect("the seed can be written");
        let what = first % 16;
        let seed = [first, what, first.wrapping_mul(37), first.wrapping_mul(91), 0, 5, what + 1, 3, 17, 0, 1];
        fs::write(folder.join(format!("{base}-{what}")), seed).expect("the seed can be written");
    }
}

fn add(path: &Path, corpus: &Path) {
    let name = path.file_name().expect("it is a file");
    let bytes = fs::read(path).expect("it can be read");
    let save = |target: &str, bytes: &[u8]| {
        if bytes.len() <= MAX_LEN {
            fs::write(corpus.join(target).join(name), bytes).expect("the seed can be written");
        }
    };
    save("archive", &bytes);
    let Ok(index) = Index::open(&bytes, Place::At { offset: 0, len: None }) else { return };
    let payload = |kind| {
        let section = index.first(kind)?;
        let stored = bytes.get(section.offset as usize..section.end as usize)?.get(64..)?;
        // The other codecs are those of the targets' own reading; zstd is what nearly all archives have here.
        if stored.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) { decompress(stored) } else { Some(stored.to_vec()) }
    };
    if let (Some(schema), Some(metadata)) = (payload(SectionKind::Schema), payload(SectionKind::Metadata)) {
        save("section", &schema);
        let len = u16::try_from(schema.len()).expect("a schema is short");
        let seed = [&len.to_le_bytes(), &*schema, &*metadata].concat();
        save("metadata", &seed);
        save("schema", &seed);
    }
    if let Some(history) = payload(SectionKind::History) {
        save("section", &history);
    }
    if bytes.get(7).is_some_and(|minor| *minor >= 2) {
        add_blocks(&bytes, &index, name, corpus);
    }
    if let Some(last) = index.sections().last() {
        save("section", &bytes[last.offset as usize..]);
    }
}

/// Saves the payload of the first short block of each codec, behind the number that the target knows the codec by.
fn add_blocks(bytes: &[u8], index: &Index, name: &OsStr, corpus: &Path) {
    for (number, codec) in (0..).zip(CODECS) {
        let payload = index.sections().iter().filter(|section| section.kind == SectionKind::Block).find_map(
            |section| {
                let section = bytes.get(section.offset as usize..section.end as usize)?;
                let (header, payload) = section.split_first_chunk()?;
                let header = SectionHeader::parse(header, 0).ok()?;
                (header.compression == codec && payload.len() < MAX_LEN / 2).then_some(payload)
            },
        );
        if let Some(payload) = payload {
            let seed = [&[number], payload].concat();
            let path = corpus.join("codec").join(format!("{codec}-{}", name.display()));
            fs::write(path, seed).expect("the seed can be written");
        }
    }
}

fn decompress(frame: &[u8]) -> Option<Vec<u8>> {
    zstd::stream::decode_all(frame).ok()
}
