//! Adding providers to a session that is being built.

use std::ffi::{CString, c_char};

use ort::session::builder::SessionBuilder;
use ort::{AsPointer, ortsys};

use super::catalogue::Registration;
use super::tensorrt::passed_on;
use super::{CpuOptions, Provider};

impl Provider {
    /// Adds the provider to a session, after those that were added before.
    ///
    /// # Errors
    /// What ONNX Runtime says when the provider cannot be had.
    pub(crate) fn register(&self, builder: SessionBuilder) -> ort::Result<SessionBuilder> {
        match self {
            Self::Cpu(options) => register_cpu(*options, builder),
            Self::Other { known, name, options } => {
                let pairs = Pairs::new(known.map(|known| known.registration), options)?;
                match known.map(|known| known.registration) {
                    Some(Registration::Cuda) => register_cuda(builder, &pairs),
                    Some(Registration::TensorRt) => register_tensorrt(builder, &pairs),
                    Some(Registration::Named(name)) => register_named(name, builder, &pairs),
                    Some(Registration::Cpu) | None => {
                        register_named(name.trim_end_matches("ExecutionProvider"), builder, &pairs)
                    }
                }
            }
        }
    }
}

fn register_cpu(options: CpuOptions, builder: SessionBuilder) -> ort::Result<SessionBuilder> {
    let provider = ort::ep::CPU::default().with_arena_allocator(options.arena).build().error_on_failure();
    let plain = |error: ort::Error<SessionBuilder>| ort::Error::new(error.message());
    let builder = builder.with_execution_providers([provider]).map_err(plain)?;
    builder.with_prepacking(options.prepacking).map_err(plain)
}

/// Options as the C interface takes them.
struct Pairs {
    keys: Vec<CString>,
    values: Vec<CString>,
}

impl Pairs {
    fn new(registration: Option<Registration>, options: &[(String, String)]) -> ort::Result<Self> {
        let mut options = options.to_vec();
        if registration == Some(Registration::TensorRt) {
            options = passed_on(&options);
            // A folder for a cache means that it is used.
            for (path, switch) in [
                ("trt_engine_cache_path", "trt_engine_cache_enable"),
                ("trt_timing_cache_path", "trt_timing_cache_enable"),
            ] {
                let given = |key: &str| options.iter().any(|(other, _)| other == key);
                if given(path) && !given(switch) {
                    options.push((switch.to_owned(), "1".to_owned()));
                }
            }
        }
        let text = |text: String| CString::new(text).map_err(|_| ort::Error::new("an option holds a zero byte"));
        let (keys, values): (Vec<_>, Vec<_>) = options.into_iter().map(|(key, value)| (text(key), text(value))).unzip();
        Ok(Self {
            keys: keys.into_iter().collect::<ort::Result<_>>()?,
            values: values.into_iter().collect::<ort::Result<_>>()?,
        })
    }

    fn pointers(texts: &[CString]) -> Vec<*const c_char> {
        texts.iter().map(|text| text.as_ptr()).collect()
    }
}

fn register_named(name: &str, mut builder: SessionBuilder, pairs: &Pairs) -> ort::Result<SessionBuilder> {
    let name = CString::new(name).map_err(|_| ort::Error::new("the name holds a zero byte"))?;
    let (keys, values) = (Pairs::pointers(&pairs.keys), Pairs::pointers(&pairs.values));
    let options = builder.ptr_mut();
    // SAFETY: all strings and arrays outlive the call, which copies them.
    ortsys![
        unsafe SessionOptionsAppendExecutionProvider(options, name.as_ptr(), keys.as_ptr(), values.as_ptr(), keys.len())?
    ];
    Ok(builder)
}

fn register_cuda(mut builder: SessionBuilder, pairs: &Pairs) -> ort::Result<SessionBuilder> {
    let (keys, values) = (Pairs::pointers(&pairs.keys), Pairs::pointers(&pairs.values));
    let mut options = std::ptr::null_mut();
    ortsys![unsafe CreateCUDAProviderOptions(&raw mut options)?];
    let outcome = (|| {
        // SAFETY: `options` was just created; strings and arrays outlive the calls, which copy them.
        ortsys![unsafe UpdateCUDAProviderOptions(options, keys.as_ptr(), values.as_ptr(), keys.len())?];
        ortsys![unsafe SessionOptionsAppendExecutionProvider_CUDA_V2(builder.ptr_mut(), options)?];
        Ok(())
    })();
    // SAFETY: created above, released once.
    ortsys![unsafe ReleaseCUDAProviderOptions(options)];
    outcome.map(|()| builder)
}

fn register_tensorrt(mut builder: SessionBuilder, pairs: &Pairs) -> ort::Result<SessionBuilder> {
    let (keys, values) = (Pairs::pointers(&pairs.keys), Pairs::pointers(&pairs.values));
    let mut options = std::ptr::null_mut();
    ortsys![unsafe CreateTensorRTProviderOptions(&raw mut options)?];
    let outcome = (|| {
        // SAFETY: `options` was just created; strings and arrays outlive the calls, which copy them.
        ortsys![unsafe UpdateTensorRTProviderOptions(options, keys.as_ptr(), values.as_ptr(), keys.len())?];
        ortsys![unsafe SessionOptionsAppendExecutionProvider_TensorRT_V2(builder.ptr_mut(), options)?];
        Ok(())
    })();
    // SAFETY: created above, released once.
    ortsys![unsafe ReleaseTensorRTProviderOptions(options)];
    outcome.map(|()| builder)
}
