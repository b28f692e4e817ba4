//! How the groups of a convolution are computed.

use tch::{Device, Kind, Tensor};

use super::state::State;
use crate::failure::Result;

/// The groups of a convolution.
#[derive(Debug)]
pub(super) struct Groups {
    count: i64,
    /// Where one convolution over all channels, its weights 0 between groups, is the faster way: 1 where output and input are of one
    /// group, [groups, 1, groups, 1, 1, 1].
    within: Option<Tensor>,
}

impl Groups {
    /// So many; on GPUs, whose libraries are slow at small groups (docs/BENCHMARKS.md), k×k convolutions have one for all.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn new(count: u32, kernel: u32, state: &State) -> Result<Groups> {
        let whole = count > 1 && kernel > 1 && state.device().is_cuda();
        let within = if whole { Some(within(count, state.kind(), state.device())?) } else { None };
        Ok(Groups { count: i64::from(count), within })
    }

    /// The weight [outputs, inputs of a group, k, k] as the convolution takes it, and in how many groups.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn computed(&self, weight: Tensor) -> Result<(Tensor, i64)> {
        match (&self.within, weight.size().as_slice()) {
            (Some(within), &[outputs, inputs, height, width]) => {
                let groups = self.count;
                let blocks = weight.f_reshape([groups, outputs / groups, 1, inputs, height, width])?;
                let whole = blocks.f_mul(&within.f_to_kind(weight.kind())?)?;
                Ok((whole.f_reshape([outputs, groups * inputs, height, width])?, 1))
            }
            _ => Ok((weight, self.count)),
        }
    }
}

fn within(count: u32, kind: Kind, device: Device) -> Result<Tensor> {
    let count = i64::from(count);
    Ok(Tensor::f_eye(count, (kind, device))?.f_view([count, 1, count, 1, 1, 1])?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_convolution_over_all_channels_is_the_groups_and_so_are_its_gradients() {
        let options = (Kind::Double, Device::Cpu);
        let (groups, x) = (4, Tensor::randn([2, 12, 5, 5], options));
        let run = |within: Option<Tensor>| {
            let weight =
                (Tensor::arange(8 * 3 * 9, options).view([8, 3, 3, 3]) * 0.01).set_requires_grad(true);
            let (whole, count) = Groups { count: groups, within }.computed(weight.shallow_clone()).unwrap();
            let maps = x.conv2d(&whole, None::<&Tensor>, [1, 1], [1, 1], [1, 1], count);
            let gradient = Tensor::run_backward(&[maps.square().sum(Kind::Double)], &[&weight], false, false);
            (maps, gradient.into_iter().next().unwrap(), count)
        };
        let (maps, gradient, count) = run(Some(within(4, Kind::Double, Device::Cpu).unwrap()));
        let (expected_maps, expected_gradient, expected_count) = run(None);
        assert_eq!((count, expected_count), (1, groups));
        assert!(maps.allclose(&expected_maps, 1e-12, 1e-12, false));
        assert!(gradient.allclose(&expected_gradient, 1e-12, 1e-12, false));
    }
}
