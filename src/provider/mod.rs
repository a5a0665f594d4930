//! Execution-provider specs: which provider runs which graph, with which options.

use std::str::FromStr;

use ort::session::builder::SessionBuilder;

/// Why a provider spec cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProviderError {
    /// An empty spec.
    #[error("the provider list is empty; name one, such as cpu")]
    Empty,
    /// A name that is not known.
    #[error("execution provider {name:?} is not supported by this version of vintern; supported: cpu")]
    Unsupported {
        /// The name asked for.
        name: String,
    },
    /// An option that the provider does not have.
    #[error("provider {provider} has no option {option:?}; its options: {known}")]
    UnknownOption {
        /// The provider.
        provider: &'static str,
        /// The option asked for.
        option: String,
        /// Options there are.
        known: &'static str,
    },
    /// An option value that cannot be used.
    #[error("option {option} of provider {provider} is {value:?}, expected {expected}")]
    OptionValue {
        /// The provider.
        provider: &'static str,
        /// The option.
        option: &'static str,
        /// Its value.
        value: String,
        /// What would be right.
        expected: &'static str,
    },
}

/// Execution providers in order of preference.
///
/// Parsed from `name:option=value,option=value;name;…`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderList {
    entries: Vec<Provider>,
}

/// One execution provider with its options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Provider {
    /// ONNX Runtime's own CPU kernels.
    Cpu {
        /// Keep freed memory for the next run (`arena=true`, the default) or return it to the system.
        arena: bool,
        /// Rearrange weights when a graph is loaded (`prepacking=true`, the default): a second copy of them in memory and
        /// a longer load, for somewhat faster runs.
        prepacking: bool,
        /// Which kernels run quantised matrices.
        kernels: Kernels,
    },
}

/// Which kernels run quantised matrices on the CPU.
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

impl Default for ProviderList {
    fn default() -> Self {
        Self { entries: vec![Provider::Cpu { arena: true, prepacking: true, kernels: Kernels::Auto }] }
    }
}

impl Provider {
    /// Name in specs and manifests.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Cpu { .. } => "cpu",
        }
    }
}

impl ProviderList {
    /// The providers in order of preference.
    pub fn entries(&self) -> &[Provider] {
        &self.entries
    }

    /// Which kernels run quantised matrices, where the CPU provider does.
    pub fn kernels(&self) -> Kernels {
        let Some(Provider::Cpu { kernels, .. }) = self.entries.first() else {
            return Kernels::OnnxRuntime;
        };
        *kernels
    }

    /// Adds the providers to a session that is being built.
    ///
    /// # Errors
    /// What ONNX Runtime says when a provider cannot be had.
    pub(crate) fn register(&self, builder: SessionBuilder) -> ort::Result<SessionBuilder> {
        self.entries.iter().try_fold(builder, |builder, provider| match provider {
            Provider::Cpu { arena, prepacking, .. } => {
                let provider = ort::ep::CPU::default().with_arena_allocator(*arena).build().error_on_failure();
                let plain = |error: ort::Error<SessionBuilder>| ort::Error::new(error.message());
                let builder = builder.with_execution_providers([provider]).map_err(plain)?;
                builder.with_prepacking(*prepacking).map_err(plain)
            }
        })
    }
}

impl FromStr for ProviderList {
    type Err = ProviderError;

    fn from_str(spec: &str) -> Result<Self, ProviderError> {
        let entries = spec
            .split(';')
            .map(str::trim)
            .filter(|entry| !entry.is_empty())
            .map(parse_provider)
            .collect::<Result<Vec<_>, _>>()?;
        if entries.is_empty() { Err(ProviderError::Empty) } else { Ok(Self { entries }) }
    }
}

fn parse_provider(entry: &str) -> Result<Provider, ProviderError> {
    let (name, options) = entry.split_once(':').unwrap_or((entry, ""));
    if !name.eq_ignore_ascii_case("cpu") {
        return Err(ProviderError::Unsupported { name: name.to_owned() });
    }
    let (mut arena, mut prepacking, mut kernels) = (true, true, Kernels::Auto);
    for option in options.split(',').filter(|option| !option.is_empty()) {
        let (key, value) = option.split_once('=').unwrap_or((option, ""));
        match key {
            "arena" => arena = switch("arena", value)?,
            "prepacking" => prepacking = switch("prepacking", value)?,
            "kernels" => kernels = value.parse()?,
            _ => {
                let (option, known) = (key.to_owned(), "arena, kernels, prepacking");
                return Err(ProviderError::UnknownOption { provider: "cpu", option, known });
            }
        }
    }
    Ok(Provider::Cpu { arena, prepacking, kernels })
}

impl FromStr for Kernels {
    type Err = ProviderError;

    fn from_str(value: &str) -> Result<Self, ProviderError> {
        match value {
            "auto" => Ok(Self::Auto),
            "vintern" => Ok(Self::Vintern),
            "onnxruntime" => Ok(Self::OnnxRuntime),
            _ => {
                let (value, expected) = (value.to_owned(), "auto, vintern or onnxruntime");
                Err(ProviderError::OptionValue { provider: "cpu", option: "kernels", value, expected })
            }
        }
    }
}

fn switch(option: &'static str, value: &str) -> Result<bool, ProviderError> {
    value.parse().map_err(|_| {
        let value = value.to_owned();
        ProviderError::OptionValue { provider: "cpu", option, value, expected: "true or false" }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spec_is_a_list_of_names_with_options() {
        assert_eq!("cpu".parse(), Ok(ProviderList::default()));
        let list: ProviderList = "CPU:arena=false,kernels=vintern".parse().unwrap();
        assert_eq!(list.entries(), [Provider::Cpu { arena: false, prepacking: true, kernels: Kernels::Vintern }]);
    }

    #[test]
    fn what_cannot_be_honoured_is_refused() {
        let parse = |spec: &str| spec.parse::<ProviderList>().unwrap_err();
        assert_eq!(parse(" ; "), ProviderError::Empty);
        assert_eq!(parse("cpu;cuda"), ProviderError::Unsupported { name: "cuda".into() });
        assert!(matches!(parse("cpu:threads=3"), ProviderError::UnknownOption { .. }));
        assert!(matches!(parse("cpu:arena=maybe"), ProviderError::OptionValue { .. }));
        assert!(matches!(parse("cpu:kernels=fast"), ProviderError::OptionValue { .. }));
    }
}
