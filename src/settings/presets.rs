//! The presets a call can start from: those built in, those of the package, and the one it does start from.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::ChoiceError;
use crate::generate::EarlyStopping;
use crate::nearest::nearest;
use crate::package::{DefaultPresets, MANIFEST_FILE, Package, PackageError, Preset, Tiling};
use crate::preprocess::Orientation;

const BUILT_IN: [&str; 3] = ["describe", "text", "benchmark"];

/// The model card's tiling, used without a package.
const CARD_TILING: Tiling =
    Tiling { min_tiles: 1, max_tiles: 6, use_thumbnail: true, mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] };

/// What a built-in preset says.
fn built_in(name: &str) -> Option<Preset> {
    let (description, num_beams, repetition_penalty, max_new_tokens) = match name {
        "describe" => ("The model card's image call", 3, 3.5, 512),
        "text" => ("The model card's text call", 1, 1.5, 64),
        "benchmark" => ("What the published scores were made with", 3, 1.0, 1024),
        _ => return None,
    };
    Some(Preset {
        description: Some(description.to_owned()),
        num_beams: Some(num_beams),
        repetition_penalty: Some(repetition_penalty),
        max_new_tokens: Some(max_new_tokens),
        orientation: (name == "benchmark").then_some(Orientation::Ignore),
        ..Preset::default()
    })
}

/// A preset with every setting decided.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PresetValues {
    pub(crate) min_tiles: u32,
    pub(crate) max_tiles: u32,
    pub(crate) use_thumbnail: bool,
    pub(crate) num_beams: usize,
    pub(crate) repetition_penalty: f32,
    pub(crate) length_penalty: f32,
    pub(crate) early_stopping: EarlyStopping,
    pub(crate) no_repeat_ngram_size: usize,
    pub(crate) min_new_tokens: usize,
    pub(crate) max_new_tokens: usize,
    pub(crate) orientation: Orientation,
}

impl PresetValues {
    /// Neutral values, and the tiling of the package, for what the preset leaves open.
    fn new(preset: &Preset, tiling: &Tiling) -> Self {
        let count = |count: Option<u32>, neutral: usize| count.map_or(neutral, |count| count as usize);
        let max_tiles = preset.max_tiles.unwrap_or(tiling.max_tiles);
        Self {
            min_tiles: preset.min_tiles.unwrap_or(tiling.min_tiles.min(max_tiles)),
            max_tiles,
            use_thumbnail: preset.use_thumbnail.unwrap_or(tiling.use_thumbnail),
            num_beams: count(preset.num_beams, 1),
            repetition_penalty: preset.repetition_penalty.unwrap_or(1.0),
            length_penalty: preset.length_penalty.unwrap_or(1.0),
            early_stopping: preset.early_stopping.unwrap_or_default(),
            no_repeat_ngram_size: count(preset.no_repeat_ngram_size, 0),
            min_new_tokens: count(preset.min_new_tokens, 0),
            max_new_tokens: count(preset.max_new_tokens, 512),
            orientation: preset.orientation.unwrap_or_default(),
        }
    }
}

/// The settings in words; those of no effect and neutral ones are left out.
impl fmt::Display for PresetValues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let thumbnail = if self.use_thumbnail { " + thumbnail" } else { "" };
        write!(f, "{} to {} tiles{thumbnail}", self.min_tiles, self.max_tiles)?;
        if self.orientation == Orientation::Ignore {
            f.write_str(", EXIF ignored")?;
        }
        if self.num_beams == 1 {
            f.write_str(", greedy")?;
        } else {
            write!(f, ", {} beams", self.num_beams)?;
            if self.length_penalty.total_cmp(&1.0).is_ne() {
                write!(f, ", length penalty {}", self.length_penalty)?;
            }
            if self.early_stopping != EarlyStopping::False {
                write!(f, ", early stopping {}", self.early_stopping)?;
            }
        }
        write!(f, ", repetition penalty {}", self.repetition_penalty)?;
        if self.no_repeat_ngram_size > 0 {
            write!(f, ", no {} tokens twice", self.no_repeat_ngram_size)?;
        }
        if self.min_new_tokens > 0 {
            write!(f, ", {} to {} new tokens", self.min_new_tokens, self.max_new_tokens)
        } else {
            write!(f, ", up to {} new tokens", self.max_new_tokens)
        }
    }
}

/// A preset as `doctor` lists it.
#[derive(Debug, Serialize)]
pub struct ListedPreset {
    pub(crate) name: String,
    pub(crate) from_package: bool,
    pub(crate) default_with_image: bool,
    pub(crate) default_text: bool,
    pub(crate) description: Option<String>,
    pub(crate) settings: PresetValues,
}

/// One line: `read (the package's, default with an image): 1 to 12 tiles, greedy, …; Reads text.`
impl fmt::Display for ListedPreset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        let notes = [
            (self.from_package, "the package's"),
            (!self.from_package, "built in"),
            (self.default_with_image, "default with an image"),
            (self.default_text, "default without one"),
        ];
        let notes: Vec<&str> = notes.iter().filter(|(holds, _)| *holds).map(|(_, note)| *note).collect();
        write!(f, " ({}): {}", notes.join(", "), self.settings)?;
        self.description.iter().try_for_each(|description| write!(f, "; {description}"))
    }
}

/// The presets there are.
pub struct Presets {
    own: BTreeMap<String, Preset>,
    defaults: DefaultPresets,
    tiling: Tiling,
    has_package: bool,
}

impl Presets {
    /// Those built in, and those of the package where there is one.
    ///
    /// # Errors
    /// [`PackageError::Field`] when the package's default is no preset.
    pub fn new(package: Option<&Package>) -> Result<Self, PackageError> {
        let Some(package) = package else {
            let (own, defaults) = (BTreeMap::new(), DefaultPresets::default());
            return Ok(Self { own, defaults, tiling: CARD_TILING, has_package: false });
        };
        let manifest = package.manifest();
        let (defaults, tiling) = (manifest.default_presets.clone(), manifest.tiling.clone());
        let presets = Self { own: manifest.presets.clone(), defaults, tiling, has_package: true };
        for (has_images, field) in [(true, "with_image"), (false, "text")] {
            let name = presets.default_name(has_images);
            if presets.find(name).is_none() {
                return Err(PackageError::Field {
                    file: package.folder().join(MANIFEST_FILE),
                    field: format!("default_presets.{field}"),
                    found: format!("{name:?}"),
                    expected: "the name of a preset: one of the package's, or describe, text or benchmark",
                });
            }
        }
        Ok(presets)
    }

    /// The presets of a command, both that asked for if one was.
    ///
    /// # Errors
    /// [`ChoiceError::UnknownPreset`].
    pub fn choose(&self, asked: Option<&str>) -> Result<ChosenPresets, ChoiceError> {
        let values = |has_images| {
            let name = asked.unwrap_or_else(|| self.default_name(has_images));
            let preset = self.find(name).ok_or_else(|| self.unknown(name))?;
            Ok::<_, ChoiceError>(PresetValues::new(&preset, &self.tiling))
        };
        Ok(ChosenPresets { with_image: values(true)?, text: values(false)? })
    }

    /// All of them, the package's own first.
    pub fn list(&self) -> Vec<ListedPreset> {
        let listed = |name: &str| {
            let preset = self.find(name)?;
            Some(ListedPreset {
                name: name.to_owned(),
                from_package: self.own.contains_key(name),
                default_with_image: self.default_name(true) == name,
                default_text: self.default_name(false) == name,
                settings: PresetValues::new(&preset, &self.tiling),
                description: preset.description,
            })
        };
        self.names().into_iter().filter_map(listed).collect()
    }

    fn names(&self) -> Vec<&str> {
        let built_in = BUILT_IN.into_iter().filter(|name| !self.own.contains_key(*name));
        self.own.keys().map(String::as_str).chain(built_in).collect()
    }

    fn default_name(&self, has_images: bool) -> &str {
        let (own, built_in) =
            if has_images { (&self.defaults.with_image, "describe") } else { (&self.defaults.text, "text") };
        own.as_deref().unwrap_or(built_in)
    }

    /// What the package says of a preset, and what the built-in one of that name says of the rest.
    fn find(&self, name: &str) -> Option<Preset> {
        match (self.own.get(name), built_in(name)) {
            (Some(own), Some(built_in)) => Some(merge(own.clone(), built_in)),
            (own, built_in) => own.cloned().or(built_in),
        }
    }

    fn unknown(&self, name: &str) -> ChoiceError {
        let names = self.names();
        ChoiceError::UnknownPreset {
            name: name.to_owned(),
            nearest: nearest(name, names.iter().copied()).map(str::to_owned),
            presets: names.into_iter().map(str::to_owned).collect(),
            has_package: self.has_package,
        }
    }
}

fn merge(preset: Preset, rest: Preset) -> Preset {
    Preset {
        description: preset.description.or(rest.description),
        min_tiles: preset.min_tiles.or(rest.min_tiles),
        max_tiles: preset.max_tiles.or(rest.max_tiles),
        use_thumbnail: preset.use_thumbnail.or(rest.use_thumbnail),
        num_beams: preset.num_beams.or(rest.num_beams),
        repetition_penalty: preset.repetition_penalty.or(rest.repetition_penalty),
        length_penalty: preset.length_penalty.or(rest.length_penalty),
        early_stopping: preset.early_stopping.or(rest.early_stopping),
        no_repeat_ngram_size: preset.no_repeat_ngram_size.or(rest.no_repeat_ngram_size),
        min_new_tokens: preset.min_new_tokens.or(rest.min_new_tokens),
        max_new_tokens: preset.max_new_tokens.or(rest.max_new_tokens),
        orientation: preset.orientation.or(rest.orientation),
    }
}

/// The presets a command starts from.
pub struct ChosenPresets {
    with_image: PresetValues,
    text: PresetValues,
}

impl ChosenPresets {
    /// That of a call.
    pub fn of_call(&self, has_images: bool) -> &PresetValues {
        if has_images { &self.with_image } else { &self.text }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::EngineConfig;
    use crate::package::MAX_PRESET_BEAMS;

    fn presets(own: &[(&str, Preset)], with_image: Option<&str>, text: Option<&str>) -> Presets {
        Presets {
            own: own.iter().map(|(name, preset)| ((*name).to_owned(), preset.clone())).collect(),
            defaults: DefaultPresets { with_image: with_image.map(str::to_owned), text: text.map(str::to_owned) },
            tiling: Tiling { min_tiles: 2, max_tiles: 5, ..CARD_TILING },
            has_package: true,
        }
    }

    fn values(presets: &Presets, name: &str) -> PresetValues {
        presets.choose(Some(name)).unwrap().of_call(true).clone()
    }

    #[test]
    fn what_nothing_says_is_neutral() {
        let expected = PresetValues {
            min_tiles: 2,
            max_tiles: 5,
            use_thumbnail: true,
            num_beams: 1,
            repetition_penalty: 1.0,
            length_penalty: 1.0,
            early_stopping: EarlyStopping::False,
            no_repeat_ngram_size: 0,
            min_new_tokens: 0,
            max_new_tokens: 512,
            orientation: Orientation::Auto,
        };
        assert_eq!(values(&presets(&[("read", Preset::default())], None, None), "read"), expected);
    }

    #[test]
    fn a_package_overrides_a_built_in_preset_field_by_field() {
        let own = Preset { repetition_penalty: Some(1.0), max_tiles: Some(12), ..Preset::default() };
        let presets = presets(&[("describe", own)], None, None);
        let built_in = PresetValues::new(&built_in("describe").unwrap(), &presets.tiling);
        let expected = PresetValues { repetition_penalty: 1.0, max_tiles: 12, ..built_in };
        assert_eq!(values(&presets, "describe"), expected);
        assert_eq!((expected.num_beams, expected.max_new_tokens), (3, 512));
        assert_eq!(values(&presets, "benchmark").orientation, Orientation::Ignore);
    }

    /// A field that is forgotten here would be dropped in silence.
    #[test]
    fn every_field_of_a_package_wins() {
        let own = Preset {
            description: Some("own".to_owned()),
            min_tiles: Some(1),
            max_tiles: Some(2),
            use_thumbnail: Some(false),
            num_beams: Some(4),
            repetition_penalty: Some(2.0),
            length_penalty: Some(0.5),
            early_stopping: Some(EarlyStopping::True),
            no_repeat_ngram_size: Some(5),
            min_new_tokens: Some(6),
            max_new_tokens: Some(7),
            orientation: Some(Orientation::Auto),
        };
        assert_eq!(merge(own.clone(), built_in("benchmark").unwrap()), own);
        assert_eq!(merge(Preset::default(), own.clone()), own);
    }

    #[test]
    fn few_tiles_lower_the_fewest() {
        let one = Preset { max_tiles: Some(1), ..Preset::default() };
        let found = values(&presets(&[("one", one)], None, None), "one");
        assert_eq!((found.min_tiles, found.max_tiles), (1, 1));
    }

    #[test]
    fn defaults_are_the_packages_then_the_cards() {
        let own = [("read", Preset { max_new_tokens: Some(9), ..Preset::default() })];
        let limits = |with_image, text| {
            let chosen = presets(&own, with_image, text).choose(None).unwrap();
            [true, false].map(|has_images| chosen.of_call(has_images).max_new_tokens)
        };
        assert_eq!(limits(None, None), [512, 64]);
        assert_eq!(limits(Some("read"), None), [9, 64]);
        assert_eq!(limits(Some("benchmark"), Some("read")), [1024, 9]);
    }

    #[test]
    fn an_unknown_name_is_told_the_names_and_the_nearest() {
        let own = [("read", Preset::default()), ("text", Preset::default())];
        let refused = |name| presets(&own, None, None).choose(Some(name)).err().unwrap().to_string();
        let listed = "the presets are read, text, describe, benchmark";
        assert_eq!(refused("raed"), format!("unknown preset \"raed\"; {listed}\nhint: the nearest name is read"));
        assert_eq!(
            refused("Bench"),
            format!("unknown preset \"Bench\"; {listed}\nhint: the nearest name is benchmark")
        );
    }

    #[test]
    fn the_list_says_what_a_preset_comes_to() {
        let own = Preset {
            description: Some("Reads text.".to_owned()),
            min_tiles: Some(1),
            max_tiles: Some(12),
            length_penalty: Some(0.5),
            early_stopping: Some(EarlyStopping::Never),
            no_repeat_ngram_size: Some(9),
            min_new_tokens: Some(2),
            ..Preset::default()
        };
        let with_beams = Preset { num_beams: Some(2), use_thumbnail: Some(false), ..own.clone() };
        let presets = presets(&[("beams", with_beams), ("read", own)], Some("read"), None);
        let lines: Vec<String> = presets.list().iter().map(ToString::to_string).collect();
        assert_eq!(
            lines,
            [
                "beams (the package's): 1 to 12 tiles, 2 beams, length penalty 0.5, early stopping never, \
                 repetition penalty 1, no 9 tokens twice, 2 to 512 new tokens; Reads text.",
                "read (the package's, default with an image): 1 to 12 tiles + thumbnail, greedy, \
                 repetition penalty 1, no 9 tokens twice, 2 to 512 new tokens; Reads text.",
                "describe (built in): 2 to 5 tiles + thumbnail, 3 beams, repetition penalty 3.5, \
                 up to 512 new tokens; The model card's image call",
                "text (built in, default without one): 2 to 5 tiles + thumbnail, greedy, repetition penalty 1.5, \
                 up to 64 new tokens; The model card's text call",
                "benchmark (built in): 2 to 5 tiles + thumbnail, EXIF ignored, 3 beams, repetition penalty 1, \
                 up to 1024 new tokens; What the published scores were made with",
            ]
        );
    }

    #[test]
    fn the_engine_keeps_as_many_beams_as_a_preset_may_ask_for() {
        assert_eq!(MAX_PRESET_BEAMS as usize, EngineConfig::default().max_rows);
    }
}
