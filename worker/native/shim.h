// What the worker needs of libtorch and tch has no binding for.
//
// Every function returns nullptr, or what went wrong, in words that stand until this thread's next call. No exception leaves.
// What is about CUDA says so where the libtorch that this was compiled against has none. A tensor is the pointer that tch
// holds (an at::Tensor *); whoever is given a new one owns it.
#pragma once

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef const char *cnx_error;
typedef void *cnx_tensor;

// One step of SGD with dampening 0 over tensors of one shape, in one pass; lr is a tensor without dimensions.
cnx_error cnx_fused_sgd(cnx_tensor parameter, cnx_tensor gradient, cnx_tensor momentum, cnx_tensor lr, double weight_decay,
                        double factor, int nesterov);

// The same values with the channels innermost; the same tensor where it has them so.
cnx_error cnx_channels_last(cnx_tensor tensor, cnx_tensor *out);
cnx_error cnx_is_channels_last(cnx_tensor tensor, int *out);

// Convolutions and products of this thread compute in bfloat16, on the CPU or on GPUs. `before` is for leave.
cnx_error cnx_autocast_enter(int cuda, int *before);
cnx_error cnx_autocast_leave(int cuda, int before);

// Only algorithms whose sums always have the same order; an error from an operation that has none.
cnx_error cnx_set_deterministic(int deterministic);
// TF32 in products and convolutions of float32 on GPUs.
cnx_error cnx_set_tf32(int allowed);

// The state of a device's random numbers, as bytes; device -1 is the CPU.
cnx_error cnx_generator_state(int device, cnx_tensor *out);
cnx_error cnx_set_generator_state(int device, cnx_tensor state);

// Whether this was compiled for CUDA.
int cnx_has_cuda(void);

// Makes a GPU this thread's, and gives it a stream of its own there, once what was under way is done; `before` is for leave,
// which waits too.
cnx_error cnx_stream_enter(int device, int64_t *before);
cnx_error cnx_stream_leave(int device, int64_t before);

// Points in this thread's stream.
cnx_error cnx_event_new(void **out);
cnx_error cnx_event_record(void *event, int device);
cnx_error cnx_event_wait(void *event);
void cnx_event_free(void *event);

// Memory that graphs share which never run at once.
cnx_error cnx_graph_pool(uint64_t out[2]);
// Between begin and end, this thread's stream collects work instead of doing it.
cnx_error cnx_graph_begin(const uint64_t pool[2], void **out);
cnx_error cnx_graph_end(void *graph);
cnx_error cnx_graph_replay(void *graph);
void cnx_graph_free(void *graph);

// Bytes that tensors had at most on a GPU since the last reset.
cnx_error cnx_peak_memory(int device, uint64_t *out);
cnx_error cnx_reset_peak_memory(int device);

#ifdef __cplusplus
}
#endif
