use super::*;

/// Whether two names are one in `unicode`, `windows` and `ascii`.
const TABLE: [(&str, &str, [bool; 3]); 27] = [
    ("Readme.TXT", "README.txt", [true, true, true]),
    ("a_b", "a`b", [false, false, false]),
    ("[", "{", [false, false, false]),
    ("straße", "STRASSE", [true, false, false]),
    ("straße", "STRAßE", [true, true, true]),
    ("ẞ", "ß", [true, false, false]),
    ("ẞ", "ss", [true, false, false]),
    ("É", "é", [true, true, false]),
    ("\u{e9}", "e\u{301}", [true, false, false]),
    ("\u{c9}", "e\u{301}", [true, false, false]),
    ("E\u{301}", "e\u{301}", [true, true, true]),
    ("İ", "i", [false, false, false]),
    ("İ", "i\u{307}", [true, false, false]),
    ("ı", "i", [false, false, false]),
    ("ı", "I", [false, false, false]),
    ("Σ", "σ", [true, true, false]),
    ("σ", "ς", [true, true, false]),
    ("ΌΣΟΣ", "όσος", [true, true, false]),
    ("\u{fb01}", "fi", [true, false, false]),
    ("\u{212a}", "k", [true, false, false]),
    ("\u{212b}", "å", [true, false, false]),
    ("ſ", "s", [true, false, false]),
    ("µ", "μ", [true, false, false]),
    ("Ж", "ж", [true, true, false]),
    ("ǆ", "Ǆ", [true, true, false]),
    ("𐐀", "𐐨", [true, false, false]),
    ("\u{1fb3}", "\u{1fbc}", [true, true, false]),
];

#[test]
fn names_are_one_or_not_as_each_mode_says() {
    for (one, other, expected) in TABLE {
        let same = [Mode::Unicode, Mode::Windows, Mode::Ascii]
            .map(|mode| fold(one.as_bytes(), mode) == fold(other.as_bytes(), mode));
        assert_eq!(same, expected, "{one} {other}");
    }
}

#[test]
fn names_that_are_no_text_are_only_themselves() {
    for mode in [Mode::Unicode, Mode::Windows] {
        assert_eq!(fold(b"A\xff", mode).as_bytes(), b"A\xff", "{mode:?}");
        assert_ne!(fold(b"A\xff", mode), fold(b"a\xff", mode), "{mode:?}");
        // Cut off in the middle of a letter, and a surrogate in the shape of UTF-8.
        assert_ne!(fold(b"A\xc3", mode), fold(b"a\xc3", mode), "{mode:?}");
        assert_ne!(fold(b"A\xed\xa0\x80", mode), fold(b"a\xed\xa0\x80", mode), "{mode:?}");
    }
    assert_eq!(fold(b"A\xff", Mode::Ascii), fold(b"a\xff", Mode::Ascii));
}

#[test]
fn a_key_is_the_key_of_itself() {
    for (one, other, _) in TABLE {
        for (mode, name) in [Mode::Unicode, Mode::Windows, Mode::Ascii]
            .into_iter()
            .flat_map(|mode| [one, other].map(|name| (mode, name)))
        {
            let key = fold(name.as_bytes(), mode);
            assert_eq!(fold(key.as_bytes(), mode), key, "{name} {mode:?}");
        }
    }
}

#[test]
fn each_letter_of_windows_has_one_key_and_marks_of_any_order_meet_in_unicode() {
    for code in 0x80..=0xffff_u32 {
        let Some(char) = char::from_u32(code) else { continue };
        let upper = ntfs_upper(char);
        assert_eq!(ntfs_upper(upper), upper, "{code:x}");
        assert!(!upper.is_ascii(), "{code:x}");
    }
    let folded = |text: &str| fold(text.as_bytes(), Mode::Unicode);
    assert_eq!(folded("q\u{307}\u{323}"), folded("Q\u{323}\u{307}"));
}
