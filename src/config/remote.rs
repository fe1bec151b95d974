//! Where recipes come from.

use super::ConfigError;

/// Length of an address in bytes.
const LIMIT: usize = 2048;

/// Checks the address of a directory of recipes; a slash at its end is cut off.
///
/// # Errors
///
/// It does not begin with `http://` or `https://` and a host, is too long, or has blanks or control characters.
pub fn remote_address(text: &str) -> Result<String, ConfigError> {
    if text.len() > LIMIT {
        return Err(ConfigError::TooLong { what: "the address", found: text.len(), limit: LIMIT });
    }
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let is_address = rest.is_some_and(|rest| {
        !rest.is_empty()
            && !rest.starts_with('/')
            && !rest.contains(['?', '#'])
            && rest.chars().all(|letter| letter.is_ascii_graphic())
    });
    if !is_address {
        return Err(ConfigError::NotAnAddress { text: text.to_owned() });
    }
    Ok(text.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_http_and_have_a_host() {
        assert_eq!(remote_address("https://x.org/a/").unwrap(), "https://x.org/a");
        assert_eq!(remote_address("http://127.0.0.1:80").unwrap(), "http://127.0.0.1:80");
        for wrong in [
            "",
            "x.org",
            "ftp://x",
            "http://",
            "http:///x",
            "http://a b",
            "http://a\n",
            "http://a?b",
            "file:///etc",
        ] {
            assert!(remote_address(wrong).is_err(), "{wrong}");
        }
        assert!(remote_address(&format!("http://{}", "x".repeat(LIMIT))).is_err());
    }
}
