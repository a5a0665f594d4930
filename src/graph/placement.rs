//! Where the nodes of a graph run.

use std::collections::BTreeMap;

use serde::Serialize;

/// The nodes of a loaded graph by execution provider, as the runtime assigned them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Placement {
    /// One entry per provider that was given nodes.
    pub providers: Vec<ProviderNodes>,
    /// Variant of the graph that was loaded, as the manifest names it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub variant: String,
    /// The kernels of this crate that run parts of the graph, where they do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernels: Option<&'static str>,
    /// Where the graph's cache lies, if it has one and that is not the host's memory from which it reads it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<String>,
    /// Providers of the list that come before the one that is used, and why they are not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<SkippedProvider>,
}

/// A provider that was asked for and is not used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SkippedProvider {
    /// Its name in the spec.
    pub provider: String,
    /// Why it is not used.
    pub reason: String,
}

/// The nodes one execution provider was given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ProviderNodes {
    /// Name as ONNX Runtime spells it, such as `CPUExecutionProvider`.
    pub provider: String,
    /// Number of nodes.
    pub nodes: usize,
    /// Number of nodes of each operator.
    pub operators: BTreeMap<String, usize>,
}

impl Placement {
    /// Adds one node.
    pub fn add(&mut self, provider: &str, operator: &str) {
        let index = self.providers.iter().position(|entry| entry.provider == provider).unwrap_or_else(|| {
            self.providers.push(ProviderNodes { provider: provider.to_owned(), ..ProviderNodes::default() });
            self.providers.len() - 1
        });
        let entry = &mut self.providers[index];
        entry.nodes += 1;
        *entry.operators.entry(operator.to_owned()).or_default() += 1;
    }

    /// The provider that was given most nodes.
    pub fn main_provider(&self) -> Option<&str> {
        self.providers.iter().max_by_key(|entry| entry.nodes).map(|entry| entry.provider.as_str())
    }
}

impl std::fmt::Display for Placement {
    /// `CPUExecutionProvider 44 nodes, …; fused graph; avx512-vnni kernels; cache on CUDA device 0`
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, entry) in self.providers.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{} {} nodes", entry.provider, entry.nodes)?;
        }
        if !self.variant.is_empty() {
            write!(f, "; {} graph", self.variant)?;
        }
        if let Some(kernels) = self.kernels {
            write!(f, "; {kernels} kernels")?;
        }
        if let Some(place) = &self.cache {
            write!(f, "; cache {place}")?;
        }
        Ok(())
    }
}
