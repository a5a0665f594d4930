//! From a graph and the options of a spec to what ONNX Runtime is told, and the state of what is kept.

use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::limits::LIMIT_OPTIONS;
use super::{EngineError, EngineRecord, Machine, Profile, ShapeLimits};
use crate::package::{Component, GraphVariant, Manifest, STANDARD};

/// Options that say where and how an engine is kept or run, not what is in it.
const NOT_OF_THE_ENGINE: &[&str] = &[
    "device_id",
    "has_user_compute_stream",
    "trt_cuda_graph_enable",
    "trt_detailed_build_log",
    "trt_dump_ep_context_model",
    "trt_dump_subgraphs",
    "trt_engine_cache_enable",
    "trt_engine_cache_path",
    "trt_engine_cache_prefix",
    "trt_engine_decryption_enable",
    "trt_engine_decryption_lib_path",
    "trt_ep_context_embed_mode",
    "trt_ep_context_file_path",
    "trt_force_sequential_engine_build",
    "trt_force_timing_cache",
    "trt_timing_cache_enable",
    "trt_timing_cache_path",
    "user_compute_stream",
];

const PROFILE_OPTIONS: [&str; 3] = ["trt_profile_min_shapes", "trt_profile_opt_shapes", "trt_profile_max_shapes"];

/// What a graph is part of: for its shapes, and for where its engine is kept.
#[derive(Clone, Debug)]
pub struct EngineSource {
    /// The graph.
    pub component: Component,
    /// Sizes that the package needs.
    pub limits: ShapeLimits,
    /// Where engines of the package are kept when the options do not say.
    pub folder: Option<PathBuf>,
}

/// How TensorRT is to run one graph.
#[derive(Clone, Debug)]
pub struct EnginePlan {
    options: Vec<(String, String)>,
    profile: Option<Profile>,
    kept: Option<Kept>,
}

/// Where an engine is kept, and what it must have been built from.
#[derive(Clone, Debug)]
struct Kept {
    folder: PathBuf,
    prefix: String,
    record: EngineRecord,
}

/// What is kept of a graph's engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineState {
    /// Nothing; loading the graph builds it.
    Missing,
    /// An engine that fits.
    Fits,
    /// An engine that was built from something else.
    Stale {
        /// In what, in words.
        differences: Vec<String>,
    },
    /// An engine of which nothing says what it was built from.
    NoRecord,
}

impl EnginePlan {
    /// The plan for a variant of a graph under the options of a spec.
    ///
    /// # Errors
    /// [`EngineError::Fused`] for a variant TensorRT does not take, what [`Profile::of`] refuses, [`EngineError::NoFolder`].
    pub fn new(
        options: &[(String, String)],
        source: &EngineSource,
        variant: &GraphVariant,
        machine: Machine,
    ) -> Result<Self, EngineError> {
        let graph = source.component.name();
        if variant.variant != STANDARD {
            return Err(EngineError::Fused { graph });
        }
        let mut passed = passed_on(options);
        let profile = if PROFILE_OPTIONS.iter().any(|name| value_of(&passed, name).is_some()) {
            None
        } else {
            Some(Profile::of(graph, variant, &source.limits.with_options(options))?)
        };
        let of_the_engine = |(name, _): &&(String, String)| !NOT_OF_THE_ENGINE.contains(&name.as_str());
        let record = EngineRecord {
            graph: graph.to_owned(),
            variant: format!("{} {}", variant.variant, variant.precision),
            files: variant.files.clone(),
            options: passed.iter().filter(of_the_engine).cloned().collect(),
            shapes: profile.as_ref().map(|profile| profile.inputs().clone()).unwrap_or_default(),
            machine,
        };
        passed.extend(profile.iter().flat_map(Profile::options).map(|(name, shapes)| (name.to_owned(), shapes)));
        if value_of(&passed, "trt_engine_cache_enable").is_some_and(is_off) {
            return Ok(Self { options: passed, profile, kept: None });
        }
        let named = value_of(&passed, "trt_engine_cache_path").map(PathBuf::from);
        let folder = named.or_else(|| source.folder.clone()).ok_or(EngineError::NoFolder)?;
        let prefix = format!("{graph}-{}", variant.precision);
        keep_in(&mut passed, &folder, &prefix);
        let prefix = value_of(&passed, "trt_engine_cache_prefix").map_or(prefix, str::to_owned);
        Ok(Self { options: passed, profile, kept: Some(Kept { folder, prefix, record }) })
    }

    /// Options as ONNX Runtime takes them.
    pub fn options(&self) -> &[(String, String)] {
        &self.options
    }

    /// The shapes; `None` where the spec has shapes of its own.
    pub fn profile(&self) -> Option<&Profile> {
        self.profile.as_ref()
    }

    /// The folder engines are kept in, where they are kept.
    pub fn folder(&self) -> Option<&Path> {
        self.kept.as_ref().map(|kept| kept.folder.as_path())
    }

    /// The kept engines of the graph with their sizes in bytes: one for each part of the graph that TensorRT takes.
    pub fn engines(&self) -> Vec<(PathBuf, u64)> {
        let Some(kept) = &self.kept else { return Vec::new() };
        let mut found = kept.files("engine");
        found.sort();
        found.into_iter().map(|file| (file.clone(), std::fs::metadata(&file).map_or(0, |file| file.len()))).collect()
    }

    /// What is kept.
    pub fn state(&self) -> EngineState {
        let Some(kept) = &self.kept else { return EngineState::Missing };
        if kept.files("engine").is_empty() {
            return EngineState::Missing;
        }
        let Some(built) = EngineRecord::read(&kept.record_file()) else { return EngineState::NoRecord };
        let differences = built.differences(&kept.record);
        if differences.is_empty() { EngineState::Fits } else { EngineState::Stale { differences } }
    }

    /// Makes the folder ready for loading the graph. An engine that does not fit is refused.
    ///
    /// # Errors
    /// [`EngineError::Stale`], [`EngineError::NoRecord`], [`EngineError::Folder`].
    pub fn prepare(&self) -> Result<(), EngineError> {
        let Some(kept) = &self.kept else { return Ok(()) };
        let file = || self.engines().into_iter().next().map(|(file, _)| file).unwrap_or_default();
        match self.state() {
            EngineState::Stale { differences } => {
                Err(EngineError::Stale { file: file(), differences: differences.join("; ") })
            }
            EngineState::NoRecord => Err(EngineError::NoRecord { file: file(), record: kept.record_file() }),
            EngineState::Fits => Ok(()),
            EngineState::Missing => std::fs::create_dir_all(&kept.folder)
                .map_err(|error| EngineError::Folder { path: kept.folder.clone(), error }),
        }
    }

    /// Writes beside engines that were just built what they were built from. Without new ones there is nothing to write,
    /// and the folder need not be writable.
    ///
    /// # Errors
    /// [`EngineError::Folder`].
    pub fn record(&self) -> Result<(), EngineError> {
        let Some(kept) = &self.kept else { return Ok(()) };
        if matches!(self.state(), EngineState::Missing | EngineState::Fits) {
            return Ok(());
        }
        let path = kept.record_file();
        kept.record.write(&path).map_err(|error| EngineError::Folder { path, error })
    }

    /// Removes what is kept of the graph.
    ///
    /// # Errors
    /// [`EngineError::Folder`].
    pub fn discard(&self) -> Result<(), EngineError> {
        let Some(kept) = &self.kept else { return Ok(()) };
        for path in kept.files("engine").into_iter().chain(kept.files("profile")).chain([kept.record_file()]) {
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(EngineError::Folder { path, error });
                }
                _ => (),
            }
        }
        Ok(())
    }
}

impl Kept {
    fn record_file(&self) -> PathBuf {
        self.folder.join(format!("{}.json", self.prefix))
    }

    /// Files that ONNX Runtime named after the graph: the prefix, `_`, more, and the extension.
    fn files(&self, extension: &str) -> Vec<PathBuf> {
        let begin = format!("{}_", self.prefix);
        let is_of_graph = |path: &PathBuf| {
            path.extension().is_some_and(|found| found == extension)
                && path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&begin))
        };
        let Ok(entries) = std::fs::read_dir(&self.folder) else { return Vec::new() };
        entries.flatten().map(|entry| entry.path()).filter(is_of_graph).collect()
    }
}

/// Turns the caches on, as far as the options do not say otherwise.
fn keep_in(options: &mut Vec<(String, String)>, folder: &Path, prefix: &str) {
    let folder = folder.display().to_string();
    for (name, value) in [
        ("trt_engine_cache_enable", "1"),
        ("trt_engine_cache_path", &folder),
        ("trt_engine_cache_prefix", prefix),
        ("trt_timing_cache_enable", "1"),
        ("trt_timing_cache_path", &folder),
    ] {
        if value_of(options, name).is_none() {
            options.push((name.to_owned(), value.to_owned()));
        }
    }
}

/// Where engines of a package are kept by default: a folder of its own among the user's caches.
pub fn default_folder(manifest: &Manifest) -> Option<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let caches = if cfg!(windows) { folder("LOCALAPPDATA") } else { None };
    let caches = caches.or_else(|| folder("XDG_CACHE_HOME")).or_else(|| Some(folder("HOME")?.join(".cache")))?;
    Some(caches.join("vintern").join("engines").join(package_name(manifest)))
}

/// A name that packages of different content do not share.
fn package_name(manifest: &Manifest) -> String {
    let mut hash = Sha256::new();
    manifest.files().for_each(|file| hash.update(format!("{} {}\n", file.name, file.sha256)));
    let digest = hash.finalize();
    let usable = |c: char| if c.is_ascii_alphanumeric() || c == '.' || c == '_' { c } else { '-' };
    let source: String = manifest.source.name.chars().map(usable).collect();
    let source = source.trim_matches(['-', '.']);
    digest[..6].iter().fold(format!("{source}-"), |name, byte| name + &format!("{byte:02x}"))
}

/// The options without those that are ours.
pub(in crate::provider) fn passed_on(options: &[(String, String)]) -> Vec<(String, String)> {
    options.iter().filter(|(name, _)| !LIMIT_OPTIONS.contains(&name.as_str())).cloned().collect()
}

fn value_of<'a>(options: &'a [(String, String)], name: &str) -> Option<&'a str> {
    options.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
}

fn is_off(value: &str) -> bool {
    matches!(value, "0" | "false" | "False")
}

#[cfg(test)]
mod tests {
    use super::super::limits::tests::manifest;
    use super::super::profile::tests::decoder;
    use super::*;

    fn plan(folder: &Path, given: &[(&str, &str)]) -> EnginePlan {
        let source = EngineSource {
            component: Component::Decoder,
            limits: ShapeLimits::of(&manifest()),
            folder: Some(folder.to_path_buf()),
        };
        let options: Vec<_> = given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let machine = Machine { onnxruntime: "1.31.1".to_owned(), ..Machine::default() };
        EnginePlan::new(&options, &source, &decoder(2), machine).unwrap()
    }

    fn value<'a>(plan: &'a EnginePlan, name: &str) -> Option<&'a str> {
        assert!(plan.options().iter().filter(|(other, _)| other == name).count() < 2, "{name} twice");
        value_of(plan.options(), name)
    }

    #[test]
    fn the_caches_are_on_and_the_shapes_given() {
        let plan = plan(Path::new("/cache"), &[("trt_fp16_enable", "1"), ("rows", "5")]);
        for (name, expected) in [
            ("trt_fp16_enable", Some("1")),
            ("trt_engine_cache_enable", Some("1")),
            ("trt_engine_cache_path", Some("/cache")),
            ("trt_engine_cache_prefix", Some("decoder-fp16")),
            ("trt_timing_cache_enable", Some("1")),
            ("trt_timing_cache_path", Some("/cache")),
            ("rows", None),
        ] {
            assert_eq!(value(&plan, name), expected, "{name}");
        }
        assert!(value(&plan, "trt_profile_max_shapes").unwrap().contains("position_ids:5x512"));
        assert_eq!(plan.folder(), Some(Path::new("/cache")));
    }

    #[test]
    fn what_the_spec_says_of_caches_and_shapes_holds() {
        let own = plan(
            Path::new("/cache"),
            &[("trt_engine_cache_path", "/mine"), ("trt_timing_cache_enable", "0"), ("trt_profile_min_shapes", "a:1")],
        );
        assert_eq!(value(&own, "trt_engine_cache_path"), Some("/mine"));
        assert_eq!(value(&own, "trt_timing_cache_enable"), Some("0"));
        assert_eq!((value(&own, "trt_profile_min_shapes"), value(&own, "trt_profile_max_shapes")), (Some("a:1"), None));
        assert!(own.profile().is_none());
        let off = plan(Path::new("/cache"), &[("trt_engine_cache_enable", "false")]);
        assert_eq!((off.folder(), off.state()), (None, EngineState::Missing));
        assert!(off.prepare().is_ok() && off.record().is_ok() && off.discard().is_ok());
    }

    #[test]
    fn an_engine_that_does_not_fit_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let cache = folder.path().join("engines");
        let first = plan(&cache, &[("rows", "3")]);
        assert_eq!(first.state(), EngineState::Missing);
        first.prepare().unwrap();
        // As ONNX Runtime names them.
        let engine = cache.join("decoder-fp16_TensorrtExecutionProvider_TRTKernel_graph_1_0_sm89.engine");
        std::fs::write(&engine, "engine").unwrap();
        std::fs::write(engine.with_extension("profile"), "profile").unwrap();
        std::fs::write(cache.join("projector-fp16_x_sm89.engine"), "another graph's").unwrap();
        assert_eq!(first.engines(), [(engine.clone(), 6)]);
        assert_eq!(first.state(), EngineState::NoRecord);
        let error = first.prepare().unwrap_err().to_string();
        assert!(error.starts_with("nothing says what the engine ") && error.contains("sm89.engine"), "{error}");
        first.record().unwrap();
        assert_eq!(first.state(), EngineState::Fits);
        first.prepare().unwrap();
        let error = plan(&cache, &[("rows", "8")]).prepare().unwrap_err().to_string();
        let expected = "sm89.engine was built for something else: shapes of attention_bias 1x1x1x2..";
        assert!(error.contains(expected), "{error}");
        let error = plan(&cache, &[("trt_fp16_enable", "1")]).prepare().unwrap_err().to_string();
        assert!(error.contains("option trt_fp16_enable (none) instead of 1"), "{error}");
        // Where it is kept and on which device it runs is not what it is.
        assert_eq!(plan(&cache, &[("device_id", "1"), ("trt_cuda_graph_enable", "1")]).state(), EngineState::Fits);
        first.discard().unwrap();
        assert_eq!(first.state(), EngineState::Missing);
        assert!(cache.join("projector-fp16_x_sm89.engine").exists());
    }

    #[test]
    fn packages_have_folders_of_their_own() {
        let mut other = manifest();
        let name = package_name(&other);
        assert!(name.starts_with("vintern-tiny-") && name.len() == "vintern-tiny-".len() + 12, "{name}");
        other.tokenizer.file.sha256 = "0".to_owned();
        assert_ne!(package_name(&other), name);
        other.source.name = "/home/me/Vintern 3B beta".to_owned();
        assert!(package_name(&other).starts_with("home-me-Vintern-3B-beta-"), "{}", package_name(&other));
    }

    #[test]
    fn fused_graphs_are_refused() {
        let source = EngineSource { component: Component::Decoder, limits: ShapeLimits::of(&manifest()), folder: None };
        let fused = manifest().graphs.decoder.remove(0);
        let error = EnginePlan::new(&[], &source, &fused, Machine::default()).unwrap_err();
        assert!(matches!(error, EngineError::Fused { graph: "decoder" }));
        let error = EnginePlan::new(&[], &source, &decoder(1), Machine::default()).unwrap_err();
        assert!(matches!(error, EngineError::NoFolder));
    }
}
