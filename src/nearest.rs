//! The name that was meant where there is none of the name given: presets, fields of requests, settings, providers and
//! their options.

/// Likeness below which a name is another one, of 0 to 1.
const NEAR: f64 = 0.8;

/// Most bytes of a name that is compared: above those of any name there is, and few, as the measure takes the product of
/// both lengths.
const LONGEST: usize = 80;

/// The nearest of some names, if one is near; case does not matter.
pub(crate) fn nearest<'a>(name: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if name.len() > LONGEST {
        return None;
    }
    let name = name.to_lowercase();
    // This measure also knows an abbreviation, which the number of edits does not.
    names
        .into_iter()
        .map(|known| (strsim::jaro_winkler(&name, &known.to_lowercase()), known))
        .filter(|(likeness, _)| *likeness >= NEAR)
        .reduce(|best, other| if other.0 > best.0 { other } else { best })
        .map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_and_abbreviations_are_near() {
        let names = ["text", "temperature", "repeat_penalty", "tensorrt", "Bench"];
        for (name, expected) in [
            ("tempreature", Some("temperature")),
            ("TEMP", Some("temperature")),
            ("rep_pen", Some("repeat_penalty")),
            ("tensort", Some("tensorrt")),
            ("bench", Some("Bench")),
            ("prompt", None),
            ("VitisAI", None),
            ("", None),
        ] {
            assert_eq!(nearest(name, names), expected, "{name}");
        }
        assert_eq!(nearest("text", []), None);
        assert_eq!(nearest(&"temperature".repeat(1_000_000), names), None);
    }
}
