//! `vintern engine`: what TensorRT compiles ahead of time, and what is kept of it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::Serialize;

use super::args::{EngineArgs, EngineBuildArgs, EngineCommand, PackageArgs};
use super::error::CliError;
use super::output::{note, print_json};
use super::progress::Progress;
use super::system::bytes_text;
use crate::graph::GraphError;
use crate::graph::onnx::{Library, try_provider};
use crate::model::{Graphs, graph_source};
use crate::package::{Component, Package};
use crate::provider::ComponentProviders;
use crate::provider::tensorrt::{EnginePlan, EngineState, Machine, Profile, Sizes};

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    machine: Machine,
    graphs: Vec<GraphReport>,
}

/// The engines of a graph.
#[derive(Debug, Serialize)]
struct GraphReport {
    graph: &'static str,
    /// `missing`, `fits`, `stale`, `no record`, `built` or `not kept`.
    state: &'static str,
    /// In what a stale one differs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    differences: Vec<String>,
    folder: Option<PathBuf>,
    engines: Vec<EngineFile>,
    /// What building took.
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds: Option<f64>,
    /// Least, usual and greatest size of each open axis.
    sizes: Vec<AxisSizes>,
    /// Bytes of the longest option with shapes.
    longest_option: usize,
}

#[derive(Debug, Serialize)]
struct EngineFile {
    file: PathBuf,
    bytes: u64,
}

#[derive(Debug, Serialize)]
struct AxisSizes {
    axis: String,
    min: u64,
    usual: u64,
    max: u64,
}

/// A package whose graphs are on TensorRT, all of them or some.
struct Planned {
    package: Package,
    library: Library,
    providers: ComponentProviders,
    plans: Vec<(Component, EnginePlan)>,
}

/// Runs the command.
///
/// # Errors
/// When no graph is on TensorRT, or TensorRT cannot be had or fails.
pub(super) fn run(args: &EngineArgs) -> Result<(), CliError> {
    match &args.command {
        EngineCommand::Show(args) => show(args),
        EngineCommand::Build(args) => build(args),
    }
}

fn show(args: &PackageArgs) -> Result<(), CliError> {
    let planned = Planned::open(args)?;
    let graphs = planned.plans.iter().map(|(component, plan)| GraphReport::new(*component, plan)).collect();
    planned.finish(graphs, args.json)
}

fn build(args: &EngineBuildArgs) -> Result<(), CliError> {
    let planned = Planned::open(&args.package)?;
    // That TensorRT is there comes before anything is removed.
    for (component, _) in &planned.plans {
        try_provider(&planned.library, &planned.providers.of(*component).entries()[0])?;
    }
    let progress = Progress::new();
    let mut graphs = Vec::new();
    for (index, (component, plan)) in planned.plans.iter().enumerate() {
        progress.show_work(&format!("engine {} of {}: {component}", index + 1, planned.plans.len()));
        let report = planned.build(*component, plan, args.force);
        progress.clear();
        let report = report?;
        note(&format!("{component}: {}", report.summary()));
        graphs.push(report);
    }
    let not_kept: Vec<&str> =
        graphs.iter().filter(|graph| graph.state == "not kept").map(|graph| graph.graph).collect();
    let missing = not_kept.join(", ");
    planned.finish(graphs, args.package.json)?;
    if missing.is_empty() {
        Ok(())
    } else {
        Err(CliError::Check(format!("TensorRT ran, and ONNX Runtime kept no engine of {missing}")))
    }
}

impl Planned {
    fn open(args: &PackageArgs) -> Result<Self, CliError> {
        let PackageArgs { model, runtime, .. } = args;
        let providers = runtime.providers()?;
        if Component::ALL.iter().all(|component| providers.of(*component).entries()[0].tensorrt_options().is_none()) {
            let usual = "--provider vision=tensorrt,decoder=cuda is the usual set-up";
            return Err(CliError::usage("no graph is on TensorRT", usual));
        }
        let package = Package::open(model)?;
        let library = Library::load(&runtime.library_options())?;
        let mut plans = Vec::new();
        for component in Component::ALL {
            let plan = graph_source(&package, &providers, component)?.engine_plan(&library);
            if let Some(plan) = plan.map_err(GraphError::from)? {
                plans.push((component, plan));
            }
        }
        Ok(Self { package, library, providers, plans })
    }

    /// Builds the engine of a graph, unless one fits.
    fn build(&self, component: Component, plan: &EnginePlan, force: bool) -> Result<GraphReport, CliError> {
        if force {
            plan.discard().map_err(GraphError::from)?;
        } else if plan.state() == EngineState::Fits {
            return Ok(GraphReport::new(component, plan));
        }
        let started = Instant::now();
        // Alone, so that nothing else takes its place where it fails.
        let mut alone = self.providers.clone();
        for list in [&mut alone.vision_encoder, &mut alone.projector, &mut alone.decoder] {
            *list = list.first_alone();
        }
        Graphs::compile(&self.package, &self.library, &alone, component)?;
        let seconds = started.elapsed().as_secs_f64();
        let state = if plan.state() == EngineState::Fits { "built" } else { "not kept" };
        Ok(GraphReport { state, seconds: Some(seconds), ..GraphReport::new(component, plan) })
    }

    fn finish(&self, graphs: Vec<GraphReport>, json: bool) -> Result<(), CliError> {
        let report = Report { machine: Machine::detect(self.library.version()), graphs };
        if json {
            print_json(&report)?;
        } else {
            report.print(&mut std::io::stdout().lock())?;
        }
        Ok(())
    }
}

impl GraphReport {
    fn new(component: Component, plan: &EnginePlan) -> Self {
        let (state, differences) = match plan.state() {
            EngineState::Missing => ("missing", Vec::new()),
            EngineState::Fits => ("fits", Vec::new()),
            EngineState::Stale { differences } => ("stale", differences),
            EngineState::NoRecord => ("no record", Vec::new()),
        };
        let axes = plan.profile().into_iter().flat_map(Profile::axes);
        let sizes = axes.map(|(axis, Sizes { min, usual, max })| AxisSizes {
            axis: axis.clone(),
            min: *min,
            usual: *usual,
            max: *max,
        });
        let options = plan.profile().into_iter().flat_map(Profile::options);
        Self {
            graph: component.name(),
            state,
            differences,
            folder: plan.folder().map(Path::to_path_buf),
            engines: plan.engines().into_iter().map(|(file, bytes)| EngineFile { file, bytes }).collect(),
            seconds: None,
            sizes: sizes.collect(),
            longest_option: options.map(|(_, value)| value.len()).max().unwrap_or(0),
        }
    }

    /// `built in 93 s, 1 engine of 640 MiB`
    fn summary(&self) -> String {
        let bytes = bytes_text(self.engines.iter().map(|engine| engine.bytes).sum());
        let engines = match self.engines.len() {
            0 => String::new(),
            1 => format!(", 1 engine of {bytes}"),
            number => format!(", {number} engines of {bytes}"),
        };
        let time = self.seconds.map_or(String::new(), |seconds| format!(" in {seconds:.0} s"));
        let differences: Vec<String> = self.differences.iter().map(|difference| format!("\n  {difference}")).collect();
        format!("{}{time}{engines}{}", self.state, differences.concat())
    }
}

impl Report {
    fn print(&self, out: &mut impl Write) -> std::io::Result<()> {
        let Machine { onnxruntime, tensorrt, gpus } = &self.machine;
        let tensorrt = tensorrt.as_deref().unwrap_or("not found");
        let gpus = if gpus.is_empty() { "none found".to_owned() } else { gpus.join(", ") };
        writeln!(out, "ONNX Runtime {onnxruntime}, TensorRT {tensorrt}, GPU {gpus}")?;
        for graph in &self.graphs {
            writeln!(out, "\n{}: {}", graph.graph, graph.summary())?;
            for AxisSizes { axis, min, usual, max } in graph.sizes.iter().filter(|sizes| sizes.axis != "total") {
                writeln!(out, "  {axis:<10} {min} to {max}, usually {usual}")?;
            }
            match &graph.folder {
                Some(folder) => writeln!(out, "  kept in {}", folder.display())?,
                None => writeln!(out, "  not kept")?,
            }
            for engine in &graph.engines {
                let name = engine.file.file_name().unwrap_or_default().display();
                writeln!(out, "  {name} {}", bytes_text(engine.bytes))?;
            }
        }
        Ok(())
    }
}
