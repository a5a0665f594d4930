//! Loading a graph into an ONNX Runtime session, and running one that has no cache.

use std::ffi::{CStr, c_char};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ndarray::ArrayD;
use ort::logging::LogLevel;
use ort::session::builder::SessionBuilder;
use ort::session::{RunOptions, Session, SessionInputValue};
use ort::value::{TensorElementType, TensorRef, ValueType};
use ort::{AsPointer, ortsys};

use super::Library;
use super::cache::CacheDtype;
use super::operators::{OwnKernels, OwnParts, SharedStarts};
use crate::graph::placement::SkippedProvider;
use crate::graph::{Graph, GraphError, Input, Interrupt, Placement};
use crate::kernels::{BlockFormat, BlockProduct, GroupedShape};
use crate::package::{Axis, FUSED, GraphVariant, STANDARD, TensorEntry};
use crate::provider::tensorrt::{EngineError, EnginePlan, EngineSource, Machine, Profile};
use crate::provider::{CpuOptions, Kernels, Provider, ProviderList};

/// A graph of a package in the variants there are, ready to be loaded.
#[derive(Clone, Debug)]
pub struct GraphSource<'a> {
    /// The `.onnx` file of each variant and what the manifest says of it; at least one.
    pub variants: Vec<(PathBuf, &'a GraphVariant)>,
    /// Execution providers to run it on, in order of preference.
    pub providers: &'a ProviderList,
    /// Refuse the graph if a node runs on the CPU provider though the list begins with another.
    pub strict: bool,
    /// What TensorRT needs to know of the graph.
    pub engine: EngineSource,
}

impl<'a> GraphSource<'a> {
    /// The variant that suits a provider best.
    fn choose(&self, provider: &Provider) -> Chosen<'a> {
        let of = |name: &str| self.variants.iter().find(|(_, variant)| variant.variant == name);
        let fused = of(FUSED).filter(|(_, variant)| provider.runs_fused(variant.cache_dtype()));
        let (file, variant) = fused.or_else(|| of(STANDARD)).unwrap_or(&self.variants[0]);
        Chosen { file: file.clone(), variant }
    }

    /// How TensorRT is to run the graph, where the list begins with it.
    ///
    /// # Errors
    /// [`EngineError`] when TensorRT cannot run a graph of this form.
    pub fn engine_plan(&self, library: &Library) -> Result<Option<EnginePlan>, EngineError> {
        self.plan_for(&self.providers.entries()[0], library)
    }

    fn plan_for(&self, provider: &Provider, library: &Library) -> Result<Option<EnginePlan>, EngineError> {
        let Some(options) = provider.tensorrt_options() else { return Ok(None) };
        let machine = Machine::detect(library.version());
        EnginePlan::new(options, &self.engine, self.choose(provider).variant, machine).map(Some)
    }
}

/// The variant of a graph that is loaded.
struct Chosen<'a> {
    file: PathBuf,
    variant: &'a GraphVariant,
}

impl Chosen<'_> {
    /// Our kernels, where `provider` shall and can run parts of the graph with them.
    fn own_kernels(&self, provider: &Provider) -> Result<Option<OwnKernels>, GraphError> {
        let Provider::Cpu(options) = provider else {
            return Ok(None);
        };
        let cached_attention = self.own_cache().map(|(dtype, _)| dtype);
        let quantised = self.variant.quantisation.is_some();
        // Standard graphs also multiply results with each other. For float32 ONNX Runtime has a good kernel.
        let half = self.variant.precision == "fp16" && self.variant.variant == FUSED;
        let parts = OwnParts { quantised, half, cached_attention };
        if options.kernels == Kernels::OnnxRuntime || parts == OwnParts::default() {
            return Ok(None);
        }
        match self.usable_kernels(parts, options.amx) {
            Ok(product) => {
                let (prepacking, shared_starts) = (options.prepacking, SharedStarts::default());
                Ok(Some(OwnKernels { product, parts, prepacking, shared_starts }))
            }
            Err(reason) if options.kernels == Kernels::Vintern || options.amx == Some(true) => {
                Err(GraphError::Kernels { file: self.file.clone(), reason })
            }
            Err(_) => Ok(None),
        }
    }

    /// Our kernels for graphs of this form, or why there are none. `amx`: as [`CpuOptions::amx`] says.
    fn usable_kernels(&self, parts: OwnParts, amx: Option<bool>) -> Result<BlockProduct, String> {
        if let Some(quantisation) = &self.variant.quantisation {
            if quantisation.accuracy_level != 4 {
                let level = quantisation.accuracy_level;
                return Err(format!(
                    "the package asks for accuracy level {level}, the kernels round activations (level 4)"
                ));
            }
            for form in std::iter::once(&quantisation.body).chain(&quantisation.lm_head) {
                BlockFormat::new(form.bits, form.block_size).map_err(|error| error.to_string())?;
            }
        }
        if let Some(Axis::Fixed(size)) = self.own_cache().and_then(|(_, input)| input.shape.last())
            && !usize::try_from(*size).is_ok_and(GroupedShape::is_supported_size)
        {
            return Err(format!("there is no attention kernel for heads of size {size}"));
        }
        let fastest = BlockProduct::detect().ok_or("this processor lacks the instructions (AVX2, or AVX-512 VNNI)")?;
        // AMX is for quantised matrices alone.
        match amx {
            Some(true) if fastest.is_exact() && parts.quantised => Err("there is no AMX on this machine".to_owned()),
            None | Some(true) if parts.quantised => Ok(fastest),
            _ => Ok(fastest.exact()),
        }
    }

    /// An input with keys or values that the graph extends in place, and what it is made of, if our kernels can be given it.
    fn own_cache(&self) -> Option<(CacheDtype, &TensorEntry)> {
        let input = self.variant.cache_input().filter(|_| self.variant.variant == FUSED)?;
        Some((CacheDtype::named(&input.dtype)?, input))
    }
}

/// A graph without memory between calls.
pub struct OnnxGraph {
    pub(super) session: Session,
    pub(super) name: String,
    pub(super) placement: Placement,
    /// Where our kernels learn which rows of a cache begin alike; none where others run the graph.
    pub(super) shared_starts: Option<SharedStarts>,
    /// The shapes it was compiled for, where it was.
    profile: Option<Profile>,
    /// The variant that was loaded.
    pub(super) variant: GraphVariant,
    options: Arc<RunOptions>,
    output: String,
}

impl OnnxGraph {
    /// Loads a graph and checks that its inputs and outputs are those of the manifest.
    ///
    /// # Errors
    /// [`GraphError::Load`], [`GraphError::Mismatch`], [`GraphError::OutOfMemory`].
    pub fn load(library: &Library, source: &GraphSource<'_>) -> Result<Self, GraphError> {
        let (Opened { session, placement, shared_starts, profile }, chosen) = open_session(library, source)?;
        check_outlets(&session, &chosen)?;
        let name = chosen.file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let failed = |error: &ort::Error| load_error(&chosen, error.message());
        let options = Arc::new(RunOptions::new().map_err(|error| failed(&error))?);
        let output = chosen.variant.outputs.first().map(|output| output.name.clone()).unwrap_or_default();
        Ok(Self { session, name, placement, shared_starts, profile, options, output, variant: chosen.variant.clone() })
    }

    /// The variant that was loaded.
    pub fn variant(&self) -> &GraphVariant {
        &self.variant
    }

    /// Refuses a size of an axis that the graph was not compiled for.
    ///
    /// # Errors
    /// [`GraphError::Engine`].
    pub(super) fn check_size(&self, axis: &'static str, found: usize) -> Result<(), GraphError> {
        self.profile.as_ref().map_or(Ok(()), |profile| Ok(profile.check(&self.name, axis, found)?))
    }

    /// Calls `run` so that `interrupt` ends it, and names the graph in what fails.
    pub(super) fn interruptible<T>(
        &mut self,
        interrupt: &Interrupt,
        run: impl FnOnce(&mut Session, &RunOptions) -> ort::Result<T>,
    ) -> Result<T, GraphError> {
        if interrupt.is_raised() {
            return Err(GraphError::Interrupted);
        }
        let stopped = Arc::clone(&self.options);
        // An error would mean that the run cannot be stopped; it then ends by itself.
        let stop = Box::new(move || drop(stopped.terminate()));
        let result = interrupt.guard(stop, || run(&mut self.session, &self.options));
        let interrupted = interrupt.is_raised();
        if interrupted {
            // The run may have ended by itself all the same: what came too late to stop it would stop the next one.
            self.options.unterminate().map_err(|error| run_error(&self.name, error.message()))?;
        }
        match result {
            Err(_) if interrupted => Err(GraphError::Interrupted),
            result => result.map_err(|error| run_error(&self.name, error.message())),
        }
    }
}

impl Graph for OnnxGraph {
    fn run(&mut self, inputs: &[Input<'_>], interrupt: &Interrupt) -> Result<ArrayD<f32>, GraphError> {
        let mut values: Vec<(String, SessionInputValue<'_>)> = Vec::with_capacity(inputs.len());
        self.check_size("tiles", inputs.first().map_or(1, |input| input.values.shape()[0]))?;
        for input in inputs {
            let value = TensorRef::from_array_view(input.values.view()).map(SessionInputValue::from);
            values.push((input.name.to_owned(), value.map_err(|error| run_error(&self.name, error.message()))?));
        }
        let output = self.output.clone();
        self.interruptible(interrupt, |session, options| {
            let outputs = session.run_with_options(values, options)?;
            Ok(outputs[output.as_str()].try_extract_array::<f32>()?.to_owned())
        })
    }

    fn placement(&self) -> &Placement {
        &self.placement
    }
}

/// Opens a session on the providers of the list that can be had, and says where its nodes run.
///
/// A provider that cannot be had, cannot load the graph or is given no node of it is skipped for the next of the list; the
/// placement tells which and why. The last one's failure is the error.
fn open_session<'a>(library: &Library, source: &GraphSource<'a>) -> Result<(Opened, Chosen<'a>), GraphError> {
    let mut providers: Vec<&Provider> = source.providers.entries().iter().collect();
    let mut skipped = Vec::new();
    loop {
        let chosen = source.choose(providers[0]);
        let (index, error) = match open_on(library, source, &chosen, &providers) {
            Ok(mut opened) => {
                if source.strict {
                    check_strictness(&chosen, &providers, &opened.placement)?;
                }
                opened.placement.skipped = skipped;
                opened.placement.variant.clone_from(&chosen.variant.variant);
                return Ok((opened, chosen));
            }
            Err(failure) => failure,
        };
        if providers.len() == 1 || !error.is_of_provider() {
            return Err(error);
        }
        let provider = providers.remove(index);
        skipped.push(SkippedProvider { provider: provider.name().to_owned(), reason: error.reason() });
    }
}

/// A session on some providers.
struct Opened {
    session: Session,
    placement: Placement,
    shared_starts: Option<SharedStarts>,
    profile: Option<Profile>,
}

/// Opens a session on these providers. A failure comes with the index of the provider it is put down to.
fn open_on(
    library: &Library,
    source: &GraphSource<'_>,
    chosen: &Chosen<'_>,
    providers: &[&Provider],
) -> Result<Opened, (usize, GraphError)> {
    let failed = |error: &str| (0, load_error(chosen, error));
    let kernels = chosen.own_kernels(providers[0]).map_err(|error| (0, error))?;
    let builder = Session::builder(&library.environment).map_err(|error| failed(error.message()))?;
    let builder = builder.with_log_level(LogLevel::Error).map_err(|error| failed(error.message()))?;
    let mut builder = builder
        .with_config_entry("session.record_ep_graph_assignment_info", "1")
        .map_err(|error| failed(error.message()))?;
    if let Some(folder) = &library.profiles {
        builder = builder.with_profiling(profile_of(chosen, folder)?).map_err(|error| failed(error.message()))?;
    }
    let plan = ready_engine(library, source, providers[0]).map_err(|error| (0, error))?;
    let first = plan.as_ref().map(|plan| providers[0].with_options(plan.options()));
    let first = first.as_ref().unwrap_or(providers[0]);
    for (index, provider) in std::iter::once(first).chain(providers[1..].iter().copied()).enumerate() {
        builder = add(library, provider, builder).map_err(|error| (index, unavailable(provider, error.message())))?;
    }
    if let Some(kernels) = &kernels {
        for domain in kernels.domains().map_err(|error| failed(error.message()))? {
            builder = builder.with_operators(domain).map_err(|error| failed(error.message()))?;
        }
    }
    let is_cpu = matches!(providers[0], Provider::Cpu(_));
    let session =
        builder.commit_from_file(&chosen.file).map_err(|error| match load_error(chosen, error.message()) {
            GraphError::Load { file, message } if !is_cpu => {
                (0, GraphError::ProviderLoad { provider: providers[0].name().to_owned(), file, message })
            }
            error => (0, error),
        })?;
    let mut placement = read_placement(&session).map_err(|error| failed(error.message()))?;
    placement.kernels = kernels.as_ref().map(|kernels| kernels.product.name());
    if !is_cpu && !placement.providers.iter().any(|entry| is_placed_as(library, providers[0], &entry.provider)) {
        let (provider, file) = (providers[0].name().to_owned(), chosen.file.clone());
        return Err((0, GraphError::NoNodes { provider, file, placement: placement.to_string() }));
    }
    let starts =
        kernels.filter(|kernels| kernels.parts.cached_attention.is_some()).map(|kernels| kernels.shared_starts);
    if let Some(plan) = &plan {
        plan.record().map_err(|error| (0, error.into()))?;
    }
    let profile = plan.and_then(|plan| plan.profile().cloned());
    Ok(Opened { session, placement, shared_starts: starts, profile })
}

/// What the name of a graph's profile begins with, in a folder that is made if it is not there.
fn profile_of(chosen: &Chosen<'_>, folder: &Path) -> Result<PathBuf, (usize, GraphError)> {
    std::fs::create_dir_all(folder)
        .map_err(|error| (0, GraphError::Profile { folder: folder.to_owned(), message: error.to_string() }))?;
    Ok(folder.join(chosen.file.file_stem().unwrap_or_default()))
}

/// The plan of TensorRT's engine, if that is the provider, and the folder for it; that TensorRT is there at all comes first.
fn ready_engine(
    library: &Library,
    source: &GraphSource<'_>,
    provider: &Provider,
) -> Result<Option<EnginePlan>, GraphError> {
    if provider.tensorrt_options().is_none() {
        return Ok(None);
    }
    try_provider(library, provider)?;
    let plan = source.plan_for(provider, library)?;
    plan.as_ref().map_or(Ok(()), EnginePlan::prepare)?;
    Ok(plan)
}

/// Whether a provider can be added to a session; that it also takes a graph is proved by loading one.
///
/// # Errors
/// [`GraphError::ProviderUnavailable`].
pub fn try_provider(library: &Library, provider: &Provider) -> Result<(), GraphError> {
    let builder = Session::builder(&library.environment).map_err(|error| unavailable(provider, error.message()))?;
    add(library, provider, builder).map(drop).map_err(|error| unavailable(provider, error.message()))
}

/// Adds a provider to a session: by its devices where it is from a plugin library.
pub(super) fn add(library: &Library, provider: &Provider, builder: SessionBuilder) -> ort::Result<SessionBuilder> {
    let (Provider::Other { options, .. }, Some(plugin)) = (provider, library.plugin(provider.name())) else {
        return provider.register(builder);
    };
    let prefixed = options.iter().map(|(key, value)| (format!("{}.{key}", plugin.provider), value.clone()));
    let options: Vec<(String, String)> = prefixed.collect();
    let devices = library.environment.devices().filter(|device| device.ep().is_ok_and(|name| name == plugin.provider));
    builder.with_devices(devices, Some(&options)).map_err(|error| ort::Error::new(error.message()))
}

/// Whether a name in a placement is the provider's.
fn is_placed_as(library: &Library, provider: &Provider, placed: &str) -> bool {
    library.plugin(provider.name()).map_or_else(|| provider.is_placed_as(placed), |plugin| plugin.provider == placed)
}

fn unavailable(provider: &Provider, message: &str) -> GraphError {
    let how_to_get = match provider {
        Provider::Other { known: Some(known), .. } => known.how_to_get.to_owned(),
        _ => "`vintern doctor` lists the providers in this library".to_owned(),
    };
    GraphError::ProviderUnavailable {
        provider: provider.name().to_owned(),
        message: without_source(message).to_owned(),
        how_to_get,
    }
}

/// A message without the place in ONNX Runtime's source that comes before some of them:
/// `FILE:LINE FUNCTION [ONNXRuntimeError] : CODE : NAME : MESSAGE`.
fn without_source(message: &str) -> &str {
    let stated = message.rsplit_once("[ONNXRuntimeError] : ").and_then(|(_, stated)| stated.splitn(3, " : ").nth(2));
    stated.unwrap_or(message).trim()
}

/// Refuses nodes on the CPU provider where they were not wanted.
fn check_strictness(chosen: &Chosen<'_>, providers: &[&Provider], placement: &Placement) -> Result<(), GraphError> {
    if matches!(providers[0], Provider::Cpu(_)) {
        return Ok(());
    }
    let cpu = Provider::Cpu(CpuOptions::default());
    let Some(fallen) = placement.providers.iter().find(|entry| cpu.is_placed_as(&entry.provider)) else {
        return Ok(());
    };
    let operators = fallen.operators.iter().map(|(operator, nodes)| format!("{nodes} {operator}"));
    Err(GraphError::FellToCpu {
        provider: providers[0].name().to_owned(),
        file: chosen.file.clone(),
        operators: operators.collect::<Vec<_>>().join(", "),
    })
}

fn load_error(chosen: &Chosen<'_>, message: &str) -> GraphError {
    match out_of_memory(message, || chosen.file.display().to_string()) {
        Some(error) => error,
        None => GraphError::Load { file: chosen.file.clone(), message: message.to_owned() },
    }
}

pub(super) fn run_error(graph: &str, message: &str) -> GraphError {
    match out_of_memory(message, || format!("a run of {graph}")) {
        Some(error) => error,
        None => GraphError::Run { graph: graph.to_owned(), message: message.to_owned() },
    }
}

/// ONNX Runtime has no status code of its own for this.
fn out_of_memory(message: &str, what: impl FnOnce() -> String) -> Option<GraphError> {
    let marks = ["bad_alloc", "Failed to allocate memory", "out of memory"];
    marks
        .iter()
        .any(|mark| message.contains(mark))
        .then(|| GraphError::OutOfMemory { what: what(), message: message.to_owned() })
}

fn check_outlets(session: &Session, chosen: &Chosen<'_>) -> Result<(), GraphError> {
    let mismatch = |difference| GraphError::Mismatch { file: chosen.file.clone(), difference };
    for (kind, stated, found) in
        [("input", &chosen.variant.inputs, session.inputs()), ("output", &chosen.variant.outputs, session.outputs())]
    {
        if stated.len() != found.len() {
            return Err(mismatch(format!("{} {kind}s instead of {}", found.len(), stated.len())));
        }
        for entry in stated {
            let outlet = found
                .iter()
                .find(|outlet| outlet.name() == entry.name)
                .ok_or_else(|| mismatch(format!("no {kind} named {}", entry.name)))?;
            check_outlet(kind, entry, outlet.dtype()).map_err(mismatch)?;
        }
    }
    Ok(())
}

fn check_outlet(kind: &str, entry: &TensorEntry, found: &ValueType) -> Result<(), String> {
    let ValueType::Tensor { ty, shape, .. } = found else {
        return Err(format!("{kind} {} is not a tensor", entry.name));
    };
    if dtype_name(*ty) != Some(entry.dtype.as_str()) {
        return Err(format!("{kind} {} holds {ty} instead of {}", entry.name, entry.dtype));
    }
    let agrees = |(stated, found): (&Axis, &i64)| match stated {
        // An optimised graph may know a size that the exporter left open.
        Axis::Named(_) => true,
        Axis::Fixed(size) => *found < 0 || u64::try_from(*found) == Ok(*size),
    };
    if shape.len() == entry.shape.len() && entry.shape.iter().zip(shape.iter()).all(agrees) {
        Ok(())
    } else {
        Err(format!("{kind} {} has shape {:?} instead of {:?}", entry.name, &shape[..], entry.shape))
    }
}

fn dtype_name(element: TensorElementType) -> Option<&'static str> {
    match element {
        TensorElementType::Float32 => Some("fp32"),
        TensorElementType::Float16 => Some("fp16"),
        TensorElementType::Int32 => Some("int32"),
        TensorElementType::Int64 => Some("int64"),
        _ => None,
    }
}

/// Reads which execution provider was given which nodes.
fn read_placement(session: &Session) -> ort::Result<Placement> {
    let mut placement = Placement::default();
    let mut subgraphs = std::ptr::null();
    let mut subgraph_count = 0;
    // SAFETY: the session is live and was built with the recording switched on; each call fills its out-parameters or
    // returns an error, and what they point to belongs to the session. Strings are NUL-terminated and copied.
    unsafe {
        ortsys![unsafe Session_GetEpGraphAssignmentInfo(session.ptr(), &mut subgraphs, &mut subgraph_count)?];
        for index in 0..subgraph_count {
            let subgraph = *subgraphs.add(index);
            let mut provider: *const c_char = std::ptr::null();
            let mut nodes = std::ptr::null();
            let mut node_count = 0;
            ortsys![unsafe EpAssignedSubgraph_GetEpName(subgraph, &mut provider)?];
            ortsys![unsafe EpAssignedSubgraph_GetNodes(subgraph, &mut nodes, &mut node_count)?];
            let provider = CStr::from_ptr(provider).to_string_lossy();
            for node in 0..node_count {
                let mut operator: *const c_char = std::ptr::null();
                ortsys![unsafe EpAssignedNode_GetOperatorType(*nodes.add(node), &mut operator)?];
                placement.add(&provider, &CStr::from_ptr(operator).to_string_lossy());
            }
        }
    }
    Ok(placement)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_loses_its_place_in_the_source() {
        let whole = "/src/a.cc:20 Provider& Get() [ONNXRuntimeError] : 1 : FAIL : Failed to load x with error: y: z\n";
        assert_eq!(without_source(whole), "Failed to load x with error: y: z");
        assert_eq!(without_source("It is not enabled in this build. "), "It is not enabled in this build.");
    }
}
