//! The memory that a cache lies in.

use std::ffi::CStr;

use ort::memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType};
use ort::session::Session;
use ort::sys::{OrtMemoryInfo, OrtMemoryInfoDeviceType};
use ort::{AsPointer, ortsys};

use super::copy_graph::CopyGraph;
use super::{CacheDtype, CacheLayout, Line};
use crate::graph::GraphError;
use crate::graph::onnx::session::run_error;
use crate::graph::onnx::{Library, OnnxGraph};
use crate::provider::{ProviderError, ProviderList};

/// The memory a cache lies in, and the way to copy inside it.
pub struct CacheMemory {
    pub(super) allocator: Allocator,
    /// Copies where the host cannot; none in the host's own memory.
    copies: Option<CopyGraph>,
    /// Whether the graph reads the cache where it lies, so that what is bound stays bound. Where it does not, ONNX Runtime
    /// copies an input to the device when it is *bound*: a binding that is kept shows the run what was there then.
    pub(super) is_read_in_place: bool,
    /// Where it is, if that is not the host's memory from which the graph reads it.
    pub(super) place: Option<String>,
}

/// Where a session wants its cache.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Host,
    /// On a device whose addresses are numbers, by its index.
    Cuda(i32),
    /// On a device of this name whose memory cannot be divided here.
    Other(String),
}

impl CacheMemory {
    /// The host's memory, for a graph that reads it there.
    pub fn host() -> Self {
        Self { allocator: Allocator::default(), copies: None, is_read_in_place: true, place: None }
    }

    /// The memory from which a loaded graph reads its cache: the host's, or a CUDA device's. With other devices it is the
    /// host's as well, and ONNX Runtime copies the cache in each call.
    ///
    /// # Errors
    /// [`GraphError::Run`] when the memory cannot be had.
    pub fn of(library: &Library, graph: &OnnxGraph, layout: &CacheLayout) -> Result<Self, GraphError> {
        let failed = |error: ort::Error| run_error(&graph.name, error.message());
        match place_of_cache(&graph.session, layout).map_err(failed)? {
            Place::Host => Ok(Self::host()),
            Place::Cuda(device) => Self::cuda(library, graph, layout, device).map_err(failed),
            Place::Other(name) => {
                let place = Some(format!("in the host's memory, copied to {name} in each call"));
                Ok(Self { is_read_in_place: false, place, ..Self::host() })
            }
        }
    }

    fn cuda(library: &Library, graph: &OnnxGraph, layout: &CacheLayout, device: i32) -> ort::Result<Self> {
        let memory = || MemoryInfo::new(AllocationDevice::CUDA, device, AllocatorType::Device, MemoryType::Default);
        let allocator = Allocator::new(&graph.session, memory()?)?;
        let spec: ProviderList = format!("cuda:device={device}")
            .parse()
            .map_err(|error: ProviderError| ort::Error::new(error.to_string()))?;
        let copies = CopyGraph::new(library, &spec.entries()[0], memory()?, lanes(layout), layout.dtype)?;
        let place = Some(format!("on CUDA device {device}"));
        Ok(Self { allocator, copies: Some(copies), is_read_in_place: true, place })
    }

    /// The host's memory, treated as a device's: every copy is made by a graph on the CPU provider. It is slower than
    /// [`CacheMemory::host`], and does what a device's memory does on a machine without one.
    ///
    /// # Errors
    /// [`GraphError::Run`] when the graph cannot be made.
    pub fn host_as_device(library: &Library, layout: &CacheLayout) -> Result<Self, GraphError> {
        let cpu = ProviderList::default();
        let copies = CopyGraph::new(library, &cpu.entries()[0], MemoryInfo::default(), lanes(layout), layout.dtype);
        let copies = copies.map_err(|error| run_error("the graph of copies", error.message()))?;
        let place = Some("in the host's memory, copied by a graph".to_owned());
        Ok(Self { copies: Some(copies), place, ..Self::host() })
    }

    /// Copies lines of `elements` numbers of a type each. Lines come in multiples of [`lanes`].
    ///
    /// # Safety
    /// Every `from` must lead to so many numbers in this memory, every `to` to room for them, and no `to` may overlap another
    /// line.
    pub(super) unsafe fn copy(
        &mut self,
        lines: impl Iterator<Item = Line>,
        elements: usize,
        dtype: CacheDtype,
    ) -> ort::Result<()> {
        if let Some(graph) = &mut self.copies {
            // SAFETY: as the caller vouches.
            return unsafe { graph.copy(&lines.collect::<Vec<_>>(), elements) };
        }
        let bytes = elements * dtype.size();
        // SAFETY: as the caller vouches; the memory is the host's.
        lines.for_each(|line| unsafe { std::ptr::copy_nonoverlapping(line.from, line.to, bytes) });
        Ok(())
    }

    /// Writes zeros to lines of `elements` numbers of a type each. Lines come in multiples of [`lanes`].
    ///
    /// # Safety
    /// Every one of `lines` must lead to room for so many numbers in this memory.
    pub(super) unsafe fn clear(
        &mut self,
        lines: impl Iterator<Item = *mut u8>,
        elements: usize,
        dtype: CacheDtype,
    ) -> ort::Result<()> {
        if let Some(graph) = &mut self.copies {
            // SAFETY: as the caller vouches.
            return unsafe { graph.clear(&lines.collect::<Vec<_>>(), elements) };
        }
        let bytes = elements * dtype.size();
        // SAFETY: as the caller vouches; the memory is the host's.
        lines.for_each(|line| unsafe { std::ptr::write_bytes(line, 0, bytes) });
        Ok(())
    }
}

/// Lines of one row: what is copied is copied in all tensors and heads.
fn lanes(layout: &CacheLayout) -> usize {
    layout.tensors.len() * layout.heads
}

/// Where a session reads the inputs that are a cache's past.
fn place_of_cache(session: &Session, layout: &CacheLayout) -> ort::Result<Place> {
    let mut places = vec![std::ptr::null(); session.inputs().len()];
    // SAFETY: the session is live, and there is a place for each of its inputs; what is put there belongs to the session.
    ortsys![unsafe SessionGetMemoryInfoForInputs(session.ptr(), places.as_mut_ptr(), places.len())?];
    let mut found = Place::Host;
    for (input, memory) in session.inputs().iter().zip(places) {
        if !memory.is_null() && layout.tensors.iter().any(|(past, _)| past == input.name()) {
            // SAFETY: the session, which is live, owns what the pointer leads to.
            let place = unsafe { place_of(memory) }?;
            match (&found, &place) {
                (_, Place::Host) => (),
                (Place::Host, _) => found = place,
                (found, place) if found == place => (),
                _ => return Err(ort::Error::new("its cache is on several devices")),
            }
        }
    }
    Ok(found)
}

/// # Safety
/// The pointer must lead to a description of memory.
unsafe fn place_of(memory: *const OrtMemoryInfo) -> ort::Result<Place> {
    let mut kind = OrtMemoryInfoDeviceType::OrtMemoryInfoDeviceType_CPU;
    let (mut name, mut device) = (std::ptr::null(), 0);
    // SAFETY: the caller vouches for the pointer; the name belongs to the description and ends with 0.
    let name = unsafe {
        ortsys![unsafe MemoryInfoGetDeviceType(memory, &mut kind)];
        ortsys![unsafe MemoryInfoGetName(memory, &mut name)?];
        ortsys![unsafe MemoryInfoGetId(memory, &mut device)?];
        CStr::from_ptr(name).to_string_lossy().into_owned()
    };
    Ok(match kind {
        OrtMemoryInfoDeviceType::OrtMemoryInfoDeviceType_CPU => Place::Host,
        _ if name == AllocationDevice::CUDA.as_str() => Place::Cuda(device),
        _ => Place::Other(name),
    })
}
