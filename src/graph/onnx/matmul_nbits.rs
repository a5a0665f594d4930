//! Our kernels in the place of ONNX Runtime's own `MatMulNBits`.
//!
//! A session that [`domain`] was added to runs the graph's `MatMulNBits` nodes with [`crate::kernels`]: an operator of the
//! same domain and name that is registered with a session comes before the built-in one. The graph does not change.

use std::sync::atomic::{AtomicU64, Ordering};

use ort::operator::ShapeInferenceContext;
use ort::operator::{ComputeContext, Kernel, KernelContext, Operator, OperatorDomain, OperatorInput, OperatorOutput};
use ort::value::{PrimitiveTensorElementType, SymbolicDimensions, TensorElementType, ValueRef, ValueType};

use crate::kernels::{BlockFormat, BlockMatrix, BlockProduct, Tasks};

/// Names given to axes that had none.
static UNNAMED: AtomicU64 = AtomicU64::new(0);

/// Domain of the operator.
const DOMAIN: &str = "com.microsoft";

/// Inputs in the order of the operator's schema.
mod input {
    pub const ACTIVATIONS: usize = 0;
    pub const CODES: usize = 1;
    pub const SCALES: usize = 2;
    pub const ZERO_POINTS: usize = 3;
    pub const GROUP_INDEX: usize = 4;
    pub const BIAS: usize = 5;
}

/// The operator, to be added to a session.
///
/// # Errors
/// What ONNX Runtime says when it does not take it.
pub(super) fn domain(product: BlockProduct) -> ort::Result<OperatorDomain> {
    OperatorDomain::new(DOMAIN)?.add(MatMulNBits(product))
}

struct MatMulNBits(BlockProduct);

impl Operator for MatMulNBits {
    type Kernel<'attr> = MatMulNBitsKernel;

    fn name(&self) -> &'static str {
        "MatMulNBits"
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        [
            OperatorInput::required(TensorElementType::Float32),
            OperatorInput::required(TensorElementType::Uint8),
            OperatorInput::required(TensorElementType::Float32),
            OperatorInput::optional(TensorElementType::Uint8),
            OperatorInput::optional(TensorElementType::Int32),
            OperatorInput::optional(TensorElementType::Float32),
        ]
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [OperatorOutput::required(TensorElementType::Float32)]
    }

    fn create_kernel<'attr>(&self, context: &KernelContext<'attr>) -> ort::Result<Self::Kernel<'attr>> {
        let attribute = |name: &str| {
            let value = context.get::<i64>(name).and_then(|value| usize::try_from(value).ok());
            value.ok_or_else(|| ort::Error::new(format!("MatMulNBits has no usable attribute {name}")))
        };
        // The schema's default; exporters leave it out.
        let bits = attribute("bits").unwrap_or(4);
        let format = BlockFormat::new(bits, attribute("block_size")?).map_err(refused)?;
        let (outputs, inputs) = (attribute("N")?, attribute("K")?);
        Ok(MatMulNBitsKernel { product: self.0, format, outputs, inputs })
    }

    fn infer_shape(&self, context: &mut ShapeInferenceContext) -> ort::Result<()> {
        let outputs: i64 = context.attr("N")?;
        let inputs = context.inputs();
        let Some(ValueType::Tensor { shape, dimension_symbols, .. }) = inputs.first() else {
            return Ok(());
        };
        let (mut shape, mut symbols) = (shape.clone(), dimension_symbols.to_vec());
        for (size, symbol) in shape.iter().zip(&mut symbols) {
            if *size < 0 && symbol.is_empty() {
                // A size without a name would reach the graph as -1, which its own shape inference takes for a number.
                *symbol = format!("matmul_nbits_{}", UNNAMED.fetch_add(1, Ordering::Relaxed));
            }
        }
        if let (Some(width), Some(symbol)) = (shape.last_mut(), symbols.last_mut()) {
            *width = outputs;
            symbol.clear();
        }
        let dimension_symbols = SymbolicDimensions::new(symbols);
        context.set_output(0, &ValueType::Tensor { ty: TensorElementType::Float32, shape, dimension_symbols })
    }
}

struct MatMulNBitsKernel {
    product: BlockProduct,
    format: BlockFormat,
    outputs: usize,
    inputs: usize,
}

impl Kernel for MatMulNBitsKernel {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let (codes, scales) = (required(context, input::CODES)?, required(context, input::SCALES)?);
        let (zero_points, bias) = (optional(context, input::ZERO_POINTS)?, optional(context, input::BIAS)?);
        if optional(context, input::GROUP_INDEX)?.is_some() {
            return Err(ort::Error::new("MatMulNBits with a group index is not supported"));
        }
        let zero_points = zero_points.as_ref().map(values::<u8>).transpose()?;
        let bias = bias.as_ref().map(values::<f32>).transpose()?;
        let size = (self.outputs, self.inputs);
        let matrix =
            BlockMatrix::new(self.format, size, values(&codes)?, values(&scales)?, zero_points).map_err(refused)?;
        let activations = required(context, input::ACTIVATIONS)?;
        let (shape, activations) = activations.try_extract_tensor::<f32>()?;
        let mut shape = shape.to_vec();
        if shape.last() != Some(&(self.inputs as i64)) {
            let message = format!("MatMulNBits of {} inputs was given {shape:?}", self.inputs);
            return Err(ort::Error::new(message));
        }
        if let Some(width) = shape.last_mut() {
            *width = self.outputs as i64;
        }
        let mut output = context.output(0, shape)?.ok_or_else(|| ort::Error::new("MatMulNBits has no output"))?;
        let (_, output) = output.try_extract_tensor_mut::<f32>()?;
        self.product.run(activations, &matrix, bias, output, &Pool(context))
    }
}

/// ONNX Runtime's threads.
struct Pool<'a>(&'a ComputeContext);

impl Tasks for Pool<'_> {
    type Error = ort::Error;

    fn run(&self, count: usize, task: &(dyn Fn(usize) + Sync + Send)) -> ort::Result<()> {
        if count == 1 {
            task(0);
            return Ok(());
        }
        // As many batches as tasks: a thread that is done takes the next.
        self.0.par_for(count, count, task)
    }
}

fn required(context: &ComputeContext, index: usize) -> ort::Result<ValueRef<'_>> {
    optional(context, index)?.ok_or_else(|| ort::Error::new(format!("MatMulNBits lacks input {index}")))
}

/// An input that may be left out: by ending the list before it, or by an empty name.
fn optional(context: &ComputeContext, index: usize) -> ort::Result<Option<ValueRef<'_>>> {
    if index < context.num_inputs()? { context.input(index) } else { Ok(None) }
}

fn values<'a, T: PrimitiveTensorElementType>(value: &'a ValueRef<'_>) -> ort::Result<&'a [T]> {
    Ok(value.try_extract_tensor::<T>()?.1)
}

fn refused(error: crate::kernels::FormatError) -> ort::Error {
    ort::Error::new(error.to_string())
}
