//! Graphs on ONNX Runtime.

#![expect(clippy::borrow_as_ptr, reason = "out-parameters of the C interface")]

mod cache;
mod cached;
mod library;
mod operators;
mod prefixes;
mod session;

pub use cache::{CacheDtype, CacheForm, CacheLayout, CacheMemory};
pub use cached::OnnxCachedGraph;
pub use library::{
    LIBRARY_VARIABLE, Library, LibraryOptions, MINIMUM_MINOR_VERSION, PluginLibrary, RuntimeLog, locate,
};
pub use session::{GraphSource, OnnxGraph, try_provider};

#[cfg(test)]
mod tests {
    use std::path::Path;

    use ndarray::ArrayD;

    use super::*;
    use crate::graph::{Graph as _, GraphError, Input, Interrupt};
    use crate::model::graph_source;
    use crate::package::{Component, Package};
    use crate::provider::ComponentProviders;

    /// Whoever raises an interrupt may come when the run has ended by itself: the next run is not theirs to stop.
    #[test]
    fn a_stop_that_comes_too_late_is_forgotten() {
        let package = Package::open(Path::new("models/vintern-tiny")).unwrap();
        let library = Library::load(&LibraryOptions::default()).unwrap();
        let providers = ComponentProviders::default();
        let source = graph_source(&package, &providers, Component::Projector).unwrap();
        let mut graph = OnnxGraph::load(&library, &source).unwrap();
        let features = ArrayD::<f32>::zeros(vec![1, 64, 256]);
        let inputs = [Input { name: "features", values: features.view() }];
        let late = Interrupt::new();
        let run = |_: &mut _, _: &_| {
            late.raise();
            Ok(())
        };
        graph.interruptible(&late, run).unwrap();
        assert_eq!(graph.run(&inputs, &Interrupt::new()).unwrap().shape()[0], 1);
        assert!(matches!(graph.run(&inputs, &late), Err(GraphError::Interrupted)));
    }
}
