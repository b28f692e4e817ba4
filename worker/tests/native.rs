//! What the shim adds to tch does what it says, and what goes wrong in libtorch comes back as an error with its words.

// A test may panic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::{Mutex, PoisonError};

use cnx_proto::v1::FailureClass;
use cnx_worker::native;
use tch::{Device, Kind, Tensor};

/// Whoever draws from libtorch's generator, which all tests share.
static DRAWING: Mutex<()> = Mutex::new(());

fn random(shape: &[i64]) -> Tensor {
    let _alone = DRAWING.lock().unwrap_or_else(PoisonError::into_inner);
    Tensor::randn(shape, (Kind::Float, Device::Cpu))
}

/// The bits of float32 values.
fn bits(tensor: &Tensor) -> Vec<u32> {
    let mut values = vec![0f32; tensor.numel()];
    let count = values.len();
    tensor.contiguous().copy_data(&mut values, count);
    values.into_iter().map(f32::to_bits).collect()
}

#[test]
fn channels_last_keeps_the_values_and_moves_the_channels() {
    let tensor = random(&[2, 3, 5, 4]);
    assert!(!native::is_channels_last(&tensor).unwrap());
    let moved = native::channels_last(&tensor).unwrap();
    assert!(native::is_channels_last(&moved).unwrap());
    assert_eq!((moved.stride(), bits(&moved)), (vec![60, 1, 12, 3], bits(&tensor)));
    let again = native::channels_last(&moved).unwrap();
    assert_eq!(again.data_ptr(), moved.data_ptr());
}

#[test]
fn autocast_computes_in_bfloat16_while_it_lives_and_only_in_its_thread() {
    let (x, weight) = (random(&[1, 2, 4, 4]), random(&[3, 2, 1, 1]));
    let convolved = || x.conv2d(&weight, None::<&Tensor>, [1, 1], [0, 0], [1, 1], 1);
    let exact = convolved();
    {
        let _autocast = native::Autocast::bfloat16(Device::Cpu).unwrap();
        {
            let _within = native::Autocast::bfloat16(Device::Cpu).unwrap();
        }
        let rounded = convolved();
        assert_eq!(rounded.kind(), Kind::BFloat16);
        assert!(rounded.to_kind(Kind::Float).allclose(&exact, 2e-2, 2e-2, false));
        std::thread::scope(|scope| {
            scope.spawn(|| assert_eq!(random(&[2, 2]).matmul(&random(&[2, 2])).kind(), Kind::Float));
        });
    }
    assert_eq!(bits(&convolved()), bits(&exact));
}

#[test]
fn one_pass_of_sgd_is_the_formula_to_the_last_places() {
    for nesterov in [false, true] {
        let (mut parameter, gradient, mut momentum) = (random(&[1000]), random(&[1000]), random(&[1000]));
        let decayed = &gradient + &parameter * 1e-4;
        let expected_momentum = &momentum * 0.9 + &decayed;
        let direction = if nesterov { &decayed + &expected_momentum * 0.9 } else { expected_momentum.copy() };
        let expected = &parameter - direction * 0.1;
        let rate = Tensor::from(0.1f32);
        native::fused_sgd(&mut parameter, &gradient, &mut momentum, &rate, 1e-4, 0.9, nesterov).unwrap();
        // Products are not rounded before they are added.
        for (found, expected) in [(momentum, expected_momentum), (parameter, expected)] {
            let off = f64::try_from((found - &expected).abs().max()).unwrap();
            let unit = f64::from(f32::EPSILON) * f64::try_from(expected.abs().max()).unwrap();
            assert!(off <= unit, "off by {off}, the last place of the largest is {unit}");
        }
    }
}

#[test]
fn what_has_no_deterministic_algorithm_fails_when_asked_for_one() {
    let put = || {
        let mut tensor = random(&[4]);
        tensor.f_put_(&Tensor::from_slice(&[1i64]), &Tensor::from_slice(&[1f32]), false).map(|_| ())
    };
    native::set_deterministic(true).unwrap();
    let refused = put().unwrap_err().to_string();
    native::set_deterministic(false).unwrap();
    assert!(refused.contains("deterministic"), "{refused}");
    put().unwrap();
    native::set_tf32(true).unwrap();
    native::set_tf32(false).unwrap();
}

#[test]
fn a_generator_goes_on_from_a_state_that_was_kept() {
    let _alone = DRAWING.lock().unwrap();
    let draw = || Tensor::randn([5], (Kind::Float, Device::Cpu));
    let state = native::generator_state(Device::Cpu).unwrap();
    let first = draw();
    assert_ne!(bits(&first), bits(&draw()));
    native::set_generator_state(Device::Cpu, &state).unwrap();
    assert_eq!(bits(&first), bits(&draw()));
    let failure = native::set_generator_state(Device::Cpu, &Tensor::from_slice(&[1u8])).unwrap_err();
    assert!(failure.message.contains("RNG state"), "{failure}");
}

#[test]
fn an_exception_becomes_an_error_with_libtorch_s_words() {
    let failure = native::channels_last(&random(&[2, 3])).unwrap_err();
    assert_eq!(failure.class, FailureClass::Internal);
    assert!(failure.message.contains("rank 4"), "{failure}");
    let [mut a, b, mut c] = [3, 4, 5].map(|n| random(&[n]));
    let failure = native::fused_sgd(&mut a, &b, &mut c, &Tensor::from(0.1f32), 0.0, 0.9, true).unwrap_err();
    assert!(failure.message.contains("of one shape, kind and device"), "{failure}");
    let failure = native::fused_sgd(
        &mut a,
        &b.slice(0, 0, 3, 1),
        &mut c.slice(0, 0, 3, 1),
        &Tensor::from(0.1),
        0.0,
        0.9,
        true,
    );
    assert!(failure.unwrap_err().message.contains("learning rate of float32"));
}

#[test]
fn without_a_gpu_streams_and_graphs_say_so() {
    if tch::Cuda::is_available() {
        return;
    }
    let cpu = native::OwnStream::enter(Device::Cpu).unwrap_err();
    assert!(cpu.message.contains("Cpu is no GPU"), "{cpu}");
    for failure in [
        native::OwnStream::enter(Device::Cuda(0)).unwrap_err(),
        native::peak_memory(Device::Cuda(0)).unwrap_err(),
    ] {
        assert!(!failure.message.is_empty());
        assert!(native::has_cuda() || failure.message.contains("CNX_CUDA=1 scripts/setup.sh"), "{failure}");
    }
}
