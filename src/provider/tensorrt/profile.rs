//! The shapes an engine is built for, as TensorRT and ONNX Runtime want them.

use std::collections::BTreeMap;

use super::{EngineError, ShapeLimits, Sizes};
use crate::package::{Axis, GraphVariant};

/// Most bytes of an option's value.
///
/// ONNX Runtime 1.31.1 passes options of TensorRT on without looking at their length, but refuses more than this of
/// providers that are added by name, and may come to do so here.
pub const MAX_OPTION_LENGTH: usize = 4096;

/// Least, usual and greatest shape of every input that has an open axis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    inputs: BTreeMap<String, [Vec<u64>; 3]>,
    axes: BTreeMap<String, Sizes>,
}

impl Profile {
    /// The profile of a graph.
    ///
    /// # Errors
    /// [`EngineError::Axis`] for an axis without sizes, [`EngineError::ProfileTooLong`].
    pub fn of(graph: &'static str, variant: &GraphVariant, limits: &ShapeLimits) -> Result<Self, EngineError> {
        let (mut inputs, mut axes) = (BTreeMap::new(), BTreeMap::new());
        for input in variant.inputs.iter().filter(|input| input.shape.iter().any(|axis| matches!(axis, Axis::Named(_))))
        {
            let sizes = input.shape.iter().map(|axis| match axis {
                Axis::Fixed(size) => Ok(Sizes { min: *size, usual: *size, max: *size }),
                Axis::Named(name) => match limits.axis(name) {
                    Some(sizes) => Ok(*axes.entry(name.clone()).or_insert(sizes)),
                    None => Err(EngineError::Axis { graph, input: input.name.clone(), axis: name.clone() }),
                },
            });
            let sizes = sizes.collect::<Result<Vec<_>, _>>()?;
            let shape = |size: fn(&Sizes) -> u64| sizes.iter().map(size).collect();
            let shapes = [shape(|sizes| sizes.min), shape(|sizes| sizes.usual), shape(|sizes| sizes.max)];
            inputs.insert(input.name.clone(), shapes);
        }
        let profile = Self { inputs, axes };
        let length = profile.options().iter().map(|(_, value)| value.len()).max().unwrap_or(0);
        if length > MAX_OPTION_LENGTH {
            return Err(EngineError::ProfileTooLong { graph, length, limit: MAX_OPTION_LENGTH });
        }
        Ok(profile)
    }

    /// The three options, `name:1x3x448x448,…` each.
    pub fn options(&self) -> [(&'static str, String); 3] {
        let text = |which: usize| {
            let shape = |shape: &[u64]| shape.iter().map(ToString::to_string).collect::<Vec<_>>().join("x");
            let inputs = self.inputs.iter().map(|(name, shapes)| format!("{name}:{}", shape(&shapes[which])));
            inputs.collect::<Vec<_>>().join(",")
        };
        [("trt_profile_min_shapes", text(0)), ("trt_profile_opt_shapes", text(1)), ("trt_profile_max_shapes", text(2))]
    }

    /// Least, usual and greatest shape by input.
    pub fn inputs(&self) -> &BTreeMap<String, [Vec<u64>; 3]> {
        &self.inputs
    }

    /// Sizes of each open axis by its name in the manifest.
    pub fn axes(&self) -> &BTreeMap<String, Sizes> {
        &self.axes
    }

    /// Refuses a size that the engine was not built for. `axis` is `tiles`, `rows`, `positions` or `capacity`.
    ///
    /// # Errors
    /// [`EngineError::OutOfRange`].
    pub fn check(&self, graph: &str, axis: &'static str, found: usize) -> Result<(), EngineError> {
        let found = found as u64;
        match self.axes.get(axis) {
            Some(&Sizes { min, max, .. }) if !(min..=max).contains(&found) => {
                Err(EngineError::OutOfRange { graph: graph.to_owned(), axis, found, min, max })
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::limits::tests::manifest;
    use super::*;
    use crate::package::TensorEntry;

    fn input(name: &str, shape: &[&str]) -> TensorEntry {
        let axis = |axis: &&str| axis.parse().map_or_else(|_| Axis::Named((*axis).to_owned()), Axis::Fixed);
        TensorEntry { name: name.to_owned(), dtype: "fp16".to_owned(), shape: shape.iter().map(axis).collect() }
    }

    /// A decoder of the standard variant.
    pub fn decoder(layers: usize) -> GraphVariant {
        let mut variant = manifest().graphs.decoder.remove(0);
        variant.variant = "standard".to_owned();
        variant.inputs = vec![
            input("inputs_embeds", &["rows", "positions", "2048"]),
            input("position_ids", &["rows", "positions"]),
            input("attention_bias", &["rows", "1", "positions", "total"]),
        ];
        for (layer, part) in (0..layers).flat_map(|layer| ["key", "value"].map(|part| (layer, part))) {
            let name = format!("past_key_values.{layer}.{part}");
            variant.inputs.push(input(&name, &["rows", "2", "capacity", "128"]));
        }
        variant
    }

    fn limits() -> ShapeLimits {
        let room = Sizes { min: 1, usual: 3328, max: 3328 };
        ShapeLimits { capacity: room, ..ShapeLimits::of(&manifest()) }
    }

    #[test]
    fn every_open_input_has_three_shapes() {
        let vision = manifest().graphs.vision_encoder.remove(0);
        let profile = Profile::of("vision_encoder", &vision, &limits()).unwrap();
        let texts = profile.options().map(|(_, text)| text);
        let expected = ["pixel_values:1x3x128x128", "pixel_values:1x3x128x128", "pixel_values:13x3x128x128"];
        assert_eq!(texts, expected.map(str::to_owned));
        let profile = Profile::of("decoder", &decoder(1), &limits()).unwrap();
        let [min, usual, max] = profile.options().map(|(_, text)| text);
        assert_eq!(
            min,
            "attention_bias:1x1x1x2,inputs_embeds:1x1x2048,past_key_values.0.key:1x2x1x128,\
             past_key_values.0.value:1x2x1x128,position_ids:1x1"
        );
        assert!(usual.starts_with("attention_bias:3x1x1x3329,inputs_embeds:3x1x2048,"), "{usual}");
        assert!(max.starts_with("attention_bias:3x1x512x3840,inputs_embeds:3x512x2048,"), "{max}");
        assert!(max.contains("past_key_values.0.key:3x2x3328x128"), "{max}");
    }

    /// 36 layers have 72 inputs for the cache alone.
    #[test]
    fn the_profile_of_vintern_3b_is_within_the_limit() {
        let profile = Profile::of("decoder", &decoder(36), &limits()).unwrap();
        let longest = profile.options().iter().map(|(_, text)| text.len()).max().unwrap();
        assert!((2048..=MAX_OPTION_LENGTH).contains(&longest), "{longest}");
        let error = Profile::of("decoder", &decoder(80), &limits()).unwrap_err();
        let EngineError::ProfileTooLong { graph: "decoder", length, .. } = error else { panic!("{error}") };
        assert!(length > MAX_OPTION_LENGTH);
    }

    #[test]
    fn what_it_has_no_sizes_for_is_refused() {
        let mut variant = decoder(1);
        variant.inputs.push(input("other", &["rows", "heads"]));
        let error = Profile::of("decoder", &variant, &limits()).unwrap_err();
        let EngineError::Axis { input, axis, .. } = &error else { panic!("{error}") };
        assert_eq!((input.as_str(), axis.as_str()), ("other", "heads"));
        let profile = Profile::of("decoder", &decoder(1), &limits()).unwrap();
        assert!(profile.check("decoder.onnx", "rows", 3).is_ok());
        let error = profile.check("decoder.onnx", "rows", 4).unwrap_err().to_string();
        assert!(error.contains("for rows from 1 to 3; 4 is needed") && error.contains("tensorrt:rows=4"), "{error}");
        assert!(profile.check("decoder.onnx", "capacity", 3329).is_err());
    }
}
