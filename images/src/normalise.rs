//! From bytes to what a network sees: (x/255 − mean) / deviation, a channel.

/// The numbers that the 256 values of a byte become, channel by channel, in single precision, rounded as libtorch rounds them.
#[derive(Debug, Clone)]
pub struct Normalise {
    values: [[f32; 256]; 3],
}

impl Normalise {
    /// Of a mean and a standard deviation of values in 0 … 1, a channel.
    pub fn new((mean, deviation): ([f64; 3], [f64; 3])) -> Normalise {
        let value = |channel: usize, byte: usize| {
            (byte as f32 / 255.0 - mean[channel] as f32) / deviation[channel] as f32
        };
        Normalise { values: std::array::from_fn(|c| std::array::from_fn(|byte| value(c, byte))) }
    }

    /// Appends images of `plane` pixels a channel: planar RGB, image after image, as
    /// [`crate::raster::Raster::append_planes`] lays them out.
    pub fn append(&self, pixels: &[u8], plane: usize, out: &mut Vec<f32>) {
        out.reserve(pixels.len());
        for (i, plane) in pixels.chunks(plane.max(1)).enumerate() {
            let values = &self.values[i % 3];
            out.extend(plane.iter().map(|&byte| values[usize::from(byte)]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_channel_has_its_mean_and_deviation() {
        let normalise = Normalise::new(([0.5, 0.25, 0.0], [0.5, 0.25, 1.0]));
        let mut out = Vec::new();
        normalise.append(&[0, 255, 0, 255, 0, 255, 255, 255, 255, 255, 255, 255], 2, &mut out);
        assert_eq!(out, [-1.0, 1.0, -1.0, 3.0, 0.0, 1.0, 1.0, 1.0, 3.0, 3.0, 1.0, 1.0]);
    }
}
