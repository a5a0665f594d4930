//! Where a session wants its inputs.

use ort::session::Session;
use ort::sys::OrtMemoryInfoDeviceType;
use ort::{AsPointer, ortsys};

/// Whether every input is read from the host's memory.
///
/// Where it is not, ONNX Runtime copies an input to the device when it is *bound*, so a binding that is kept shows the run
/// what the buffer held then.
pub(super) fn inputs_are_on_the_host(session: &Session) -> ort::Result<bool> {
    let mut places = vec![std::ptr::null(); session.inputs().len()];
    // SAFETY: the session is live, and there is a place for each of its inputs; what is put there belongs to the session.
    ortsys![unsafe SessionGetMemoryInfoForInputs(session.ptr(), places.as_mut_ptr(), places.len())?];
    let on_host = |place: &*const ort::sys::OrtMemoryInfo| {
        let mut device = OrtMemoryInfoDeviceType::OrtMemoryInfoDeviceType_CPU;
        // SAFETY: the session, which is live, owns what the pointer leads to.
        ortsys![unsafe MemoryInfoGetDeviceType(*place, &mut device)];
        device == OrtMemoryInfoDeviceType::OrtMemoryInfoDeviceType_CPU
    };
    Ok(places.iter().all(|place| place.is_null() || on_host(place)))
}
