//! `MatMul` of float16 numbers with a matrix that is part of the graph.

use half::f16;
use ort::operator::ShapeInferenceContext;
use ort::operator::{ComputeContext, Kernel, KernelContext, Operator, OperatorInput, OperatorOutput};
use ort::value::{DynTensorValueType, TensorElementType};

use super::{Pool, last_axis, product_shape, required, set_output, values};
use crate::kernels::BlockProduct;

const NAME: &str = "MatMul";

/// Inputs in the order of the operator's schema.
mod input {
    pub const VALUES: usize = 0;
    pub const MATRIX: usize = 1;
}

pub(super) struct MatMul(pub BlockProduct);

impl Operator for MatMul {
    type Kernel<'attr> = MatMulKernel;

    fn name(&self) -> &'static str {
        NAME
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        [TensorElementType::Float16; 2].map(OperatorInput::required)
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [OperatorOutput::required(TensorElementType::Float16)]
    }

    fn create_kernel<'attr>(&self, context: &KernelContext<'attr>) -> ort::Result<Self::Kernel<'attr>> {
        let matrix = context
            .constant_input::<DynTensorValueType>(input::MATRIX)
            .map_err(|error| refused(&format!("of two results of the graph is not supported: {error}")))?;
        let (shape, _) = matrix.try_extract_tensor::<f16>()?;
        match shape[..] {
            [inputs, outputs] if inputs > 0 && outputs > 0 => {
                let size = (inputs as usize, outputs as usize);
                Ok(MatMulKernel { product: self.0, size })
            }
            _ => Err(refused(&format!("with a matrix of shape {shape:?} is not supported"))),
        }
    }

    fn infer_shape(&self, context: &mut ShapeInferenceContext) -> ort::Result<()> {
        let width = last_axis(&context.inputs(), input::MATRIX);
        set_output(context, width)
    }
}

pub(super) struct MatMulKernel {
    product: BlockProduct,
    /// Inputs and outputs of the matrix.
    size: (usize, usize),
}

impl Kernel for MatMulKernel {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let (left, matrix) = (required(context, NAME, input::VALUES)?, required(context, NAME, input::MATRIX)?);
        let (shape, left) = left.try_extract_tensor::<f16>()?;
        let shape = product_shape(NAME, shape, self.size)?;
        let mut output = context.output(0, shape)?.ok_or_else(|| refused("has no output"))?;
        let (_, output) = output.try_extract_tensor_mut::<f16>()?;
        self.product.dense(left, values(&matrix)?, self.size, output, &Pool(context))
    }
}

fn refused(what: &str) -> ort::Error {
    ort::Error::new(format!("{NAME} {what}"))
}
