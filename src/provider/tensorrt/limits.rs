//! The sizes an engine is built for, by axis.

use crate::package::Manifest;
use crate::provider::ProviderError;

/// Options that set the greatest size of an axis, by the name of the axis.
pub const LIMIT_OPTIONS: [&str; 4] = ["tiles", "rows", "positions", "capacity"];

/// Beams where no preset of the package says how many: those of the model card.
const CARD_BEAMS: u64 = 3;

/// Prompt positions of one call, as the engine feeds them by default.
const CHUNK: u64 = 512;

/// Room in the cache beside the image: a question, and the longest answer of the built-in presets.
const TEXT_POSITIONS: u64 = 512 + 1024;

/// Least, usual and greatest size of an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Least size.
    pub min: u64,
    /// The size that kernels are chosen for.
    pub usual: u64,
    /// Greatest size.
    pub max: u64,
}

/// Sizes of the axes that a graph leaves open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShapeLimits {
    /// Tiles of one call of the vision encoder and the projector.
    pub tiles: Sizes,
    /// Rows of the decoder: beams, and requests side by side.
    pub rows: Sizes,
    /// New positions of one call of the decoder.
    pub positions: Sizes,
    /// Positions of a row of the cache.
    pub capacity: Sizes,
}

impl ShapeLimits {
    /// What a package's own settings need: as many tiles and beams as its tiling and presets have, and a cache for the
    /// prompt of that many tiles and the longest answer of the built-in presets.
    pub fn of(manifest: &Manifest) -> Self {
        let presets = manifest.presets.values();
        let most_tiles = presets.clone().filter_map(|preset| preset.max_tiles).chain([manifest.tiling.max_tiles]).max();
        let most_tiles = u64::from(most_tiles.unwrap_or(1));
        // The thumbnail comes on top of a grid.
        let tiles = if most_tiles > 1 { most_tiles + 1 } else { 1 };
        let beams = presets.filter_map(|preset| preset.num_beams).map(u64::from).max();
        let rows = beams.unwrap_or(0).max(CARD_BEAMS);
        let longest = manifest.architecture.max_length as u64;
        let capacity = (tiles * manifest.architecture.tokens_per_tile as u64 + TEXT_POSITIONS).min(longest);
        Self {
            // The engine encodes tile by tile.
            tiles: Sizes { min: 1, usual: 1, max: tiles },
            rows: Sizes { min: 1, usual: rows, max: rows },
            // Most calls are decode steps.
            positions: Sizes { min: 1, usual: 1, max: CHUNK },
            capacity: Sizes { min: 1, usual: capacity, max: capacity },
        }
    }

    /// The same with the greatest sizes that options name; options that are none of [`LIMIT_OPTIONS`] are let be.
    #[must_use]
    pub fn with_options(mut self, options: &[(String, String)]) -> Self {
        for (name, value) in options {
            let sizes = match name.as_str() {
                "tiles" => &mut self.tiles,
                "rows" => &mut self.rows,
                "positions" => &mut self.positions,
                "capacity" => &mut self.capacity,
                _ => continue,
            };
            if let Some(max) = size(value) {
                *sizes = Sizes { min: sizes.min.min(max), usual: sizes.usual.min(max), max };
            }
        }
        self
    }

    /// The sizes of an axis by its name in the manifest; `total` is the cache and the new positions behind it.
    pub fn axis(&self, name: &str) -> Option<Sizes> {
        match name {
            "tiles" => Some(self.tiles),
            "rows" => Some(self.rows),
            "positions" => Some(self.positions),
            "capacity" => Some(self.capacity),
            "total" => {
                let (cache, new) = (self.capacity, self.positions);
                Some(Sizes { min: cache.min + new.min, usual: cache.usual + new.usual, max: cache.max + new.max })
            }
            _ => None,
        }
    }
}

/// Refuses sizes that are none.
///
/// # Errors
/// [`ProviderError::OptionValue`].
pub(in crate::provider) fn check_options(options: &[(String, String)]) -> Result<(), ProviderError> {
    let mut limits = options.iter().filter(|(name, _)| LIMIT_OPTIONS.contains(&name.as_str()));
    match limits.find(|(_, value)| size(value).is_none()) {
        Some((name, value)) => Err(ProviderError::OptionValue {
            provider: super::TENSORRT.to_owned(),
            option: name.clone(),
            value: value.clone(),
            expected: "a number from 1 to 1048576",
        }),
        None => Ok(()),
    }
}

fn size(value: &str) -> Option<u64> {
    value.parse().ok().filter(|size| (1..=1 << 20).contains(size))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The bundled model's manifest: 4 layers, 16 tokens a tile, 12 tiles and 3 beams in its presets.
    pub fn manifest() -> Manifest {
        serde_json::from_str(include_str!("../../../models/vintern-tiny/manifest.json")).unwrap()
    }

    #[test]
    fn sizes_are_what_the_packages_settings_need() {
        let limits = ShapeLimits::of(&manifest());
        assert_eq!(limits.tiles, Sizes { min: 1, usual: 1, max: 13 });
        assert_eq!(limits.rows, Sizes { min: 1, usual: 3, max: 3 });
        assert_eq!(limits.positions, Sizes { min: 1, usual: 1, max: 512 });
        let room = 13 * 16 + 512 + 1024;
        assert_eq!(limits.capacity, Sizes { min: 1, usual: room, max: room });
        assert_eq!(limits.axis("total"), Some(Sizes { min: 2, usual: room + 1, max: room + 512 }));
        assert_eq!(limits.axis("other"), None);
        let mut manifest = manifest();
        manifest.presets.clear();
        manifest.tiling.max_tiles = 1;
        manifest.architecture.max_length = 700;
        let limits = ShapeLimits::of(&manifest);
        assert_eq!((limits.tiles.max, limits.rows.max, limits.capacity.max), (1, 3, 700));
    }

    #[test]
    fn options_set_the_greatest_sizes() {
        let options = [("rows", "8"), ("capacity", "100"), ("trt_fp16_enable", "1")];
        let options = options.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let limits = ShapeLimits::of(&manifest()).with_options(&options);
        assert_eq!(limits.rows, Sizes { min: 1, usual: 3, max: 8 });
        assert_eq!(limits.capacity, Sizes { min: 1, usual: 100, max: 100 });
        assert!(check_options(&options).is_ok());
        for value in ["0", "-1", "many", "1048577"] {
            assert!(check_options(&[("tiles".to_owned(), value.to_owned())]).is_err(), "{value}");
        }
    }
}
