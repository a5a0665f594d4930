//! Finding libonnxruntime and loading it once per process.

use std::ffi::CStr;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ort::environment::{Environment, GlobalThreadPoolOptions};
use ort::logging::LogLevel;
use ort::{AsPointer, ortsys};

use crate::graph::GraphError;

/// Oldest ONNX Runtime 1.x that works: the API level this crate is built for.
pub const MINIMUM_MINOR_VERSION: u32 = ort::MINOR_VERSION;

/// Environment variable that names the library.
pub const LIBRARY_VARIABLE: &str = "ORT_DYLIB_PATH";

/// How to load ONNX Runtime.
#[derive(Clone, Debug, Default)]
pub struct LibraryOptions {
    /// Path of libonnxruntime; found by [`locate`] when absent.
    pub path: Option<PathBuf>,
    /// Where the path was named, for messages; `--ort-library` when absent.
    pub path_origin: Option<String>,
    /// Threads of the pool that all graphs share; the number of cores when absent.
    pub threads: Option<usize>,
    /// What of the runtime's own log goes to stderr.
    pub log: RuntimeLog,
    /// Libraries of execution providers that are not part of ONNX Runtime.
    pub plugins: Vec<PluginLibrary>,
    /// Folder for ONNX Runtime's profiles: a file for each graph, written when the graph is dropped.
    pub profiles: Option<PathBuf>,
}

/// A library with an execution provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginLibrary {
    /// Name the provider has in specs.
    pub name: String,
    /// The library.
    pub path: PathBuf,
}

/// A plugin library that was registered.
#[derive(Clone, Debug)]
pub(super) struct Plugin {
    library: PluginLibrary,
    /// Name the provider gives itself.
    pub(super) provider: String,
}

impl LibraryOptions {
    /// Threads of the pool, the default resolved.
    pub fn threads(&self) -> usize {
        self.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get))
    }
}

/// What of ONNX Runtime's own log goes to stderr.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RuntimeLog {
    /// Nothing: what matters of a failure is in the error.
    #[default]
    Nothing,
    /// Warnings and errors.
    Warnings,
    /// Everything, allocations included.
    Everything,
}

impl RuntimeLog {
    fn shows(self, level: LogLevel) -> bool {
        match self {
            Self::Nothing => false,
            Self::Warnings => level >= LogLevel::Warning,
            Self::Everything => true,
        }
    }
}

/// A loaded ONNX Runtime.
#[derive(Clone, Debug)]
pub struct Library {
    pub(super) environment: Environment,
    path: PathBuf,
    version: String,
    plugins: Vec<Plugin>,
    /// Where graphs that are loaded from now on leave their profiles.
    pub(super) profiles: Option<PathBuf>,
}

static LOADED: Mutex<Option<Library>> = Mutex::new(None);

impl Library {
    /// Loads ONNX Runtime, or returns the one this process already uses.
    ///
    /// # Errors
    /// The `Library…` variants of [`GraphError`]: not found, not loadable, another library, too old.
    pub fn load(options: &LibraryOptions) -> Result<Self, GraphError> {
        let path = locate(options)?;
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(library) = loaded.as_ref() {
            if library.path != path {
                return Err(GraphError::LibraryAlreadyLoaded { loaded: library.path.clone() });
            }
            let mut library = Self { profiles: options.profiles.clone(), ..library.clone() };
            library.register(&options.plugins)?;
            *loaded = Some(library.clone());
            return Ok(library);
        }
        let mut library = load_from(path, options)?;
        library.register(&options.plugins)?;
        *loaded = Some(library.clone());
        Ok(library)
    }

    /// Path the library was loaded from; a bare name when the system loader found it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Registers plugin libraries that are not registered yet.
    fn register(&mut self, plugins: &[PluginLibrary]) -> Result<(), GraphError> {
        for library in plugins {
            if self.plugins.iter().any(|plugin| plugin.library == *library) {
                continue;
            }
            let PluginLibrary { name, path } = library.clone();
            if !path.is_file() {
                return Err(GraphError::PluginPath { name, path });
            }
            let known: Vec<_> = self.environment.devices().map(|device| device.ptr()).collect();
            // A bare file name would be looked for beside ONNX Runtime.
            let whole = std::path::absolute(&path).unwrap_or_else(|_| path.clone());
            self.environment.register_ep_library(name.as_str(), whole).map_err(|error| GraphError::PluginLoad {
                name: name.clone(),
                path: path.clone(),
                message: error.message().to_owned(),
            })?;
            let found = self.environment.devices().find(|device| !known.contains(&device.ptr()));
            let Some(provider) = found.and_then(|device| device.ep().map(str::to_owned).ok()) else {
                return Err(GraphError::PluginWithoutDevice { name, path });
            };
            self.plugins.push(Plugin { library: library.clone(), provider });
        }
        Ok(())
    }

    /// The plugin a provider of a spec is from: by the name it was registered with, or the one it gives itself.
    pub(super) fn plugin(&self, provider: &str) -> Option<&Plugin> {
        self.plugins.iter().find(|plugin| plugin.library.name == provider || plugin.provider == provider)
    }

    /// What the library says of its version and build.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Execution providers compiled into the library, as it names them. Being listed does not mean that one works.
    pub fn compiled_providers(&self) -> Vec<String> {
        let mut names: *mut *mut std::ffi::c_char = std::ptr::null_mut();
        let mut count = 0;
        // SAFETY (inside the macro): the function fills both out-parameters or returns an error.
        if ortsys![@ort: unsafe GetAvailableProviders(&mut names, &mut count) as Result].is_err() {
            return Vec::new();
        }
        let count = usize::try_from(count).unwrap_or(0);
        // SAFETY: on success `names` points to `count` NUL-terminated strings, which are copied before their release.
        unsafe {
            let providers = (0..count).map(|i| CStr::from_ptr(*names.add(i)).to_string_lossy().into_owned()).collect();
            let _ = ortsys![@ort: unsafe ReleaseAvailableProviders(names, count as _) as Result];
            providers
        }
    }
}

fn load_from(path: PathBuf, options: &LibraryOptions) -> Result<Library, GraphError> {
    let version = probe(&path)?;
    let load_failed = |message: String| GraphError::LibraryLoad { path: path.clone(), message };
    let failed = |error: ort::Error| load_failed(error.message().to_owned());
    let builder = ort::init_from(&path).map_err(|error| load_failed(error.to_string()))?;
    let pool = GlobalThreadPoolOptions::default().with_intra_threads(options.threads()).map_err(failed)?;
    let log = options.log;
    let environment = builder
        .with_name("vintern")
        .with_telemetry(false)
        .with_global_thread_pool(pool)
        .with_logger(std::sync::Arc::new(move |level: LogLevel, _: &str, _: &str, _: &str, message: &str| {
            if log.shows(level) {
                // That nobody reads the log is no reason to fail.
                let _ = writeln!(std::io::stderr().lock(), "onnxruntime {level:?}: {message}");
            }
        }))
        .build()
        .map_err(failed)?;
    Ok(Library { environment, path, version, plugins: Vec::new(), profiles: options.profiles.clone() })
}

/// Opens the library and asks for its version before the binding does, which would panic on some of what can be wrong.
fn probe(path: &Path) -> Result<String, GraphError> {
    // SAFETY: loading a library runs its initialisers; the path was named by the user as ONNX Runtime, whose
    // initialisers are sound.
    let library = unsafe { libloading::Library::new(path) }.map_err(|error| {
        let message = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
        // The loader puts the path first, as the error does.
        let message = message.trim_start_matches(&format!("{}: ", path.display())).to_owned();
        GraphError::LibraryLoad { path: path.to_path_buf(), message }
    })?;
    // SAFETY: a symbol of this name has this signature in every release of ONNX Runtime.
    let api_base = unsafe { library.get::<unsafe extern "C" fn() -> *const ort::sys::OrtApiBase>(b"OrtGetApiBase\0") }
        .map_err(|_| GraphError::NotOnnxRuntime { path: path.to_path_buf() })?;
    // SAFETY: the function takes nothing and returns a pointer to a static table, whose version string is static and
    // NUL-terminated; both are checked for null before use.
    let version = unsafe {
        let base = api_base();
        let version = if base.is_null() { std::ptr::null() } else { ((*base).GetVersionString)() };
        (!version.is_null()).then(|| CStr::from_ptr(version).to_string_lossy().into_owned())
    };
    let version = version.unwrap_or_else(|| "of an unknown version".to_owned());
    let mut numbers = version.split('.').map_while(|number| number.parse::<u32>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(1), Some(minor)) if minor >= MINIMUM_MINOR_VERSION => Ok(version),
        _ => {
            Err(GraphError::LibraryTooOld { path: path.to_path_buf(), found: version, minimum: MINIMUM_MINOR_VERSION })
        }
    }
}

/// Decides which library to load: the path asked for, then [`LIBRARY_VARIABLE`], then a file beside the executable, then
/// the Python environment (`.venv`) of a folder above the executable, then the system loader.
///
/// # Errors
/// [`GraphError::LibraryPath`] when a path was named and does not lead to a file.
pub fn locate(options: &LibraryOptions) -> Result<PathBuf, GraphError> {
    if let Some(path) = &options.path {
        return existing_file(path, options.path_origin.as_deref().unwrap_or("--ort-library"));
    }
    if let Some(path) = std::env::var_os(LIBRARY_VARIABLE).filter(|path| !path.is_empty()) {
        return existing_file(Path::new(&path), LIBRARY_VARIABLE);
    }
    let mut looked_at = Vec::new();
    if let Ok(executable) = std::env::current_exe()
        && let Some(folder) = executable.parent()
    {
        looked_at.push(folder.display().to_string());
        if let Some(found) = library_in(folder) {
            return Ok(found);
        }
        for ancestor in folder.ancestors().skip(1) {
            if let Some(found) = library_in_python_environment(&ancestor.join(".venv")) {
                return Ok(found);
            }
        }
        looked_at.push(".venv in the folders above it".to_owned());
    }
    system_library().ok_or_else(|| {
        looked_at.push("the system's libraries".to_owned());
        GraphError::LibraryNotFound { looked_at }
    })
}

fn existing_file(path: &Path, origin: &str) -> Result<PathBuf, GraphError> {
    let found = match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_file() && metadata.len() == 0 => "is empty",
        // A relative path would otherwise be searched beside the executable first.
        Ok(metadata) if metadata.is_file() => return Ok(std::path::absolute(path).unwrap_or_else(|_| path.into())),
        Ok(_) => "is not a file",
        Err(_) => "does not exist",
    };
    Err(GraphError::LibraryPath { path: path.to_path_buf(), origin: origin.to_owned(), found })
}

/// The newest file in `folder` that is named like ONNX Runtime's library.
fn library_in(folder: &Path) -> Option<PathBuf> {
    let prefix = format!("{}onnxruntime", std::env::consts::DLL_PREFIX);
    let is_library = |path: &PathBuf| {
        path.is_file()
            && path.file_name().and_then(std::ffi::OsStr::to_str).is_some_and(|name| {
                name.strip_prefix(&prefix)
                    .is_some_and(|rest| rest.starts_with('.') && rest.contains(std::env::consts::DLL_EXTENSION))
            })
    };
    let mut found: Vec<PathBuf> =
        std::fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path()).filter(is_library).collect();
    found.sort();
    found.pop()
}

fn library_in_python_environment(environment: &Path) -> Option<PathBuf> {
    let package = Path::new("site-packages").join("onnxruntime").join("capi");
    let versions = std::fs::read_dir(environment.join("lib")).ok()?;
    let unix = versions.flatten().find_map(|version| library_in(&version.path().join(&package)));
    unix.or_else(|| library_in(&environment.join("Lib").join(&package)))
}

/// A name the system loader resolves, if it does.
fn system_library() -> Option<PathBuf> {
    let name = format!("{}onnxruntime{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    let folders = ["/usr/local/lib", "/usr/lib", "/usr/lib64", "/lib", "/opt/onnxruntime/lib"];
    let multiarch = format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH);
    let searched = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    std::env::split_paths(&searched)
        .chain(folders.iter().map(PathBuf::from))
        .chain([PathBuf::from(multiarch)])
        .map(|folder| folder.join(&name))
        .find(|path| path.is_file())
}
