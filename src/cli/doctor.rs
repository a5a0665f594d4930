//! `vintern doctor`: what works on this machine, what does not, and how to mend it.

use std::io::Write;

use serde::Serialize;

use super::args::DoctorArgs;
use super::error::CliError;
use super::origins::Origin;
use super::output::print_json;
use super::progress::Progress;
use super::{system, with_causes};
use crate::graph::onnx::{Library, try_provider};
use crate::graph::{GraphError, Placement};
use crate::model::Model;
use crate::package::{Component, Package};
use crate::provider::{ComponentProviders, KnownProvider, known_providers};
use crate::settings::{ListedPreset, Presets};

/// What `doctor --json` prints.
#[derive(Debug, Serialize)]
struct Report {
    vintern: &'static str,
    checks: Vec<Check>,
    /// The settings of the runtime that are not the defaults, and where each comes from.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    settings: Vec<Origin>,
    /// Every provider that has a name, whether this library has it or not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    providers: Vec<ProviderReport>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    presets: Vec<ListedPreset>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    placement: Vec<GraphPlacement>,
}

/// One thing that was looked at.
#[derive(Debug, PartialEq, Serialize)]
struct Check {
    name: &'static str,
    state: State,
    detail: String,
    /// Exit code the failure would give a command that needs the thing.
    #[serde(skip)]
    exit_code: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Ok,
    Warning,
    Failed,
}

/// What this library makes of a provider.
#[derive(Debug, Serialize)]
struct ProviderReport {
    name: &'static str,
    full_name: &'static str,
    state: ProviderState,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    how_to_get: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum ProviderState {
    /// It can be added to a session.
    Works,
    /// It is built into the library and does not load.
    Fails,
    /// It is not built into the library.
    Absent,
}

/// Where the nodes of a graph run.
#[derive(Debug, Serialize)]
struct GraphPlacement {
    graph: &'static str,
    providers: Placement,
}

impl Check {
    fn ok(name: &'static str, detail: String) -> Self {
        Self { name, state: State::Ok, detail, exit_code: 0 }
    }

    fn warning(name: &'static str, detail: String) -> Self {
        Self { name, state: State::Warning, detail, exit_code: 0 }
    }

    fn failed(name: &'static str, error: &CliError) -> Self {
        Self { name, state: State::Failed, detail: with_causes(error), exit_code: error.exit_code() }
    }
}

/// Runs the command.
///
/// # Errors
/// When something that was asked for does not work; what it is was printed.
pub(super) fn run(args: &DoctorArgs) -> Result<(), CliError> {
    let mut report = Report {
        vintern: env!("CARGO_PKG_VERSION"),
        checks: Vec::new(),
        settings: args.runtime.origins.settings.clone(),
        providers: Vec::new(),
        presets: Vec::new(),
        placement: Vec::new(),
    };
    let origins = args.runtime.origins.lines();
    if !origins.is_empty() {
        report.checks.push(Check::ok("settings", origins.join("\n")));
    }
    let library = check_library(args, &mut report);
    let providers = check_providers(args, &mut report);
    let package = check_package(args, &mut report);
    if let Some(package) = &package {
        check_presets(package, &mut report);
    }
    check_memory(package.as_ref(), &mut report);
    match (&library, &providers, &package) {
        (Some(library), Some(providers), Some(package)) => check_graphs(library, providers, package, &mut report),
        (Some(library), Some(providers), None) if args.model.is_none() => check_asked(library, providers, &mut report),
        _ => {}
    }
    if args.json {
        print_json(&report)?;
    } else {
        print(&report, &mut std::io::stdout().lock())?;
    }
    let failed: Vec<&Check> = report.checks.iter().filter(|check| check.state == State::Failed).collect();
    match failed.iter().map(|check| check.exit_code).max() {
        None => Ok(()),
        Some(exit_code) => Err(CliError::Doctor { failed: failed.len(), exit_code }),
    }
}

fn check_library(args: &DoctorArgs, report: &mut Report) -> Option<Library> {
    match Library::load(&args.runtime.library_options()) {
        Ok(library) => {
            let detail = format!("ONNX Runtime {} from {}", library.version(), library.path().display());
            report.checks.push(Check::ok("library", detail));
            let compiled = library.compiled_providers();
            report.checks.push(Check::ok("providers in it", compiled.join(", ")));
            report.providers = known_providers().iter().map(|known| try_known(&library, &compiled, known)).collect();
            for provider in report.providers.iter().filter(|provider| provider.state == ProviderState::Fails) {
                let reason = provider.reason.as_deref().unwrap_or_default();
                let detail = format!("{} does not load: {reason}\nto use it: {}", provider.name, provider.how_to_get);
                report.checks.push(Check::warning("provider", detail));
            }
            Some(library)
        }
        Err(error) => {
            report.checks.push(Check::failed("library", &error.into()));
            None
        }
    }
}

/// What the library makes of a provider.
fn try_known(library: &Library, compiled: &[String], known: &'static KnownProvider) -> ProviderReport {
    let KnownProvider { name, full_name, how_to_get, .. } = *known;
    let (state, reason) = if compiled.iter().any(|compiled| compiled == full_name) {
        match try_provider(library, &known.plain()) {
            Ok(()) => (ProviderState::Works, None),
            Err(GraphError::ProviderUnavailable { message, .. }) => (ProviderState::Fails, Some(message)),
            Err(error) => (ProviderState::Fails, Some(error.to_string())),
        }
    } else {
        (ProviderState::Absent, None)
    };
    ProviderReport { name, full_name, state, reason, how_to_get }
}

/// Without a package: whether of each list one provider can be added to a session.
fn check_asked(library: &Library, providers: &ComponentProviders, report: &mut Report) {
    for component in Component::ALL {
        let tried: Vec<_> =
            providers.of(component).entries().iter().map(|provider| try_provider(library, provider)).collect();
        if tried.iter().any(Result::is_ok) {
            continue;
        }
        if let Some(Err(error)) = tried.into_iter().next_back() {
            report.checks.push(Check::failed("--provider", &error.into()));
            return;
        }
    }
}

/// Whether the spec can be understood; that a provider works is proved by loading the graphs.
fn check_providers(args: &DoctorArgs, report: &mut Report) -> Option<ComponentProviders> {
    match args.runtime.providers() {
        Ok(providers) => Some(providers),
        Err(error) => {
            report.checks.push(Check::failed("--provider", &error));
            None
        }
    }
}

fn check_package(args: &DoctorArgs, report: &mut Report) -> Option<Package> {
    let folder = args.model.as_deref()?;
    match Package::open(folder) {
        Ok(package) => {
            let manifest = package.manifest();
            let bytes: u64 = manifest.files().map(|file| file.size).sum();
            let precisions = package.variants(Component::Decoder).iter().map(|variant| variant.precision.as_str());
            let detail = format!(
                "{} ({}), made from {}, {} files of the right size",
                folder.display(),
                precisions.collect::<Vec<_>>().join(", "),
                manifest.source.name,
                manifest.files().count()
            );
            report.checks.push(Check::ok("package", format!("{detail}, {}", system::bytes_text(bytes))));
            Some(package)
        }
        Err(error) => {
            report.checks.push(Check::failed("package", &error.into()));
            None
        }
    }
}

/// Lists the presets, the package's own first.
fn check_presets(package: &Package, report: &mut Report) {
    match Presets::new(Some(package)) {
        Ok(presets) => {
            report.presets = presets.list();
            let lines: Vec<String> = report.presets.iter().map(ToString::to_string).collect();
            report.checks.push(Check::ok("presets", lines.join("\n")));
        }
        Err(error) => report.checks.push(Check::failed("presets", &error.into())),
    }
}

fn check_memory(package: Option<&Package>, report: &mut Report) {
    let Some((total, available)) = system::memory() else { return };
    let detail = format!("{} available of {}", system::bytes_text(available), system::bytes_text(total));
    let needed: u64 = package.map_or(0, |package| package.manifest().files().map(|file| file.size).sum());
    report.checks.push(if needed > available {
        let needed = system::bytes_text(needed);
        Check::warning(
            "memory",
            format!("{detail}; the weights alone are {needed}: a package of lower precision fits better"),
        )
    } else {
        Check::ok("memory", detail)
    });
}

/// Loads every graph, which is the only proof that it can be.
fn check_graphs(library: &Library, providers: &ComponentProviders, package: &Package, report: &mut Report) {
    let progress = Progress::new();
    let loaded = Model::load(package, library, providers, |component| progress.loading(component));
    progress.clear();
    match loaded {
        Ok(model) => {
            for (component, placement) in model.placements() {
                for skipped in &placement.skipped {
                    let warning =
                        Check::warning("provider", format!("{} is not used: {}", skipped.provider, skipped.reason));
                    // The graphs share their lists and their reasons, more often than not.
                    if !report.checks.contains(&warning) {
                        report.checks.push(warning);
                    }
                }
                report.checks.push(Check::ok(component.name(), placement.to_string()));
                report.placement.push(GraphPlacement { graph: component.name(), providers: placement.clone() });
            }
        }
        Err(error) => report.checks.push(Check::failed("graphs", &error.into())),
    }
}

fn print(report: &Report, out: &mut impl Write) -> std::io::Result<()> {
    writeln!(out, "vintern {}", report.vintern)?;
    for check in &report.checks {
        let mark = match check.state {
            State::Ok => "ok",
            State::Warning => "warning",
            State::Failed => "FAILED",
        };
        let detail = check.detail.replace('\n', &format!("\n{:26}", ""));
        writeln!(out, "{mark:<8} {:<16} {detail}", check.name)?;
    }
    Ok(())
}
