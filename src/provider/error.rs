//! What can be wrong with a spec.

/// Why a provider spec cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProviderError {
    /// An empty spec.
    #[error("the provider list is empty; name one, such as cpu")]
    Empty,
    /// An entry that is no name with options.
    #[error(
        "provider entry {entry:?} {problem}\nhint: an entry is name:option=value,option=value; values with , ; or = stand in double quotes"
    )]
    Syntax {
        /// The entry.
        entry: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A name close to a known one.
    #[error(
        "there is no execution provider {name:?}; did you mean {nearest}?\nhint: other providers are named as ONNX Runtime does, such as VitisAIExecutionProvider"
    )]
    Unknown {
        /// The name asked for.
        name: String,
        /// The nearest name there is.
        nearest: &'static str,
    },
    /// A provider twice in one list.
    #[error("provider {name} stands twice in one list")]
    Twice {
        /// Its name.
        name: String,
    },
    /// An option that the provider does not have.
    #[error("provider {provider} has no option {option:?}{}", nearest.as_ref().map_or_else(|| format!("; its options: {known}"), |nearest| format!("; did you mean {nearest}?")))]
    UnknownOption {
        /// The provider.
        provider: String,
        /// The option asked for.
        option: String,
        /// The nearest option there is, if one is near.
        nearest: Option<String>,
        /// The options there are.
        known: String,
    },
    /// An option value that cannot be used.
    #[error("option {option} of provider {provider} is {value:?}, expected {expected}")]
    OptionValue {
        /// The provider.
        provider: String,
        /// The option.
        option: String,
        /// Its value.
        value: String,
        /// What would be right.
        expected: &'static str,
    },
    /// A graph that is named twice.
    #[error("the spec names {component} twice")]
    ComponentTwice {
        /// The graph.
        component: &'static str,
    },
}
