//! The token embedding table, memory-mapped: several processes share one copy, and only the rows used are read.

use std::fs::File;
use std::ops::Range;
use std::path::Path;

use half::{bf16, f16};
use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};

use super::ModelError;
use crate::package::Package;

/// Token embeddings, `[rows, hidden size]`.
pub struct EmbeddingTable {
    data: Data,
    rows: usize,
    hidden_size: usize,
}

enum Data {
    Mapped { map: Mmap, bytes: Range<usize>, dtype: Dtype },
    Memory(Vec<f32>),
}

impl EmbeddingTable {
    /// Maps the table of a package.
    ///
    /// # Errors
    /// [`ModelError::Embeddings`] when the file is not the table the manifest describes.
    pub fn open(package: &Package) -> Result<Self, ModelError> {
        let manifest = package.manifest();
        let file = package.path(&manifest.embed_tokens.file);
        let (rows, hidden_size) = (manifest.architecture.embedding_rows, manifest.architecture.hidden_size);
        let opened = map_tensor(&file, &manifest.embed_tokens.tensor, [rows, hidden_size]);
        let data = opened.map_err(|message| ModelError::Embeddings { file, message })?;
        Ok(Self { data, rows, hidden_size })
    }

    /// A table in memory, `values` row by row.
    pub fn from_rows(values: Vec<f32>, hidden_size: usize) -> Self {
        Self { rows: values.len() / hidden_size, data: Data::Memory(values), hidden_size }
    }

    /// Writes the embedding of a token into `out`, one row of `hidden size` numbers.
    ///
    /// # Errors
    /// [`ModelError::TokenId`] when the table has no such row.
    pub fn lookup(&self, id: u32, out: &mut [f32]) -> Result<(), ModelError> {
        let row = id as usize;
        if row >= self.rows {
            return Err(ModelError::TokenId { id, rows: self.rows });
        }
        let elements = row * self.hidden_size..(row + 1) * self.hidden_size;
        match &self.data {
            Data::Memory(values) => out.copy_from_slice(&values[elements]),
            Data::Mapped { map, bytes, dtype } => {
                let size = dtype.bitsize() / 8;
                let row = &map[bytes.clone()][elements.start * size..elements.end * size];
                match dtype {
                    Dtype::BF16 => convert(row, out, |bytes| bf16::from_le_bytes(bytes).to_f32()),
                    Dtype::F16 => convert(row, out, |bytes| f16::from_le_bytes(bytes).to_f32()),
                    _ => convert(row, out, f32::from_le_bytes),
                }
            }
        }
        Ok(())
    }

    /// Width of a row.
    pub fn hidden_size(&self) -> usize {
        self.hidden_size
    }
}

fn convert<const N: usize>(bytes: &[u8], out: &mut [f32], number: impl Fn([u8; N]) -> f32) {
    for (value, bytes) in out.iter_mut().zip(bytes.as_chunks::<N>().0) {
        *value = number(*bytes);
    }
}

fn map_tensor(file: &Path, tensor: &str, shape: [usize; 2]) -> Result<Data, String> {
    let opened = File::open(file).map_err(|error| error.to_string())?;
    // SAFETY: the mapping is read-only. As with every memory-mapped model file, its content must not be changed while a
    // process uses it; a package is written once and then only read.
    let map = unsafe { Mmap::map(&opened) }.map_err(|error| error.to_string())?;
    let tensors = SafeTensors::deserialize(&map).map_err(|error| error.to_string())?;
    let view = tensors.tensor(tensor).map_err(|error| error.to_string())?;
    if !matches!(view.dtype(), Dtype::BF16 | Dtype::F16 | Dtype::F32) {
        return Err(format!("tensor {tensor} has dtype {:?}, expected BF16, F16 or F32", view.dtype()));
    }
    if view.shape() != shape {
        return Err(format!("tensor {tensor} has shape {:?}, expected {shape:?}", view.shape()));
    }
    let dtype = view.dtype();
    let start = view.data().as_ptr() as usize - map.as_ptr() as usize;
    let bytes = start..start + view.data().len();
    Ok(Data::Mapped { map, bytes, dtype })
}
