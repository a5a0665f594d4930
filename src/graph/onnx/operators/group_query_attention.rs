//! `GroupQueryAttention` with packed queries, keys and values, its own rotary embedding, and past and present of one size.

use std::sync::{Arc, Mutex, PoisonError};

use half::f16;
use ort::operator::ShapeInferenceContext;
use ort::operator::{ComputeContext, Kernel, KernelContext, Operator, OperatorInput, OperatorOutput};
use ort::value::{PrimitiveTensorElementType, TensorElementType, ValueRef};

use super::super::cache::CacheDtype;
use super::{Pool, last_axis, required, set_output, values};
use crate::kernels::{BlockProduct, Element, GroupedCache, GroupedInputs, GroupedShape, SharedStart};

const NAME: &str = "GroupQueryAttention";

/// Inputs in the order of the operator's schema.
mod input {
    pub const PACKED: usize = 0;
    pub const KEY: usize = 1;
    pub const VALUE: usize = 2;
    pub const PAST_KEY: usize = 3;
    pub const PAST_VALUE: usize = 4;
    pub const LAST: usize = 5;
    pub const COSINES: usize = 7;
    pub const SINES: usize = 8;
}

/// Which rows of the next call have caches that begin alike: whoever keeps the cache says so before the call.
#[derive(Clone, Debug, Default)]
pub(in crate::graph::onnx) struct SharedStarts(Arc<Mutex<Vec<SharedStart>>>);

impl SharedStarts {
    /// What holds from the next call on.
    pub(in crate::graph::onnx) fn set(&self, starts: Vec<SharedStart>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = starts;
    }
}

pub(super) struct GroupQueryAttention {
    pub(super) product: BlockProduct,
    pub(super) shared: SharedStarts,
    /// Of the cache, and of all that attention is given and gives.
    pub(super) dtype: CacheDtype,
}

impl Operator for GroupQueryAttention {
    type Kernel<'attr> = AttentionKernel;

    fn name(&self) -> &'static str {
        NAME
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        let (float, integer) = (self.dtype.element(), TensorElementType::Int32);
        [
            OperatorInput::required(float),
            OperatorInput::optional(float),
            OperatorInput::optional(float),
            OperatorInput::required(float),
            OperatorInput::required(float),
            OperatorInput::required(integer),
            OperatorInput::required(integer),
            OperatorInput::required(float),
            OperatorInput::required(float),
        ]
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [self.dtype.element(); 3].map(OperatorOutput::required)
    }

    fn create_kernel<'attr>(&self, context: &KernelContext<'attr>) -> ort::Result<Self::Kernel<'attr>> {
        let heads = |name: &str| {
            let heads = context.get::<i64>(name).and_then(|heads| usize::try_from(heads).ok());
            heads.filter(|heads| *heads > 0).ok_or_else(|| refused(&format!("has no usable attribute {name}")))
        };
        let flag = |name: &str, default: i64| context.get::<i64>(name).unwrap_or(default);
        for (name, found, supported) in [
            ("do_rotary", flag("do_rotary", 0), 1),
            ("rotary_interleaved", flag("rotary_interleaved", 0), 0),
            ("local_window_size", flag("local_window_size", -1), -1),
        ] {
            if found != supported {
                return Err(refused(&format!("with {name}={found} is not supported")));
            }
        }
        if context.get::<f32>("softcap").is_some_and(|softcap| softcap != 0.0) {
            return Err(refused("with a softcap is not supported"));
        }
        // The schema's default, 0, stands for the inverse root of the head size.
        let scale = context.get::<f32>("scale").filter(|scale| *scale != 0.0);
        let (heads, shared_heads) = (heads("num_heads")?, heads("kv_num_heads")?);
        if !heads.is_multiple_of(shared_heads) {
            return Err(refused(&format!("of {heads} heads cannot share {shared_heads}")));
        }
        let Self { product, dtype, .. } = *self;
        Ok(AttentionKernel { product, shared: self.shared.clone(), dtype, heads, shared_heads, scale })
    }

    fn infer_shape(&self, context: &mut ShapeInferenceContext) -> ort::Result<()> {
        let inputs = context.inputs();
        let (heads, shared) = (context.attr::<i64>("num_heads")?, context.attr::<i64>("kv_num_heads")?);
        let packed = last_axis(&inputs, input::PACKED);
        set_output(context, packed.map(|width| width / (heads + 2 * shared) * heads))?;
        for (output, past) in [(1, input::PAST_KEY), (2, input::PAST_VALUE)] {
            if let Some(past) = inputs.get(past) {
                context.set_output(output, past)?;
            }
        }
        Ok(())
    }
}

pub(super) struct AttentionKernel {
    product: BlockProduct,
    shared: SharedStarts,
    dtype: CacheDtype,
    heads: usize,
    shared_heads: usize,
    scale: Option<f32>,
}

impl Kernel for AttentionKernel {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        match self.dtype {
            CacheDtype::F32 => self.compute_in::<f32>(context),
            CacheDtype::F16 => self.compute_in::<f16>(context),
        }
    }
}

impl AttentionKernel {
    fn compute_in<E: Element + PrimitiveTensorElementType>(&self, context: &ComputeContext) -> ort::Result<()> {
        for index in [input::KEY, input::VALUE] {
            if context.input(index)?.is_some() {
                return Err(refused("with keys and values apart from queries is not supported"));
            }
        }
        let (packed, last) = (required(context, NAME, input::PACKED)?, required(context, NAME, input::LAST)?);
        let (cosines, sines) = (required(context, NAME, input::COSINES)?, required(context, NAME, input::SINES)?);
        let past = [input::PAST_KEY, input::PAST_VALUE].map(|index| required(context, NAME, index));
        let [past_key, past_value] = past;
        let (past_key, past_value) = (past_key?, past_value?);
        let (dimensions, packed) = packed.try_extract_tensor::<E>()?;
        let cache_dimensions = past_key.try_extract_tensor::<E>()?.0.to_vec();
        let shape = self.shape(dimensions, &cache_dimensions)?;
        let pasts = pasts(values(&last)?, shape)?;
        if past_value.try_extract_tensor::<E>()?.0[..] != cache_dimensions[..] {
            return Err(refused("was given keys and values of different shapes"));
        }
        let mut outputs = [(0, output_shape(shape)), (1, cache_dimensions.clone()), (2, cache_dimensions)]
            .map(|(index, dimensions)| context.output(index, dimensions));
        let [out, keys, cache_values] = outputs.each_mut().map(|output| match output {
            Ok(Some(output)) => output.try_extract_tensor_mut::<E>().map(|(_, values)| values),
            Ok(None) => Err(refused("lacks an output")),
            Err(error) => Err(ort::Error::new(error.message())),
        });
        let (out, keys, cache_values) = (out?, keys?, cache_values?);
        carry_over(&past_key, keys)?;
        carry_over(&past_value, cache_values)?;
        let shared = self.shared.0.lock().unwrap_or_else(PoisonError::into_inner);
        let inputs = GroupedInputs {
            packed,
            pasts: &pasts,
            cosines: values(&cosines)?,
            sines: values(&sines)?,
            scale: self.scale.unwrap_or_else(|| (shape.head_size as f32).sqrt().recip()),
            shared: &shared,
        };
        let cache = GroupedCache { keys, values: cache_values };
        self.product.grouped_attention(shape, inputs, cache, out, &Pool(context))
    }

    fn shape(&self, packed: &[i64], cache: &[i64]) -> ort::Result<GroupedShape> {
        let mismatch = || refused(&format!("of {} heads was given {packed:?} and a cache of {cache:?}", self.heads));
        let (&[rows, positions, width], &[cache_rows, shared_heads, capacity, head_size]) = (packed, cache) else {
            return Err(mismatch());
        };
        let shape = GroupedShape {
            rows: rows as usize,
            positions: positions as usize,
            heads: self.heads,
            shared_heads: self.shared_heads,
            head_size: head_size as usize,
            capacity: capacity as usize,
        };
        let fits = rows == cache_rows && shared_heads as usize == self.shared_heads;
        if fits && width as usize == shape.packed_width() && GroupedShape::is_supported_size(shape.head_size) {
            Ok(shape)
        } else {
            Err(mismatch())
        }
    }
}

fn output_shape(shape: GroupedShape) -> Vec<i64> {
    vec![shape.rows as i64, shape.positions as i64, shape.width() as i64]
}

/// Positions in the cache of each row, of the indices of the last positions.
fn pasts(last: &[i32], shape: GroupedShape) -> ort::Result<Vec<usize>> {
    let past = |last: &i32| usize::try_from(i64::from(*last) + 1 - shape.positions as i64).ok();
    let pasts: Option<Vec<usize>> = last.iter().map(past).collect();
    let fits = |pasts: &Vec<usize>| {
        pasts.len() == shape.rows && pasts.iter().all(|past| past + shape.positions <= shape.capacity)
    };
    pasts.filter(fits).ok_or_else(|| refused(&format!("was given last positions {last:?} for {shape:?}")))
}

/// Copies the past where the present is not the same memory.
fn carry_over<E: PrimitiveTensorElementType>(past: &ValueRef<'_>, present: &mut [E]) -> ort::Result<()> {
    let from = past.try_extract_tensor::<E>()?.1.as_ptr();
    if from != present.as_ptr() {
        // SAFETY: both tensors have the same shape, as the caller checked, and are not the same memory.
        unsafe { std::ptr::copy(from, present.as_mut_ptr(), present.len()) };
    }
    Ok(())
}

fn refused(what: &str) -> ort::Error {
    ort::Error::new(format!("{NAME} {what}"))
}
