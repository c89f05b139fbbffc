//! A place on a disk, in the words of parted.

use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer};

/// The units of parted that do not depend on the geometry of a disk.
const UNITS: [&str; 13] = ["", "s", "B", "kB", "KB", "KiB", "MB", "MiB", "GB", "GiB", "TB", "TiB", "%"];

/// A place on a disk: a number and a unit, as `1MiB`, `50%` or `-1s`; MB when there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position(String);

impl Position {
    /// As parted reads it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Position {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused = || format!("{text:.32?} is no place on a disk, such as 1MiB, 50% or 10GB");
        let number = text.strip_prefix('-').unwrap_or(text);
        let end = number.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(number.len());
        let (number, unit) = number.split_at(end);
        let is_number = number.starts_with(|c: char| c.is_ascii_digit())
            && number.ends_with(|c: char| c.is_ascii_digit())
            && number.matches('.').count() <= 1;
        let fits = text.len() <= 32 && UNITS.iter().any(|known| known.eq_ignore_ascii_case(unit));
        if is_number && fits { Ok(Position(text.to_owned())) } else { Err(refused()) }
    }
}

impl<'de> Deserialize<'de> for Position {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl Visitor<'_> for Either {
            type Value = Position;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a place on a disk, as a number or as text")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Position, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Position, E> {
                Ok(Position(number.to_string()))
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Position, E> {
                Ok(Position(number.to_string()))
            }
        }

        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for Position {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Position".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "integer"], "description": "A place on a disk, as 1MiB or 50%; in MB without a unit." })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_texts_are_places() {
        for (json, text) in
            [("1", "1"), ("\"1MiB\"", "1MiB"), ("\"-1s\"", "-1s"), ("\"33.3%\"", "33.3%"), ("\"5gb\"", "5gb")]
        {
            assert_eq!(serde_json::from_str::<Position>(json).unwrap().as_str(), text);
        }
    }

    #[test]
    fn what_parted_could_take_for_something_else_is_none() {
        for json in [
            "\"\"",
            "\"x\"",
            "\"1 rm 1\"",
            "\"1mi\"",
            "\".5\"",
            "\"5.\"",
            "\"1.2.3\"",
            "\"--1\"",
            "1.5",
            "true",
            "[1]",
        ] {
            assert!(serde_json::from_str::<Position>(json).is_err(), "{json}");
        }
        assert!("1".repeat(33).parse::<Position>().is_err());
    }
}
