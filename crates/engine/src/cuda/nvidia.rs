//! The driver of a real GPU: CUDA's driver interface and cuBLASLt, both loaded at run time.

use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cudarc::cublaslt::{result as cublas, sys as cublas_sys};
use cudarc::driver::{result as cuda, sys};

use super::driver::{Arg, DevicePtr, Driver, Grid, Operand, Product, raise};
use super::{Cuda, compile, libraries};
use crate::{DType, Device, EngineError};

/// Bytes that cuBLASLt may use while it multiplies: its recommendation for Hopper.
const WORKSPACE: usize = 32 << 20;
/// Kernels get more shared memory, that of their source and the dynamic part together, only if they ask for it.
const SHARED_BY_DEFAULT: u32 = 48 << 10;
/// CUDA 12.8, the first driver with all functions that cudarc calls.
const MIN_DRIVER: i32 = 12_080;

/// One card, with one stream of work.
pub(crate) struct Nvidia {
    ordinal: i32,
    name: String,
    context: sys::CUcontext,
    device: sys::CUdevice,
    stream: sys::CUstream,
    module: sys::CUmodule,
    symbols: HashMap<String, String>,
    functions: Mutex<HashMap<String, Function>>,
    blas: cublas_sys::cublasLtHandle_t,
    workspace: DevicePtr,
    plans: Mutex<HashMap<Shape, Plan>>,
}

// SAFETY: CUDA's handles may be used by any thread to which their context is current; each call makes it current.
unsafe impl Send for Nvidia {}
// SAFETY: the driver's functions and cuBLASLt's may be called by several threads; maps have locks.
unsafe impl Sync for Nvidia {}

#[derive(Clone, Copy)]
struct Function {
    handle: sys::CUfunction,
    /// Dynamic shared memory that it may use.
    shared: u32,
}

/// What decides which of cuBLASLt's algorithms multiplies.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Shape {
    sizes: [usize; 3],
    strides: [usize; 3],
    transposed: [bool; 2],
    dtypes: [cublas_sys::cudaDataType; 2],
    has_bias: bool,
    /// The alignment of each matrix in bytes, up to 256.
    alignments: [u32; 4],
}

/// A product as cuBLASLt sees it, whose matrices are in column-major order: Cᵀ = Bᵀ Aᵀ, from the same memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct ColumnMajor {
    /// Whether the left and the right operand are transposed.
    transposed: [bool; 2],
    /// Rows, columns and stride between columns of the left operand, the right operand and the result.
    layouts: [[usize; 3]; 3],
}

impl Shape {
    fn column_major(&self) -> ColumnMajor {
        let [rows, columns, inner] = self.sizes;
        let [a_stride, b_stride, c_stride] = self.strides;
        let [a_transposed, b_transposed] = self.transposed;
        let left = if b_transposed { [inner, columns, b_stride] } else { [columns, inner, b_stride] };
        let right = if a_transposed { [rows, inner, a_stride] } else { [inner, rows, a_stride] };
        ColumnMajor { transposed: [b_transposed, a_transposed], layouts: [left, right, [columns, rows, c_stride]] }
    }
}

/// An algorithm for a shape, with its descriptors, which are kept as long as the process.
#[derive(Clone, Copy)]
struct Plan {
    description: cublas_sys::cublasLtMatmulDesc_t,
    /// Of the left operand, the right one, and the result.
    layouts: [cublas_sys::cublasLtMatrixLayout_t; 3],
    algorithm: cublas_sys::cublasLtMatmulAlgo_t,
}

impl Device {
    /// GPU number `ordinal`.
    ///
    /// # Errors
    /// There is no such GPU, it is too old, or one of NVIDIA's libraries is missing or too old. The message says what helps.
    pub fn cuda(ordinal: usize) -> Result<Device, EngineError> {
        Ok(Device::new(Cuda::new(Arc::new(Nvidia::open(ordinal)?))))
    }

    /// What is needed for GPUs, with where it was found or why it was not; then each GPU.
    pub fn cuda_report() -> Vec<(String, Result<String, String>)> {
        let mut report: Vec<(String, Result<String, String>)> =
            libraries::report().into_iter().map(|(name, found)| (name.to_owned(), found)).collect();
        match count() {
            Ok(count) => report.extend((0..count).map(|ordinal| {
                (
                    format!("cuda:{ordinal}"),
                    properties(ordinal).map(|card| card.describe()).map_err(|error| error.to_string()),
                )
            })),
            Err(error) => report.push(("cuda".to_owned(), Err(error.to_string()))),
        }
        report
    }
}

/// A card before it is opened.
struct Card {
    device: sys::CUdevice,
    name: String,
    capability: (i32, i32),
    memory: usize,
}

impl Card {
    fn describe(&self) -> String {
        let (major, minor) = self.capability;
        format!("{}, compute capability {major}.{minor}, {} MB", self.name, self.memory >> 20)
    }

    /// The architecture to compile for. `a` admits the instructions that only this one has.
    fn architecture(&self) -> String {
        match self.capability {
            (9, 0) => "sm_90a".to_owned(),
            (major, minor) => format!("sm_{major}{minor}"),
        }
    }
}

/// The number of GPUs.
fn count() -> Result<usize, EngineError> {
    libraries::open_driver()?;
    let failed = |call: &str, error: cuda::DriverError| EngineError::CudaUnavailable { reason: reason(call, error) };
    cuda::init().map_err(|error| failed("cuInit", error))?;
    let mut version = 0;
    // SAFETY: valid for writes.
    unsafe { sys::cuDriverGetVersion(&mut version) }.result().map_err(|error| failed("cuDriverGetVersion", error))?;
    if version < MIN_DRIVER {
        let reason = format!(
            "NVIDIA's driver supports CUDA {}.{}, and 12.8 is needed; install driver 570 or later",
            version / 1000,
            version % 1000 / 10
        );
        return Err(EngineError::CudaUnavailable { reason });
    }
    let count = cuda::device::get_count().map_err(|error| failed("cuDeviceGetCount", error))?;
    Ok(usize::try_from(count).unwrap_or(0))
}

fn properties(ordinal: usize) -> Result<Card, EngineError> {
    use sys::CUdevice_attribute_enum as Attribute;
    let failed =
        |error: cuda::DriverError| EngineError::CudaUnavailable { reason: reason("the properties of the GPU", error) };
    let device = cuda::device::get(ordinal as i32).map_err(failed)?;
    // SAFETY: the device is valid.
    unsafe {
        let attribute = |which| cuda::device::get_attribute(device, which).map_err(failed);
        Ok(Card {
            device,
            name: cuda::device::get_name(device).map_err(failed)?,
            capability: (
                attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
                attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
            ),
            memory: cuda::device::total_mem(device).map_err(failed)?,
        })
    }
}

/// A failure in the driver's words.
fn reason(call: &str, error: cuda::DriverError) -> String {
    let text = error.error_string().map(|text| text.to_string_lossy().into_owned());
    format!("{call}: {}", text.unwrap_or_else(|_| format!("{:?}", error.0)))
}

impl Nvidia {
    fn open(ordinal: usize) -> Result<Nvidia, EngineError> {
        let count = count()?;
        if ordinal >= count {
            let reason = match count {
                0 => "this machine has no NVIDIA GPU (or CUDA_VISIBLE_DEVICES hides it)".to_owned(),
                _ => format!("there is no GPU {ordinal}: this machine has {count}, numbered from 0"),
            };
            return Err(EngineError::CudaUnavailable { reason });
        }
        let card = properties(ordinal)?;
        if card.capability < (8, 0) {
            let reason = format!("{}: compute capability 8.0 (Ampere) or later is needed for bf16", card.describe());
            return Err(EngineError::CudaUnavailable { reason });
        }
        libraries::open_cublas_lt()?;
        let cubin = compile::cubin(&card.architecture())?;
        let failed = |call: &str, error: cuda::DriverError| EngineError::CudaUnavailable {
            reason: format!("{}: {}", card.name, reason(call, error)),
        };
        // SAFETY: the device is valid; the context is current for what follows; the image is a cubin.
        unsafe {
            let context =
                cuda::primary_ctx::retain(card.device).map_err(|error| failed("cuDevicePrimaryCtxRetain", error))?;
            cuda::ctx::set_current(context).map_err(|error| failed("cuCtxSetCurrent", error))?;
            let stream = cuda::stream::create(cuda::stream::StreamKind::NonBlocking)
                .map_err(|error| failed("cuStreamCreate", error))?;
            let module = cuda::module::load_data(cubin.image.as_ptr().cast::<c_void>())
                .map_err(|error| failed("cuModuleLoadData", error))?;
            let workspace = cuda::malloc_sync(WORKSPACE).map_err(|error| failed("cuMemAlloc", error))?;
            let blas = cublas::create_handle()
                .map_err(|error| EngineError::CudaUnavailable { reason: format!("cublasLtCreate: {:?}", error.0) })?;
            Ok(Nvidia {
                ordinal: ordinal as i32,
                name: card.name.clone(),
                context,
                device: card.device,
                stream,
                module,
                symbols: cubin.symbols,
                functions: Mutex::default(),
                blas,
                workspace: DevicePtr(workspace),
                plans: Mutex::default(),
            })
        }
    }

    /// Makes this card current to the thread.
    fn enter(&self) {
        // SAFETY: the context is valid as long as `self`.
        let entered = unsafe { cuda::ctx::set_current(self.context) };
        self.check("cuCtxSetCurrent", entered);
    }

    fn check<T>(&self, call: &str, result: Result<T, cuda::DriverError>) -> T {
        result.unwrap_or_else(|error| self.fail(reason(call, error)))
    }

    fn check_blas<T>(&self, call: &str, result: Result<T, cublas::CublasError>) -> T {
        result.unwrap_or_else(|error| self.fail(format!("{call}: {:?}", error.0)))
    }

    fn fail(&self, reason: String) -> ! {
        raise(EngineError::CudaFailed { device: self.describe(), reason })
    }

    fn function(&self, kernel: &str, shared: u32) -> sys::CUfunction {
        let mut functions = lock(&self.functions);
        let mut function = match functions.get(kernel) {
            Some(function) => *function,
            None => {
                let symbol = self.symbols.get(kernel).map_or(kernel, String::as_str);
                let symbol = CString::new(symbol).expect("a symbol without NUL");
                // SAFETY: the module is valid as long as `self`.
                let handle = self.check(kernel, unsafe { cuda::module::get_function(self.module, symbol) });
                let attribute = sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES;
                // SAFETY: the function is valid.
                let fixed = self.check(kernel, unsafe { cuda::function::get_function_attribute(handle, attribute) });
                Function { handle, shared: SHARED_BY_DEFAULT.saturating_sub(fixed as u32) }
            }
        };
        if function.shared < shared {
            let attribute = sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: the function is valid.
            self.check(kernel, unsafe {
                cuda::function::set_function_attribute(function.handle, attribute, shared as i32)
            });
            function.shared = shared;
        }
        functions.insert(kernel.to_owned(), function);
        function.handle
    }

    /// The algorithm for a product: the first of cuBLASLt's heuristic, which depends only on the shape, so that runs repeat bit by bit.
    fn plan(&self, shape: Shape) -> Plan {
        if let Some(plan) = lock(&self.plans).get(&shape) {
            return *plan;
        }
        // SAFETY: all descriptors are new and valid.
        let plan = unsafe { self.new_plan(shape) };
        *lock(&self.plans).entry(shape).or_insert(plan)
    }

    /// # Safety
    /// cuBLASLt's library is open.
    unsafe fn new_plan(&self, shape: Shape) -> Plan {
        use cublas_sys::cublasLtMatmulDescAttributes_t as Attribute;
        use cublas_sys::cublasLtMatmulPreferenceAttributes_t as Preference;
        let [operand, result] = shape.dtypes;
        let f32_type = cublas_sys::cudaDataType::CUDA_R_32F;
        // SAFETY: each attribute is given with its size.
        unsafe {
            let compute = cublas_sys::cublasComputeType_t::CUBLAS_COMPUTE_32F;
            let description =
                self.check_blas("cublasLtMatmulDescCreate", cublas::create_matmul_desc(compute, f32_type));
            let set = |attribute, value: *const c_void, size| {
                let set = cublas::set_matmul_desc_attribute(description, attribute, value, size);
                self.check_blas("cublasLtMatmulDescSetAttribute", set);
            };
            let ColumnMajor { transposed, layouts: [left, right, out] } = shape.column_major();
            // CUBLAS_OP_N or CUBLAS_OP_T.
            let [left_operation, right_operation] = transposed.map(i32::from);
            set(
                Attribute::CUBLASLT_MATMUL_DESC_TRANSA,
                (&raw const left_operation).cast(),
                size_of_val(&left_operation),
            );
            set(
                Attribute::CUBLASLT_MATMUL_DESC_TRANSB,
                (&raw const right_operation).cast(),
                size_of_val(&right_operation),
            );
            if shape.has_bias {
                let epilogue = cublas_sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS;
                set(Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE, (&raw const epilogue).cast(), size_of_val(&epilogue));
            }
            let layout = |dtype, [rows, columns, stride]: [usize; 3]| {
                let layout = cublas::create_matrix_layout(dtype, rows as u64, columns as u64, stride as i64);
                self.check_blas("cublasLtMatrixLayoutCreate", layout)
            };
            let layouts = [layout(operand, left), layout(operand, right), layout(result, out)];
            let preference = self.check_blas("cublasLtMatmulPreferenceCreate", cublas::create_matmul_pref());
            let prefer = |attribute, value: *const c_void, size| {
                let set = cublas::set_matmul_pref_attribute(preference, attribute, value, size);
                self.check_blas("cublasLtMatmulPreferenceSetAttribute", set);
            };
            let workspace = WORKSPACE;
            prefer(
                Preference::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                (&raw const workspace).cast(),
                size_of_val(&workspace),
            );
            let [a, b, addend, c] = shape.alignments;
            for (attribute, alignment) in [
                (Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, b),
                (Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, a),
                (Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, addend),
                (Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, c),
            ] {
                prefer(attribute, (&raw const alignment).cast(), size_of_val(&alignment));
            }
            let [left, right, out] = layouts;
            let found = cublas::get_matmul_algo_heuristic(self.blas, description, left, right, out, out, preference);
            let [rows, columns, inner] = shape.sizes;
            let found = self.check_blas(&format!("cublasLtMatmulAlgoGetHeuristic for {rows}×{columns}×{inner}"), found);
            let _ = cublas::destroy_matmul_pref(preference);
            Plan { description, layouts, algorithm: found.algo }
        }
    }
}

impl Driver for Nvidia {
    fn describe(&self) -> String {
        format!("cuda:{}, {}", self.ordinal, self.name)
    }

    fn allocate(&self, bytes: usize) -> Option<DevicePtr> {
        self.enter();
        // SAFETY: the caller initialises the memory.
        match unsafe { cuda::malloc_sync(bytes) } {
            Ok(at) => Some(DevicePtr(at)),
            Err(cuda::DriverError(sys::cudaError_enum::CUDA_ERROR_OUT_OF_MEMORY)) => None,
            Err(error) => self.fail(reason("cuMemAlloc", error)),
        }
    }

    fn memory(&self) -> (usize, usize) {
        self.enter();
        cuda::mem_get_info().unwrap_or_default()
    }

    unsafe fn free(&self, at: DevicePtr) {
        // After a failure, nothing can be freed any more, and this may run while the failure is reported.
        // SAFETY: the caller's; work that still uses the block ends before it is freed.
        unsafe {
            let _ = cuda::ctx::set_current(self.context);
            let _ = cuda::stream::synchronize(self.stream);
            let _ = cuda::free_sync(at.0);
        }
    }

    unsafe fn upload(&self, to: DevicePtr, from: &[u8]) {
        self.enter();
        // SAFETY: the caller's. From memory that is not pinned, the driver has copied everything when it returns.
        self.check("cuMemcpyHtoDAsync", unsafe { cuda::memcpy_htod_async(to.0, from, self.stream) });
    }

    unsafe fn download(&self, from: DevicePtr, to: &mut [u8]) {
        self.enter();
        // SAFETY: the caller's; the copy has ended before this returns.
        unsafe {
            self.check("cuMemcpyDtoHAsync", cuda::memcpy_dtoh_async(to, from.0, self.stream));
            self.check("cuStreamSynchronize", cuda::stream::synchronize(self.stream));
        }
    }

    unsafe fn copy(&self, to: DevicePtr, from: DevicePtr, bytes: usize) {
        self.enter();
        // SAFETY: the caller's.
        self.check("cuMemcpyDtoDAsync", unsafe { cuda::memcpy_dtod_async(to.0, from.0, bytes, self.stream) });
    }

    unsafe fn zero(&self, at: DevicePtr, bytes: usize) {
        self.enter();
        // SAFETY: the caller's.
        self.check("cuMemsetD8Async", unsafe { cuda::memset_d8_async(at.0, 0, bytes, self.stream) });
    }

    unsafe fn launch(&self, kernel: &str, grid: Grid, args: &mut [Arg]) {
        self.enter();
        let function = self.function(kernel, grid.shared);
        let mut pointers: Vec<*mut c_void> = args.iter_mut().map(Arg::as_mut_ptr).collect();
        let [x, y, z] = grid.blocks;
        // SAFETY: the caller's.
        let launched = unsafe {
            cuda::launch_kernel(function, (x, y, z), (grid.threads, 1, 1), grid.shared, self.stream, &mut pointers)
        };
        self.check(kernel, launched);
    }

    unsafe fn product(&self, product: &Product) {
        self.enter();
        let Product { rows, columns, inner, a, b, c, addend, bias } = *product;
        let alignment = |at: DevicePtr| 1 << at.0.trailing_zeros().min(8);
        let c_read = addend.unwrap_or(c.at);
        assert_eq!(a.dtype, b.dtype, "a product of two types");
        let plan = self.plan(Shape {
            sizes: [rows, columns, inner],
            strides: [a.stride, b.stride, c.stride],
            transposed: [a.transposed, b.transposed],
            dtypes: [data_type(a), data_type(c)],
            has_bias: bias.is_some(),
            // cuBLASLt has no preference for the alignment of the bias: that of the result stands for both.
            alignments: [
                alignment(a.at),
                alignment(b.at),
                alignment(c_read),
                alignment(c.at).min(bias.map_or(256, alignment)),
            ],
        });
        let (alpha, beta) = (1f32, if addend.is_some() { 1f32 } else { 0.0 });
        // The descriptor has the address of the bias: one product of a shape at a time.
        let _one_at_a_time = lock(&self.plans);
        // SAFETY: the caller's; the descriptors are valid as long as the process.
        unsafe {
            if let Some(bias) = bias {
                let attribute = cublas_sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_BIAS_POINTER;
                let set = cublas::set_matmul_desc_attribute(
                    plan.description,
                    attribute,
                    (&raw const bias).cast(),
                    size_of::<DevicePtr>(),
                );
                self.check_blas("cublasLtMatmulDescSetAttribute", set);
            }
            let [left, right, out] = plan.layouts;
            let multiplied = cublas::matmul(
                self.blas,
                plan.description,
                (&raw const alpha).cast(),
                (&raw const beta).cast(),
                b.at.0 as *const c_void,
                left,
                a.at.0 as *const c_void,
                right,
                c_read.0 as *const c_void,
                out,
                c.at.0 as *mut c_void,
                out,
                &plan.algorithm,
                self.workspace.0 as *mut c_void,
                WORKSPACE,
                self.stream.cast(),
            );
            self.check_blas(&format!("cublasLtMatmul of {rows}×{columns}×{inner}"), multiplied);
        }
    }

    fn synchronize(&self) {
        self.enter();
        // SAFETY: the stream is valid as long as `self`.
        self.check("cuStreamSynchronize", unsafe { cuda::stream::synchronize(self.stream) });
    }
}

impl Drop for Nvidia {
    fn drop(&mut self) {
        // SAFETY: nothing uses the card any more. Failures cannot be reported here.
        unsafe {
            let _ = cuda::ctx::set_current(self.context);
            let _ = cuda::stream::synchronize(self.stream);
            let _ = cublas::destroy_handle(self.blas);
            let _ = cuda::free_sync(self.workspace.0);
            let _ = cuda::module::unload(self.module);
            let _ = cuda::stream::destroy(self.stream);
            let _ = cuda::primary_ctx::release(self.device);
        }
    }
}

fn data_type(operand: Operand) -> cublas_sys::cudaDataType {
    match operand.dtype {
        DType::BF16 => cublas_sys::cudaDataType::CUDA_R_16BF,
        DType::F32 => cublas_sys::cudaDataType::CUDA_R_32F,
        DType::I32 => panic!("a product of integers"),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Multiplies as cuBLASLt's documentation says, in column-major order, and compares with the product in row-major order.
    #[test]
    fn column_major_products_are_the_row_major_ones() {
        let (rows, columns, inner) = (3, 5, 4);
        for transposed in [[false, false], [false, true], [true, false], [true, true]] {
            let [a_transposed, b_transposed] = transposed;
            // Stored rows are longer than what is used of them.
            let strides = [
                if a_transposed { rows } else { inner } + 2,
                if b_transposed { inner } else { columns } + 1,
                columns + 3,
            ];
            let dtype = cublas_sys::cudaDataType::CUDA_R_32F;
            let shape = Shape {
                sizes: [rows, columns, inner],
                strides,
                transposed,
                dtypes: [dtype, dtype],
                has_bias: false,
                alignments: [16; 4],
            };
            let memory =
                |salt: usize| -> Vec<f64> { (0..200).map(|i| ((i * 37 + salt * 11) % 17) as f64 - 8.0).collect() };
            let (a, b) = (memory(1), memory(2));
            let at = |m: &[f64], row: usize, column: usize, stride: usize, is_transposed: bool| {
                m[if is_transposed { column * stride + row } else { row * stride + column }]
            };
            let ColumnMajor { transposed: [left_t, right_t], layouts: [left, right, out] } = shape.column_major();
            // An element of op(M) of a matrix in column-major order.
            let of =
                |m: &[f64], [rows, columns, stride]: [usize; 3], row: usize, column: usize, is_transposed: bool| {
                    let (row, column) = if is_transposed { (column, row) } else { (row, column) };
                    assert!(row < rows && column < columns && rows <= stride, "within the layout");
                    m[column * stride + row]
                };
            let [out_rows, out_columns, out_stride] = out;
            let mut c = vec![f64::NAN; 200];
            for row in 0..out_rows {
                for column in 0..out_columns {
                    c[column * out_stride + row] =
                        (0..inner).map(|k| of(&b, left, row, k, left_t) * of(&a, right, k, column, right_t)).sum();
                }
            }
            for row in 0..rows {
                for column in 0..columns {
                    let [a_stride, b_stride, c_stride] = strides;
                    let expected: f64 = (0..inner)
                        .map(|k| at(&a, row, k, a_stride, a_transposed) * at(&b, k, column, b_stride, b_transposed))
                        .sum();
                    assert_eq!(c[row * c_stride + column], expected, "{transposed:?}");
                }
            }
        }
    }
}
