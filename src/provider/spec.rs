//! Reading specs.

use std::str::FromStr;

use super::ProviderError;
use super::catalogue::{KnownProvider, known_providers};
use super::tensorrt::{TENSORRT, check_options};
use crate::nearest::nearest;

/// Execution providers in order of preference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderList {
    entries: Vec<Provider>,
}

/// One execution provider with its options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Provider {
    /// ONNX Runtime's own CPU kernels, and ours.
    Cpu(CpuOptions),
    /// Any other.
    Other {
        /// What is known of it; nothing of a provider that is named as ONNX Runtime does.
        known: Option<&'static KnownProvider>,
        /// Its name, as it was asked for.
        name: String,
        /// Options by the names ONNX Runtime has for them.
        options: Vec<(String, String)>,
    },
}

/// Options of the CPU provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuOptions {
    /// Keep freed memory for the next run (`arena=true`, the default) or return it to the system.
    pub arena: bool,
    /// Rearrange weights in a copy of their own for faster runs (`prepacking=true`, the default). ONNX Runtime does so when a graph
    /// is loaded, and keeps what it copied; our kernels do so in the first runs, with AVX2 alone, and on Linux let go of
    /// what they copied.
    pub prepacking: bool,
    /// Which kernels run attention and products with quantised and float16 matrices.
    pub kernels: Kernels,
    /// Whether our kernels multiply many rows with AMX (`amx=true`: or there is an error; `amx=false`: never). By default
    /// where the processor has it.
    pub amx: Option<bool>,
}

/// Which kernels run attention and products with quantised and float16 matrices on the CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kernels {
    /// Those of this crate where the processor and the package allow, else ONNX Runtime's.
    #[default]
    Auto,
    /// Those of this crate, or an error.
    Vintern,
    /// ONNX Runtime's.
    OnnxRuntime,
}

impl Default for CpuOptions {
    fn default() -> Self {
        Self { arena: true, prepacking: true, kernels: Kernels::Auto, amx: None }
    }
}

impl Default for ProviderList {
    fn default() -> Self {
        Self { entries: vec![Provider::Cpu(CpuOptions::default())] }
    }
}

impl Provider {
    /// Name in specs and manifests.
    pub fn name(&self) -> &str {
        match self {
            Self::Cpu(_) => "cpu",
            Self::Other { known, name, .. } => known.map_or(name, |known| known.name),
        }
    }

    /// Whether the provider has kernels for the `com.microsoft` operators of fused graphs; of a decoder with a cache of the
    /// number format `cache`, where it has one.
    pub fn runs_fused(&self, cache: Option<&str>) -> bool {
        match self {
            Self::Cpu(_) => true,
            Self::Other { known, .. } => known.is_some_and(|known| match cache {
                Some(format) => known.fused.contains(&format),
                None => !known.fused.is_empty(),
            }),
        }
    }

    /// The options of TensorRT, if it is that.
    pub fn tensorrt_options(&self) -> Option<&[(String, String)]> {
        match self {
            Self::Other { known: Some(known), options, .. } if known.name == TENSORRT => Some(options),
            _ => None,
        }
    }

    /// The same provider with other options.
    #[must_use]
    pub(crate) fn with_options(&self, options: &[(String, String)]) -> Self {
        match self {
            Self::Cpu(_) => self.clone(),
            Self::Other { known, name, .. } => {
                Self::Other { known: *known, name: name.clone(), options: options.to_vec() }
            }
        }
    }

    /// Whether a name in a placement is this provider's.
    pub fn is_placed_as(&self, placed: &str) -> bool {
        match self {
            Self::Cpu(_) => placed == "CPUExecutionProvider",
            Self::Other { known: Some(known), .. } => placed == known.full_name,
            Self::Other { name, .. } => {
                placed.trim_end_matches("ExecutionProvider") == name.trim_end_matches("ExecutionProvider")
            }
        }
    }
}

impl ProviderList {
    /// The providers in order of preference; at least one.
    pub fn entries(&self) -> &[Provider] {
        &self.entries
    }

    /// The first provider alone.
    #[must_use]
    pub fn first_alone(&self) -> Self {
        Self { entries: self.entries[..1].to_vec() }
    }
}

impl FromStr for ProviderList {
    type Err = ProviderError;

    fn from_str(spec: &str) -> Result<Self, ProviderError> {
        let mut entries: Vec<Provider> = Vec::new();
        for entry in split(spec, ';')? {
            if entry.trim().is_empty() {
                continue;
            }
            let provider = parse_provider(entry.trim())?;
            if entries.iter().any(|other| other.name() == provider.name()) {
                return Err(ProviderError::Twice { name: provider.name().to_owned() });
            }
            entries.push(provider);
        }
        if entries.is_empty() { Err(ProviderError::Empty) } else { Ok(Self { entries }) }
    }
}

fn parse_provider(entry: &str) -> Result<Provider, ProviderError> {
    let (name, options) = entry.split_once(':').unwrap_or((entry, ""));
    let name = name.trim();
    let syntax = |problem| ProviderError::Syntax { entry: entry.to_owned(), problem };
    if name.is_empty() || name.contains(['=', '"', ',']) {
        return Err(syntax("does not begin with the name of a provider"));
    }
    let known = KnownProvider::find(name);
    if known.is_none()
        && let Some(nearest) = nearest(name, known_providers().iter().map(|provider| provider.name))
    {
        return Err(ProviderError::Unknown { name: name.to_owned(), nearest });
    }
    let mut pairs: Vec<(String, String)> = Vec::new();
    for option in split(options, ',')? {
        if option.trim().is_empty() {
            continue;
        }
        let (key, value) = option.split_once('=').ok_or_else(|| syntax("has an option without =value"))?;
        let (key, value) = (key.trim(), unquoted(value.trim()).ok_or_else(|| syntax("has quotes inside a value"))?);
        let key = option_key(known, name, key)?;
        if pairs.iter().any(|(other, _)| *other == key) {
            return Err(syntax("names an option twice"));
        }
        pairs.push((key, value.to_owned()));
    }
    if known.is_some_and(|known| known.name == TENSORRT) {
        check_options(&pairs)?;
    }
    if known.is_some_and(|known| known.name == "cpu") {
        return Ok(Provider::Cpu(cpu_options(&pairs)?));
    }
    Ok(Provider::Other { known, name: name.to_owned(), options: pairs })
}

/// ONNX Runtime's name of an option.
fn option_key(known: Option<&'static KnownProvider>, provider: &str, option: &str) -> Result<String, ProviderError> {
    let Some(known) = known else {
        return Ok(option.to_owned());
    };
    known.option(option).map(str::to_owned).ok_or_else(|| ProviderError::UnknownOption {
        provider: provider.to_ascii_lowercase(),
        option: option.to_owned(),
        nearest: nearest(option, known.option_names()).map(str::to_owned),
        known: known.option_names().collect::<Vec<_>>().join(", "),
    })
}

fn cpu_options(pairs: &[(String, String)]) -> Result<CpuOptions, ProviderError> {
    let mut options = CpuOptions::default();
    for (key, value) in pairs {
        let refused = |expected| ProviderError::OptionValue {
            provider: "cpu".to_owned(),
            option: key.clone(),
            value: value.clone(),
            expected,
        };
        let switch = || value.parse().map_err(|_| refused("true or false"));
        match key.as_str() {
            "arena" => options.arena = switch()?,
            "prepacking" => options.prepacking = switch()?,
            "amx" => options.amx = Some(switch()?),
            _ => {
                options.kernels = match value.as_str() {
                    "auto" => Kernels::Auto,
                    "vintern" => Kernels::Vintern,
                    "onnxruntime" => Kernels::OnnxRuntime,
                    _ => return Err(refused("auto, vintern or onnxruntime")),
                }
            }
        }
    }
    if let (Kernels::OnnxRuntime, Some(amx)) = (options.kernels, options.amx) {
        return Err(ProviderError::OptionValue {
            provider: "cpu".to_owned(),
            option: "amx".to_owned(),
            value: amx.to_string(),
            expected: "none beside kernels=onnxruntime",
        });
    }
    Ok(options)
}

/// Splits at a mark that stands outside double quotes.
pub(super) fn split(text: &str, mark: char) -> Result<Vec<&str>, ProviderError> {
    let mut quoted = false;
    let parts = text.split(|c| {
        quoted ^= c == '"';
        c == mark && !quoted
    });
    let parts = parts.collect();
    if quoted {
        return Err(ProviderError::Syntax { entry: text.to_owned(), problem: "has a double quote that is not closed" });
    }
    Ok(parts)
}

/// A value without its quotes; `None` where quotes stand inside.
fn unquoted(value: &str) -> Option<&str> {
    let inner = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
    (!inner.contains('"')).then_some(inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(spec: &str) -> Result<ProviderList, ProviderError> {
        spec.parse()
    }

    #[test]
    fn a_spec_is_a_list_of_names_with_options() {
        assert_eq!(parse("cpu"), Ok(ProviderList::default()));
        let list = parse("CPU:arena=false,kernels=vintern").unwrap();
        let options = CpuOptions { arena: false, prepacking: true, kernels: Kernels::Vintern, amx: None };
        assert_eq!(list.entries(), [Provider::Cpu(options)]);
        let list = parse("tensorrt:fp16=true,engine_cache=caches/a b; cuda:device=1;cpu").unwrap();
        let names: Vec<&str> = list.entries().iter().map(Provider::name).collect();
        assert_eq!(names, ["tensorrt", "cuda", "cpu"]);
        let Provider::Other { options, .. } = &list.entries()[0] else { panic!("{list:?}") };
        let pairs: Vec<(&str, &str)> = options.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(pairs, [("trt_fp16_enable", "true"), ("trt_engine_cache_path", "caches/a b")]);
    }

    #[test]
    fn quotes_protect_marks() {
        let list = parse(r#"tensorrt:trt_profile_min_shapes="a:1x2,b:3;c=4",fp16=1"#).unwrap();
        let Provider::Other { options, .. } = &list.entries()[0] else { panic!("{list:?}") };
        assert_eq!(options[0].1, "a:1x2,b:3;c=4");
        assert!(matches!(parse(r#"tensorrt:fp16="1"#), Err(ProviderError::Syntax { .. })));
        assert!(matches!(parse(r#"tensorrt:fp16=1"2"3"#), Err(ProviderError::Syntax { .. })));
    }

    #[test]
    fn fused_graphs_are_for_providers_with_kernels_for_their_number_format() {
        let runs = |spec: &str, cache| parse(spec).unwrap().entries()[0].runs_fused(cache);
        for cache in [None, Some("fp16"), Some("fp32")] {
            assert!(runs("cpu", cache));
            assert!(!runs("tensorrt", cache) && !runs("openvino", cache) && !runs("Other", cache));
        }
        // CUDA's attention over a cache is for 16 bits.
        assert!(runs("cuda", None) && runs("cuda", Some("fp16")));
        assert!(!runs("cuda", Some("fp32")));
    }

    #[test]
    fn providers_that_are_not_known_pass_with_any_option() {
        let list = parse("VitisAIExecutionProvider:config_file=x.json").unwrap();
        assert_eq!(list.entries()[0].name(), "VitisAIExecutionProvider");
        assert!(list.entries()[0].is_placed_as("VitisAIExecutionProvider"));
    }

    #[test]
    fn what_cannot_be_honoured_is_refused() {
        let refused = |spec: &str| parse(spec).unwrap_err();
        assert_eq!(refused(" ; "), ProviderError::Empty);
        assert_eq!(refused("cuda;cuda"), ProviderError::Twice { name: "cuda".into() });
        assert_eq!(refused("tensorrrt"), ProviderError::Unknown { name: "tensorrrt".into(), nearest: "tensorrt" });
        assert!(matches!(refused("cpu:threads=3"), ProviderError::UnknownOption { .. }));
        let ProviderError::UnknownOption { nearest, .. } = refused("cuda:devise_id=1") else { panic!() };
        assert_eq!(nearest.as_deref(), Some("device_id"));
        assert!(matches!(refused("tensorrt:rows=0"), ProviderError::OptionValue { .. }));
        assert!(matches!(refused("cpu:arena=maybe"), ProviderError::OptionValue { .. }));
        assert!(matches!(refused("cpu:kernels=fast"), ProviderError::OptionValue { .. }));
        assert!(matches!(refused("cpu:amx=true,kernels=onnxruntime"), ProviderError::OptionValue { .. }));
        assert!(matches!(refused("cuda:device"), ProviderError::Syntax { .. }));
        assert!(matches!(refused("cuda:device=0,device_id=1"), ProviderError::Syntax { .. }));
        assert!(matches!(refused("=cuda"), ProviderError::Syntax { .. }));
    }
}
