//! What an interactive bash of an instance reads when it starts.

use std::path::Path;

/// Makes the text: what the image and the user have of their own comes first, then the prompt.
///
/// `prompt` is the PS1 of the image's settings; without one, a prompt that names the image.
#[must_use]
pub fn text(prompt: Option<&str>, image: &Path) -> String {
    let name = image.file_name().map_or_else(|| "fim".into(), |name| name.to_string_lossy());
    let standard = format!("({}) \\u:\\w\\$ ", plain(&name));
    let prompt = quoted(prompt.unwrap_or(&standard));
    format!(
        "# Read by interactive shells of this instance.\n\
         [ -r /etc/bash.bashrc ] && . /etc/bash.bashrc\n\
         [ -r \"$HOME/.bashrc\" ] && . \"$HOME/.bashrc\"\n\
         PS1={prompt}\n"
    )
}

/// A name that bash shows as it is.
fn plain(name: &str) -> String {
    name.chars().filter(|letter| letter.is_alphanumeric() || "._-+".contains(*letter)).collect()
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_cannot_run_anything_by_its_quotes() {
        let text = text(Some("it's'; rm -rf /; '"), Path::new("/x/app"));
        assert!(text.ends_with("PS1='it'\\''s'\\''; rm -rf /; '\\'''\n"));
    }

    #[test]
    fn the_standard_prompt_names_the_image() {
        assert!(text(None, Path::new("/x/my$(x)app")).contains("PS1='(myxapp) \\u:\\w\\$ '"));
    }
}
