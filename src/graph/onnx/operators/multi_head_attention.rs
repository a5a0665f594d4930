//! `MultiHeadAttention` without a mask and without a past.

use ort::operator::ShapeInferenceContext;
use ort::operator::{ComputeContext, Kernel, KernelContext, Operator, OperatorInput, OperatorOutput};
use ort::value::TensorElementType;

use super::{Pool, optional, required, set_output, values};
use crate::kernels::{AttentionInputs, AttentionShape, BlockProduct};

const NAME: &str = "MultiHeadAttention";

/// Inputs in the order of the operator's schema.
mod input {
    pub const QUERY: usize = 0;
    pub const KEY: usize = 1;
    pub const VALUE: usize = 2;
    pub const BIAS: usize = 3;
    /// Key padding mask, attention bias, past key and past value follow.
    pub const REST: std::ops::Range<usize> = 4..8;
}

pub(super) struct MultiHeadAttention(pub BlockProduct);

impl Operator for MultiHeadAttention {
    type Kernel<'attr> = AttentionKernel;

    fn name(&self) -> &'static str {
        NAME
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        let float = TensorElementType::Float32;
        [
            OperatorInput::required(float),
            OperatorInput::required(float),
            OperatorInput::required(float),
            OperatorInput::optional(float),
            OperatorInput::optional(TensorElementType::Int32),
            OperatorInput::optional(float),
            OperatorInput::optional(float),
            OperatorInput::optional(float),
        ]
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [OperatorOutput::required(TensorElementType::Float32)]
    }

    fn create_kernel<'attr>(&self, context: &KernelContext<'attr>) -> ort::Result<Self::Kernel<'attr>> {
        let heads =
            context.get::<i64>("num_heads").and_then(|heads| usize::try_from(heads).ok()).filter(|heads| *heads > 0);
        let heads = heads.ok_or_else(|| ort::Error::new(format!("{NAME} has no usable attribute num_heads")))?;
        let causal = context.get::<i64>("unidirectional").is_some_and(|causal| causal != 0);
        if causal {
            return Err(ort::Error::new(format!("{NAME} with unidirectional=1 is not supported")));
        }
        // The schema's default, 0, stands for the inverse root of the head size.
        let scale = context.get::<f32>("scale").filter(|scale| *scale != 0.0);
        Ok(AttentionKernel { product: self.0, heads, scale })
    }

    fn infer_shape(&self, context: &mut ShapeInferenceContext) -> ort::Result<()> {
        set_output(context, None)
    }
}

pub(super) struct AttentionKernel {
    product: BlockProduct,
    heads: usize,
    scale: Option<f32>,
}

impl Kernel for AttentionKernel {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        for index in input::REST {
            if optional(context, index)?.is_some() {
                return Err(ort::Error::new(format!("{NAME} with input {index} is not supported")));
            }
        }
        let [query, key, value] = [input::QUERY, input::KEY, input::VALUE].map(|index| required(context, NAME, index));
        let (query, key, value, bias) = (query?, key?, value?, optional(context, input::BIAS)?);
        let (dimensions, queries) = query.try_extract_tensor::<f32>()?;
        let dimensions = dimensions.to_vec();
        let shape = self.shape(&dimensions)?;
        let inputs = AttentionInputs {
            query: queries,
            key: values(&key)?,
            value: values(&value)?,
            bias: bias.as_ref().map(values::<f32>).transpose()?,
        };
        let bias_fits = inputs.bias.is_none_or(|bias| bias.len() == 3 * shape.width());
        if [inputs.key.len(), inputs.value.len()] != [shape.len(); 2] || !bias_fits {
            return Err(ort::Error::new(format!("{NAME}: keys, values or bias are not of the size of {shape:?}")));
        }
        let mut output = context.output(0, dimensions)?;
        let output = output.as_mut().ok_or_else(|| ort::Error::new(format!("{NAME} has no output")))?;
        let (_, output) = output.try_extract_tensor_mut::<f32>()?;
        self.product.attention(shape, inputs, self.scale, output, &Pool(context))
    }
}

impl AttentionKernel {
    fn shape(&self, dimensions: &[i64]) -> ort::Result<AttentionShape> {
        let refused = || ort::Error::new(format!("{NAME} of {} heads was given {dimensions:?}", self.heads));
        let &[batch, positions, width] = dimensions else {
            return Err(refused());
        };
        let shape = AttentionShape {
            batch: batch as usize,
            positions: positions as usize,
            heads: self.heads,
            head_size: width as usize / self.heads,
        };
        if shape.width() as i64 == width && shape.is_supported() { Ok(shape) } else { Err(refused()) }
    }
}
