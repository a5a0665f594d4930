//! Presets a package ships: settings of a call under a name.
//!
//! They are read by hand and not by a derived parser: whoever wrote one is told the preset and the field that are wrong.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::RangeInclusive;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::generate::EarlyStopping;
use crate::preprocess::{MAX_TILES, Orientation};

/// Most beams a preset may ask for.
pub const MAX_PRESET_BEAMS: u32 = 64;

/// Penalties a preset may ask for. Far beyond what is useful, and nowhere near where scores overflow.
const REPETITION_PENALTIES: RangeInclusive<f64> = 0.01..=100.0;
const LENGTH_PENALTIES: RangeInclusive<f64> = -10.0..=10.0;

/// Settings of a call. What a preset does not say is left to the runtime's preset of the same name, then to neutral values.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Preset {
    /// What it is for, in one line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Fewest tiles of the grid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_tiles: Option<u32>,
    /// Most tiles of the grid, the thumbnail not counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tiles: Option<u32>,
    /// Whether the whole image is appended as one more tile when the grid has several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub use_thumbnail: Option<bool>,
    /// Beams; 1 is greedy search.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_beams: Option<u32>,
    /// Factor that makes generated tokens less likely to come again; 1 is off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repetition_penalty: Option<f32>,
    /// Exponent of the length a beam's score is divided by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub length_penalty: Option<f32>,
    /// When beam search ends: `true`, `false` or `"never"`, as transformers writes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub early_stopping: Option<EarlyStopping>,
    /// No run of this many generated tokens occurs twice; 0 is off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_repeat_ngram_size: Option<u32>,
    /// Fewest tokens to generate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_new_tokens: Option<u32>,
    /// Most tokens to generate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_new_tokens: Option<u32>,
    /// What to do with the EXIF orientation: `"auto"` or `"ignore"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub orientation: Option<Orientation>,
}

/// Names of the presets a call starts from when none is asked for.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DefaultPresets {
    /// With an image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub with_image: Option<String>,
    /// Without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

impl DefaultPresets {
    /// Whether nothing is said.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Reads the manifest's `presets`.
pub(super) fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, Preset>, D::Error> {
    let presets = Fields::new("presets".to_owned(), Value::deserialize(deserializer)?).map_err(D::Error::custom)?;
    let read = |(name, value): (String, Value)| {
        let path = format!("{}.{name}", presets.path);
        if name.is_empty() || !name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_')) {
            return Err(format!("presets has the name {name:?}, expected lower-case letters, digits, - and _"));
        }
        Ok((name, preset(Fields::new(path, value)?)?))
    };
    presets.values.into_iter().map(read).collect::<Result<_, _>>().map_err(D::Error::custom)
}

fn preset(mut fields: Fields) -> Result<Preset, String> {
    let tiles = 1..=MAX_TILES;
    let preset = Preset {
        description: fields.take("description", "one line of text", line)?,
        min_tiles: fields.integer("min_tiles", tiles.clone())?,
        max_tiles: fields.integer("max_tiles", tiles)?,
        use_thumbnail: fields.take("use_thumbnail", "true or false", Value::as_bool)?,
        num_beams: fields.integer("num_beams", 1..=MAX_PRESET_BEAMS)?,
        repetition_penalty: fields.number("repetition_penalty", REPETITION_PENALTIES)?,
        length_penalty: fields.number("length_penalty", LENGTH_PENALTIES)?,
        early_stopping: fields.take("early_stopping", "true, false or \"never\"", early_stopping)?,
        no_repeat_ngram_size: fields.integer("no_repeat_ngram_size", 0..=u32::MAX)?,
        min_new_tokens: fields.integer("min_new_tokens", 0..=u32::MAX)?,
        max_new_tokens: fields.integer("max_new_tokens", 1..=u32::MAX)?,
        orientation: fields.take("orientation", "\"auto\" or \"ignore\"", orientation)?,
    };
    match fields.values.iter().next() {
        None => Ok(preset),
        Some((name, value)) => {
            Err(format!("{}.{name} is {value}, but no setting of a preset has that name", fields.path))
        }
    }
}

/// The fields of a JSON object that were not taken yet, and where it stands.
struct Fields {
    path: String,
    values: Map<String, Value>,
}

impl Fields {
    fn new(path: String, value: Value) -> Result<Self, String> {
        match value {
            Value::Object(values) => Ok(Self { path, values }),
            other => Err(format!("{path} is {other}, expected an object")),
        }
    }

    fn take<T>(
        &mut self,
        name: &str,
        expected: impl Display,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<Option<T>, String> {
        let Some(value) = self.values.remove(name) else { return Ok(None) };
        let read = read(&value).ok_or_else(|| format!("{}.{name} is {value}, expected {expected}", self.path))?;
        Ok(Some(read))
    }

    fn integer(&mut self, name: &str, range: RangeInclusive<u32>) -> Result<Option<u32>, String> {
        let expected = format!("an integer from {} to {}", range.start(), range.end());
        let read = |value: &Value| value.as_u64().and_then(|value| u32::try_from(value).ok());
        self.take(name, expected, |value| read(value).filter(|value| range.contains(value)))
    }

    fn number(&mut self, name: &str, range: RangeInclusive<f64>) -> Result<Option<f32>, String> {
        let expected = format!("a number from {} to {}", range.start(), range.end());
        let read = |value: &Value| value.as_f64().filter(|value| range.contains(value)).map(|value| value as f32);
        self.take(name, expected, read)
    }
}

/// A description is printed on terminals, so it may not steer them.
fn line(value: &Value) -> Option<String> {
    value.as_str().filter(|text| !text.trim().is_empty() && !text.contains(char::is_control)).map(str::to_owned)
}

fn early_stopping(value: &Value) -> Option<EarlyStopping> {
    match value {
        Value::Bool(true) => Some(EarlyStopping::True),
        Value::Bool(false) => Some(EarlyStopping::False),
        Value::String(text) if text == "never" => Some(EarlyStopping::Never),
        _ => None,
    }
}

fn orientation(value: &Value) -> Option<Orientation> {
    match value.as_str() {
        Some("auto") => Some(Orientation::Auto),
        Some("ignore") => Some(Orientation::Ignore),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused(presets: &Value) -> String {
        read(presets).unwrap_err().to_string()
    }

    #[test]
    fn every_field_is_read_and_written_back() {
        let written = json!({
            "read": {
                "description": "Reads text.", "min_tiles": 2, "max_tiles": 12, "use_thumbnail": false, "num_beams": 64,
                "repetition_penalty": 1.5, "length_penalty": -0.5, "early_stopping": "never", "no_repeat_ngram_size": 0,
                "min_new_tokens": 0, "max_new_tokens": 512, "orientation": "ignore",
            },
            "read-2_b": {"early_stopping": true, "orientation": "auto"},
            "text": {},
        });
        let presets = read(&written).unwrap();
        assert_eq!(presets["read"].max_tiles, Some(12));
        assert_eq!(presets["read"].early_stopping, Some(EarlyStopping::Never));
        assert_eq!(presets["read-2_b"].orientation, Some(Orientation::Auto));
        assert_eq!(presets["text"], Preset::default());
        assert_eq!(serde_json::to_value(&presets).unwrap(), written);
    }

    #[test]
    fn what_is_wrong_is_named_by_preset_and_field() {
        for (field, value, expected) in [
            ("description", json!(3), "3, expected one line of text"),
            ("description", json!("a\u{1b}[2J"), "\"a\\u001b[2J\", expected one line of text"),
            ("description", json!(" "), "\" \", expected one line of text"),
            ("min_tiles", json!(0), "0, expected an integer from 1 to 256"),
            ("max_tiles", json!(257), "257, expected an integer from 1 to 256"),
            ("use_thumbnail", json!("yes"), "\"yes\", expected true or false"),
            ("num_beams", json!(65), "65, expected an integer from 1 to 64"),
            ("num_beams", json!(3.0), "3.0, expected an integer from 1 to 64"),
            ("num_beams", json!(null), "null, expected an integer from 1 to 64"),
            ("repetition_penalty", json!(0), "0, expected a number from 0.01 to 100"),
            ("length_penalty", json!("1"), "\"1\", expected a number from -10 to 10"),
            ("early_stopping", json!("true"), "\"true\", expected true, false or \"never\""),
            ("no_repeat_ngram_size", json!(-1), "-1, expected an integer from 0 to 4294967295"),
            ("min_new_tokens", json!(1_u64 << 32), "4294967296, expected an integer from 0 to 4294967295"),
            ("max_new_tokens", json!(0), "0, expected an integer from 1 to 4294967295"),
            ("orientation", json!("up"), "\"up\", expected \"auto\" or \"ignore\""),
            ("beams", json!(3), "3, but no setting of a preset has that name"),
        ] {
            let found = refused(&json!({"text": {}, "read": {field: value}}));
            assert_eq!(found, format!("presets.read.{field} is {expected}"));
        }
        assert_eq!(refused(&json!({"read": 3})), "presets.read is 3, expected an object");
        assert_eq!(refused(&json!([])), "presets is [], expected an object");
        for name in ["", "Read", "đọc", "a b", "a.b"] {
            let expected = format!("presets has the name {name:?}, expected lower-case letters, digits, - and _");
            assert_eq!(refused(&json!({name: {}})), expected);
        }
    }
}
