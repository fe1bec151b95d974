//! Names, modes and times as people and as programs read them. Names are bytes: nothing here requires UTF-8.

use std::fmt::Write as _;

use super::{FileKind, Time};

/// Seconds of a day.
const DAY: i64 = 86_400;
/// Days from the first of March of year 0 to the epoch.
const DAYS_TO_EPOCH: i64 = 719_468;
/// Days of 400 years, after which the calendar repeats itself.
const DAYS_OF_ERA: i64 = 146_097;

/// Bytes for a terminal: what is not printable is escaped as in C, so that no name can play tricks.
#[must_use]
pub fn escaped(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for char in chunk.valid().chars() {
            match char {
                '\n' => text.push_str("\\n"),
                '\t' => text.push_str("\\t"),
                '\r' => text.push_str("\\r"),
                '\\' => text.push_str("\\\\"),
                char if is_harmless(char) => text.push(char),
                char => char.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| push_octal(&mut text, byte)),
            }
        }
        chunk.invalid().iter().for_each(|byte| push_octal(&mut text, *byte));
    }
    text
}

/// Whether a terminal only shows it: no control character, nothing that turns the direction of writing.
fn is_harmless(char: char) -> bool {
    let turns = matches!(char, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let breaks = matches!(char, '\u{2028}' | '\u{2029}');
    !char.is_control() && !turns && !breaks
}

fn push_octal(text: &mut String, byte: u8) {
    // Writing to a string cannot fail.
    let _ = write!(text, "\\{byte:03o}");
}

/// Bytes for programs, without loss: what is not printable ASCII, and `%` itself, as `%XX`.
#[must_use]
pub fn quoted(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            b'%' => text.push_str("%25"),
            b' '..=b'~' => text.push(char::from(*byte)),
            _ => {
                let _ = write!(text, "%{byte:02X}");
            }
        }
    }
    text
}

/// The letter of a kind, as `find -printf %y` has it.
#[must_use]
pub const fn letter(kind: FileKind) -> char {
    match kind {
        FileKind::Regular => 'f',
        FileKind::Directory => 'd',
        FileKind::Symlink => 'l',
        FileKind::CharDevice => 'c',
        FileKind::BlockDevice => 'b',
        FileKind::Fifo => 'p',
        FileKind::Socket => 's',
    }
}

/// A kind in words.
#[must_use]
pub const fn kind_name(kind: FileKind) -> &'static str {
    match kind {
        FileKind::Regular => "regular file",
        FileKind::Directory => "directory",
        FileKind::Symlink => "symbolic link",
        FileKind::CharDevice => "character device",
        FileKind::BlockDevice => "block device",
        FileKind::Fifo => "fifo",
        FileKind::Socket => "socket",
    }
}

/// Kind and permissions as `ls -l` shows them.
#[must_use]
pub fn mode(kind: FileKind, perm: u16) -> String {
    let mut text = String::with_capacity(10);
    text.push(if kind == FileKind::Regular { '-' } else { letter(kind) });
    // Who, and what stands in for x: (special bit, with x, without x).
    for (shift, special, with, without) in
        [(6, 0o4000, 's', 'S'), (3, 0o2000, 's', 'S'), (0, 0o1000, 't', 'T')]
    {
        let bits = perm >> shift;
        text.push(if bits & 4 == 0 { '-' } else { 'r' });
        text.push(if bits & 2 == 0 { '-' } else { 'w' });
        text.push(match (bits & 1 == 1, perm & special != 0) {
            (true, true) => with,
            (false, true) => without,
            (true, false) => 'x',
            (false, false) => '-',
        });
    }
    text
}

/// A point in time to the minute, in UTC.
#[must_use]
pub fn minute(time: Time) -> String {
    let (year, month, day) = date(time.seconds.div_euclid(DAY));
    let second = time.seconds.rem_euclid(DAY);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}", second / 3_600, second / 60 % 60)
}

/// A point in time with everything that is known of it, in UTC.
#[must_use]
pub fn instant(time: Time) -> String {
    format!("{}:{:02}.{:09} +0000", minute(time), time.seconds.rem_euclid(60), time.nanos)
}

/// Year, month and day of a number of days since the epoch, in the proleptic Gregorian calendar. Years are counted from
/// March on, so that the leap day is the last one.
fn date(days: i64) -> (i64, i64, i64) {
    let days = days + DAYS_TO_EPOCH;
    let (era, day_of_era) = (days.div_euclid(DAYS_OF_ERA), days.rem_euclid(DAYS_OF_ERA));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_for_terminals_play_no_tricks() {
        for (name, expected) in [
            (&b"plain name"[..], "plain name"),
            ("größe".as_bytes(), "größe"),
            (b"a\nb\tc\\d", "a\\nb\\tc\\\\d"),
            (b"\x1b[31m\xff", "\\033[31m\\377"),
            ("x\u{202e}y".as_bytes(), "x\\342\\200\\256y"),
            ("\u{85}".as_bytes(), "\\302\\205"),
        ] {
            assert_eq!(escaped(name), expected);
        }
        assert_eq!(quoted(b"a%b\xff\n ~"), "a%25b%FF%0A ~");
    }

    #[test]
    fn modes_are_those_of_ls() {
        for (kind, perm, expected) in [
            (FileKind::Regular, 0o644, "-rw-r--r--"),
            (FileKind::Directory, 0o1777, "drwxrwxrwt"),
            (FileKind::Regular, 0o6755, "-rwsr-sr-x"),
            (FileKind::Regular, 0o7000, "---S--S--T"),
            (FileKind::Symlink, 0o777, "lrwxrwxrwx"),
            (FileKind::CharDevice, 0o600, "crw-------"),
        ] {
            assert_eq!(mode(kind, perm), expected);
        }
    }

    #[test]
    fn times_are_dates() {
        for (seconds, expected) in [
            (0, "1970-01-01 00:00"),
            (951_782_399, "2000-02-28 23:59"),
            (951_782_400, "2000-02-29 00:00"),
            (1_709_251_199, "2024-02-29 23:59"),
            (-1, "1969-12-31 23:59"),
            (-2_208_988_800, "1900-01-01 00:00"),
            (253_402_300_799, "9999-12-31 23:59"),
        ] {
            assert_eq!(minute(Time { seconds, nanos: 0 }), expected);
        }
        let time = Time { seconds: 1, nanos: 5 };
        assert_eq!(instant(time), "1970-01-01 00:00:01.000000005 +0000");
        // Hostile times are shown, whatever they mean.
        assert!(!minute(Time { seconds: i64::MAX, nanos: 0 }).is_empty());
        assert!(!minute(Time { seconds: i64::MIN, nanos: 0 }).is_empty());
    }
}
