//! Variables in stored values: `$VAR`, `${VAR}`, `${VAR:-x}` and a leading `~`. Nothing else has a meaning, and nothing
//! is ever run.

use std::ffi::{OsStr, OsString};

/// Expands `text`; `lookup` gives the value of a variable. One that is not set counts as empty. `$$` is a dollar sign,
/// and what looks like none of the forms stays as it is.
#[must_use]
pub fn expand(text: &str, lookup: &dyn Fn(&str) -> Option<OsString>) -> OsString {
    let mut expanded = OsString::new();
    let mut rest = text;
    if let Some(after) = rest.strip_prefix('~').filter(|after| after.is_empty() || after.starts_with('/')) {
        expanded.push(lookup("HOME").unwrap_or_else(|| "~".into()));
        rest = after;
    }
    while let Some((before, after)) = rest.split_once('$') {
        expanded.push(before);
        rest = take_variable(after, lookup, &mut expanded).unwrap_or_else(|| {
            expanded.push("$");
            after
        });
    }
    expanded.push(rest);
    expanded
}

/// Expands what follows a `$`; returns what follows the variable.
fn take_variable<'a>(
    after: &'a str,
    lookup: &dyn Fn(&str) -> Option<OsString>,
    expanded: &mut OsString,
) -> Option<&'a str> {
    if let Some(rest) = after.strip_prefix('$') {
        expanded.push("$");
        return Some(rest);
    }
    if let Some(braced) = after.strip_prefix('{') {
        let (inside, rest) = braced.split_once('}')?;
        let (name, instead) = inside.split_once(":-").unwrap_or((inside, ""));
        if name_length(name) != name.len() || name.is_empty() {
            return None;
        }
        let value = lookup(name).filter(|value| !value.is_empty());
        expanded.push(value.as_deref().unwrap_or(OsStr::new(instead)));
        return Some(rest);
    }
    let (name, rest) = after.split_at_checked(name_length(after))?;
    if name.is_empty() {
        return None;
    }
    expanded.push(lookup(name).unwrap_or_default());
    Some(rest)
}

/// Length of the variable name at the start of `text`, in bytes.
fn name_length(text: &str) -> usize {
    let is_part = |(at, letter): &(usize, char)| {
        *letter == '_' || letter.is_ascii_alphabetic() || (*at > 0 && letter.is_ascii_digit())
    };
    text.char_indices().take_while(is_part).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_and_nothing_else() {
        let lookup = |name: &str| match name {
            "A" => Some("1".into()),
            "HOME" => Some("/h".into()),
            "EMPTY" => Some(OsString::new()),
            _ => None,
        };
        for (text, expected) in [
            ("$A", "1"),
            ("x$A/y", "x1/y"),
            ("${A}B$AB", "1B"),
            ("${N:-d e}", "d e"),
            ("${EMPTY:-d}", "d"),
            ("${A:-d}", "1"),
            ("~/x:~", "/h/x:~"),
            ("~", "/h"),
            ("~bob", "~bob"),
            ("a~", "a~"),
            ("$$A", "$A"),
            ("$(id)`id`", "$(id)`id`"),
            ("${A", "${A"),
            ("${1}", "${1}"),
            ("100$", "100$"),
            ("ü$Aü", "ü1ü"),
        ] {
            assert_eq!(expand(text, &lookup), OsString::from(expected), "{text}");
        }
    }
}
