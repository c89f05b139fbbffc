//! Values that arguments of commands carry, checked when they are read: what has one of these types is well-formed.

mod cidr;
mod interface;
mod path;

pub use cidr::Network;
pub use interface::{HardwareAddress, InterfaceName};
pub use path::AbsolutePath;

/// A refused text in an error: its start, quoted.
pub fn shown(text: &str) -> String {
    let start: String = text.chars().take(64).collect();
    if start.len() < text.len() { format!("{start:?}...") } else { format!("{start:?}") }
}

/// serde through `FromStr`, and the schema of a string.
macro_rules! from_text {
    ($type:ident, $description:literal) => {
        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <String as serde::Deserialize>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }

        impl schemars::JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "description": $description })
            }
        }
    };
}
use from_text;
