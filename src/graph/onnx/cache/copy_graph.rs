//! Copies inside a device's memory.
//!
//! The host cannot reach it, and ONNX Runtime's own interface for copies knows devices of plugin libraries alone. A graph of
//! `Identity` nodes, run on the provider whose memory it is, copies there with any library.

use std::ffi::{CString, c_char, c_void};
use std::ptr::NonNull;

use ort::editor::{Graph, Model, Node, ONNX_DOMAIN, Opset};
use ort::memory::MemoryInfo;
use ort::session::Session;
use ort::session::builder::GraphOptimizationLevel;
use ort::sys::OrtValue;
use ort::value::{Outlet, Shape, SymbolicDimensions, ValueType};
use ort::{AsPointer, ortsys};

use super::{CacheDtype, Line};
use crate::graph::onnx::{Library, session};
use crate::provider::Provider;

/// An opset with `Identity` for all element types of a cache.
const OPSET: u32 = 17;

/// A graph of so many `Identity` nodes, each of which copies one line of any length.
pub(super) struct CopyGraph {
    session: Session,
    inputs: Vec<CString>,
    outputs: Vec<CString>,
    dtype: CacheDtype,
    /// The memory in which it copies.
    memory: MemoryInfo<'static>,
    host: MemoryInfo<'static>,
}

impl CopyGraph {
    /// A graph for `lanes` lines at a time in `memory`, which `provider` computes in.
    pub(super) fn new(
        library: &Library,
        provider: &Provider,
        memory: MemoryInfo<'static>,
        lanes: usize,
        dtype: CacheDtype,
    ) -> ort::Result<Self> {
        let names = |kind: &str| (0..lanes).map(|lane| format!("{kind}{lane}")).collect::<Vec<_>>();
        let (inputs, outputs) = (names("from"), names("to"));
        let outlet = |name: &String| {
            let shape = Shape::new([-1]);
            Outlet::new(
                name.as_str(),
                ValueType::Tensor { ty: dtype.element(), shape, dimension_symbols: SymbolicDimensions::empty(1) },
            )
        };
        let mut graph = Graph::new()?;
        graph.set_inputs(inputs.iter().map(outlet))?;
        graph.set_outputs(outputs.iter().map(outlet))?;
        for (input, output) in inputs.iter().zip(&outputs) {
            graph.add_node(Node::new("Identity", ONNX_DOMAIN, output, [input], [output], [])?)?;
        }
        let mut model = Model::new([Opset::new(ONNX_DOMAIN, OPSET)?])?;
        model.set_graph(graph)?;
        let plain = |error: ort::Error<_>| ort::Error::new(error.message());
        // A copy from an input to an output is what this graph is for; nothing of it may be optimised away.
        let builder = Session::builder(&library.environment)?
            .with_optimization_level(GraphOptimizationLevel::Disable)
            .map_err(plain)?;
        let session = model.into_session(&session::add(library, provider, builder)?)?;
        let c_names = |names: Vec<String>| names.into_iter().map(CString::new).collect::<Result<Vec<_>, _>>();
        let (inputs, outputs) = (c_names(inputs)?, c_names(outputs)?);
        Ok(Self { session, inputs, outputs, dtype, memory, host: MemoryInfo::default() })
    }

    /// Copies lines of `elements` numbers each, as many at a time as there are nodes; they must be a multiple of it.
    ///
    /// # Safety
    /// Every `from` must lead to so many numbers in this graph's memory, every `to` to room for them, and no `to` may overlap
    /// another line.
    pub(super) unsafe fn copy(&mut self, lines: &[Line], elements: usize) -> ort::Result<()> {
        for lines in lines.chunks(self.inputs.len()) {
            // SAFETY: as the caller vouches.
            let from = lines.iter().map(|line| unsafe { self.tensor(&self.memory, line.from.cast_mut(), elements) });
            let from = from.collect::<ort::Result<Vec<_>>>()?;
            // SAFETY: as the caller vouches.
            unsafe { self.run(&from, lines.iter().map(|line| line.to), elements) }?;
        }
        Ok(())
    }

    /// Writes zeros to lines of `elements` numbers each, which must be a multiple of the number of nodes.
    ///
    /// # Safety
    /// Every one of `lines` must lead to room for so many numbers in this graph's memory.
    pub(super) unsafe fn clear(&mut self, lines: &[*mut u8], elements: usize) -> ort::Result<()> {
        let mut zeros = vec![0_u8; elements * self.dtype.size()];
        for lines in lines.chunks(self.inputs.len()) {
            // SAFETY: `zeros` has so many numbers and outlives the run, which copies them to the device.
            let from = lines.iter().map(|_| unsafe { self.tensor(&self.host, zeros.as_mut_ptr(), elements) });
            let from = from.collect::<ort::Result<Vec<_>>>()?;
            // SAFETY: as the caller vouches.
            unsafe { self.run(&from, lines.iter().copied(), elements) }?;
        }
        Ok(())
    }

    /// Copies each of `from`, one for each node, to a place of its own; returns when it is done.
    ///
    /// # Safety
    /// As for [`Self::copy`].
    unsafe fn run(
        &mut self,
        from: &[BorrowedTensor],
        to: impl Iterator<Item = *mut u8>,
        elements: usize,
    ) -> ort::Result<()> {
        if elements == 0 {
            return Ok(());
        }
        // SAFETY: as the caller vouches.
        let to = to.map(|start| unsafe { self.tensor(&self.memory, start, elements) });
        let to = to.collect::<ort::Result<Vec<_>>>()?;
        let pointers = |names: &[CString]| names.iter().map(|name| name.as_ptr()).collect::<Vec<*const c_char>>();
        let (input_names, output_names) = (pointers(&self.inputs), pointers(&self.outputs));
        let inputs: Vec<*const OrtValue> = from.iter().map(|tensor| tensor.0.as_ptr().cast_const()).collect();
        let mut outputs: Vec<*mut OrtValue> = to.iter().map(|tensor| tensor.0.as_ptr()).collect();
        assert!(inputs.len() == input_names.len() && outputs.len() == output_names.len(), "a line for each node");
        // SAFETY: the session is live and `&mut self` keeps others from it; there is a name for each tensor, and the tensors
        // and what they lie on outlive the call, which waits for the device.
        ortsys![
            unsafe Run(
                self.session.ptr_mut(),
                std::ptr::null(),
                input_names.as_ptr(),
                inputs.as_ptr(),
                inputs.len(),
                output_names.as_ptr(),
                outputs.len(),
                outputs.as_mut_ptr()
            )?
        ];
        Ok(())
    }

    /// A tensor over numbers that lie elsewhere.
    ///
    /// # Safety
    /// They must be there as long as the tensor is used.
    unsafe fn tensor(&self, memory: &MemoryInfo<'_>, start: *mut u8, elements: usize) -> ort::Result<BorrowedTensor> {
        let mut value = std::ptr::null_mut();
        let (bytes, shape) = (elements * self.dtype.size(), [elements as i64]);
        // SAFETY: the caller vouches for the memory; the other arguments are valid for the call.
        ortsys![
            unsafe CreateTensorWithDataAsOrtValue(
                memory.ptr(),
                start.cast::<c_void>(),
                bytes,
                shape.as_ptr(),
                shape.len(),
                self.dtype.element().into(),
                &mut value
            )?
        ];
        NonNull::new(value).map(BorrowedTensor).ok_or_else(|| ort::Error::new("no tensor was created"))
    }
}

/// A tensor that does not own its numbers. (The binding's own type asks ONNX Runtime for shape, type and memory of each, which
/// is most of the time of a small copy.)
struct BorrowedTensor(NonNull<OrtValue>);

impl Drop for BorrowedTensor {
    fn drop(&mut self) {
        // SAFETY: the value was created here and is released once.
        ortsys![unsafe ReleaseValue(self.0.as_ptr())];
    }
}
