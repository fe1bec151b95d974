//! Settings as bytes: JSON, so that a person can read an image's settings out of it with any tool, and so that fields
//! of later versions pass through an older engine unharmed.

use super::{ConfigError, Settings};

/// Length of encoded settings in bytes: an icon of 1 MiB in base 64 is 1.34 MiB, two scripts 128 KiB, and the rest
/// leaves room for thousands of variables and binds. A copy in the settings area is 2 MiB with its head.
pub const SETTINGS_LIMIT: usize = (2 << 20) - 4096;

/// Encodes settings.
///
/// # Errors
///
/// They are longer than [`SETTINGS_LIMIT`].
pub fn encode(settings: &Settings) -> Result<Vec<u8>, ConfigError> {
    let bytes = serde_json::to_vec(settings).map_err(ConfigError::Malformed)?;
    if bytes.len() > SETTINGS_LIMIT {
        return Err(ConfigError::TooLong {
            what: "the settings together",
            found: bytes.len(),
            limit: SETTINGS_LIMIT,
        });
    }
    Ok(bytes)
}

/// Decodes settings.
///
/// # Errors
///
/// The bytes are not settings.
pub fn decode(bytes: &[u8]) -> Result<Settings, ConfigError> {
    serde_json::from_slice(bytes).map_err(ConfigError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ImageId, Permission};

    #[test]
    fn settings_survive_the_round_trip() {
        let mut settings = Settings::new(ImageId::from_random([7; 16]));
        settings.permissions.add([Permission::Home]);
        settings.environment.add([("A".to_owned(), "$B".to_owned())]);
        settings.notify = true;
        assert_eq!(decode(&encode(&settings).unwrap()).unwrap(), settings);
    }

    #[test]
    fn the_first_settings_ever_still_open() {
        let oldest = br#"{"image_id":"000102030405060708090a0b0c0d0e0f"}"#;
        let settings = decode(oldest).unwrap();
        assert_eq!(settings.image_id.to_string(), "000102030405060708090a0b0c0d0e0f");
        assert!(settings.boot.is_none());
    }

    #[test]
    fn fields_of_later_versions_are_kept() {
        let newer = br#"{"image_id":"000102030405060708090a0b0c0d0e0f","teleport":{"name":"x","n":[1,2]}}"#;
        let again = encode(&decode(newer).unwrap()).unwrap();
        let value: serde_json::Value = serde_json::from_slice(&again).unwrap();
        assert_eq!(value["teleport"], serde_json::json!({"name": "x", "n": [1, 2]}));
    }

    #[test]
    fn too_much_is_refused() {
        let mut settings = Settings::new(ImageId::from_random([7; 16]));
        settings.scripts.start = Some("x".repeat(SETTINGS_LIMIT));
        assert!(encode(&settings).is_err());
    }

    #[test]
    fn bad_bytes_are_an_error() {
        for bytes in [&b""[..], b"{}", b"[]", b"{\"image_id\":\"12\"}", b"{\"image_id\":5}", b"\xff"] {
            assert!(decode(bytes).is_err(), "{bytes:?}");
        }
    }
}
