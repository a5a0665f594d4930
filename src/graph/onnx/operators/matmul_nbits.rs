//! `MatMulNBits`.

use std::sync::atomic::{AtomicUsize, Ordering};

use ort::operator::ShapeInferenceContext;
use ort::operator::{ComputeContext, Kernel, KernelContext, Operator, OperatorInput, OperatorOutput};
use ort::value::{DynTensorValueType, TensorElementType};

use super::{Pool, optional, pages, product_shape, required, set_output, values};
use crate::kernels::{BlockFormat, BlockMatrix, BlockProduct, BlockTable, FormatError, PackedCodes};

const NAME: &str = "MatMulNBits";

/// Over how many runs of a graph after the first the packing of its matrices is spread, so that a first token does not wait for
/// it, and no later one for much of it.
const SPREAD: usize = 4;

/// Rows that gain about as much by packed codes as packing takes: no need to wait then.
const WORTH_PACKING: usize = 256;

/// Inputs in the order of the operator's schema.
mod input {
    pub const ACTIVATIONS: usize = 0;
    pub const CODES: usize = 1;
    pub const SCALES: usize = 2;
    pub const ZERO_POINTS: usize = 3;
    pub const GROUP_INDEX: usize = 4;
    pub const BIAS: usize = 5;
}

pub(super) struct MatMulNBits {
    product: BlockProduct,
    /// How many matrices will have packed codes for it; none if they stay as they lie.
    packing: Option<AtomicUsize>,
}

impl MatMulNBits {
    /// `packs`: whether codes are packed.
    pub(super) fn new(product: BlockProduct, packs: bool) -> Self {
        Self { product, packing: packs.then(AtomicUsize::default) }
    }
}

impl Operator for MatMulNBits {
    type Kernel<'attr> = MatMulNBitsKernel;

    fn name(&self) -> &'static str {
        NAME
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
            value.ok_or_else(|| ort::Error::new(format!("{NAME} has no usable attribute {name}")))
        };
        // The schema's default; exporters leave it out.
        let bits = attribute("bits").unwrap_or(4);
        let format = BlockFormat::new(bits, attribute("block_size")?).map_err(refused)?;
        let size = (attribute("N")?, attribute("K")?);
        let constant = |index| context.constant_input::<DynTensorValueType>(index);
        let scales = constant(input::SCALES)
            .map_err(|error| ort::Error::new(format!("{NAME} of {size:?} with other than constant scales: {error}")))?;
        // Whether there are some that are no constant shows in a call.
        let zero_points = constant(input::ZERO_POINTS).ok();
        let zero_points = zero_points.as_ref().map(|constant| constant.try_extract_tensor::<u8>()).transpose()?;
        let zero_points = zero_points.map(|(_, packed)| packed);
        let (_, scales) = scales.try_extract_tensor::<f32>()?;
        let table = BlockTable::new(format, size, scales, zero_points).map_err(refused)?;
        let packing = self.packing.as_ref().filter(|_| constant(input::CODES).is_ok());
        let codes = packing.map_or(Codes::AsTheyLie, |matrices| Codes::ToPack {
            after: 1 + matrices.fetch_add(1, Ordering::Relaxed) % SPREAD,
        });
        Ok(MatMulNBitsKernel { product: self.product, table, codes, has_zero_points: zero_points.is_some() })
    }

    fn infer_shape(&self, context: &mut ShapeInferenceContext) -> ort::Result<()> {
        let outputs = context.attr("N")?;
        set_output(context, Some(outputs))
    }
}

pub(super) struct MatMulNBitsKernel {
    product: BlockProduct,
    table: BlockTable,
    codes: Codes,
    has_zero_points: bool,
}

/// Which codes are multiplied with.
enum Codes {
    AsTheyLie,
    /// As they lie for so many products of few rows, then packed.
    ToPack {
        after: usize,
    },
    Packed(PackedCodes),
}

impl MatMulNBitsKernel {
    /// The matrix of these codes, for a product with so many rows.
    fn matrix<'a>(
        &'a mut self,
        codes: &'a [u8],
        rows: usize,
        context: &ComputeContext,
    ) -> ort::Result<BlockMatrix<'a>> {
        if let Codes::ToPack { after } = &mut self.codes {
            if *after == 0 || rows >= WORTH_PACKING {
                self.codes = Codes::Packed(self.pack(codes, context)?);
            } else {
                *after -= 1;
            }
        }
        match &self.codes {
            Codes::Packed(packed) => BlockMatrix::packed(packed, &self.table),
            _ => BlockMatrix::new(codes, &self.table),
        }
        .map_err(refused)
    }

    fn pack(&self, codes: &[u8], context: &ComputeContext) -> ort::Result<PackedCodes> {
        let memory = |error| ort::Error::new(format!("no memory for the packed codes of {NAME}: {error}"));
        let mut packed = PackedCodes::zeroed(&self.table).map_err(memory)?;
        packed.fill(&BlockMatrix::new(codes, &self.table).map_err(refused)?, &Pool(context))?;
        pages::release(codes);
        Ok(packed)
    }
}

impl Kernel for MatMulNBitsKernel {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let codes = required(context, NAME, input::CODES)?;
        let bias = optional(context, input::BIAS)?;
        if optional(context, input::GROUP_INDEX)?.is_some() {
            return Err(ort::Error::new(format!("{NAME} with a group index is not supported")));
        }
        if optional(context, input::ZERO_POINTS)?.is_some() != self.has_zero_points {
            return Err(ort::Error::new(format!("{NAME} with other than constant zero points is not supported")));
        }
        let bias = bias.as_ref().map(values::<f32>).transpose()?;
        let activations = required(context, NAME, input::ACTIVATIONS)?;
        let (shape, activations) = activations.try_extract_tensor::<f32>()?;
        let (outputs, inputs) = self.table.size();
        let shape = product_shape(NAME, shape, (inputs, outputs))?;
        let mut output = context.output(0, shape)?.ok_or_else(|| ort::Error::new(format!("{NAME} has no output")))?;
        let (_, output) = output.try_extract_tensor_mut::<f32>()?;
        let (product, rows) = (self.product, activations.len() / inputs.max(1));
        product.run(activations, &self.matrix(values(&codes)?, rows, context)?, bias, output, &Pool(context))
    }
}

fn refused(error: FormatError) -> ort::Error {
    ort::Error::new(error.to_string())
}
