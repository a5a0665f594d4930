//! The providers by name, and the options of each.
//!
//! Option names are those of ONNX Runtime's documentation of each provider (onnxruntime.ai/docs/execution-providers) and of
//! the strings in the provider libraries of 1.24 to 1.32.

use super::{CpuOptions, Provider};

/// How a provider is added to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Registration {
    /// ONNX Runtime's own kernels, always there.
    Cpu,
    /// By options of its own kind, `CreateCUDAProviderOptions`.
    Cuda,
    /// By options of its own kind, `CreateTensorRTProviderOptions`.
    TensorRt,
    /// By name and options.
    Named(&'static str),
}

/// A provider that has a name and documented options here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownProvider {
    /// Name in specs.
    pub name: &'static str,
    /// Name in ONNX Runtime's lists and in placements.
    pub full_name: &'static str,
    /// How to get it, for the error when it cannot be had.
    pub how_to_get: &'static str,
    /// Short options and the names ONNX Runtime has for them.
    pub short_options: &'static [(&'static str, &'static str)],
    /// Options that pass through as they are.
    pub options: &'static [&'static str],
    /// Number formats in which it has kernels for the `com.microsoft` operators of fused decoders, the attention with a cache
    /// first of all; none where fused graphs are not for it.
    pub fused: &'static [&'static str],
    pub(super) registration: Registration,
}

const FLOAT_AND_HALF: &[&str] = &["fp32", "fp16"];
const HALF: &[&str] = &["fp16"];

/// Options of the CPU provider; see [`super::CpuOptions`].
const CPU_OPTIONS: &[&str] = &["amx", "arena", "kernels", "prepacking"];

const CUDA_OPTIONS: &[&str] = &[
    "arena_extend_strategy",
    "cudnn_conv1d_pad_to_nc1d",
    "cudnn_conv_algo_search",
    "cudnn_conv_use_max_workspace",
    "device_id",
    "do_copy_in_default_stream",
    "enable_cuda_graph",
    "enable_skip_layer_norm_strict_mode",
    "fuse_conv_bias",
    "gpu_external_alloc",
    "gpu_external_empty_cache",
    "gpu_external_free",
    "gpu_mem_limit",
    "has_user_compute_stream",
    "prefer_nhwc",
    "sdpa_kernel",
    "tunable_op_enable",
    "tunable_op_max_tuning_duration_ms",
    "tunable_op_tuning_enable",
    "use_ep_level_unified_stream",
    "use_tf32",
    "user_compute_stream",
];

/// The sizes of an engine's shapes are ours; see [`super::tensorrt`].
const TENSORRT_OPTIONS: &[&str] = &[
    "capacity",
    "device_id",
    "has_user_compute_stream",
    "positions",
    "rows",
    "tiles",
    "trt_auxiliary_streams",
    "trt_bf16_enable",
    "trt_build_heuristics_enable",
    "trt_builder_optimization_level",
    "trt_context_memory_sharing_enable",
    "trt_cuda_graph_enable",
    "trt_detailed_build_log",
    "trt_dla_core",
    "trt_dla_enable",
    "trt_dump_ep_context_model",
    "trt_dump_subgraphs",
    "trt_engine_cache_built_with_onnx",
    "trt_engine_cache_enable",
    "trt_engine_cache_path",
    "trt_engine_cache_prefix",
    "trt_engine_decryption_enable",
    "trt_engine_decryption_lib_path",
    "trt_engine_hw_compatible",
    "trt_ep_context_embed_mode",
    "trt_ep_context_file_path",
    "trt_extra_plugin_lib_paths",
    "trt_force_sequential_engine_build",
    "trt_force_timing_cache",
    "trt_fp16_enable",
    "trt_int8_calibration_table_name",
    "trt_int8_enable",
    "trt_int8_use_native_calibration_table",
    "trt_layer_norm_fp32_fallback",
    "trt_load_user_initializer",
    "trt_max_partition_iterations",
    "trt_max_workspace_size",
    "trt_min_subgraph_size",
    "trt_onnx_model_folder_path",
    "trt_op_types_to_exclude",
    "trt_preview_features",
    "trt_profile_max_shapes",
    "trt_profile_min_shapes",
    "trt_profile_opt_shapes",
    "trt_sparsity_enable",
    "trt_tactic_sources",
    "trt_timing_cache_enable",
    "trt_timing_cache_path",
    "trt_weight_stripped_engine_enable",
    "user_compute_stream",
];

const OPENVINO_OPTIONS: &[&str] = &[
    "cache_dir",
    "context",
    "device_id",
    "device_luid",
    "device_type",
    "disable_dynamic_shapes",
    "enable_causallm",
    "enable_opencl_throttling",
    "enable_qdq_optimizer",
    "layout",
    "load_config",
    "model_priority",
    "num_of_threads",
    "num_streams",
    "precision",
    "reshape_input",
];

/// The providers, in the order help and messages list them.
const PROVIDERS: &[KnownProvider] = &[
    KnownProvider {
        name: "cpu",
        full_name: "CPUExecutionProvider",
        how_to_get: "it is part of every ONNX Runtime library",
        short_options: &[],
        options: CPU_OPTIONS,
        fused: FLOAT_AND_HALF,
        registration: Registration::Cpu,
    },
    KnownProvider {
        name: "cuda",
        full_name: "CUDAExecutionProvider",
        how_to_get: "`pip install onnxruntime-gpu`, pass its libonnxruntime with --ort-library, and install the CUDA and cuDNN \
                     that it names; the NVIDIA driver must be as new",
        short_options: &[
            ("device", "device_id"),
            ("memory_limit", "gpu_mem_limit"),
            ("tf32", "use_tf32"),
            ("cuda_graph", "enable_cuda_graph"),
        ],
        options: CUDA_OPTIONS,
        fused: HALF,
        registration: Registration::Cuda,
    },
    KnownProvider {
        name: "tensorrt",
        full_name: "TensorrtExecutionProvider",
        how_to_get: "`pip install onnxruntime-gpu`, pass its libonnxruntime with --ort-library, and let the system loader find \
                     CUDA, cuDNN and TensorRT of the versions that library is built with (1.31.1: TensorRT 10, CUDA 13)",
        short_options: &[
            ("device", "device_id"),
            ("fp16", "trt_fp16_enable"),
            ("bf16", "trt_bf16_enable"),
            ("int8", "trt_int8_enable"),
            ("engine_cache", "trt_engine_cache_path"),
            ("timing_cache", "trt_timing_cache_path"),
            ("workspace", "trt_max_workspace_size"),
            ("optimization_level", "trt_builder_optimization_level"),
            ("cuda_graph", "trt_cuda_graph_enable"),
        ],
        options: TENSORRT_OPTIONS,
        fused: &[],
        registration: Registration::TensorRt,
    },
    KnownProvider {
        name: "nv-tensorrt-rtx",
        full_name: "NvTensorRTRTXExecutionProvider",
        how_to_get: "it is a plugin library since ONNX Runtime 1.32; a library that has it built in works with --ort-library",
        short_options: &[("device", "device_id"), ("cuda_graph", "enable_cuda_graph")],
        options: &[
            "device_id",
            "enable_cuda_graph",
            "nv_cuda_graph_enable",
            "nv_detailed_build_log",
            "nv_dump_subgraphs",
            "nv_max_shared_mem_size",
            "nv_max_workspace_size",
            "nv_multi_profile_enable",
            "nv_profile_max_shapes",
            "nv_profile_min_shapes",
            "nv_profile_opt_shapes",
            "nv_runtime_cache_path",
            "nv_use_external_data_initializer",
        ],
        fused: &[],
        registration: Registration::Named("NvTensorRtRtx"),
    },
    KnownProvider {
        name: "openvino",
        full_name: "OpenVINOExecutionProvider",
        how_to_get: "`pip install onnxruntime-openvino` and pass its libonnxruntime with --ort-library",
        short_options: &[
            ("device", "device_type"),
            ("cache", "cache_dir"),
            ("threads", "num_of_threads"),
            ("streams", "num_streams"),
        ],
        options: OPENVINO_OPTIONS,
        fused: &[],
        registration: Registration::Named("OpenVINO"),
    },
    KnownProvider {
        name: "webgpu",
        full_name: "WebGpuExecutionProvider",
        how_to_get: "it is part of ONNX Runtime libraries built with it, and needs a GPU",
        short_options: &[],
        options: &[
            "bufferCacheMode",
            "dawnBackendType",
            "dawnProcTable",
            "deviceId",
            "enableGraphCapture",
            "enablePIXCapture",
            "forceCpuNodeNames",
            "powerPreference",
            "preferredLayout",
            "storageBufferCacheMode",
            "validationMode",
        ],
        fused: FLOAT_AND_HALF,
        registration: Registration::Named("WebGPU"),
    },
    KnownProvider {
        name: "migraphx",
        full_name: "MIGraphXExecutionProvider",
        how_to_get: "it is part of ONNX Runtime libraries built for ROCm (`pip install onnxruntime-rocm` from AMD's index)",
        short_options: &[("device", "device_id"), ("fp16", "migraphx_fp16_enable")],
        options: &[
            "device_id",
            "migraphx_bf16_enable",
            "migraphx_exhaustive_tune",
            "migraphx_fp16_enable",
            "migraphx_fp8_enable",
            "migraphx_int8_calibration_table_name",
            "migraphx_int8_enable",
            "migraphx_load_compiled_model",
            "migraphx_load_model_path",
            "migraphx_mem_limit",
            "migraphx_model_cache_dir",
            "migraphx_save_compiled_model",
            "migraphx_save_model_path",
            "migraphx_use_native_calibration_table",
        ],
        fused: &[],
        registration: Registration::Named("MIGraphX"),
    },
    KnownProvider {
        name: "rocm",
        full_name: "ROCMExecutionProvider",
        how_to_get: "ONNX Runtime has no ROCm provider since 1.23; migraphx takes its place",
        short_options: &[("device", "device_id")],
        options: &["device_id", "gpu_mem_limit", "arena_extend_strategy", "tunable_op_enable"],
        fused: HALF,
        registration: Registration::Named("ROCM"),
    },
    KnownProvider {
        name: "coreml",
        full_name: "CoreMLExecutionProvider",
        how_to_get: "it is part of the ONNX Runtime libraries for macOS",
        short_options: &[("units", "MLComputeUnits"), ("cache", "ModelCacheDirectory")],
        options: &[
            "AllowLowPrecisionAccumulationOnGPU",
            "EnableOnSubgraphs",
            "MLComputeUnits",
            "ModelCacheDirectory",
            "ModelFormat",
            "ProfileComputePlan",
            "RequireStaticInputShapes",
            "SpecializationStrategy",
        ],
        fused: &[],
        registration: Registration::Named("CoreML"),
    },
    KnownProvider {
        name: "directml",
        full_name: "DmlExecutionProvider",
        how_to_get: "`pip install onnxruntime-directml` on Windows and pass its onnxruntime.dll with --ort-library",
        short_options: &[("device", "device_id")],
        options: &[
            "device_filter",
            "device_id",
            "disable_metacommands",
            "enable_graph_capture",
            "performance_preference",
        ],
        fused: FLOAT_AND_HALF,
        registration: Registration::Named("DML"),
    },
    KnownProvider {
        name: "qnn",
        full_name: "QNNExecutionProvider",
        how_to_get: "`pip install onnxruntime-qnn` and pass its libonnxruntime with --ort-library",
        short_options: &[("backend", "backend_path")],
        options: &[
            "backend_path",
            "backend_type",
            "device_id",
            "enable_htp_fp16_precision",
            "enable_htp_shared_memory_allocator",
            "htp_arch",
            "htp_graph_finalization_optimization_mode",
            "htp_performance_mode",
            "offload_graph_io_quantization",
            "profiling_file_path",
            "profiling_level",
            "qnn_context_priority",
            "qnn_saver_path",
            "rpc_control_latency",
            "soc_model",
            "vtcm_mb",
        ],
        fused: &[],
        registration: Registration::Named("QNN"),
    },
    KnownProvider {
        name: "xnnpack",
        full_name: "XnnpackExecutionProvider",
        how_to_get: "it is part of ONNX Runtime libraries built with it, those for mobile systems among them",
        short_options: &[("threads", "intra_op_num_threads")],
        options: &["intra_op_num_threads"],
        fused: &[],
        registration: Registration::Named("XNNPACK"),
    },
];

/// Every provider that has a name here.
pub fn known_providers() -> &'static [KnownProvider] {
    PROVIDERS
}

impl KnownProvider {
    /// The provider of a name in specs, or of a full name.
    pub fn find(name: &str) -> Option<&'static Self> {
        let is = |known: &str| known.eq_ignore_ascii_case(name);
        PROVIDERS.iter().find(|provider| is(provider.name) || is(provider.full_name))
    }

    /// The provider without options.
    pub fn plain(&'static self) -> Provider {
        match self.registration {
            Registration::Cpu => Provider::Cpu(CpuOptions::default()),
            _ => Provider::Other { known: Some(self), name: self.name.to_owned(), options: Vec::new() },
        }
    }

    /// ONNX Runtime's name of an option, if the provider has it.
    pub(super) fn option(&self, name: &str) -> Option<&'static str> {
        let short = self.short_options.iter().find(|(short, _)| *short == name).map(|(_, full)| *full);
        short.or_else(|| self.options.iter().copied().find(|option| *option == name))
    }

    /// Names of all options, the short ones first.
    pub(super) fn option_names(&self) -> impl Iterator<Item = &'static str> {
        self.short_options.iter().map(|(short, _)| *short).chain(self.options.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_options_stand_for_options_there_are() {
        for provider in PROVIDERS {
            for (short, full) in provider.short_options {
                assert!(provider.options.contains(full), "{} {short}", provider.name);
                assert!(!provider.options.contains(short), "{} {short}", provider.name);
            }
        }
    }

    #[test]
    fn providers_are_found_by_either_name() {
        assert_eq!(KnownProvider::find("TensorRT").map(|provider| provider.name), Some("tensorrt"));
        assert_eq!(KnownProvider::find("CUDAExecutionProvider").map(|provider| provider.name), Some("cuda"));
        assert_eq!(KnownProvider::find("cud"), None);
    }
}
