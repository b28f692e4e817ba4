#include "shim.h"

#include <stdexcept>
#include <string>

#include <ATen/Context.h>
#include <ATen/Functions.h>
#include <ATen/Tensor.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/Generator.h>

namespace {

thread_local std::string error;

template <class Function>
cnx_error guarded(Function function) noexcept {
    try {
        function();
        return nullptr;
    } catch (const c10::Error &thrown) {
        error = thrown.what_without_backtrace();
    } catch (const std::exception &thrown) {
        error = thrown.what();
    } catch (...) {
        error = "libtorch threw what is no exception";
    }
    return error.c_str();
}

at::Tensor &tensor(cnx_tensor pointer) { return *static_cast<at::Tensor *>(pointer); }

c10::DeviceType autocast_device(int cuda) { return cuda ? at::kCUDA : at::kCPU; }

at::Generator generator(int device) {
    return at::globalContext().defaultGenerator(device < 0 ? at::Device(at::kCPU) : at::Device(at::kCUDA, device));
}

}  // namespace

cnx_error cnx_fused_sgd(cnx_tensor parameter, cnx_tensor gradient, cnx_tensor momentum, cnx_tensor lr, double weight_decay,
                        double factor, int nesterov) {
    return guarded([&] {
        at::NoGradGuard no_grad;
        // libtorch itself looks at none of this, and would write beyond the shorter one.
        const auto &flat = tensor(parameter);
        for (const auto &other : {tensor(gradient), tensor(momentum)}) {
            TORCH_CHECK(other.sizes() == flat.sizes() && other.options().type_equal(flat.options()) &&
                            other.device() == flat.device() && other.is_contiguous() && flat.is_contiguous(),
                        "SGD takes contiguous tensors of one shape, kind and device, found ", flat.toString(), flat.sizes(),
                        " and ", other.toString(), other.sizes());
        }
        TORCH_CHECK(tensor(lr).dim() == 0 && tensor(lr).scalar_type() == at::kFloat && tensor(lr).device() == flat.device(),
                    "SGD takes a learning rate of float32 without dimensions, on the device of the parameters, found ",
                    tensor(lr).toString(), tensor(lr).sizes());
        const double dampening = 0;
        const bool maximize = false, is_first_step = false;
        at::_fused_sgd_({tensor(parameter)}, {tensor(gradient)}, {tensor(momentum)}, weight_decay, factor, tensor(lr),
                        dampening, nesterov != 0, maximize, is_first_step);
    });
}

cnx_error cnx_channels_last(cnx_tensor from, cnx_tensor *out) {
    return guarded([&] { *out = new at::Tensor(tensor(from).contiguous(at::MemoryFormat::ChannelsLast)); });
}

cnx_error cnx_is_channels_last(cnx_tensor from, int *out) {
    return guarded([&] { *out = tensor(from).is_contiguous(at::MemoryFormat::ChannelsLast); });
}

cnx_error cnx_autocast_enter(int cuda, int *before) {
    return guarded([&] {
        const auto device = autocast_device(cuda);
        *before = at::autocast::is_autocast_enabled(device);
        at::autocast::set_autocast_dtype(device, at::kBFloat16);
        at::autocast::set_autocast_enabled(device, true);
        at::autocast::increment_nesting();
    });
}

cnx_error cnx_autocast_leave(int cuda, int before) {
    return guarded([&] {
        if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
        at::autocast::set_autocast_enabled(autocast_device(cuda), before != 0);
    });
}

cnx_error cnx_set_deterministic(int deterministic) {
    return guarded([&] {
        auto &context = at::globalContext();
        const bool warn_only = false;
        context.setDeterministicAlgorithms(deterministic != 0, warn_only);
        context.setDeterministicCuDNN(deterministic != 0);
        // It would fill every new tensor, a kernel each, against reads of what nobody wrote.
        context.setDeterministicFillUninitializedMemory(false);
    });
}

cnx_error cnx_set_tf32(int allowed) {
    return guarded([&] {
        at::globalContext().setAllowTF32CuBLAS(allowed != 0);
        at::globalContext().setAllowTF32CuDNN(allowed != 0);
    });
}

cnx_error cnx_generator_state(int device, cnx_tensor *out) {
    return guarded([&] {
        auto of = generator(device);
        std::lock_guard<std::mutex> lock(of.mutex());
        *out = new at::Tensor(of.get_state());
    });
}

cnx_error cnx_set_generator_state(int device, cnx_tensor state) {
    return guarded([&] {
        auto of = generator(device);
        std::lock_guard<std::mutex> lock(of.mutex());
        of.set_state(tensor(state));
    });
}

#ifdef CNX_CUDA

#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAEvent.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAStream.h>

namespace {

using Event = c10::cuda::CUDAEvent;
using Graph = at::cuda::CUDAGraph;
namespace allocator = c10::cuda::CUDACachingAllocator;

c10::DeviceIndex index_of(int device) { return static_cast<c10::DeviceIndex>(device); }

}  // namespace

int cnx_has_cuda(void) { return 1; }

cnx_error cnx_stream_enter(int device, int64_t *before) {
    return guarded([&] {
        // A graph is captured on the thread's GPU, whatever its tensors say.
        c10::cuda::set_device(index_of(device));
        const auto current = c10::cuda::getCurrentCUDAStream(index_of(device));
        current.synchronize();
        *before = current.id();
        c10::cuda::setCurrentCUDAStream(c10::cuda::getStreamFromPool(false, index_of(device)));
    });
}

cnx_error cnx_stream_leave(int device, int64_t before) {
    return guarded([&] {
        const auto back = c10::cuda::CUDAStream::unpack3(before, index_of(device), at::kCUDA);
        const auto current = c10::cuda::getCurrentCUDAStream(index_of(device));
        c10::cuda::setCurrentCUDAStream(back);
        current.synchronize();
    });
}

cnx_error cnx_event_new(void **out) {
    return guarded([&] { *out = new Event(); });
}

cnx_error cnx_event_record(void *event, int device) {
    return guarded([&] { static_cast<Event *>(event)->record(c10::cuda::getCurrentCUDAStream(index_of(device))); });
}

cnx_error cnx_event_wait(void *event) {
    return guarded([&] { static_cast<Event *>(event)->synchronize(); });
}

void cnx_event_free(void *event) { delete static_cast<Event *>(event); }

cnx_error cnx_graph_pool(uint64_t out[2]) {
    return guarded([&] {
        const auto pool = at::cuda::graph_pool_handle();
        out[0] = pool.first;
        out[1] = pool.second;
    });
}

cnx_error cnx_graph_begin(const uint64_t pool[2], void **out) {
    return guarded([&] {
        auto graph = std::make_unique<Graph>();
        // What other threads of the process ask of the GPU meanwhile is their own affair.
        graph->capture_begin({pool[0], pool[1]}, cudaStreamCaptureModeThreadLocal);
        *out = graph.release();
    });
}

cnx_error cnx_graph_end(void *graph) {
    return guarded([&] { static_cast<Graph *>(graph)->capture_end(); });
}

cnx_error cnx_graph_replay(void *graph) {
    return guarded([&] { static_cast<Graph *>(graph)->replay(); });
}

void cnx_graph_free(void *graph) { delete static_cast<Graph *>(graph); }

cnx_error cnx_peak_memory(int device, uint64_t *out) {
    return guarded([&] {
        const auto all = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
        *out = static_cast<uint64_t>(allocator::getDeviceStats(index_of(device)).allocated_bytes[all].peak);
    });
}

cnx_error cnx_reset_peak_memory(int device) {
    return guarded([&] { allocator::resetPeakStats(index_of(device)); });
}

#else

namespace {

cnx_error no_cuda() {
    return "this build has no CUDA: its libtorch was one for CPUs (CNX_CUDA=1 scripts/setup.sh fetches the other; then build again)";
}

}  // namespace

int cnx_has_cuda(void) { return 0; }
cnx_error cnx_stream_enter(int, int64_t *) { return no_cuda(); }
cnx_error cnx_stream_leave(int, int64_t) { return no_cuda(); }
cnx_error cnx_event_new(void **) { return no_cuda(); }
cnx_error cnx_event_record(void *, int) { return no_cuda(); }
cnx_error cnx_event_wait(void *) { return no_cuda(); }
void cnx_event_free(void *) {}
cnx_error cnx_graph_pool(uint64_t *) { return no_cuda(); }
cnx_error cnx_graph_begin(const uint64_t *, void **) { return no_cuda(); }
cnx_error cnx_graph_end(void *) { return no_cuda(); }
cnx_error cnx_graph_replay(void *) { return no_cuda(); }
void cnx_graph_free(void *) {}
cnx_error cnx_peak_memory(int, uint64_t *) { return no_cuda(); }
cnx_error cnx_reset_peak_memory(int) { return no_cuda(); }

#endif
