//! The functions of `worker/native/shim.h`, which says what each does.

use std::ffi::{c_char, c_double, c_int, c_void};

/// Null, or what went wrong.
pub type Error = *const c_char;
/// What tch holds of a tensor.
pub type Tensor = *mut c_void;

unsafe extern "C" {
    pub fn cnx_fused_sgd(
        parameter: Tensor,
        gradient: Tensor,
        momentum: Tensor,
        lr: Tensor,
        weight_decay: c_double,
        factor: c_double,
        nesterov: c_int,
    ) -> Error;
    pub fn cnx_channels_last(tensor: Tensor, out: *mut Tensor) -> Error;
    pub fn cnx_is_channels_last(tensor: Tensor, out: *mut c_int) -> Error;
    pub fn cnx_autocast_enter(cuda: c_int, before: *mut c_int) -> Error;
    pub fn cnx_autocast_leave(cuda: c_int, before: c_int) -> Error;
    pub fn cnx_set_deterministic(deterministic: c_int) -> Error;
    pub fn cnx_set_tf32(allowed: c_int) -> Error;
    pub fn cnx_generator_state(device: c_int, out: *mut Tensor) -> Error;
    pub fn cnx_set_generator_state(device: c_int, state: Tensor) -> Error;
    pub fn cnx_has_cuda() -> c_int;
    pub fn cnx_stream_enter(device: c_int, before: *mut i64) -> Error;
    pub fn cnx_stream_leave(device: c_int, before: i64) -> Error;
    pub fn cnx_event_new(out: *mut *mut c_void) -> Error;
    pub fn cnx_event_record(event: *mut c_void, device: c_int) -> Error;
    pub fn cnx_event_wait(event: *mut c_void) -> Error;
    pub fn cnx_event_free(event: *mut c_void);
    pub fn cnx_graph_pool(out: *mut u64) -> Error;
    pub fn cnx_graph_begin(pool: *const u64, out: *mut *mut c_void) -> Error;
    pub fn cnx_graph_end(graph: *mut c_void) -> Error;
    pub fn cnx_graph_replay(graph: *mut c_void) -> Error;
    pub fn cnx_graph_free(graph: *mut c_void);
    pub fn cnx_peak_memory(device: c_int, out: *mut u64) -> Error;
    pub fn cnx_reset_peak_memory(device: c_int) -> Error;
}
