//! The file type of an image, and the type that all images have: shared-mime-info 0.21.

use super::{DesktopError, Subject, path_text};
use crate::config::Integration;

/// The type of the one file that is this image.
pub(super) fn type_of(subject: &Subject<'_>) -> String {
    format!("application/x-{}", subject.name())
}

pub(super) fn render(subject: &Subject<'_>) -> Result<String, DesktopError> {
    let path = path_text(subject)?;
    let file = path.rsplit('/').next().unwrap_or(path);
    let (kind, name) = (type_of(subject), xml(&subject.desktop.name));
    let icon = match subject.desktop.icon {
        Some(_) if subject.desktop.integrations.contains(Integration::Icon) => {
            format!("    <icon name=\"{}\"/>\n", subject.name())
        }
        _ => String::new(),
    };
    Ok(format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <mime-info xmlns=\"http://www.freedesktop.org/standards/shared-mime-info\">\n\
         \x20 <mime-type type=\"{kind}\">\n\
         \x20   <comment>{name}</comment>\n\
         \x20   <sub-class-of type=\"application/x-flatimage\"/>\n\
         {icon}\
         \x20   <glob pattern=\"{}\" weight=\"80\" case-sensitive=\"true\"/>\n\
         \x20 </mime-type>\n\
         \x20 <mime-type type=\"application/x-flatimage\">\n\
         \x20   <comment>Linux root in one file</comment>\n\
         \x20   <sub-class-of type=\"application/x-executable\"/>\n\
         \x20   <generic-icon name=\"application-x-executable\"/>\n\
         \x20   <magic priority=\"60\">\n\
         \x20     <match type=\"string\" value=\"\\x7fELF\" offset=\"0\">\n\
         \x20       <match type=\"string\" value=\"FI\\x01\" offset=\"8\"/>\n\
         \x20     </match>\n\
         \x20   </magic>\n\
         \x20   <glob pattern=\"*.flatimage\"/>\n\
         \x20 </mime-type>\n\
         </mime-info>\n",
        xml(&literal(file)),
    ))
}

/// A pattern that matches one name.
fn literal(name: &str) -> String {
    name.chars().fold(String::new(), |mut pattern, letter| {
        match letter {
            '*' | '?' | '[' => pattern.extend(['[', letter, ']']),
            letter => pattern.push(letter),
        }
        pattern
    })
}

/// Text of an element or an attribute. What XML 1.0 has no place for becomes a question mark.
fn xml(text: &str) -> String {
    text.chars().fold(String::new(), |mut escaped, letter| {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&apos;"),
            '\u{fffe}' | '\u{ffff}' => escaped.push('?'),
            letter if letter.is_control() => escaped.push('?'),
            letter => escaped.push(letter),
        }
        escaped
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_no_patterns_and_no_markup() {
        assert_eq!(xml(&literal("a*b[c]?<&>\"'")), "a[*]b[[]c][?]&lt;&amp;&gt;&quot;&apos;");
        assert_eq!(xml("a\u{0}\u{ffff}b"), "a??b");
    }
}
