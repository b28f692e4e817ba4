"""The other side of bench/infer.sh: ONNX Runtime or OpenVINO on one network, as a process that runs when it is told to.

    infer_peer.py ENGINE MODEL.onnx IMAGES THREADS BATCH        ENGINE: onnxruntime or openvino

Reads a line "SECONDS", runs for so long and answers with the milliseconds of each run; reads "logits FILE" and writes them.
Its first line says "ready" and, where the engine tells, which kernels it chose.
"""

import collections
import sys
import time

import numpy


def onnxruntime(model, images, threads):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return (lambda: session.run(None, {"images": images})[0]), ""


def openvino(model, images, threads):
    import openvino

    core = openvino.Core()
    network = core.read_model(model)
    # A fixed shape lets it choose its kernels beforehand.
    network.reshape({"images": images.shape})
    # In single precision, as the others: on CPUs with bfloat16 it would round otherwise.
    properties = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        "ENABLE_CPU_PINNING": False,
    }
    compiled = core.compile_model(network, "CPU", properties)
    request = compiled.create_infer_request()
    request.set_input_tensor(openvino.Tensor(images, shared_memory=True))
    kernels = collections.Counter()
    for op in compiled.get_runtime_model().get_ops():
        kind = op.get_rt_info()["primitiveType"].astype(str) if "primitiveType" in op.get_rt_info() else ""
        for isa in ("avx512", "avx2"):
            kernels[isa] += isa in kind

    def run():
        request.infer()
        return request.get_output_tensor().data

    return run, f"avx512 {kernels['avx512']}, avx2 {kernels['avx2']}"


def main():
    engine, model, images, threads, batch = sys.argv[1:]
    images = numpy.fromfile(images, "<f4")
    side = 224 if images.size // 16 > 3 * 32 * 32 else 32
    images = numpy.ascontiguousarray(images.reshape(16, 3, side, side)[: int(batch)])
    run, kernels = globals()[engine](model, images, int(threads))
    run()
    print("ready", kernels, flush=True)
    for line in sys.stdin:
        if line.startswith("logits "):
            numpy.ascontiguousarray(run(), "<f4").tofile(line.split(maxsplit=1)[1].strip())
            print("written", flush=True)
            continue
        times, seconds, begin = [], float(line), time.perf_counter()
        while not times or time.perf_counter() - begin < seconds:
            start = time.perf_counter()
            run()
            times.append((time.perf_counter() - start) * 1e3)
        print(*times, flush=True)


main()
