//! A list for each graph.

use std::str::FromStr;

use super::spec::split;
use super::{ProviderError, ProviderList};
use crate::package::Component;

/// Execution providers of each graph.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ComponentProviders {
    /// For the vision encoder.
    pub vision_encoder: ProviderList,
    /// For the projector.
    pub projector: ProviderList,
    /// For the decoder.
    pub decoder: ProviderList,
    /// Refuse a graph of which any node runs on the CPU provider though its list begins with another.
    pub strict: bool,
}

impl ComponentProviders {
    /// The same list for every graph.
    pub fn all(providers: &ProviderList) -> Self {
        Self {
            vision_encoder: providers.clone(),
            projector: providers.clone(),
            decoder: providers.clone(),
            strict: false,
        }
    }

    /// The list of one graph.
    pub fn of(&self, component: Component) -> &ProviderList {
        match component {
            Component::VisionEncoder => &self.vision_encoder,
            Component::Projector => &self.projector,
            Component::Decoder => &self.decoder,
        }
    }
}

/// Names of the graphs in specs.
pub(crate) const COMPONENTS: [&str; 3] = ["vision", "projector", "decoder"];

/// The graph a part of a spec begins with, and the rest.
fn component_of(part: &str) -> Option<(&'static str, &str)> {
    let (name, rest) = part.split_once('=')?;
    COMPONENTS.into_iter().find(|component| *component == name.trim()).map(|component| (component, rest))
}

impl FromStr for ComponentProviders {
    type Err = ProviderError;

    /// One list for all graphs, or `vision=LIST,projector=LIST,decoder=LIST`. A graph that is not named runs on the CPU
    /// provider; the projector goes with the vision encoder.
    fn from_str(spec: &str) -> Result<Self, ProviderError> {
        if component_of(spec).is_none() {
            return Ok(Self::all(&spec.parse()?));
        }
        // A comma ends the list of a graph only where the name of another follows: options have commas too.
        let mut lists: Vec<(&'static str, String)> = Vec::new();
        for part in split(spec, ',')? {
            if let Some((component, list)) = component_of(part) {
                if lists.iter().any(|(other, _)| *other == component) {
                    return Err(ProviderError::ComponentTwice { component });
                }
                lists.push((component, list.to_owned()));
            } else if let Some((_, list)) = lists.last_mut() {
                list.push(',');
                list.push_str(part);
            }
        }
        let list = |component: &str| {
            let found = lists.iter().find(|(other, _)| *other == component);
            found.map(|(_, list)| list.parse::<ProviderList>()).transpose()
        };
        let vision_encoder = list("vision")?.unwrap_or_default();
        Ok(Self {
            projector: list("projector")?.unwrap_or_else(|| vision_encoder.clone()),
            vision_encoder,
            decoder: list("decoder")?.unwrap_or_default(),
            strict: false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(spec: &str) -> ProviderList {
        spec.parse().unwrap()
    }

    #[test]
    fn one_list_is_for_all_graphs() {
        let providers: ComponentProviders = "cuda:device=1,tf32=0;cpu".parse().unwrap();
        assert_eq!(providers, ComponentProviders::all(&list("cuda:device=1,tf32=0;cpu")));
    }

    #[test]
    fn a_list_for_each_graph() {
        let providers: ComponentProviders = "vision=tensorrt:fp16=1,device=0;cuda,decoder=cuda".parse().unwrap();
        assert_eq!(providers.vision_encoder, list("tensorrt:fp16=1,device=0;cuda"));
        assert_eq!(providers.projector, providers.vision_encoder, "the projector goes with the vision encoder");
        assert_eq!(providers.decoder, list("cuda"));
        let providers: ComponentProviders = "decoder=cuda,projector=openvino".parse().unwrap();
        assert_eq!((providers.vision_encoder, providers.projector), (list("cpu"), list("openvino")));
    }

    #[test]
    fn what_cannot_be_honoured_is_refused() {
        let refused = |spec: &str| spec.parse::<ComponentProviders>().unwrap_err();
        assert_eq!(refused("vision=cpu,vision=cuda"), ProviderError::ComponentTwice { component: "vision" });
        assert_eq!(refused("vision="), ProviderError::Empty);
        assert!(matches!(refused("visoin=cpu"), ProviderError::Syntax { .. }));
        assert_eq!(refused(""), ProviderError::Empty);
    }
}
