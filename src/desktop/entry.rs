//! The menu entry: Desktop Entry Specification 1.5.
//!
//! Two escapes lie on each other: arguments of `Exec` are quoted (backslash before `"`, `` ` ``, `$` and `\`, and `%`
//! doubled), and every value is a string in which a backslash and white space at the front are escaped once more.

use super::{DesktopError, Subject, path_text};
use crate::config::Integration;

pub(super) fn render(subject: &Subject<'_>) -> Result<String, DesktopError> {
    let desktop = subject.desktop;
    let path = path_text(subject)?;
    let comment = desktop.comment.clone().unwrap_or_else(|| format!("{} in one file", desktop.name));
    let mut lines = vec![
        "[Desktop Entry]".to_owned(),
        "Type=Application".to_owned(),
        format!("Name={}", string(&desktop.name)),
        format!("Comment={}", string(&comment)),
        format!("Exec={} %F", string(&argument(path))),
        format!("Terminal={}", desktop.terminal),
    ];
    if desktop.icon.is_some() && desktop.integrations.contains(Integration::Icon) {
        lines.push(format!("Icon={}", subject.name()));
    }
    if desktop.integrations.contains(Integration::Mimetype) {
        lines.push(format!("MimeType={};", super::mime::type_of(subject)));
    }
    if !desktop.categories.is_empty() {
        let mut categories = desktop.categories.clone();
        categories.sort();
        categories.dedup();
        lines.push(format!("Categories={};", categories.join(";")));
    }
    lines.push(format!("X-Fim-Image={}", subject.id));
    Ok(lines.join("\n") + "\n")
}

/// A value of type string.
fn string(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for (at, letter) in text.chars().enumerate() {
        match letter {
            '\\' => escaped.push_str("\\\\"),
            '\n' => escaped.push_str("\\n"),
            '\r' => escaped.push_str("\\r"),
            '\t' => escaped.push_str("\\t"),
            ' ' if at == 0 => escaped.push_str("\\s"),
            letter => escaped.push(letter),
        }
    }
    escaped
}

/// An argument of a command line.
fn argument(text: &str) -> String {
    let mut quoted = String::from('"');
    for letter in text.chars() {
        match letter {
            '"' | '`' | '$' | '\\' => quoted.extend(['\\', letter]),
            '%' => quoted.push_str("%%"),
            letter => quoted.push(letter),
        }
    }
    quoted + "\""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_escapes_are_applied() {
        for (path, expected) in
            [("/a b/x", r#""/a b/x""#), (r#"/a"b$c`d\e%f"#, r#""/a\\"b\\$c\\`d\\\\e%%f""#)]
        {
            assert_eq!(string(&argument(path)), expected);
        }
        assert_eq!(string(" x\\ny"), r"\sx\\ny");
    }
}
