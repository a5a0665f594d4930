use std::fmt;

use crate::generate::SettingsError;

/// How the caller writes the name of a choice, given as the field's name (`num_beams`).
pub type Spelling = fn(&str) -> String;

/// What a caller chose cannot be honoured. The caller's own names of the choices come in by [`ChoiceError::message`] and
/// [`ChoiceError::hint`].
#[derive(Clone, Debug, PartialEq)]
pub enum ChoiceError {
    /// No preset has this name.
    UnknownPreset {
        /// The name.
        name: String,
        /// The presets there are.
        presets: Vec<String>,
        /// The one whose name is near, if one is.
        nearest: Option<String>,
        /// Whether those of a package are among them.
        has_package: bool,
    },
    /// A choice of sampling, with temperature 0.
    NotSampling {
        /// The choice.
        choice: &'static str,
    },
    /// A choice that asks for sampling, and beams.
    SamplingWithBeams {
        /// The choice.
        choice: &'static str,
    },
    /// A choice of beam search that would have no effect.
    NoBeams {
        /// The choice.
        choice: &'static str,
        /// The choice that keeps it from having one.
        because: &'static str,
    },
    /// More beams or samples than are kept side by side.
    TooManyRows {
        /// The choice that asks for them.
        choice: &'static str,
        /// How many it asks for.
        asked: usize,
        /// Most there can be.
        most: usize,
        /// Whether the caller said how many.
        chosen: bool,
    },
    /// Fewest tiles above most tiles.
    Tiles {
        /// Fewest tiles asked for.
        fewest: u32,
        /// Most tiles.
        most: u32,
        /// Whether the caller said how many are most.
        chosen: bool,
    },
    /// A value out of its range.
    Value(SettingsError),
}

impl ChoiceError {
    /// The choice that is at fault.
    pub fn choice(&self) -> &'static str {
        match self {
            Self::UnknownPreset { .. } => "preset",
            Self::NotSampling { choice }
            | Self::SamplingWithBeams { choice }
            | Self::NoBeams { choice, .. }
            | Self::TooManyRows { choice, .. } => choice,
            Self::Tiles { .. } => "min_tiles",
            Self::Value(SettingsError::OutOfRange { setting, .. }) => setting,
            Self::Value(SettingsError::TooManySequences { .. }) => "num_return_sequences",
        }
    }

    /// What is wrong.
    pub fn message(&self, spelt: Spelling) -> String {
        match self {
            Self::UnknownPreset { name, presets, .. } => {
                format!("unknown preset {name:?}; the presets are {}", presets.join(", "))
            }
            Self::NotSampling { choice } => {
                format!("{} is for sampling, {} 0 is greedy search", spelt(choice), spelt("temperature"))
            }
            Self::SamplingWithBeams { choice } => {
                let (choice, beams) = (spelt(choice), spelt("num_beams"));
                format!("{choice} samples, {beams} searches with beams; one call cannot do both")
            }
            Self::NoBeams { choice, because } => {
                let because = if *because == "num_beams" { format!("{} 1", spelt(because)) } else { spelt(because) };
                format!("{} is for beam search and has no effect with {because}", spelt(choice))
            }
            Self::TooManyRows { choice, asked, most, chosen } => {
                let origin = if *chosen { "" } else { " (the preset's)" };
                format!("{} is {asked}{origin}; it must be at most {most}", spelt(choice))
            }
            Self::Tiles { fewest, most, chosen } => {
                let origin = if *chosen { "" } else { " (the default)" };
                format!("{} {fewest} is above {} {most}{origin}", spelt("min_tiles"), spelt("max_tiles"))
            }
            Self::Value(SettingsError::OutOfRange { setting, value, allowed }) => {
                format!("{} is {value}; it must be {allowed}", spelt(setting))
            }
            Self::Value(error @ SettingsError::TooManySequences { .. }) => error.to_string(),
        }
    }

    /// What to do; nothing where the message says it.
    pub fn hint(&self, spelt: Spelling) -> Option<String> {
        Some(match self {
            Self::UnknownPreset { nearest, has_package, .. } => {
                let nearest = nearest.as_ref().map(|nearest| format!("the nearest name is {nearest}"));
                let more = (!has_package).then(|| "--model DIR adds the package's".to_owned());
                let hints: Vec<String> = nearest.into_iter().chain(more).collect();
                return (!hints.is_empty()).then(|| hints.join("; "));
            }
            Self::NotSampling { .. } | Self::SamplingWithBeams { .. } => "leave one of them out".to_owned(),
            Self::NoBeams { .. } => format!("leave it out, or pass {} 2 or more", spelt("num_beams")),
            Self::TooManyRows { choice, most, chosen: false, .. } => {
                format!("pass {} {most} or less, or another preset", spelt(choice))
            }
            Self::TooManyRows { .. } => {
                "every beam costs as much time and memory as an answer of its own; the model card uses 3".to_owned()
            }
            Self::Tiles { .. } => format!("raise {} or lower {}", spelt("max_tiles"), spelt("min_tiles")),
            Self::Value(_) => return None,
        })
    }
}

/// With the fields' own names.
impl fmt::Display for ChoiceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message(str::to_owned))?;
        self.hint(str::to_owned).map_or(Ok(()), |hint| write!(f, "\nhint: {hint}"))
    }
}

impl std::error::Error for ChoiceError {}

impl From<SettingsError> for ChoiceError {
    fn from(error: SettingsError) -> Self {
        Self::Value(error)
    }
}
