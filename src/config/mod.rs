//! Typed settings of an image: one noun a file, and their codec.
//!
//! [`Settings`] is what the settings area of an image holds. It is plain data: commands change it, the planners read
//! it, `image` stores it. Values are stored as given; `$VAR` and `~` are expanded when a program is started.
//!
//! Adding a setting: a noun in its own file, a field here with a default, a line where it is used. An image that
//! lacks the field opens with the default; an older engine keeps the fields that it does not know.

mod bind;
mod boot;
mod casefold;
mod codec;
mod desktop;
mod env;
mod error;
mod image_id;
mod overlay;
mod permissions;
mod policy;
mod profile;
mod remote;
mod scripts;
mod unshare;
mod words;

use serde::{Deserialize, Serialize};

pub use bind::{Bind, BindKind, Binds};
pub use boot::Boot;
pub use casefold::{Casefold, CasefoldMode};
pub use codec::{SETTINGS_LIMIT, decode, encode};
pub use desktop::{Desktop, ICON_LIMIT, Icon, IconKind, Integration, Integrations};
pub use env::Environment;
pub use error::ConfigError;
pub use image_id::ImageId;
pub use overlay::OverlayKind;
pub use permissions::{Permission, Permissions};
pub use policy::{BindLimit, Limits, POLICY_LIMIT, Policy};
pub use profile::{PROFILE_LIMIT, StoredProfile};
pub use remote::remote_address;
pub use scripts::{SCRIPT_LIMIT, Scripts};
pub use unshare::{Namespace, Unshare};
pub use words::{Word, WordSet};

/// The label that names the distribution an image was made from, as `ID` of its os-release file.
pub const DISTRIBUTION_LABEL: &str = "distribution";

/// Everything that is stored in an image except its archives.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Who the image is.
    pub image_id: ImageId,
    /// What programs inside may reach.
    #[serde(default)]
    pub permissions: Permissions,
    /// Namespaces that are unshared besides those that always are.
    #[serde(default)]
    pub unshare: Unshare,
    /// Variables for programs inside.
    #[serde(default)]
    pub environment: Environment,
    /// Places of the host that are shown inside.
    #[serde(default)]
    pub binds: Binds,
    /// The program that runs when no other is named; none stands for the default one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<Boot>,
    /// What runs when a background instance starts and stops.
    #[serde(default)]
    pub scripts: Scripts,
    /// Who merges the layers.
    #[serde(default)]
    pub overlay: OverlayKind,
    /// Case-insensitive names.
    #[serde(default)]
    pub casefold: Casefold,
    /// Whether the desktop is told when the image starts.
    #[serde(default)]
    pub notify: bool,
    /// How the image shows itself on the desktop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desktop: Option<Desktop>,
    /// Where recipes come from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<String>,
    /// Which files are read first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<StoredProfile>,
    /// Free words about the image, such as the distribution it was made from.
    #[serde(default)]
    pub labels: std::collections::BTreeMap<String, String>,
    /// Fields of later versions: kept as they are.
    #[serde(flatten)]
    pub unknown: serde_json::Map<String, serde_json::Value>,
}

impl Settings {
    /// The settings of a new image.
    #[must_use]
    pub fn new(image_id: ImageId) -> Self {
        Self {
            image_id,
            permissions: Permissions::default(),
            unshare: Unshare::default(),
            environment: Environment::default(),
            binds: Binds::default(),
            boot: None,
            scripts: Scripts::default(),
            overlay: OverlayKind::default(),
            casefold: Casefold::default(),
            notify: false,
            desktop: None,
            remote: None,
            profile: None,
            labels: std::collections::BTreeMap::new(),
            unknown: serde_json::Map::new(),
        }
    }
}
