//! The model package on disk: its manifest, its files, and the checks that tell a whole package from a broken one.
//!
//! Opening a package reads the manifest and compares the size of every file with it, which costs nothing; hashing
//! gigabytes is left to [`Package::verify_hashes`].

mod error;
mod manifest;
mod presets;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

pub use error::PackageError;
pub use manifest::{
    Architecture, Axis, EmbedTokens, Exporter, FORMAT, FORMAT_VERSION, FUSED, FileEntry, GraphVariant, Graphs,
    Manifest, Parity, Prompt, Quantisation, QuantisedForm, STANDARD, Source, TensorEntry, Tiling, Tokens,
};
pub use presets::{DefaultPresets, MAX_PRESET_BEAMS, Preset};

/// File name of the manifest.
pub const MANIFEST_FILE: &str = "manifest.json";

/// A model package whose manifest was read and whose files have the sizes it states.
#[derive(Clone, Debug)]
pub struct Package {
    folder: PathBuf,
    manifest: Manifest,
}

/// The three graphs of a package.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Component {
    /// Vision tower.
    VisionEncoder,
    /// Pixel shuffle and MLP.
    Projector,
    /// Language model.
    Decoder,
}

impl Component {
    /// All components in the order data passes them.
    pub const ALL: [Self; 3] = [Self::VisionEncoder, Self::Projector, Self::Decoder];

    /// Name in the manifest.
    pub fn name(self) -> &'static str {
        match self {
            Self::VisionEncoder => "vision_encoder",
            Self::Projector => "projector",
            Self::Decoder => "decoder",
        }
    }
}

impl std::fmt::Display for Component {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl Package {
    /// Opens the package in `folder`.
    ///
    /// # Errors
    /// [`PackageError`] when the folder holds no manifest, the manifest cannot be read or is of another format version,
    /// a number or a preset in it makes no sense, or a file is missing or has another size than stated.
    pub fn open(folder: &Path) -> Result<Self, PackageError> {
        let manifest = read_manifest(folder)?;
        check_numbers(folder, &manifest)?;
        check_presets(folder, &manifest)?;
        let package = Self { folder: folder.to_path_buf(), manifest };
        for entry in package.manifest.files() {
            package.check_size(entry)?;
        }
        Ok(package)
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The package's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Path of a file of the package.
    pub fn path(&self, entry: &FileEntry) -> PathBuf {
        self.folder.join(&entry.name)
    }

    /// The variants the package holds of a graph.
    pub fn variants(&self, component: Component) -> &[GraphVariant] {
        let graphs = &self.manifest.graphs;
        match component {
            Component::VisionEncoder => &graphs.vision_encoder,
            Component::Projector => &graphs.projector,
            Component::Decoder => &graphs.decoder,
        }
    }

    /// Hashes every file and compares it with the manifest; `progress` is told the bytes hashed since the last call.
    /// Returns a [`PackageError::Hash`] for each file whose content differs, a [`PackageError::Read`] for each that cannot
    /// be read.
    pub fn verify_hashes(&self, mut progress: impl FnMut(u64)) -> Vec<PackageError> {
        let mut check = |entry: &FileEntry| {
            let file = self.path(entry);
            match sha256_of(&file, &mut progress) {
                Ok(found) if found == entry.sha256 => None,
                Ok(found) => Some(PackageError::Hash { file, expected: entry.sha256.clone(), found }),
                Err(error) => Some(error),
            }
        };
        self.manifest.files().filter_map(&mut check).collect()
    }

    fn check_size(&self, entry: &FileEntry) -> Result<(), PackageError> {
        if Path::new(&entry.name).components().count() != 1 || entry.name.contains(['/', '\\']) || entry.name == ".." {
            return Err(PackageError::FileName { folder: self.folder.clone(), name: entry.name.clone() });
        }
        let file = self.path(entry);
        let metadata = match std::fs::metadata(&file) {
            Ok(metadata) => metadata,
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => {
                return Err(PackageError::MissingFile { file });
            }
            Err(source) => return Err(PackageError::Read { file, source }),
        };
        if metadata.len() == entry.size {
            Ok(())
        } else {
            Err(PackageError::Size { file, expected: entry.size, found: metadata.len() })
        }
    }
}

fn read_manifest(folder: &Path) -> Result<Manifest, PackageError> {
    if !folder.is_dir() {
        return Err(PackageError::NoFolder { folder: folder.to_path_buf() });
    }
    let file = folder.join(MANIFEST_FILE);
    let text = match std::fs::read(&file) {
        Ok(text) => text,
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => {
            return Err(PackageError::NoManifest { folder: folder.to_path_buf() });
        }
        Err(source) => return Err(PackageError::Read { file, source }),
    };
    let broken = |source| PackageError::Manifest { file: file.clone(), source };
    // Only what is needed to tell whether the rest can be understood.
    let fields: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&text).map_err(broken)?;
    let field = |name| fields.get(name).cloned().unwrap_or_default();
    let format = field("format");
    if format != FORMAT {
        return Err(PackageError::Format { file, found: format.to_string() });
    }
    let version = field("format_version");
    if version != FORMAT_VERSION {
        return Err(PackageError::FormatVersion { file, found: version.to_string() });
    }
    serde_json::from_slice(&text).map_err(broken)
}

/// Numbers that must be sane before anything is allocated or divided by them.
fn check_numbers(folder: &Path, manifest: &Manifest) -> Result<(), PackageError> {
    let sizes = &manifest.architecture;
    let tiling = &manifest.tiling;
    let wrong = |field: &'static str, found: String, expected: &'static str| {
        Err(PackageError::Field { file: folder.join(MANIFEST_FILE), field: field.to_owned(), found, expected })
    };
    let positive: [(&'static str, usize); 10] = [
        ("architecture.image_size", sizes.image_size as usize),
        ("architecture.patch_size", sizes.patch_size as usize),
        ("architecture.tokens_per_tile", sizes.tokens_per_tile),
        ("architecture.hidden_size", sizes.hidden_size),
        ("architecture.num_hidden_layers", sizes.num_hidden_layers),
        ("architecture.num_key_value_heads", sizes.num_key_value_heads),
        ("architecture.head_dim", sizes.head_dim),
        ("architecture.vocab_size", sizes.vocab_size),
        ("architecture.embedding_rows", sizes.embedding_rows),
        ("architecture.max_length", sizes.max_length),
    ];
    for (field, value) in positive {
        if value == 0 {
            return wrong(field, "0".into(), "a positive number");
        }
    }
    if sizes.embedding_rows < sizes.vocab_size {
        let found = format!("{} with vocab_size {}", sizes.embedding_rows, sizes.vocab_size);
        return wrong("architecture.embedding_rows", found, "a row for every token the decoder can choose");
    }
    if tiling.min_tiles == 0 || tiling.min_tiles > tiling.max_tiles {
        return wrong(
            "tiling.min_tiles",
            format!("{} with max_tiles {}", tiling.min_tiles, tiling.max_tiles),
            "1 to max_tiles",
        );
    }
    if tiling.std.iter().any(|std| !(std.is_finite() && *std > 0.0)) {
        return wrong("tiling.std", format!("{:?}", tiling.std), "three positive numbers");
    }
    for (field, variants) in [
        ("graphs.vision_encoder", &manifest.graphs.vision_encoder),
        ("graphs.projector", &manifest.graphs.projector),
        ("graphs.decoder", &manifest.graphs.decoder),
    ] {
        if variants.is_empty() || variants.iter().any(|variant| variant.files.is_empty()) {
            return wrong(field, "no graph or a graph without a file".into(), "at least one variant with its files");
        }
    }
    Ok(())
}

/// Tile limits of presets that contradict each other, or those of the package where a preset states only one.
fn check_presets(folder: &Path, manifest: &Manifest) -> Result<(), PackageError> {
    for (name, preset) in &manifest.presets {
        let max_tiles = preset.max_tiles.unwrap_or(manifest.tiling.max_tiles);
        if let Some(min_tiles) = preset.min_tiles.filter(|min_tiles| *min_tiles > max_tiles) {
            return Err(PackageError::Field {
                file: folder.join(MANIFEST_FILE),
                field: format!("presets.{name}.min_tiles"),
                found: format!("{min_tiles} with max_tiles {max_tiles}"),
                expected: "1 to max_tiles",
            });
        }
    }
    Ok(())
}

fn sha256_of(file: &Path, mut progress: impl FnMut(u64)) -> Result<String, PackageError> {
    let failed = |source| PackageError::Read { file: file.to_path_buf(), source };
    let mut reader = File::open(file).map_err(failed)?;
    let mut hasher = Sha256::new();
    let mut block = vec![0_u8; 4 << 20];
    loop {
        let read = reader.read(&mut block).map_err(failed)?;
        if read == 0 {
            break;
        }
        hasher.update(&block[..read]);
        progress(read as u64);
    }
    Ok(hasher.finalize().iter().fold(String::with_capacity(64), |hex, byte| hex + &format!("{byte:02x}")))
}
