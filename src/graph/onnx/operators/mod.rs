//! Our kernels in the place of ONNX Runtime's own.
//!
//! An operator that is registered with a session comes before the built-in one of the same domain and name: a session that
//! [`OwnKernels::domains`] were added to runs the graph's `MatMul`, `MatMulNBits`, `MultiHeadAttention` and
//! `GroupQueryAttention` nodes with [`crate::kernels`]. The graph does not change.

mod group_query_attention;
mod matmul;
mod matmul_nbits;
mod multi_head_attention;
mod pages;

use std::sync::atomic::{AtomicU64, Ordering};

use ort::operator::{ComputeContext, OperatorDomain, ShapeInferenceContext};
use ort::value::{PrimitiveTensorElementType, SymbolicDimensions, ValueRef, ValueType};

use super::cache::CacheDtype;
use crate::kernels::{BlockProduct, Tasks};

pub(super) use group_query_attention::SharedStarts;

/// Domains of the operators: ONNX's own, and that of ONNX Runtime's further ones.
const STANDARD_DOMAIN: &str = "";
const CONTRIB_DOMAIN: &str = "com.microsoft";

/// What of a graph our kernels run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct OwnParts {
    /// Quantised matrices, and attention beside them.
    pub(super) quantised: bool,
    /// Matrices of float16.
    pub(super) half: bool,
    /// Attention with a cache of these.
    pub(super) cached_attention: Option<CacheDtype>,
}

/// Our kernels for a graph.
pub(super) struct OwnKernels {
    pub(super) product: BlockProduct,
    pub(super) parts: OwnParts,
    /// Whether weights may be rearranged in a copy.
    pub(super) prepacking: bool,
    /// Where a decoder says which rows begin alike.
    pub(super) shared_starts: SharedStarts,
}

impl OwnKernels {
    /// The operators, to be added to a session, by domain. A domain without operators would hide those ONNX Runtime has there.
    ///
    /// # Errors
    /// What ONNX Runtime says when it does not take them.
    pub(super) fn domains(&self) -> ort::Result<Vec<OperatorDomain>> {
        let (product, parts, mut domains) = (self.product, self.parts, Vec::new());
        if parts.half {
            let domain = OperatorDomain::new(STANDARD_DOMAIN)?;
            domains.push(domain.add(matmul::MatMul(product))?);
        }
        if parts.quantised || parts.cached_attention.is_some() {
            let mut domain = OperatorDomain::new(CONTRIB_DOMAIN)?;
            if parts.quantised {
                let packs = self.prepacking && product.reads_packed();
                domain = domain.add(matmul_nbits::MatMulNBits::new(product, packs))?;
            }
            if parts.quantised && product.has_attention() {
                domain = domain.add(multi_head_attention::MultiHeadAttention(product))?;
            }
            if let Some(dtype) = parts.cached_attention {
                let shared = self.shared_starts.clone();
                domain = domain.add(group_query_attention::GroupQueryAttention { product, shared, dtype })?;
            }
            domains.push(domain);
        }
        Ok(domains)
    }
}

/// ONNX Runtime's threads.
struct Pool<'a>(&'a ComputeContext);

impl Tasks for Pool<'_> {
    type Error = ort::Error;

    fn run(&self, count: usize, task: &(dyn Fn(usize) + Sync + Send)) -> ort::Result<()> {
        if count <= 1 {
            (0..count).for_each(task);
            return Ok(());
        }
        // As many batches as tasks: a thread that is done takes the next.
        self.0.par_for(count, count, task)
    }
}

/// An input that must be there.
fn required<'a>(context: &'a ComputeContext, operator: &str, index: usize) -> ort::Result<ValueRef<'a>> {
    optional(context, index)?.ok_or_else(|| ort::Error::new(format!("{operator} lacks input {index}")))
}

/// An input that may be left out: by ending the list before it, or by an empty name.
fn optional(context: &ComputeContext, index: usize) -> ort::Result<Option<ValueRef<'_>>> {
    if index < context.num_inputs()? { context.input(index) } else { Ok(None) }
}

fn values<'a, T: PrimitiveTensorElementType>(value: &'a ValueRef<'_>) -> ort::Result<&'a [T]> {
    Ok(value.try_extract_tensor::<T>()?.1)
}

/// Size of the last axis of an input, where it is known.
fn last_axis(inputs: &[ValueType], index: usize) -> Option<i64> {
    match inputs.get(index) {
        Some(ValueType::Tensor { shape, .. }) => shape.last().copied().filter(|size| *size > 0),
        _ => None,
    }
}

/// Shape of the product of values of this shape with a matrix of so many inputs and outputs.
fn product_shape(operator: &str, values: &[i64], (inputs, outputs): (usize, usize)) -> ort::Result<Vec<i64>> {
    match values {
        [rows @ .., width] if *width == inputs as i64 => Ok([rows, &[outputs as i64]].concat()),
        _ => Err(ort::Error::new(format!("{operator} of {inputs} inputs was given {values:?}"))),
    }
}

/// Sets the first output's elements and shape: those of the first input, with a last axis of `width` where there is one.
fn set_output(context: &mut ShapeInferenceContext, width: Option<i64>) -> ort::Result<()> {
    /// Names given to axes that had none.
    static UNNAMED: AtomicU64 = AtomicU64::new(0);
    let inputs = context.inputs();
    let Some(ValueType::Tensor { ty, shape, dimension_symbols }) = inputs.first() else {
        return Ok(());
    };
    let (ty, mut shape, mut symbols) = (*ty, shape.clone(), dimension_symbols.to_vec());
    for (size, symbol) in shape.iter().zip(&mut symbols) {
        if *size < 0 && symbol.is_empty() {
            // A size without a name would reach the graph as -1, which its own shape inference takes for a number.
            *symbol = format!("unnamed_{}", UNNAMED.fetch_add(1, Ordering::Relaxed));
        }
    }
    if let (Some(width), Some(size), Some(symbol)) = (width, shape.last_mut(), symbols.last_mut()) {
        *size = width;
        symbol.clear();
    }
    let dimension_symbols = SymbolicDimensions::new(symbols);
    context.set_output(0, &ValueType::Tensor { ty, shape, dimension_symbols })
}
